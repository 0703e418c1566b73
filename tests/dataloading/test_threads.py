"""Batches are started in order, the next one as soon as it is ready, and only waiting counts as waiting."""

import time
from threading import Event

import pytest

from autoseg.dataloading.threads import Waiting, prepare_ahead


def run_ahead(prepare, numbers, *, workers, start=lambda _: None, on_waited=None):
    """Returns the generator of results."""
    waiting = Waiting(describe_work=lambda: "reading nothing", on_waited=on_waited)
    return prepare_ahead(prepare, numbers, workers=workers, start=start, waiting=waiting)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_result_is_started_once_before_it_is_given(workers):
    """Also if the next ones are ready long before."""
    started: list[int] = []
    for number, result in enumerate(run_ahead(lambda number: number, range(9), workers=workers, start=started.append)):
        assert result == number
        assert started[: number + 1] == list(range(number + 1))
        assert len(started) <= number + 2
        time.sleep(0.005)
    assert started == list(range(9))


def test_next_result_is_started_if_it_is_ready():
    """Its copy runs while the loop works on the result before."""
    prepared, started = Event(), []

    def prepare(number):
        if number == 2:  # the thread has ended the job before
            prepared.set()
        return number

    def start(number):
        assert prepared.wait(5)
        started.append(number)

    results = run_ahead(prepare, range(4), workers=1, start=start)
    assert next(results) == 0
    assert started == [0, 1]
    results.close()


def test_next_result_is_not_waited_for():
    """A result that is ready is given at once."""
    release = Event()

    def prepare(number):
        if number:
            release.wait(20)
        return number

    started: list[int] = []
    results = run_ahead(prepare, range(3), workers=1, start=started.append)
    assert next(results) == 0
    assert started == [0]
    release.set()
    assert list(results) == [1, 2]


def test_error_of_the_next_result_comes_in_its_turn():
    """The result before it is given."""
    failed = Event()

    def prepare(number):
        if number == 1:
            raise ValueError("broken")
        if number == 2:  # the thread has ended the job before
            failed.set()
        return number

    results = run_ahead(prepare, range(3), workers=1, start=lambda _: failed.wait(5))
    assert next(results) == 0
    assert failed.is_set()
    with pytest.raises(ValueError, match="broken"):
        next(results)


@pytest.mark.parametrize("workers", [0, 1])
def test_starting_and_using_results_is_not_waiting(workers):
    """Only the time until a result is prepared counts."""
    waited: list[float] = []
    slow = run_ahead(
        lambda number: number,
        range(3),
        workers=workers,
        start=lambda _: time.sleep(0.2),
        on_waited=waited.append,
    )
    for _ in slow:
        time.sleep(0.1)
    assert len(waited) >= 1
    assert sum(waited) < 0.2
    waited.clear()
    list(run_ahead(lambda _: time.sleep(0.2), range(2), workers=workers, on_waited=waited.append))
    assert sum(waited) > 0.2
