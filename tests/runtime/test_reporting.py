"""The default reporter shows nothing, and messages list the first few of many names."""

from autoseg.runtime.reporting import SILENT, list_names


def test_silence(capsys):
    """Tasks can be opened within tasks, advanced in any unit, and nothing is printed."""
    with SILENT.task("outer", total=2) as outer, SILENT.task("inner", total=0.5) as inner:
        outer.advance()
        inner.advance(0.25)
        SILENT.say("done")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_many_names_are_cut_short():
    """All are named if there are not more than the limit; an empty list is an empty text."""
    assert list_names([]) == ""
    assert list_names("abcde") == "a, b, c, d, e"
    assert list_names("abcdef") == "a, b, c, d, e and 1 more"
    assert list_names("abcdef", most=3, count_rest=False) == "a, b, c, ..."
