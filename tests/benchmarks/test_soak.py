"""When a soak says that a process stayed as it was."""

import json
from pathlib import Path

import pytest

MIB = 2**20


def samples(memory, descriptors=lambda second: 5, threads=lambda second: 2):
    """A hundred rounds of a second."""
    from benchmarks.soak import Sample

    return [
        Sample(second, int(memory(second) * MIB), MIB, descriptors(second), threads(second)) for second in range(1, 101)
    ]


def test_growth_in_the_first_tenth_is_forgiven():
    from benchmarks.soak import judge

    verdict = judge(samples(lambda second: 100 if second <= 10 else 300, lambda second: 9 if second <= 10 else 5))
    assert verdict == (0.0, 0.0, (5, 5), (2, 2), True)


@pytest.mark.parametrize(
    ("slope", "is_flat"),
    [(0.02, True), (0.03, False)],  # per second, of 100: 1.6 % and 2.4 % in the 81 seconds between the medians
)
def test_two_percent_are_flat(slope, is_flat):
    from benchmarks.soak import judge

    verdict = judge(samples(lambda second: 100 + slope * second))
    assert verdict.growth == pytest.approx(81 * slope / (100 + 15 * slope), abs=1e-6)
    assert verdict.is_flat == is_flat


def test_a_file_or_thread_more_is_not_flat():
    from benchmarks.soak import judge

    assert judge(samples(lambda second: 100, descriptors=lambda second: 5 + (second > 90))).descriptors == (5, 6)
    assert not judge(samples(lambda second: 100, descriptors=lambda second: 5 + (second > 90))).is_flat
    assert not judge(samples(lambda second: 100, threads=lambda second: 2 + (second == 50))).is_flat


def test_too_few_rounds_say_nothing():
    from benchmarks.soak import judge

    with pytest.raises(ValueError, match="take more minutes"):
        judge(samples(lambda second: 100)[:9])


def test_an_open_file_is_counted(tmp_path):
    from benchmarks.soak import sample

    if not Path("/proc/self/status").exists():
        pytest.skip("Linux only")
    before = sample(0.0)
    with (tmp_path / "file").open("w"):
        assert sample(0.0).descriptors == before.descriptors + 1
    assert sample(0.0).descriptors == before.descriptors


def test_the_result_is_drawn(hooks, tmp_path):
    found = [each._asdict() for each in samples(lambda second: 100 + second)]
    machine = {"processor": "<Abacus>", "cores": 1, "python": "3.11", "gpu": None, "versions": {"torch": "2.13.0"}}
    kept = {"command": "c", "rounds": 100, "growth_of_memory": 0.0123, "samples": found, "machine": machine}
    (tmp_path / "soak.json").write_text(json.dumps(kept))
    drawn = hooks.soak()
    assert "| memory, MiB | 101.0 | 200.0 |" in drawn
    assert "| open files | 5 | 5 |" in drawn
    assert "| with freed memory that malloc keeps, MiB | 1.0 | 1.0 |" in drawn
    assert "memory changed by +1.23%" in drawn
