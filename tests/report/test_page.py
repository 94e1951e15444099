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
        "Mean score, BCQ 200.0 95 % interval 100.0 to 300.0, 2 episodes",
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
        "BCQ 225.0 100.0 to 350.0",
        "BCQ - BC, paired by seed: 25.0 [0.0, 50.0].",
        "Finished laps 1 of 2 50 %",
        "Against its data +105.0 the data's mean is 120.0",
        "BCQ, its best episode: seed 8, 350.0",
    ):
        assert words in shown.text
    assert "data:video/mp4;base64,YSB2aWRlbw==" in shown.addresses
    assert "data:image/png;base64,YSBwaWN0dXJl" in shown.addresses  # what is at hand of the dataset
    assert shown.source.count('class="line c0"') == shown.source.count('class="line c1"') == 1
    assert shown.source.count('class="dot c0"') == shown.source.count('class="dot c1"') == 2


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
    assert "Not evaluated yet" in shown.text


def test_the_same_run_gives_the_same_bytes(example):
    assert write_report(example).read_bytes() == write_report(example).read_bytes()


def test_nothing_is_written_where_a_file_is_damaged(run):
    (run / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        write_report(run)
    assert not (run / "report.html").exists()
