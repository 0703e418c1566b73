"""One run at a time works in a folder."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoseg.errors import UsageError, WriteError
from autoseg.runtime import lock as module
from autoseg.runtime.lock import run_alone

HOLD = """
import sys
from pathlib import Path
from autoseg.runtime.lock import run_alone
with run_alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def enter(folder: Path) -> None:
    """Takes the lock and releases it."""
    with run_alone(folder):
        pass


def hold(folder: Path) -> subprocess.Popen[str]:
    """Starts another program that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_program_is_told_who_is_at_work(tmp_path):
    """It is refused at once, in one line; when the first has ended, no file is left and the second may run."""
    folder = tmp_path / "Dataset001_Tiny"
    process = hold(folder)
    match = rf"another run is at work on Dataset001_Tiny \(process {process.pid} on \S+.*\); wait until it has ended"
    for _ in range(2):
        with pytest.raises(UsageError, match=match):
            enter(folder)
    process.communicate("")
    assert list(folder.iterdir()) == []
    enter(folder)


def test_a_killed_program_holds_nothing(tmp_path):
    """The file may stay, but nobody needs to remove it by hand."""
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    enter(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_work_may_ask_again_for_what_it_holds(tmp_path):
    """The lock is released by the outermost context."""
    with run_alone(tmp_path):
        with run_alone(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [".running"]
    assert list(tmp_path.iterdir()) == []


def test_threads_keep_each_other_out(tmp_path):
    """Threads count as different runs; the folders of other datasets are not locked."""
    with run_alone(tmp_path), ThreadPoolExecutor(1) as pool:
        with pytest.raises(UsageError, match="another run"):
            pool.submit(enter, tmp_path).result()
        pool.submit(enter, tmp_path / "other").result()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_stop_lets_go(tmp_path, error):
    """The lock is released whatever ends the work."""
    with pytest.raises(error), run_alone(tmp_path):
        raise error
    assert list(tmp_path.iterdir()) == []
    enter(tmp_path)


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """A file that another run removed between opening and locking would lock nobody out."""
    lock, calls = module._lock, iter([True, False])

    def late(file):
        if next(calls):
            (tmp_path / ".running").unlink()
        return lock(file)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_lock", late)
        with run_alone(tmp_path):
            assert (tmp_path / ".running").read_text().startswith(f"process {os.getpid()}")
            patch.undo()
            with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError):
                pool.submit(enter, tmp_path).result()


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    """Some network drives have no locks; work goes on without."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_alone(tmp_path), ThreadPoolExecutor(1) as pool:
        pool.submit(enter, tmp_path).result()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(tmp_path):
    """The error names the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write \S+file: .*; free some space or choose"):
        enter(tmp_path / "file")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot halt a process")
def test_a_program_that_is_halted_keeps_its_lock(tmp_path):
    """The lock does not expire: a laptop may sleep meanwhile."""
    process = hold(tmp_path)
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UsageError, match="another run"):
            enter(tmp_path)
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate("")
