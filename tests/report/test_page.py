import json
import os
import re

import pytest
from made_runs import write_run
from parsed_page import Page

from offrl.errors import RunError
from offrl.report import page, write_report


def test_a_run_on_a_page(run):
    path = write_report(run, commands=["offrl train <data>"])
    assert path == run / "report.html"
    shown = Page(path)
    assert shown.text.startswith("run: report run BCQ on CartPole-v1, trained offline")
    for words in (
        "Mean score, BCQ 200.0 one training run, 2 episodes: too few for an interval",
        "Updates 200 BCQ 6 s",
        "precision auto: fp32",
        "offrl train <data>",
        "processor <Abacus>",
        "torch 2.13.0",
        "threshold 0.3",
    ):
        assert words in shown.text
    assert shown.source.count('class="line') == 1  # the learning rate never changes: it needs no curve


def test_the_page_asks_for_nothing_from_elsewhere(example):
    shown = Page(write_report(example))
    assert all(address.startswith("data:") for address in shown.addresses)
    assert "script" not in shown.tags
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:" in shown.policies
    assert not re.search(r"@import|url\(|https?:", shown.source)


def test_two_runs_are_compared(example, tmp_path):
    shown = Page(write_report(example, tmp_path / "elsewhere" / "page.html"))
    for words in (
        "the data 120.0 110.0 to 130.0",
        "BCQ 225.0 2 episodes: too few for an interval 225.0",
        "BCQ - BC, paired by episode seed: +25.0, 2 episodes: too few for an interval.",
        "Finished laps 1 of 2 50 %",
        "Against its data +105.0 the data's mean is 120.0",
        "BCQ, its best episode: seed 8, 350.0",
    ):
        assert words in shown.text
    assert "data:video/mp4;base64,YSB2aWRlbw==" in shown.addresses
    assert "data:image/png;base64,YSBwaWN0dXJl" in shown.addresses  # what is at hand of the dataset
    assert shown.source.count('class="line c0"') == shown.source.count('class="line c1"') == 1
    assert shown.source.count('class="dot c0"') == shown.source.count('class="dot c1"') == 2


def test_training_seeds_are_one_row_one_line_and_the_headline(several):
    shown = Page(write_report(several))
    # Means of the runs: BCQ 100, 110 and 120; BC 90 and 125, the best seed of all. Of three runs, t is 4.303; of two,
    # 12.706.
    for words in (
        "Mean score, BCQ 110.0 mean over 3 training seeds, 95 % interval 85.2 to 134.8",
        "algorithm mean 95 % interval training seeds lowest run highest run steps an episode episodes",
        "BC 107.5 -114.9 to 329.9 2 90.0 125.0 20 2 each",
        "BCQ 110.0 85.2 to 134.8 3 100.0 120.0 20 2 each",
        "DQN 5.0 2 episodes: too few for an interval one training run - - 20 2",
        "episode seed bc-0 bc-1 bcq-0 bcq-1 bcq-2 dqn-0",
        "BC, 2 training seeds BCQ, 3 training seeds DQN, one training run",
        "setting BC BCQ DQN",
        "seed 0, 1 0, 1, 2 0",
        "Updates 200 BC 6 s each, BCQ 6 s each, DQN 6 s",
    ):
        assert words in shown.text
    assert shown.source.count('class="band c') == 2
    assert shown.source.count('class="line c') == 3
    assert [shown.source.count(f'class="dot c{number}"') for number in range(3)] == [2, 3, 1]


def test_runs_with_the_same_training_seeds_are_paired_by_them(several, write_scores):
    write_scores("bc-2", "bc", 2, 112.0)
    shown = Page(write_report(several))
    # 100 - 90, 110 - 125, 120 - 112: mean 1, standard deviation 13.9; 13.9 * 4.303 / sqrt(3) = 34.5.
    assert "BCQ - BC, paired by training seed: +1.0, 95 % interval -33.5 to +35.5." in shown.text


def test_of_two_runs_with_one_seed_the_newer_counts_and_the_other_is_named(several, write_scores):
    again = write_scores("bcq-again", "bcq", 1, 140.0)
    os.utime(again / "config.json", (2e9, 2e9))
    write_scores("bcq-new", "bcq", 3)
    shown = Page(write_report(several))
    for words in (
        "Mean score, BCQ 120.0 mean over 3 training seeds",
        "bcq-1 is left out: it has the settings and the seed of bcq-again, which is newer.",
        "Not evaluated, and so not in the table: bcq-new.",
    ):
        assert words in shown.text


def test_one_run_with_enough_episodes_has_an_interval_over_them(run):
    rows = [{"seed": seed, "score": 50.0, "length": 10} for seed in range(5)]
    (run / "evaluation.json").write_text(json.dumps({"per_episode": rows}))
    shown = Page(write_report(run))
    assert "one training run, 95 % interval over its 5 episodes 50.0 to 50.0" in shown.text
    assert "policy mean 95 % interval over episodes median" in shown.text
    assert "BCQ 50.0 50.0 to 50.0 50.0" in shown.text


def test_no_heading_of_a_table_is_empty(several, example):
    for directory in (several, example):
        source = Page(write_report(directory)).source
        assert "<thead></thead>" not in source
        assert not re.search("<th[^>]*></th>", source)
    (run,) = [several / "dqn-0"]
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "algorithm_config": {}}))
    assert ">algorithm</th>" not in Page(write_report(run)).source  # no settings, no heading over them


def test_settings_that_differ_are_marked(example):
    shown = Page(write_report(example))
    assert '<th>threshold</th><td class="differs">-</td><td class="differs">0.3</td>' in shown.source


def test_a_large_video_is_named_instead(example, monkeypatch):
    monkeypatch.setattr(page, "_LARGEST_VIDEO", 3)
    shown = Page(write_report(example))
    assert "videos/bcq-best.mp4, 0 MB, is too large for this page" in shown.text
    assert "video" not in shown.tags


def test_whatever_a_run_is_called_the_page_stays_whole(tmp_path):
    name = "<script>alert(1)<"
    write_run(tmp_path / name, algorithm="<b>&", notes={"environment": '"><img>'})
    shown = Page(write_report(tmp_path / name))
    assert '<script>alert(1)< <B>& on "><img>, trained offline' in shown.text
    assert not {"script", "img", "b"} & set(shown.tags)
    assert "Not played yet" in shown.text


def test_the_same_run_gives_the_same_bytes(example):
    assert write_report(example).read_bytes() == write_report(example).read_bytes()


def test_nothing_is_written_where_a_file_is_damaged(run):
    (run / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_page_says_that_the_environment_was_used_while_training(run):
    config = json.loads((run / "config.json").read_text())
    assert "was used while training" not in Page(write_report(run)).text
    config["evaluation"] = {"every": "1epoch", "episodes": 20}
    (run / "config.json").write_text(json.dumps(config))
    expected = "The environment was used while training (20 episodes, every 1epoch)"
    assert expected in Page(write_report(run)).text


def write_evaluations(run, *rows):
    lines = [",".join(map(str, row)) for row in rows]
    (run / "evaluations.csv").write_text("\n".join(["step,score,low,high", *lines]) + "\n")


def test_scores_while_training_are_a_curve_over_training_seeds(several):
    for number, name in enumerate(("bcq-0", "bcq-1", "bcq-2")):
        write_evaluations(several / name, (100, 10.0 * number, 0, 99), (200, 50, 40, 60))
    write_evaluations(several / "dqn-0", (100, 7, 6, 8))
    config = json.loads((several / "bcq-0" / "config.json").read_text())
    config["evaluation"] = {"every": 100, "episodes": 20, "first_seed": 1_000_000, "last_seed": 1_000_019}
    (several / "bcq-0" / "config.json").write_text(json.dumps(config))
    shown = Page(write_report(several))
    assert "Mean return of the episodes played while training, on tuning seeds 1,000,000 to 1,000,019" in shown.text
    assert "Student's 95 % t interval over the training seeds" in shown.text
    (chart,) = re.findall("<svg[^>]*><title>score while training.*?</svg>", shown.source)
    assert chart.count('class="band c1"') == 1
    assert (chart.count('class="dot c1"'), chart.count('class="dot c2"')) == (2, 1)  # BCQ and DQN; BC was not played


def test_the_scores_of_one_run_have_their_interval_over_episodes(run):
    write_evaluations(run, (100, 10, 5, 15), (200, 20, 15, 25))
    shown = Page(write_report(run))
    assert "The band is the 95 % interval over the episodes of this training run." in shown.text
    assert "tuning seeds" not in shown.text  # an evaluator that does not say on which
    assert shown.source.count('class="band c0"') == 1


def test_runs_that_were_played_at_other_steps_are_named(several):
    write_evaluations(several / "bc-0", (100, 1, 0, 2))
    write_evaluations(several / "bc-1", (150, 1, 0, 2))
    shown = Page(write_report(several))
    assert "Not drawn, as their runs were not played at the same steps: BC." in shown.text
