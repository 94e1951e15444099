import pytest
from parsed_page import Page

from offrl import __version__
from offrl.report._markup import element, write_document


def test_parts_stand_between_title_and_footer(tmp_path):
    write_document(tmp_path / "a" / "page.html", "a < b", element("h1", "c & d"), "e")
    shown = Page(tmp_path / "a" / "page.html")
    assert shown.text == f"a < b c & d e Written by offrl {__version__}. This file holds all that it shows."
    assert shown.source.startswith("<!doctype html>\n<html")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:" in shown.policies


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_document(tmp_path / "page.html", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"
