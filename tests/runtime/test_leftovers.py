"""What killed runs left half-written is removed by the next run, and what others are writing is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoseg.runtime import leftovers
from autoseg.runtime.artifact import atomic_file, atomic_folder
from autoseg.runtime.leftovers import name_unfinished

KILLED = """
import os, signal, sys
from pathlib import Path
from autoseg.runtime.artifact import atomic_file, atomic_folder
with atomic_folder(Path(sys.argv[1]) / "cases") as folder, atomic_file(Path(sys.argv[1]) / "note.txt") as file:
    (folder / "half").touch()
    file.write_text("half")
    print("writing", flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "killed" else sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    """The names of all entries of a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there the age decides")
def test_only_what_no_running_process_owns_is_removed(tmp_path: Path) -> None:
    """A file and a folder of a killed run vanish when the next run writes there; those of a running one stay."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "killed"], check=False, capture_output=True)
    left = names(tmp_path)
    assert len(left) == 2
    command = [sys.executable, "-c", KILLED, str(tmp_path), "running"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        running.stdout.readline()
        with atomic_file(tmp_path / "other.txt") as file:
            file.write_text("whole")
        assert not set(left) & set(names(tmp_path))
        assert len(names(tmp_path)) == 3
        running.send_signal(signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there the age decides")
def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the last copy if the run was killed between its two renames, and else a leftover."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    monkeypatch.setattr(os, "getpid", lambda: ended.pid)
    for name in ("cases", "others"):
        aside = name_unfinished(tmp_path / name, is_replaced=True)
        aside.mkdir()
        (aside / "old").touch()
    monkeypatch.undo()
    (tmp_path / "others").mkdir()
    with atomic_folder(tmp_path / "third"):
        pass
    assert names(tmp_path) == ["cases", "others", "third"]
    assert names(tmp_path / "cases") == ["old"]
    assert names(tmp_path / "others") == []


def test_what_other_machines_left_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their processes run cannot be told."""
    monkeypatch.setattr(leftovers, "identify_system", lambda: "0123abcd")
    old, fresh = (name_unfinished(tmp_path / name) for name in ("old", "fresh"))
    monkeypatch.undo()
    (tmp_path / ".writing_without_an_owner").mkdir()
    for path in (old, fresh):
        path.mkdir()
    for path in (old, tmp_path / ".writing_without_an_owner"):
        os.utime(path, (0, time.time() - 2 * leftovers.ABANDONED_SECONDS))
    with atomic_folder(tmp_path / "cases"):
        pass
    assert names(tmp_path) == sorted([fresh.name, "cases"])
