"""Prints rows of the tables that compare autoseg with another program."""

from collections.abc import Sequence


def print_row(text: str, ours: Sequence[float], theirs: Sequence[float], *further: str, mark: str = "") -> None:
    """Prints a line of a table in Markdown.

    Args:
        text: What was measured.
        ours: Seconds of each run of autoseg; the shortest is shown.
        theirs: Seconds of each run of the other program, run by run beside ours; empty if it was not run.
        further: The cells that follow the ratio of the shortest runs and, in brackets, that of each pair.
        mark: Follows the seconds of the other program.
    """
    if theirs:
        pairs = ", ".join(f"{their / our:.1f}" for our, their in zip(ours, theirs, strict=True))
        cells = (f"{min(theirs):.2f}{mark}", f"**{min(theirs) / min(ours):.1f}** ({pairs})")
    else:
        cells = ("-", "-")
    print(f"| {' | '.join((text, f'{min(ours):.2f}', *cells, *further))} |", flush=True)
