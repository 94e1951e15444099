import shutil

import numpy as np
import pytest
import torch

from offrl import Batch, TaskSpec
from offrl.algorithms import BC
from offrl.batch import FrameBatch
from offrl.errors import ConfigError
from offrl.replay import Sampler
from offrl.training import Learner, LearnerConfig, _augment
from offrl.training._augment import Augmentation

HEIGHT, WIDTH = 5, 6


def pictures(count=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(256, size=(count, 2, HEIGHT, WIDTH), dtype=np.uint8))


def moved(picture, x, y):
    """The picture [C, H, W] seen (x, y) further on, pixel by pixel; border pixels are repeated."""
    out = np.empty_like(picture)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            out[:, row, column] = picture[:, min(max(row + y, 0), HEIGHT - 1), min(max(column + x, 0), WIDTH - 1)]
    return out


def found_shift(picture, augmented, most):
    """The only (x, y) that makes the one of the other."""
    shifts = range(-most, most + 1)
    (shift,) = [(x, y) for x in shifts for y in shifts if np.array_equal(moved(picture, x, y), augmented)]
    return shift


def augmented(augmentation, before, after, step):
    return augmentation(before, after, augmentation.draws(range(step, step + 1), len(before))[0])


def test_every_stack_moves_as_a_whole_by_a_shift_of_its_own():
    before, after = pictures(40, 0), pictures(40, 1)
    now, following = augmented(Augmentation(shift=2), before, after, step=3)
    shifts = [
        found_shift(picture, augmented, 2)
        for pair in ((before, now), (after, following))
        for picture, augmented in zip(*(tensor.numpy() for tensor in pair), strict=True)
    ]
    assert {x for x, _ in shifts} == {y for _, y in shifts} == {-2, -1, 0, 1, 2}
    assert shifts[:40] != shifts[40:]


def test_brightness_adds_one_number_to_a_stack_within_the_grays():
    before = torch.full((200, 2, HEIGHT, WIDTH), 250, dtype=torch.uint8)
    now, _ = augmented(Augmentation(brightness=10), before, before, step=0)
    flat = now.flatten(1)
    assert (flat == flat[:, :1]).all()
    assert set(flat[:, 0].tolist()) == set(range(240, 256))  # 250 - 10 up to 255, where it is cut


def test_a_row_depends_on_seed_step_and_place_alone():
    many, few = pictures(8), pictures(8)[:3]
    augmentation = Augmentation(shift=2, brightness=20, seed=5)
    whole = augmented(augmentation, many, many, step=7)
    for all_rows, some in zip(whole, augmented(augmentation, few, few, step=7), strict=True):
        torch.testing.assert_close(all_rows[:3], some, rtol=0, atol=0)
    for other in (
        augmented(augmentation, many, many, step=8),
        augmented(Augmentation(2, 20, seed=6), many, many, step=7),
    ):
        assert not torch.equal(other[0], whole[0])


def test_shifts_do_not_follow_from_the_rows_drawn_by_the_same_seed():
    sampler = Sampler(9, seed=0, weights=np.ones(9))
    augmentation = Augmentation(shift=4)
    drawn = np.array([sampler.indices(step, 1)[0] for step in range(500)])
    shifts = augmentation.draws(range(500), batch_size=1)[:, 0, 0, 0].numpy()
    assert set(drawn) == set(range(9))
    assert set(shifts) == set(range(-4, 5))
    assert abs(np.corrcoef(drawn, shifts)[0, 1]) < 0.2


def test_several_updates_are_drawn_as_one_after_the_other():
    augmentation = Augmentation(shift=2, brightness=20, seed=5)
    together = augmentation.draws(range(7, 9), batch_size=3)
    assert together.shape == (2, 3, 2, 3)
    for index, step in enumerate((7, 8)):
        assert torch.equal(together[index], augmentation.draws(range(step, step + 1), batch_size=3)[0])


def test_nothing_asked_for_changes_nothing():
    assert not Augmentation()
    assert Augmentation(shift=1)
    assert Augmentation(brightness=1)


def test_vectors_have_no_pixels_to_augment():
    with pytest.raises(ConfigError, match=r"augment_shift.*: vectors; expected pixels"):
        Learner(BC(TaskSpec.vector(2, ("left", "right"))), LearnerConfig(augment_shift=1), total_updates=1)


def test_negative_settings_are_refused():
    with pytest.raises(ConfigError, match="augment_shift: -1; expected 0 or more"):
        LearnerConfig(augment_shift=-1)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_pictures_prepared_in_parts_are_normalised_as_a_whole(monkeypatch, count, order, precision, dtype):
    monkeypatch.setattr(_augment, "_CACHED_VALUES", 4 * 2 * HEIGHT * WIDTH)  # four pictures at a time
    spec = TaskSpec.pixels((2, HEIGHT, WIDTH), ("a", "b"))
    raw = pictures(count).contiguous(memory_format=order)
    batch = Batch(raw, *(torch.zeros(count) for _ in range(3)), 255 - raw)
    prepared = _augment.Preparation(spec, Augmentation(), torch.device("cpu"))(batch, torch.empty(0), precision)
    for found, given in ((prepared.observation, raw), (prepared.next_observation, 255 - raw)):
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, (given.to(dtype) * spec.scale + spec.offset))


def test_planes_woven_as_whole_numbers_are_the_same_pixels():
    """What only the compiler is given: every byte at its place, sign bits included, in channels-last order."""
    stacks = torch.arange(256, dtype=torch.uint8).repeat(3 * 4).view(3, 4, 16, 16).flip(0, 2)
    woven = _augment._four_planes_last(stacks)
    assert torch.equal(woven, stacks)
    assert woven.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("stacks", "is_taken"),
    [
        (torch.zeros(2, 4, 5, 6, dtype=torch.uint8), True),
        (torch.zeros(2, 3, 5, 6, dtype=torch.uint8), False),  # pixels of three bytes are no whole numbers
        (torch.zeros(2, 4, 5, 6), False),
        (torch.zeros(2, 4, 5, 6, dtype=torch.uint8).contiguous(memory_format=torch.channels_last), False),
    ],
)
def test_only_four_planes_of_bytes_are_woven(stacks, is_taken):
    assert _augment._is_four_planes(stacks) is is_taken


@pytest.mark.slow  # the compiler takes seconds for each
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_compiled_preparation_gives_the_same_pixels(channels, precision, shift, is_mapped):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    spec = TaskSpec.pixels((channels, 12, 12), ("a", "b"))
    prepare = _augment.Preparation(spec, Augmentation(shift=shift, seed=1), torch.device("cpu"))
    draws = Augmentation(shift=shift, seed=1).draws(range(1), 256)[0]
    grays = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, channels, 12, 12).clone()
    grays += torch.arange(12, dtype=torch.uint8)[:, None] + 3 * torch.arange(12, dtype=torch.uint8)  # no two rows alike
    rest = {"action": torch.zeros(256, dtype=torch.int64), "reward": torch.zeros(256), "discount": torch.zeros(256)}
    batch = Batch(observation=grays, next_observation=255 - grays, **rest)
    if is_mapped:  # as `fit` has it on a CPU
        frames = torch.cat([grays, 255 - grays]).flatten(0, 1).numpy()
        frames.setflags(write=False)
        rows = torch.arange(2 * 256 * channels).reshape(2, 256, channels)
        batch = FrameBatch(torch.from_numpy(frames), rows[0], rows[1], **rest)
    eager = prepare(batch, draws, precision)
    compiled = torch.compile(prepare.__call__, dynamic=False)(batch, draws, precision)
    assert torch.equal(compiled.observation, eager.observation)
    assert torch.equal(compiled.next_observation, eager.next_observation)
    assert compiled.observation.is_contiguous(memory_format=torch.channels_last)
