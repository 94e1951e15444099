import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offrl.system.json_files import parse_json, read_json, sealed, write_json, write_sealed_json

_CONTENT = {"step": 12000, "rate": 5e-4, "names": ["left", "right"], 10: {"a": None}, 9: (1, 2), "done": False}


def test_what_was_sealed_is_read_back_without_its_seal(tmp_path):
    write_sealed_json(tmp_path / "a.json", _CONTENT)
    assert read_json(tmp_path / "a.json") == json.loads(json.dumps(_CONTENT))


def test_what_others_wrote_is_read_as_it_is(tmp_path):
    write_json(tmp_path / "a.json", {"sha256": "of something else"})
    assert read_json(tmp_path / "a.json") == {"sha256": "of something else"}


@given(st.data())
def test_a_changed_byte_of_a_sealed_file_is_noticed(data):
    content = bytearray(json.dumps(sealed(_CONTENT), indent=2).encode())
    position = data.draw(st.integers(0, len(content) - 1))
    before = content[position]
    content[position] = data.draw(st.integers(0, 255).filter(lambda value: value != before))
    try:
        found = parse_json(bytes(content))
    except ValueError:
        return
    assert found == json.loads(json.dumps(_CONTENT))  # white space, or another way to write the same number


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "of type list, not a JSON object"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": ' + "1" * 5000 + "}", "4300"),
        ("{", "Expecting"),
    ],
)
def test_what_is_no_plain_object_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_a_file_over_the_limit_is_not_read_to_its_end(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "' + "b" * 100 + '"}')
    with pytest.raises(ValueError, match="more than 50 bytes"):
        read_json(tmp_path / "a.json", max_bytes=50)


def test_infinity_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("inf")})
    assert list(tmp_path.iterdir()) == []
