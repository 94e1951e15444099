from offrl.cli.settings import read_section

DOCSTRING = """A thing: of some kind.

    Attributes:
        first: what it is, in [0, 1):
            and how it goes on.
        second (int): see `first`.

    Raises:
        first: decoy.
    """


def test_entries_are_read_in_order_with_their_further_lines():
    assert read_section(DOCSTRING, "Attributes") == {
        "first": "what it is, in [0, 1): and how it goes on.",
        "second": "see `first`.",
    }
    assert read_section(DOCSTRING, "Raises") == {"first": "decoy."}


def test_the_indentation_of_the_whole_does_not_matter():
    stripped = "\n".join(line.removeprefix("    ") for line in DOCSTRING.splitlines())  # as Python 3.13 keeps it
    assert read_section(stripped, "Attributes") == read_section(DOCSTRING, "Attributes")


def test_what_is_not_there_is_empty():
    assert read_section(DOCSTRING, "Args") == {}
    assert read_section(None, "Args") == {}
