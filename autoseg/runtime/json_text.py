r"""JSON files as people leave them: saved by any editor, with comments, or with a mistake that has to be named.

>>> plain_json('{"a": [1, 2,]}  // both sides')
'{"a": [1, 2 ]}               '
"""

import codecs
import json
import re
from pathlib import Path

from pydantic import ValidationError

from autoseg.errors import ArtifactError
from autoseg.runtime.os_errors import advise_reading, reason_of
from autoseg.runtime.printable import printable

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark that Notepad, PowerShell and others write at the beginning of a file."""

STRING, COMMENT = r'"(?:[^"\\\n]|\\.)*"', r"//[^\n]*|/\*.*?\*/"
COMMENTS = re.compile(f"({STRING})|({COMMENT})", re.DOTALL)
TRAILING_COMMAS = re.compile(rf"({STRING})|(,)(?=\s*[}}\]])", re.DOTALL)
PERHAPS_MORE_THAN_JSON = re.compile(r"//|/\*|,\s*[}\]]")

FOREIGN_WORDS = {
    "“": "has curly quotes, which a word processor sets; write straight ones",
    "”": "has curly quotes, which a word processor sets; write straight ones",
    "'": "has single quotes; JSON takes double ones alone",
    "True": "has True; JSON writes true",
    "False": "has False; JSON writes false",
    "None": "has None; JSON writes null",
}
"""What people write into JSON by mistake, and what is said of it."""


def read_json_text(path: Path) -> str:
    """Reads the text of a JSON file in UTF-8, UTF-16 or UTF-32, without a byte order mark, comments or last commas.

    Decision: comments and a comma behind the last entry are read past, since many editors allow them; they are lost
    when this program writes the file again.

    Raises:
        ArtifactError: The file is missing, no regular file, may not be read, is no text, or has a key twice.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise ArtifactError(f"cannot read {path}: it is no file but {kind}", "put a file in its place")
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {reason_of(error)}", advise_missing(error)) from error
    try:
        text = plain_json(content.decode(_encoding_of(content)))
    except UnicodeDecodeError as error:
        what = f"{path} is no text in UTF-8 from its byte {error.start} on"
        raise ArtifactError(what, "save it as UTF-8 with a text editor, or get a sound copy") from error
    check_keys(text, str(path))
    return text


def check_keys(text: str, source: str) -> None:
    """Refuses a JSON text of which an object has a key twice; see `find_key_twice`.

    Args:
        text: The JSON text.
        source: Name of its origin, for the message.

    Raises:
        ArtifactError: An object has a key twice; the text names the key and its lines.
    """
    if (key := find_key_twice(text)) is not None:
        shown = printable(repr(key))
        what = f"{source} has the key {shown} twice in one object{_lines_of(key, text)}"
        raise ArtifactError(what, "keep one of them")


def find_key_twice(text: str) -> str | None:
    """Returns a key that an object of a JSON text has twice, of which every reader takes another one; None if none has.

    A text that is no JSON, or too deep to be parsed, has none; whoever parses it names what is wrong.

    Example:
        >>> find_key_twice('[{"labels": {"liver": 1, "tumour": 2, "liver": 3}}]')
        'liver'
    """
    try:
        json.loads(text, object_pairs_hook=_refuse_twice)
    except _KeyTwiceError as error:
        return error.key
    except (ValueError, RecursionError):
        return None
    return None


def advise_missing(error: OSError) -> str:
    """Returns what to do about a file of this program that cannot be read."""
    return "run the step that makes it" if isinstance(error, FileNotFoundError) else advise_reading(error)


def plain_json(text: str) -> str:
    """Returns the text with spaces in place of comments and of commas before a closing bracket.

    Lines and columns stay as they are, so that messages name the right ones.
    """
    if not PERHAPS_MORE_THAN_JSON.search(text):
        return text
    return TRAILING_COMMAS.sub(_blank, COMMENTS.sub(_blank, text))


def first_mistake(error: ValidationError) -> str:
    """Returns the first of pydantic's errors in one line: the field, and what is wrong with it.

    A key in the file may hold control characters, which a terminal would obey; they are shown as escapes.
    """
    mistake = error.errors()[0]
    field = ".".join(str(part) for part in mistake["loc"])
    message = " ".join(mistake["msg"].removeprefix("Value error, ").split())
    if mistake["type"] == "json_invalid":
        message += _explain(message, str(mistake.get("input", "")))
    return printable(f"{field}: {message}" if field else message)


class _KeyTwiceError(Exception):
    """An object of JSON has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _refuse_twice(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise _KeyTwiceError(next(key for key in keys if keys.count(key) > 1))


def _lines_of(key: str, text: str) -> str:
    """Returns where a key stands, as an addition to a message; nothing if it is written with escapes."""
    marks = re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)
    lines = list(dict.fromkeys(str(text.count("\n", 0, mark.start()) + 1) for mark in marks))
    if not lines:
        return ""
    return f" (line {lines[0]})" if len(lines) == 1 else f" (lines {', '.join(lines[:-1])} and {lines[-1]})"


def _encoding_of(content: bytes) -> str:
    """Returns the encoding of a text: by its mark, or by the zeros that UTF-16 has beside each letter of JSON."""
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            return encoding
    if content[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8"


def _blank(match: re.Match[str]) -> str:
    """Returns a string of JSON as it is, and anything else as spaces and line breaks."""
    return match[1] if match[1] is not None else re.sub(r"[^\n]", " ", match[0])


def _explain(message: str, text: str) -> str:
    """Returns what a line has that JSON does not take, as an addition to pydantic's message about the line."""
    position = re.search(r"line (\d+) column", message)
    if not text.strip():
        return ", since the file is empty"
    lines = text.split("\n")
    number = int(position[1]) - 1 if position else 0
    line = re.sub(STRING, "", lines[number]) if number < len(lines) else ""
    return next((f" ({said})" for word, said in FOREIGN_WORDS.items() if word in line), "")
