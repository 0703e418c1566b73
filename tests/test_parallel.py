"""One bad case never hides or stops the others."""

import time

import pytest

from autoseg.errors import DatasetError, ProblemsError, WriteError
from autoseg.parallel import all_sound, work_on_each
from autoseg.reporting import SILENT


def halve(number):
    """Refuses odd numbers."""
    if number % 2:
        raise DatasetError(f"{number} is odd", "add one")
    return number // 2


def test_results_come_in_order():
    """The order of the items, whichever thread is first."""
    assert work_on_each(halve, range(0, 100, 2), title="", reporter=SILENT) == list(range(50))


def test_every_failure_has_its_line():
    """All errors are gathered; the good items are worked on too."""
    results = work_on_each(halve, [1, 2, 3, 4], title="", reporter=SILENT)
    assert results[1] == 1
    assert results[3] == 2
    with pytest.raises(ProblemsError) as caught:
        all_sound(results)
    assert str(caught.value) == "1 is odd; add one\n3 is odd; add one"


def test_bugs_are_not_hidden():
    """An error that the user cannot mend is raised as it is."""
    with pytest.raises(ZeroDivisionError):
        work_on_each(lambda number: 1 // number, [1, 0], title="", reporter=SILENT)


def test_full_disk_ends_the_work():
    """Every other item would meet it too, so it is said once."""
    begun = []

    def write(number):
        begun.append(number)
        time.sleep(0.01)
        raise WriteError("cannot write: the disk is full", "free some space")

    with pytest.raises(WriteError, match="the disk is full"):
        work_on_each(write, range(500), title="", reporter=SILENT)
    assert len(begun) < 500
