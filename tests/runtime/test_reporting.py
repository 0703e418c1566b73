"""The default reporter takes everything and says nothing."""

from autoseg.runtime.reporting import SILENT


def test_silence(capsys):
    """Tasks can be opened within tasks, advanced in any unit, and nothing is printed."""
    with SILENT.task("outer", total=2) as outer, SILENT.task("inner", total=0.5) as inner:
        outer.advance()
        inner.advance(0.25)
        SILENT.say("done")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
