from offrl.report._markup import Markup, data_uri, element, join, row


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "1 < 2 & 3")
    assert inner == "<b>1 &lt; 2 &amp; 3</b>"
    assert element("p", inner, "<script>") == "<p><b>1 &lt; 2 &amp; 3</b>&lt;script&gt;</p>"
    assert join([Markup("<i>"), "<i>"]) == "<i>&lt;i&gt;"


def test_attributes_are_named_escaped_and_may_be_bare_or_absent():
    made = element("img", class_="a", http_equiv='"><script>', width=2.50, muted=True, alt=None)
    assert made == '<img class="a" http-equiv="&quot;&gt;&lt;script&gt;" width="2.5" muted/>'


def test_a_row_escapes_its_cells():
    assert row("<x>", ["<y>"]) == '<tr><th>&lt;x&gt;</th><td class="number">&lt;y&gt;</td></tr>'


def test_a_data_uri_holds_the_bytes():
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
