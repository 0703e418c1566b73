"""The output streams of the program: always there, and able to write every text in whatever encoding they have."""

import codecs
import os
import sys
from contextlib import suppress

ERRORS = "autoseg"
"""Name of the way in which letters are written that an encoding does not have; see `replace_letters`."""

PLAIN = str.maketrans(
    {
        "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "x",
        "\N{HORIZONTAL ELLIPSIS}": "...", "\N{BULLET}": "*", "\N{RIGHTWARDS ARROW}": "->", "\N{MICRO SIGN}": "u",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    }
)  # fmt: skip
"""Signs of texts of this package that ASCII does not have, and what stands for them."""


def prepare_streams() -> None:
    """Prepares the streams of a program, before it opens any file.

    A stream that was closed by whoever started the program leads nowhere then, rather than into the next file that is
    opened. Letters that the encoding of a stream does not have are written as `replace_letters` says.
    """
    codecs.register_error(ERRORS, replace_letters)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def replace_letters(error: UnicodeError) -> tuple[str, int]:
    r"""Returns what is written in place of letters that an encoding does not have: a similar sign, or their number.

    Example:
        >>> codecs.register_error(ERRORS, replace_letters)
        >>> "3 \N{EN DASH} 4 \N{GREEK SMALL LETTER ALPHA}".encode("ascii", ERRORS)
        b'3 - 4 \\u03b1'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end].translate(PLAIN)
    with suppress(UnicodeError):  # the bytes of a name in UTF-8, which Python does not decode in an ASCII locale
        letters = letters.encode("utf-8", "surrogateescape").decode("utf-8")
    return letters.encode("ascii", "backslashreplace").decode("ascii"), error.end
