"""A page as its reader gets it."""

from html.parser import HTMLParser

VOID = {"br", "circle", "img", "line", "meta", "path", "rect"}


class Page(HTMLParser):
    """Checks that elements are closed in order; keeps text and addresses."""

    def __init__(self, path):
        super().__init__()
        self.open, self.words, self.addresses, self.tags, self.policies = [], [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.policies += [value for name, value in attributes if tag == "meta" and name == "content"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)
