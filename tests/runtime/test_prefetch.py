"""A pipeline of stages keeps the order of items, is one item ahead, and ends with its caller."""

import time
import weakref
from contextlib import closing
from threading import Event, current_thread, main_thread

import pytest

from autoseg.runtime.prefetch import prefetch

ENOUGH_SECONDS = 30


def wait_until(ready):
    """Waits until a condition holds, and fails after a while."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_come_in_order():
    """This holds through two stages."""
    doubled = prefetch(lambda number: 2 * number, range(50))
    assert list(prefetch(str, doubled)) == [str(2 * number) for number in range(50)]


def test_no_items_no_results():
    """It returns at once."""
    assert list(prefetch(str, [])) == []


def test_work_is_one_item_ahead_and_no_more():
    """While the caller uses a result, the next one is made; then the stage waits."""
    begun = []
    with closing(prefetch(begun.append, range(10))) as results:
        for number, _ in enumerate(results):
            if number == 8:
                break
            wait_until(lambda number=number: len(begun) == number + 2)
            time.sleep(0.01)
            assert len(begun) == number + 2


def test_two_stages_hold_two_items_beside_the_one_that_is_dealt_with():
    """Results do not pile up before a slow consumer."""
    read, asked = [], []
    line = prefetch(lambda item: asked.append(item) or item, prefetch(lambda item: read.append(item) or item, range(9)))
    with closing(line) as results:
        next(results)
        wait_until(lambda: len(asked) == 2)
        wait_until(lambda: len(read) == 3)
        time.sleep(0.02)
        assert (len(read), len(asked)) == (3, 2)


def test_large_items_wait_for_their_turn():
    """Work on them does not begin before the caller has finished with the previous result."""
    begun = []
    with closing(prefetch(begun.append, range(6), apart=lambda number: number >= 3)) as results:
        for number, _ in enumerate(results):
            time.sleep(0.02)
            assert len(begun) == (number + 2 if number < 2 else number + 1)


def test_error_comes_in_the_place_of_its_result():
    """Results that were made before the error are not lost."""
    results = prefetch(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_error_of_an_earlier_stage_goes_through():
    """The error ends all stages."""
    with pytest.raises(ZeroDivisionError):
        list(prefetch(str, prefetch(lambda number: 1 // number, [1, 0])))


def test_stages_end_when_nobody_takes_results():
    """Earlier stages end too, after the item that they are working on."""
    ended = []

    def count():
        try:
            yield from range(1000)
        finally:
            ended.append(current_thread() is not main_thread())

    with closing(prefetch(str, prefetch(lambda number: number, count()))) as results:
        next(results)
    wait_until(lambda: ended == [True])


def test_a_stage_that_is_stuck_is_not_waited_for_long(monkeypatch):
    """The program can end meanwhile."""
    monkeypatch.setattr("autoseg.runtime.thread_pool.GRACE_SECONDS", 0.05)
    release = Event()

    def work(number):
        if number:
            release.wait(ENOUGH_SECONDS)
        return number

    began = time.monotonic()
    with closing(prefetch(work, [0, 1])) as results:
        next(results)
    assert time.monotonic() - began < ENOUGH_SECONDS / 2
    release.set()


def test_no_stage_keeps_what_was_passed_on():
    """Items and results may be gigabytes: each stage holds the one that it is ahead, and no other."""
    alive: weakref.WeakSet[Large] = weakref.WeakSet()

    def make(_=None):
        item = Large()
        alive.add(item)
        return item

    for apart in (False, True):
        items = (make() for _ in range(6))
        with closing(prefetch(make, items, apart=lambda _, apart=apart: apart)) as results:
            for result in results:
                del result
                wait_until(lambda: len(alive) <= 1)
        wait_until(lambda: not alive)


class Large:
    """Something whose end can be seen."""
