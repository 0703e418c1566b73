"""The watchdog ends the process of a run that does not stop in time, after having saved it once."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from phantoms import Listener

from autoseg.errors import AutosegError, Stopped
from autoseg.runtime.process_end import allow_process_end
from autoseg.training import stopping, watchdog
from autoseg.training.ranks import Ranks
from autoseg.training.stopping import BY_SIGTERM
from autoseg.training.watchdog import watch_for_stop

NO_FILE = Path("nowhere") / "stop"
LONG_SECONDS = 20
"""Time after which a test gives up waiting."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Makes the watchdog impatient."""
    monkeypatch.setattr(watchdog, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.0)


class ProcessEnd:
    """Notes for which reason the process would have ended, and whether a file was there."""

    def __init__(self):
        self.reasons, self.called = [], threading.Event()

    def __call__(self, reason):
        self.reasons.append(reason)
        self.called.set()

    def wait(self):
        """Waits until it is called."""
        assert self.called.wait(LONG_SECONDS)


@pytest.fixture
def process_end():
    """Allows the process to be ended, and returns what would end it."""
    end = ProcessEnd()
    with allow_process_end(end):
        yield end


def test_run_that_does_not_stop_is_saved_and_ended(process_end, tmp_path):
    """The file that asked it to is removed, and the run is saved once."""
    saved = []
    with watch_for_stop(tmp_path / "stop") as request, request.saving_by(lambda: saved.append(True)):
        (tmp_path / "stop").touch()
        process_end.wait()
        assert not (tmp_path / "stop").exists()
        time.sleep(0.2)
    [reason] = process_end.reasons
    assert (reason.by, reason.exit_code, saved) == ("'autoseg stop'", 0, [True])


def test_signal_is_heard_in_a_long_call(process_end):
    """The main thread handles no signal while it waits for a lock that is never released."""
    with watch_for_stop(NO_FILE):
        os.kill(os.getpid(), signal.SIGTERM)
        process_end.wait()
    assert process_end.reasons[0].exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_second_signal_ends_without_saving(process_end, monkeypatch):
    """The first one is answered by a line."""
    monkeypatch.setattr(watchdog, "PATIENCE_SECONDS", 1000.0)
    saved, listener = [], Listener()
    with watch_for_stop(NO_FILE, reporter=listener) as request, request.saving_by(lambda: saved.append(True)):
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: "a second Ctrl-C ends at once" in listener.text)
        assert process_end.reasons == []
        os.kill(os.getpid(), signal.SIGINT)
        process_end.wait()
    assert str(process_end.reasons[0]).startswith(
        "ended at once by a second Ctrl-C; what followed the last saved epoch"
    )
    assert (process_end.reasons[0].exit_code, saved) == (130, [])


def test_signal_that_torchrun_repeats_counts_once(process_end, monkeypatch):
    """A terminal sends it to all processes, and torchrun forwards it to them."""
    monkeypatch.setattr(watchdog, "PATIENCE_SECONDS", 0.5)
    ranks = Ranks(number=0, count=2)
    with watch_for_stop(NO_FILE, ranks):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        process_end.wait()
    assert process_end.reasons[0].saved


def wait_until(condition):
    """Waits until a condition holds."""
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_guarded_work_is_not_interrupted(process_end):
    """After it, the run has time again to stop by itself."""
    saved = []
    with watch_for_stop(NO_FILE) as request, request.saving_by(lambda: saved.append(True)):
        with request.guarded():
            request.note(BY_SIGTERM)
            time.sleep(0.3)
            assert (saved, process_end.reasons) == ([], [])
        process_end.wait()
    assert saved == [True]


def test_run_that_stops_by_itself_is_left_alone(process_end, monkeypatch):
    """Its context can be left while the watchdog is about to act, and then it does not act any more."""
    monkeypatch.setattr(watchdog, "PATIENCE_SECONDS", 1.0)
    with watch_for_stop(NO_FILE) as request, request.guarded():
        request.note(BY_SIGTERM)
        time.sleep(1.2)
    time.sleep(0.2)
    assert process_end.reasons == []


def test_run_whose_end_takes_long_is_ended_without_saving_again(process_end):
    """As one that waits for the server of a tracker after it was saved."""
    saved, closed = [], []
    with watch_for_stop(NO_FILE) as request:
        request.at_end.append(lambda: closed.append(True))
        with request.guarded(), request.saving_by(lambda: saved.append(True)):
            request.note(BY_SIGTERM)
        process_end.wait()
    assert (saved, closed) == ([], [True])


def test_error_of_saving_is_the_reason(process_end):
    """As when the weights are no longer numbers, or the disk is full."""

    def fail():
        raise AutosegError("the disk is full", "free some space")

    with watch_for_stop(NO_FILE) as request, request.saving_by(fail):
        request.note(BY_SIGTERM)
        process_end.wait()
    assert str(process_end.reasons[0]) == "the disk is full; free some space"


def test_other_ranks_wait_for_the_main_one(process_end, monkeypatch):
    """It fails if they end before it has saved the state."""
    monkeypatch.setattr(watchdog, "PATIENCE_OF_OTHERS_SECONDS", 0.5)
    began = time.monotonic()
    with watch_for_stop(NO_FILE, Ranks(number=1, count=2)) as request:
        request.note(BY_SIGTERM)
        process_end.wait()
    assert time.monotonic() - began >= 0.5


def test_process_is_never_ended_unasked(tmp_path):
    """Without permission, as in a notebook, no thread is started and the run goes on until it looks."""
    threads = threading.active_count()
    with watch_for_stop(tmp_path / "stop") as request:
        (tmp_path / "stop").touch()
        assert threading.active_count() == threads
        time.sleep(0.2)
        with pytest.raises(Stopped):
            request.check()
