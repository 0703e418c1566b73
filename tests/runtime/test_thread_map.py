"""One bad case never hides or stops the others."""

import subprocess
import sys
import time
from threading import Event, Lock
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from phantoms import Listener
from threadpoolctl import threadpool_info, threadpool_limits

from autoseg.errors import DatasetError, ProblemsError, WriteError
from autoseg.runtime.reporting import SILENT
from autoseg.runtime.thread_map import SHARE_OF_FREE_MEMORY, map_in_threads, results_or_raise

ENOUGH_SECONDS = 60


def halve(number):
    """Halves an even number, and refuses an odd one."""
    if number % 2:
        raise DatasetError(f"{number} is odd", "add one")
    return number // 2


def test_results_come_in_order():
    """The results have the order of the items, whichever thread ends first."""
    assert map_in_threads(halve, range(0, 100, 2), title="", reporter=SILENT) == list(range(50))


def test_every_failure_has_its_line():
    """All errors are collected, and the good items are worked on too."""
    results = map_in_threads(halve, [1, 2, 3, 4], title="", reporter=SILENT)
    assert results[1] == 1
    assert results[3] == 2
    with pytest.raises(ProblemsError) as caught:
        results_or_raise(results)
    assert str(caught.value) == "1 is odd; add one\n3 is odd; add one"


def test_bugs_are_not_hidden():
    """An error that the user cannot mend is raised as it is."""
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 // number, [1, 0], title="", reporter=SILENT)


def test_full_disk_ends_the_work():
    """Every other item would fail for the same reason, so it is said once."""
    begun = []

    def write(number):
        begun.append(number)
        time.sleep(0.01)
        raise WriteError("cannot write: the disk is full", "free some space")

    with pytest.raises(WriteError, match="the disk is full"):
        map_in_threads(write, range(500), title="", reporter=SILENT)
    assert len(begun) < 500


# --- Memory -----------------------------------------------------------------------------------------------------------


def observe(items, *, free, cores=8, bytes_each=None, monkeypatch, **options):
    """Works on items; returns the largest sum of items that were running together, and their largest number."""
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: cores)
    monkeypatch.setattr("autoseg.runtime.thread_map.free_memory_bytes", lambda: free)
    lock, now, most = Lock(), [], [0, 0]

    def work(item):
        with lock:
            now.append(item)
            most[:] = max(most[0], sum(now) if len(now) > 1 else 0), max(most[1], len(now))
        time.sleep(0.01)
        with lock:
            now.remove(item)
        return item

    assert map_in_threads(work, items, title="", reporter=SILENT, bytes_each=bytes_each, **options) == items
    return tuple(most)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.integers(1, 100), max_size=20), free=st.integers(1, 300))
@example(items=[1, 1, 3], free=3)  # two fit together, and the third is alone
def test_items_in_work_fit_into_the_memory(items, free, monkeypatch):
    """The estimates of running items never exceed the share of free memory, unless an item is alone."""
    together, _ = observe(items, free=free, bytes_each=int, monkeypatch=monkeypatch)
    assert together <= SHARE_OF_FREE_MEMORY * free


def test_enough_memory_uses_all_cores(monkeypatch):
    """There may be more threads than the limit for work of unknown memory."""
    assert observe([1] * 60, free=1000, cores=12, bytes_each=int, monkeypatch=monkeypatch)[1] == 12
    assert observe([1] * 60, free=1000, cores=12, monkeypatch=monkeypatch)[1] <= 8
    assert observe([1] * 60, free=None, cores=12, bytes_each=int, monkeypatch=monkeypatch)[1] == 12


def test_one_worker_if_asked(monkeypatch):
    """This holds with any number of cores."""
    assert observe([1] * 10, free=None, most_workers=1, monkeypatch=monkeypatch)[1] == 1


def test_waiting_for_room_ends_with_the_work(monkeypatch):
    """After Ctrl-C or a full disk nothing else is begun, not even an item that waits for memory."""
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 4)
    monkeypatch.setattr("autoseg.runtime.thread_map.free_memory_bytes", lambda: 10)
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.05)
        raise WriteError("cannot write", "free some space")

    with pytest.raises(WriteError):
        map_in_threads(work, [1, *[8] * 10], title="", reporter=SILENT, bytes_each=lambda item: item)
    assert len(begun) <= 2


# --- Signs of life ----------------------------------------------------------------------------------------------------


def test_long_silence_is_explained(monkeypatch):
    """Running items are named, at ever longer intervals, and never while items finish."""
    monkeypatch.setattr("autoseg.runtime.thread_map.SILENT_SECONDS", 0.1)
    monkeypatch.setattr("autoseg.runtime.thread_pool.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 2)
    listener = Listener()
    items = [SimpleNamespace(name="slow", seconds=0.85), *[SimpleNamespace(name="quick", seconds=0.001)] * 5]
    map_in_threads(lambda item: time.sleep(item.seconds), items, title="", reporter=listener)
    assert 2 <= len(listener.lines) <= 4  # after 0.1, 0.2, 0.4 and 0.8 seconds, of which a busy machine may miss some
    assert {line.rsplit(" ", 2)[0] for line in listener.lines} == {"nothing new yet; in work: slow for"}


def test_steady_work_is_silent(monkeypatch):
    """Nothing is said, however long all of it takes."""
    monkeypatch.setattr("autoseg.runtime.thread_map.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("autoseg.runtime.thread_pool.LOOK_SECONDS", 0.01)
    listener = Listener()
    map_in_threads(lambda _: time.sleep(0.02), range(100), title="", reporter=listener)
    assert listener.lines == []


def test_an_item_that_is_stuck_is_given_up(monkeypatch):
    """It gets an error; all others are finished, even if it took all the memory and the only thread."""
    monkeypatch.setattr("autoseg.runtime.thread_map.ITEM_SECONDS", 0.2)
    monkeypatch.setattr("autoseg.runtime.thread_pool.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("autoseg.runtime.thread_map.free_memory_bytes", lambda: 10)
    answers = Event()

    def work(item):
        if item == 3:
            answers.wait(ENOUGH_SECONDS)
        return item

    results = map_in_threads(
        work, [1, 2, 3, 4, 5], title="", reporter=SILENT, bytes_each=lambda item: 100 * (item == 3), most_workers=1
    )
    answers.set()
    assert [*results[:2], *results[3:]] == [1, 2, 4, 5]
    assert str(results[2]) == ("3 was not finished within 0 s; see whether its disk answers, and run the command again")


# The second thread never comes back, as from a network drive that went away.
STUCK = """
import sys, time
from threading import Event
from autoseg.runtime import thread_map, thread_pool
from autoseg.runtime.reporting import SILENT
thread_pool.GRACE_SECONDS, thread_pool.LOOK_SECONDS, thread_map.count_cores = 0.2, 0.01, lambda: 2
stuck = Event()
def work(item):
    sys.stdout.write(f"{item} ")
    sys.stdout.flush()
    if item:
        stuck.set()
        time.sleep(1000)
    stuck.wait()
    raise KeyboardInterrupt
thread_map.map_in_threads(work, [1, 0], title="", reporter=SILENT)
"""


def test_a_program_ends_without_a_thread_that_is_stuck():
    """After Ctrl-C, or any error, running work has a moment to end."""
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=ENOUGH_SECONDS, check=False
    )
    assert sorted(ended.stdout.split()) == ["0", "1"]
    assert ended.stderr.endswith("KeyboardInterrupt\n")


# --- Threads of libraries ---------------------------------------------------------------------------------------------


def test_libraries_take_one_thread_per_worker_and_all_afterwards():
    """Workers times threads is the number of cores, and the last bits of products depend on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threadpool_limits(2, user_api="blas"):
            usual = blas_threads()
            inside = map_in_threads(
                lambda _: (torch.get_num_threads(), blas_threads()), range(4), title="", reporter=SILENT
            )
            assert blas_threads() == usual
        assert torch.get_num_threads() == 3
        assert set(inside) == {(1, frozenset({1}))}
    finally:
        torch.set_num_threads(before)


def blas_threads():
    """Returns the numbers of threads that the libraries use for matrix products."""
    return frozenset(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")


def test_torch_is_not_loaded_for_it():
    """Importing the module and working with it load no more than numpy's libraries."""
    script = (
        "import sys; from autoseg.runtime.thread_map import map_in_threads;"
        "from autoseg.runtime.reporting import SILENT;"
        "map_in_threads(abs, [1], title='', reporter=SILENT); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
