"""A run is asked to stop by a file or by a signal, and ignores requests that were meant for another run."""

import os
import platform
import signal
import threading
from pathlib import Path

import pytest

from autoseg.errors import Stopped, UsageError
from autoseg.runtime.lock import run_alone
from autoseg.training import stopping
from autoseg.training.stopping import NEVER, ask_to_stop
from autoseg.training.watchdog import watch_for_stop
from autoseg.workspace import ModelFolder

NO_FILE = Path("nowhere") / "stop"


@pytest.fixture(autouse=True)
def attentive(monkeypatch):
    """Makes requests look for their file at every check."""
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.0)


def test_file_stops_a_run_and_goes_with_it(tmp_path):
    """The exit code is that of success, and the file does not stop the next run."""
    with watch_for_stop(tmp_path / "stop") as request:
        request.check()
        (tmp_path / "stop").touch()
        with pytest.raises(Stopped, match="'autoseg stop'") as raised:
            request.check()
    assert raised.value.exit_code == 0
    assert "the same command goes on" in str(raised.value)
    assert not (tmp_path / "stop").exists()


def test_file_of_an_earlier_run_counts_for_nothing(tmp_path):
    """It came too late for the run that it was meant for."""
    (tmp_path / "stop").touch()
    with watch_for_stop(tmp_path / "stop") as request:
        request.check()


def test_file_is_looked_for_once_a_second(tmp_path, monkeypatch):
    """It is not looked for at every step, because network drives are slow."""
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 1000.0)
    with watch_for_stop(tmp_path / "stop") as request:
        request.check()
        (tmp_path / "stop").touch()
        request.check()


@pytest.mark.parametrize(("name", "code", "by"), [("SIGTERM", 143, "SIGTERM"), ("SIGINT", 130, "Ctrl-C")])
def test_signal_stops_a_run_as_shells_expect(name, code, by):
    """The exit code is the usual one, and afterwards the signal is handled as before, also within the run."""
    number = getattr(signal, name)
    usual = signal.getsignal(number)
    with watch_for_stop(NO_FILE) as request:
        request.check()
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is usual  # a second one does what it always does
        with pytest.raises(Stopped, match=f"stopped by {by}") as raised:
            request.check()
        with pytest.raises(Stopped):
            request.check_alone()
    assert raised.value.exit_code == code
    assert signal.getsignal(number) is usual


def test_program_that_listens_itself_keeps_the_signal():
    """The handler of a host program is not changed."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        with watch_for_stop(NO_FILE) as request:
            os.kill(os.getpid(), signal.SIGTERM)
            request.check()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]


def test_training_in_another_thread_leaves_signals_alone():
    """In Python only the main thread can handle signals."""
    errors = []

    def watch():
        try:
            with watch_for_stop(NO_FILE) as request:
                request.check()
        except BaseException as error:  # noqa: BLE001 - to be looked at outside of the thread
            errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert errors == []


def test_a_run_that_nobody_reaches_is_never_stopped():
    """The default request never stops a run."""
    NEVER.check()


def test_running_folds_are_asked(tmp_path):
    """The file is written for all running folds, or for those that are named."""
    model = ModelFolder(path=tmp_path / "3d_fullres")
    for fold in (0, 2, "all"):
        model.fold(fold).mkdir(parents=True)
        (model.fold(fold) / ".running").touch()
    model.fold(1).mkdir()
    assert ask_to_stop(model, [2]) == [2]
    assert [model.stop_file(fold).exists() for fold in (0, 1, 2, "all")] == [False, False, True, False]
    assert ask_to_stop(model, None) == ask_to_stop(model, ["cv"]) == [0, 2, "all"]
    assert all(model.stop_file(fold).exists() for fold in (0, 2, "all"))


def test_folds_that_are_idle_are_named(tmp_path):
    """No file is written for them."""
    model = ModelFolder(path=tmp_path / "2d")
    with pytest.raises(UsageError, match=r"no fold of 2d is being trained; .*nothing is being trained there"):
        ask_to_stop(model, None)
    model.fold(3).mkdir(parents=True)
    (model.fold(3) / ".running").touch()
    with pytest.raises(UsageError, match=r"fold 1 of 2d is not being trained; .*being trained there: 3"):
        ask_to_stop(model, [3, 1])
    assert not model.stop_file(3).exists()


def test_a_request_between_the_lock_and_the_first_step_counts(tmp_path):
    """The run that holds the lock is the one that is meant; an older request was meant for another one."""
    model = ModelFolder(path=tmp_path)
    model.fold(0).mkdir()
    model.stop_file(0).touch()
    os.utime(model.stop_file(0), (1, 1))
    with run_alone(model.fold(0)), watch_for_stop(model.stop_file(0)) as request:
        request.check()
    with run_alone(model.fold(0)):
        assert ask_to_stop(model, [0]) == [0]
        with watch_for_stop(model.stop_file(0)) as request, pytest.raises(Stopped):
            request.check()


def test_a_run_that_was_killed_or_has_just_ended_gets_no_request(tmp_path, monkeypatch):
    """It says so, and leaves nothing that would stop the next run."""
    model = ModelFolder(path=tmp_path)
    model.fold(1).mkdir()
    lock = model.fold(1) / ".running"
    lock.write_text("process 1 on another machine")
    assert ask_to_stop(model, None) == [1]
    lock.write_text(f"process 1 on {platform.node()}")
    with pytest.raises(UsageError, match=r"no fold of .* is being trained; .* nothing is being trained there"):
        ask_to_stop(model, None)
    model.stop_file(1).unlink()
    answers = iter([False, True])
    monkeypatch.setattr(stopping, "is_abandoned", lambda _: next(answers))
    with pytest.raises(UsageError, match=r"fold 1 of .* has just ended by itself; there is nothing to stop"):
        ask_to_stop(model, None)
    assert not model.stop_file(1).exists()
