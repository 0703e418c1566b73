"""Texts of strangers on a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from autoseg.runtime.printable import printable


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    """Whatever it holds; and what is harmless stays as it is."""
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
