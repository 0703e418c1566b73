"""Studies on disk: what was received, what is being segmented, and what could not be segmented.

    queue/received/STUDY/SERIES/INSTANCE.dcm   complete files; further ones may come
    queue/working/STUDY/images/SERIES/...      the study that is segmented, and its objects once all are written
    queue/failed/STUDY_DATE/SERIES/...         studies that could not be segmented; moved back to received/ by hand
    queue/failed/STUDY_DATE.txt                what a developer needs, if the program itself failed

A file is on disk, whole, before its sender is told that it is stored. A study moves from folder to folder by renaming,
so that after a power cut it is in one of them.
"""

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

UID = re.compile(r"^[0-9.]{1,64}\Z")


def is_uid(text: str) -> bool:
    """Returns whether a text is a UID, which may be the name of a file.

    Example:
        >>> is_uid("1.2.840.10008"), is_uid("../1"), is_uid("..")
        (True, False, False)
    """
    return UID.match(text) is not None and text.strip(".") == text


class StudyQueue:
    """The studies in a folder; safe for several threads of one process.

    Args:
        folder: The folder; made if it is missing. Studies that an earlier process was working on wait again.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self.received, self.working, self.failed = (folder / name for name in ("received", "working", "failed"))
        self._unfinished = folder / "incoming"
        shutil.rmtree(self._unfinished, ignore_errors=True)  # their senders were not told that they are stored
        for path in (self.received, self.working, self.failed, self._unfinished):
            path.mkdir(parents=True, exist_ok=True)

    def add(self, study: str, series: str, instance: str, content: bytes) -> None:
        """Keeps a received file; on return it is on disk.

        Args:
            study: Study Instance UID, as `is_uid` has it; and so the others.
            series: Series Instance UID.
            instance: SOP Instance UID.
            content: The file.

        Raises:
            OSError: The disk is full.
        """
        writing = self._unfinished / f"{instance}_{token_hex(4)}"
        try:
            with writing.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                folder = self.received / study / series
                folder.mkdir(parents=True, exist_ok=True)
                writing.replace(folder / f"{instance}.dcm")
                for path in (folder, folder.parent, self.received):
                    _sync_folder(path)
        finally:
            writing.unlink(missing_ok=True)

    def waiting(self, settle_seconds: float) -> Iterator[Path]:
        """Yields the studies to work on: those of an earlier process, then those that got no file for some time.

        Each is moved to `working` before it is yielded. A study that gets further files meanwhile waits again.
        """
        interrupted = sorted(self.working.iterdir())
        yield from interrupted
        for study in sorted(self.received.iterdir()):
            if self._age_seconds(study) < settle_seconds or (self.working / study.name).exists():
                continue
            with self._lock:
                taken = self.working / study.name
                taken.mkdir()
                study.rename(taken / "images")
                _sync_folder(self.received)
            yield taken

    def count_try(self, study: Path) -> int:
        """Notes that the segmentation of a study begins; returns how often it has."""
        path = study / "tries"
        tries = len(path.read_bytes()) + 1 if path.exists() else 1
        path.write_bytes(b"." * tries)
        return tries

    def finish(self, study: Path) -> None:
        """Removes a study whose objects are stored."""
        done = self._unfinished / f"{study.name}_{token_hex(4)}"
        study.rename(done)
        shutil.rmtree(done, ignore_errors=True)

    def fail(self, study: Path) -> Path:
        """Puts a study aside that cannot be segmented; returns its folder."""
        target = self.failed / f"{study.name}_{time.strftime('%Y%m%d_%H%M%S')}_{token_hex(2)}"
        images = study / "images"
        if images.is_dir():
            images.rename(target)
        shutil.rmtree(study, ignore_errors=True)
        return target

    @staticmethod
    def _age_seconds(study: Path) -> float:
        newest = max((path.stat().st_mtime for path in [study, *study.rglob("*")]), default=0.0)
        return time.time() - newest


def _sync_folder(path: Path) -> None:
    """Writes the entries of a folder to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
