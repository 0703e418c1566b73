"""One run at a time works in a folder."""

import errno
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoseg.errors import UsageError, WriteError
from autoseg.runtime import file_lock, lock
from autoseg.runtime.lock import change_alone, find_holder, run_alone, run_together

HOLD = """
import sys
from pathlib import Path
from autoseg.runtime import lock
with getattr(lock, sys.argv[2])(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def enter(folder: Path) -> None:
    """Takes the lock and releases it."""
    with run_alone(folder):
        pass


def hold(folder: Path, how: str = "run_alone") -> subprocess.Popen[str]:
    """Starts another program that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder), how]
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
    take_lock, calls = file_lock.take_lock, iter([True, False])

    def late(file, **options):
        if next(calls):
            (tmp_path / ".running").unlink()
        return take_lock(file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(file_lock, "take_lock", late)
        with run_alone(tmp_path):
            assert (tmp_path / ".running").read_text().startswith(f"process {os.getpid()}")
            patch.undo()
            with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError):
                pool.submit(enter, tmp_path).result()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP], ids=["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_keeps_others_out_by_their_names(tmp_path, monkeypatch, code):
    """Some network drives have none. What a run of this machine left behind is no obstacle, that of others may be."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_alone(tmp_path), ThreadPoolExecutor(1) as pool:
        with pytest.raises(UsageError, match=rf"another run \(process {os.getpid()} on .*\) seems to be at work on"):
            pool.submit(enter, tmp_path).result()
        assert find_holder(tmp_path) == f"process {os.getpid()} on {platform.node()}"
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / ".running"
    file.write_text(f"process {2**22 + 1} on {platform.node()}")
    enter(tmp_path)
    file.write_text("process 7 on another machine")
    with pytest.raises(UsageError, match=r"has no locks to tell; wait .*; if it was killed, remove \S+running"):
        enter(tmp_path)
    assert file.read_text() == "process 7 on another machine"


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(tmp_path):
    """The error names the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(
        WriteError, match=r"cannot write \S+file: .*; remove or rename the file that is in the way, or choose"
    ):
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


WAIT = """
import sys
from pathlib import Path
from autoseg.runtime.lock import run_alone
with run_alone(Path(sys.argv[1]), waiting=lambda line: print(line, flush=True)):
    print("held", flush=True)
"""


def test_a_run_waits_for_its_turn(tmp_path):
    """It says once for whom, and goes on when that run has ended."""
    folder = tmp_path / "Dataset001_Tiny"
    first = hold(folder)
    second = subprocess.Popen(
        [sys.executable, "-c", WAIT, str(folder)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert second.stdout is not None
    line = second.stdout.readline()
    assert line.startswith(f"another run is at work on Dataset001_Tiny (process {first.pid} on ")
    assert line.endswith("; waiting until it has ended\n")
    first.communicate("")
    assert second.communicate(timeout=60)[0] == "held\n"
    assert list(folder.iterdir()) == []


CHANGE = """
import sys
from pathlib import Path
from autoseg.runtime.lock import change_alone
path = Path(sys.argv[1])
for _ in range(50):
    with change_alone(path):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_no_change_of_a_file_is_lost(tmp_path):
    """Although each program reads it, changes it and writes it again."""
    path = tmp_path / "count"
    path.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", CHANGE, str(path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (path.read_text(), list(tmp_path.iterdir())) == ("150", [path])


def test_a_change_does_not_wait_for_ever(tmp_path, monkeypatch):
    """For a program that is halted."""
    monkeypatch.setattr(lock, "CHANGE_SECONDS", 0.1)
    process = hold(tmp_path / "plan.json", "change_alone")
    with (
        pytest.raises(UsageError, match=r"another run has been changing .*plan.json for 0.1 seconds; wait"),
        change_alone(tmp_path / "plan.json"),
    ):
        pass
    process.communicate("")
    with change_alone(tmp_path / "plan.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_runs_that_share_the_work_keep_others_out(tmp_path):
    """Several are in the folder at once; who wants to be alone is refused until the last has left, and vice versa."""
    others = [hold(tmp_path, "run_together") for _ in range(2)]
    with run_together(tmp_path), run_alone(tmp_path):
        pass
    for process in others:
        with pytest.raises(UsageError, match="another run is at work"):
            enter(tmp_path)
        process.communicate("")
    assert list(tmp_path.iterdir()) == []
    alone = hold(tmp_path)
    with pytest.raises(UsageError, match="another run is at work"), run_together(tmp_path):
        pass
    alone.communicate("")


def test_who_holds_a_folder_is_known(tmp_path):
    """Nobody, if the process was killed; looking takes the lock from nobody."""
    assert find_holder(tmp_path) is find_holder(tmp_path / "missing") is None
    process = hold(tmp_path)
    holder = find_holder(tmp_path)
    assert holder is not None
    assert holder.startswith(f"process {process.pid} on ")
    process.kill()
    process.communicate()
    assert (tmp_path / ".running").exists()
    assert find_holder(tmp_path) is None
    enter(tmp_path)
