"""JSON files are read as any editor saves them, and mistakes in them are named as what they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from autoseg.errors import ArtifactError
from autoseg.runtime.json_text import first_mistake, plain_json, read_json_text

CONTENT = {"name": "Müller // no comment, /* none */ [1, ]", "labels": {"liver": 1}, "path": "C:\\a,}", "list": [1, 2]}
TEXT = json.dumps(CONTENT, ensure_ascii=False, indent=1)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"], ids=lambda name: name
)
def test_every_encoding_of_an_editor_is_read(tmp_path, encoding):
    """Notepad and PowerShell write a byte order mark, or UTF-16."""
    path = tmp_path / "a.json"
    path.write_bytes(TEXT.encode(encoding))
    assert json.loads(read_json_text(path)) == CONTENT


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"], ids=["little", "big"])
def test_utf_16_with_its_mark_is_read(tmp_path, mark):
    """Both orders of bytes."""
    path = tmp_path / "a.json"
    path.write_bytes(mark + TEXT.encode("utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"))
    assert json.loads(read_json_text(path)) == CONTENT


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2,], "b": "//x",}',
        '{"a": [1, 2] // both\n, "b": "//x" /* a, } */ }',
        '/* first\nsecond */ {"a": [1, 2 /* last */ , ] , "b": "//x"\n,\n}',
    ],
)
def test_comments_and_last_commas_are_read_past(text):
    """Strings stay as they are, and so do lines and columns."""
    assert json.loads(plain_json(text)) == {"a": [1, 2], "b": "//x"}
    assert len(plain_json(text)) == len(text)
    assert plain_json(text).count("\n") == text.count("\n")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_plain_json_stays_as_it_is(value):
    """Whatever the strings hold."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert plain_json(text) == text


class Content(BaseModel):
    """A file with one field."""

    a: int


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "since the file is empty"),
        ("  \n", "since the file is empty"),
        ("{“a”: 1}", "curly quotes"),
        ("{'a': 1}", "single quotes"),
        ('{"b": "it\'s",\n "a": True}', "has True; JSON writes true"),
        ('{"a": None}', "has None; JSON writes null"),
    ],
)
def test_what_is_no_json_is_explained(text, said):
    """In one line."""
    with pytest.raises(ValidationError) as caught:
        Content.model_validate_json(text)
    assert said in first_mistake(caught.value)
    assert "\n" not in first_mistake(caught.value)


def test_a_mistake_in_another_line_is_not_explained_by_a_word_elsewhere():
    """The word None in a string, or in a line that is right, is no mistake."""
    with pytest.raises(ValidationError) as caught:
        Content.model_validate_json('{"b": "None",\n "a": oops}')
    assert "None" not in first_mistake(caught.value)


def test_a_text_of_another_encoding_is_named(tmp_path):
    """Latin-1 cannot be told from other encodings, so it is not guessed."""
    path = tmp_path / "a.json"
    path.write_bytes('{"name": "Müller"}'.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"a\.json is no text in UTF-8 from its byte 11 on; save it as UTF-8"):
        read_json_text(path)


def test_only_a_missing_file_is_made_by_a_step(tmp_path):
    """A folder in the place of the file is another mistake."""
    with pytest.raises(ArtifactError, match="No such file or directory; run the step that makes it"):
        read_json_text(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="is no file but a folder; put a file in its place"):
        read_json_text(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": {"c": [1], "d": 2},\n "a": 3}', r"has the key 'a' twice in one object \(lines 1 and 3\)"),
        (
            '[{"x": 1}, {"labels": {"liver": 1, "liver": 2}}] // twice',
            r"the key 'liver' twice in one object \(line 1\)",
        ),
        ('{"\\u0061": 1, "\\u0061": 2}', r"the key 'a' twice in one object; keep one of them"),
        ('{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"the key '\\x1b\[31m' twice"),
    ],
)
def test_a_key_that_is_there_twice_is_named(tmp_path, text, said):
    """Readers take the last one in silence, or the first."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=said):
        read_json_text(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1', "9" * 5000, '{"a": {"x": 1}, "b": {"x": 1}}', ""])
def test_other_mistakes_are_left_to_who_parses_the_text(tmp_path, text):
    """And one key in two objects is none."""
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_json_text(path) == text
