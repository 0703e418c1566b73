"""A pool runs jobs in order, hands their errors to the caller, and leaves behind what is stuck."""

import time
from concurrent.futures import CancelledError
from threading import Event, current_thread

import pytest
import torch

from autoseg.runtime import thread_pool
from autoseg.runtime.thread_pool import ThreadPool, one_torch_thread_each, wait_for, wait_for_first

ENOUGH_SECONDS = 60


def test_one_thread_runs_jobs_in_order():
    """The future of each job holds its result or error."""
    ran = []
    with ThreadPool(1, name="test") as pool:
        jobs = [pool.submit(ran.append, number) for number in range(20)]
        failed = pool.submit(int, "seven")
        assert [wait_for(job) for job in jobs] == [None] * 20
        with pytest.raises(ValueError, match="seven"):
            wait_for(failed)
    assert ran == list(range(20))


def test_each_thread_is_prepared_and_tidied_up():
    """Each thread calls `at_start` before its first job and `at_end` after its last one."""
    started, ended = [], []
    with ThreadPool(
        3, name="test", at_start=lambda: started.append(current_thread()), at_end=lambda: ended.append(current_thread())
    ) as pool:
        pool.submit(int).result()
    assert len(started) == 3
    assert set(started) == set(ended)


def test_shutdown_cancels_what_has_not_begun(monkeypatch):
    """A running job has a while to end, and no longer."""
    monkeypatch.setattr(thread_pool, "GRACE_SECONDS", 0.05)
    begun, release = Event(), Event()

    def get_stuck():
        begun.set()
        release.wait(ENOUGH_SECONDS)
        return "late"

    pool = ThreadPool(1, name="test")
    stuck, waiting = pool.submit(get_stuck), pool.submit(int)
    begun.wait(ENOUGH_SECONDS)
    began = time.monotonic()
    pool.shutdown()
    assert time.monotonic() - began < ENOUGH_SECONDS / 2
    with pytest.raises(CancelledError):
        waiting.result()
    release.set()
    assert stuck.result(ENOUGH_SECONDS) == "late"


def test_a_job_that_is_stuck_is_given_up_and_its_thread_replaced():
    """The error stands in place of the result, also if the job ends later; other jobs go on."""
    begun, release = Event(), Event()

    def get_stuck():
        begun.set()
        release.wait(ENOUGH_SECONDS)

    with ThreadPool(1, name="test") as pool:
        stuck, after = pool.submit(get_stuck), pool.submit(int, "7")
        begun.wait(ENOUGH_SECONDS)
        assert list(pool.running_seconds()) == [stuck]
        pool.give_up(stuck, TimeoutError("too late"))
        assert wait_for(after) == 7
        release.set()
        with pytest.raises(TimeoutError, match="too late"):
            wait_for(stuck)
        pool.give_up(after, TimeoutError("too late"))  # it has ended, and keeps its result
        assert after.result() == 7


def test_who_waits_is_called_again_and_again(monkeypatch):
    """The callback gets the seconds that have passed, until a job ends or it raises an error."""
    monkeypatch.setattr(thread_pool, "LOOK_SECONDS", 0.01)
    release, calls = Event(), []

    def on_wait(seconds):
        calls.append(seconds)
        if len(calls) == 3:
            release.set()
        if len(calls) > 1000:
            raise KeyboardInterrupt

    with ThreadPool(2, name="test") as pool:
        quick, slow = pool.submit(release.wait, ENOUGH_SECONDS), pool.submit(time.sleep, 0.2)
        assert quick in wait_for_first([quick, slow], on_wait)
    assert calls[:3] == pytest.approx([0.01, 0.02, 0.03])


def test_torch_calculates_in_one_thread_inside_and_as_before_afterwards():
    """Threads of the pool use one thread, and the number for others is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_torch_thread_each() as at_start, ThreadPool(2, name="test", at_start=at_start) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
