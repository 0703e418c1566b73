"""Text in scripts of bash: whatever it holds, bash reads it as it was, and it stays on one line."""

import os
import shlex
from collections.abc import Sequence


def quote(text: str) -> str:
    r"""Returns a text as one word of bash.

    A text with control characters, or with bytes that are not UTF-8, is written with escapes. So no path ends a
    line of a script, in which schedulers look for lines of their own.

    Args:
        text: Any text that can be a path or an argument.

    Example:
        >>> quote("scans/a.nii"), quote("it's"), quote("two\nlines")
        ('scans/a.nii', '\'it\'"\'"\'s\'', "$'two\\nlines'")
    """
    if all(character.isprintable() for character in text):
        return shlex.quote(text)
    return f"$'{''.join(map(_escape, os.fsencode(text)))}'"


def quote_command(command: Sequence[str]) -> str:
    """Returns a program and its arguments as one command line of bash.

    >>> quote_command(["autoseg", "predict", "-i", "my scans"])
    "autoseg predict -i 'my scans'"
    """
    return " ".join(map(quote, command))


def _escape(byte: int) -> str:
    if byte == ord("\n"):
        return "\\n"
    if byte in b"'\\" or not 32 <= byte < 127:
        return f"\\x{byte:02x}"
    return chr(byte)
