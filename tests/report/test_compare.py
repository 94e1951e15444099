import json
import os

import pytest

from offrl.errors import RunError
from offrl.report import find_runs, group_runs, one_run_per_seed
from offrl.report.compare import training_seed

CONFIG = {
    "algorithm": "bcq",
    "algorithm_config": {"threshold": 0.3},
    "learner": {"learning_rate": 0.1, "optimizer_settings": {}},
    "replay": {"seed": 0},
    "dataset": "0123456789",
    "settled": {"precision": "fp32"},
    "notes": {"data": "here"},
}


@pytest.fixture
def runs(tmp_path):
    """Makes a run for each set of changes to CONFIG."""

    def make(*changes):
        made = []
        for number, change in enumerate(changes):
            run = tmp_path / f"run-{number}"
            run.mkdir()
            (run / "config.json").write_text(json.dumps({**CONFIG, **change}))
            made.append(run)
        return made

    return make


def test_runs_that_differ_in_seed_settled_precision_and_place_belong_together(runs):
    made = runs({}, {"replay": {"seed": 1}, "settled": {"precision": "bf16"}, "notes": {"data": "there"}})
    assert group_runs(made) == {"bcq": made}


def test_settings_are_the_same_in_whatever_order_they_are_written(runs):
    turned = dict(reversed(CONFIG.items()))
    one, other = runs({}, {})
    (other / "config.json").write_text(json.dumps({**turned, "replay": {"seed": 1}}))
    assert group_runs([one, other]) == {"bcq": [one, other]}


def test_labels_say_in_what_the_groups_of_an_algorithm_differ(runs):
    low = {"algorithm_config": {"threshold": 0.1}}
    made = runs({}, low, {**low, "replay": {"seed": 1}}, {"algorithm": "bc", "algorithm_config": {}})
    assert group_runs(made) == {"bcq, threshold 0.3": [made[0]], "bcq, threshold 0.1": made[1:3], "bc": [made[3]]}


def test_runs_with_the_same_settings_and_seed_count_once_and_the_newest_is_taken(runs):
    other = {"replay": {"seed": 1}}
    made = runs({}, other, {}, {"algorithm": "bc"}, {"notes": {"data": "there"}})
    for run, time in zip(made, (1, 2, 9, 4, 5), strict=True):
        os.utime(run / "config.json", (time, time))
    assert one_run_per_seed(made) == ([made[1], made[2], made[3]], {made[0]: made[2], made[4]: made[2]})
    (made[0] / "metrics.csv").touch()  # logged now
    assert one_run_per_seed(made)[1] == {made[2]: made[0], made[4]: made[0]}


def test_runs_with_different_first_weights_are_different_seeds_of_one_group(runs):
    made = runs(*({"algorithm_seed": seed} for seed in (0, 1, 2, 1)))
    for number, run in enumerate(made):
        os.utime(run / "config.json", (number, number))
    assert one_run_per_seed(made) == ([made[0], made[2], made[3]], {made[1]: made[3]})
    assert group_runs(made) == {"bcq": made}


def test_a_run_that_does_not_say_its_first_weights_took_the_batches_seed(runs):
    made = runs({}, {"algorithm_seed": 0}, {"algorithm_seed": None})
    assert one_run_per_seed(made)[1].keys() == {made[0], made[1]}
    assert training_seed({"replay": {"seed": 4}, "algorithm_seed": 7}) == (7, 4)
    assert training_seed({"replay": {}, "algorithm_seed": 7}) is None


def test_of_equally_new_runs_with_one_seed_the_last_is_taken(runs):
    made = runs({}, {})
    for run in made:
        os.utime(run / "config.json", (1, 1))
    assert one_run_per_seed(made) == ([made[1]], {made[0]: made[1]})


def test_a_run_named_twice_is_one_run_and_runs_without_a_seed_are_all_different(runs):
    made = runs({"replay": {}}, {"replay": {}})
    assert one_run_per_seed([made[0], made[1], made[0] / ".." / made[0].name])[1] == {}
    kept = one_run_per_seed([*made, made[0]])[0]
    assert kept == made


def test_settings_of_settings_and_datasets_tell_groups_apart(runs):
    decayed = {"learning_rate": 0.1, "optimizer_settings": {"weight_decay": 0.5}}
    made = runs({}, {"learner": decayed}, {"dataset": "abcdefghij"})
    assert list(group_runs(made)) == [
        "bcq, optimizer settings {}, dataset 01234567",
        "bcq, weight decay 0.5, dataset 01234567",
        "bcq, optimizer settings {}, dataset abcdefgh",
    ]


def test_an_encoder_is_named_without_its_module_unless_two_have_one_name(runs):
    made = runs({"encoder": "offrl.networks.encoders:MLPEncoder"}, {"encoder": "mine:Wide"}, {"encoder": None})
    assert list(group_runs(made)) == ["bcq, encoder MLPEncoder", "bcq, encoder Wide", "bcq, encoder None"]


def test_encoders_of_one_name_keep_their_modules(runs):
    made = runs({"encoder": "theirs:Wide"}, {"encoder": "mine:Wide"})
    assert list(group_runs(made)) == ["bcq, encoder theirs:Wide", "bcq, encoder mine:Wide"]


def test_a_directory_stands_for_the_runs_below_it(runs, tmp_path):
    made = runs({}, {})
    (tmp_path / "plots").mkdir()
    assert find_runs(tmp_path) == made
    assert find_runs(made[1]) == [made[1]]
    with pytest.raises(RunError, match="plots: no run here; expected config.json"):
        find_runs(tmp_path / "plots")
