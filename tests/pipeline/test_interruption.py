"""A step is ended by a file or by SIGTERM, also if that comes when the step is about to end."""

import os
import signal
import threading
import time
from functools import partial

import pytest

from autoseg.errors import Stopped
from autoseg.pipeline import interruption
from autoseg.pipeline.interruption import interruptible
from autoseg.training.stopping import BY_FILE, REASONS, ask_this_process
from autoseg.training.watchdog import handled_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can wait for")


class LateFile:
    """A file that is there from the second look on; a look at it takes so long that the work ends meanwhile."""

    def __init__(self) -> None:
        self.looks, self.seen = 0, threading.Event()

    def exists(self) -> bool:
        """Returns whether it is there."""
        self.looks += 1
        if self.looks == 1:
            return False
        self.seen.set()
        time.sleep(0.2)
        return True


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch):
    """Looks for the file again and again."""
    monkeypatch.setattr(interruption, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize("ask_to_end", [None, lambda: False, lambda: True])
def test_a_file_that_appears_at_the_end_of_the_work_ends_no_program(ask_to_end):
    """SIGTERM is not sent when nobody handles it any more; the next step sees the file."""
    file = LateFile()
    with interruptible(file, ask_to_end=ask_to_end):
        assert file.seen.wait(10)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(Stopped, match="stopped by 'autoseg stop'"), interruptible(file):
        pytest.fail("the next step was begun")


def test_work_that_handles_signals_is_asked_once_it_listens(tmp_path):
    """It is not interrupted before, and no signal is sent: that could arrive when nobody handles it any more."""
    file, heard = tmp_path / "stop", []

    def work() -> None:
        file.touch()
        time.sleep(0.1)
        with handled_signals(heard.append):
            for _ in range(1000):
                time.sleep(0 if heard else 0.01)
        time.sleep(0.1)
        raise Stopped(*REASONS[heard[0]])

    ask = partial(ask_this_process, BY_FILE)
    with pytest.raises(Stopped, match="stopped by 'autoseg stop'"), interruptible(file, ask_to_end=ask):
        work()
    assert heard == [BY_FILE]


def test_a_request_that_comes_too_late_ends_the_run_before_the_next_step(tmp_path):
    """The work was asked, and had ended by itself."""
    file, asked = tmp_path / "stop", threading.Event()

    def ask() -> bool:
        asked.set()
        return True

    def work() -> None:
        file.touch()
        assert asked.wait(10)
        time.sleep(0.1)

    with pytest.raises(Stopped, match="stopped by 'autoseg stop'"), interruptible(file, ask_to_end=ask):
        work()


@pytest.mark.parametrize("by", ["SIGTERM", "'autoseg stop'"])
def test_work_is_ended_in_its_midst(tmp_path, by):
    """And SIGTERM does afterwards what it did before."""

    def work() -> None:
        if by == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        else:
            (tmp_path / "stop").touch()
        time.sleep(20)
        pytest.fail("the work went on")

    with pytest.raises(Stopped, match=f"stopped by {by}"), interruptible(tmp_path / "stop"):
        work()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_at_the_end_of_the_work_is_not_lost(tmp_path, monkeypatch):
    """It comes when the work has ended but is still being watched."""
    end = interruption._Watch.end

    def end_late(watch):
        signal.raise_signal(signal.SIGTERM)
        end(watch)

    monkeypatch.setattr(interruption._Watch, "end", end_late)
    done = []
    with pytest.raises(Stopped, match="stopped by SIGTERM"), interruptible(tmp_path / "stop"):
        done.append(1)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_errors_and_interrupts_pass(tmp_path):
    """Of the work itself, such as Ctrl-C."""
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), interruptible(tmp_path / "stop"):
            raise error
