"""A process that ends from another thread leaves nothing half-written and no lock, whatever its threads do."""

import threading
import time

from autoseg.runtime import process_end
from autoseg.runtime.artifact import atomic_file, atomic_folder
from autoseg.runtime.lock import FILE_NAME, run_alone
from autoseg.runtime.process_end import allow_process_end, call_briefly, end_process_with, find_process_end


def test_files_and_locks_are_removed_first(tmp_path):
    """Each step is done, also if another one fails; then the process ends for its reason."""
    reasons, reason = [], ValueError("for a test")

    def end(given):
        reasons.append((given, sorted(path.name for path in tmp_path.rglob("*"))))

    def fail():
        raise OSError("the disk is gone")

    with run_alone(tmp_path / "fold"), atomic_folder(tmp_path / "cases") as cases:
        (cases / "case").touch()
        with atomic_file(tmp_path / "weights") as writing:
            writing.touch()
            assert (tmp_path / "fold" / FILE_NAME).exists()
            end_process_with(end, reason, fail)
            writing.touch()  # the work would not go on
            cases.mkdir()
    assert reasons == [(reason, ["fold"])]


def test_files_that_are_complete_stay(tmp_path):
    """Nothing of them is removed afterwards."""
    with atomic_file(tmp_path / "weights") as writing:
        writing.touch()
    with atomic_folder(tmp_path / "cases") as cases:
        (cases / "case").touch()
    end_process_with(lambda _: None, ValueError())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["case", "cases", "weights"]


def test_a_step_that_hangs_is_given_up(monkeypatch):
    """A disk that does not answer does not keep the process alive."""
    monkeypatch.setattr(process_end, "CLEANING_SECONDS", 0.05)
    release = threading.Event()
    began = time.monotonic()
    call_briefly(lambda: release.wait(20))
    assert time.monotonic() - began < 10
    release.set()


def test_only_work_in_the_context_may_end_the_process():
    """Threads that a program starts itself may not."""
    found = []
    with allow_process_end(found.append):
        thread = threading.Thread(target=lambda: found.append(find_process_end()))
        thread.start()
        thread.join()
        assert find_process_end() == found.append
    assert found == [None]
    assert find_process_end() is None
