"""Studies of a queue, segmented one after the other and stored back."""

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from autoseg.dicom.quiet import quietly
from autoseg.errors import AutosegError, ImageError, TransferError, WriteError
from autoseg.pacs.peers import Peer, TlsFiles
from autoseg.pacs.received import StudyQueue
from autoseg.pacs.sending import send_files
from autoseg.runtime.artifact import atomic_folder

Segment = Callable[[Path, Path], Sequence[Path]]
"""Segments the folder of a series, or of a study, into a folder; returns the objects that it has written there."""

RETRY_SECONDS = 60.0
"""Time after which objects are sent again that an archive did not take. Decision: it may be restarting."""


MOST_TRIES = 5
"""Times that the segmentation of a study is begun. Decision: one for which the memory is too small, which ends the
program, does not keep others waiting for ever; and nobody restarts a service so often within one study."""

REMARKS = "remarks.txt"
"""File beside the objects of a study that says which series have none."""

NO_IMAGES = frozenset({"SEG", "RTSTRUCT", "SR", "PR", "KO", "RTDOSE", "RTPLAN", "DOC", "REG"})
"""Modalities of objects that are never segmented, such as those that come back from the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which series are segmented.

    Attributes:
        modality: Modality, such as "CT"; empty takes all that have images.
        description: Pattern of the series description, such as "ax t2*"; small and capital letters are the same.
        channels: Patterns of the descriptions of the series that are channels of one scan, in their order; empty for
            a model of one channel, which segments each series by itself.
    """

    modality: str = ""
    description: str = "*"
    channels: tuple[str, ...] = ()

    def matches(self, modality: str, description: str) -> bool:
        """Returns whether a series is segmented.

        Example:
            >>> Rule(modality="MR", description="t2*").matches("MR", "T2 axial")
            True
        """
        wanted = self.modality == modality if self.modality else modality not in NO_IMAGES
        return wanted and _fits(description, self.description)

    def choose(self, images: Path) -> list[Path]:
        """Returns what is segmented of a study: the folders of series, or that of the study if they are channels.

        A study that has the series of no channel does not count.

        Args:
            images: Folder of the study, with a folder for each series.
        """
        described = [(path, *_describe_series(path)) for path in sorted(images.iterdir())]
        if not self.channels:
            return [path for path, modality, description in described if self.matches(modality, description)]
        texts = [description for _, modality, description in described if modality not in NO_IMAGES]
        return [images] if any(_fits(text, pattern) for text in texts for pattern in self.channels) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where objects are stored.

    Attributes:
        target: Address of a DICOMweb service, or a DICOM application.
        title: AE title of this program.
        tls: Certificates of an encrypted connection.
    """

    target: str | Peer
    title: str = "AUTOSEG"
    tls: TlsFiles | None = None


class StudyWorker:
    """Segments the studies of a queue and stores the objects.

    Args:
        queue: The queue.
        rule: Which series are segmented.
        segment: Segments a series.
        destination: Where objects are stored.
        say: Gets one line for each study.
    """

    def __init__(
        self, queue: StudyQueue, rule: Rule, segment: Segment, destination: Destination, say: Callable[[str], None]
    ) -> None:
        self._queue, self._rule, self._segment = queue, rule, segment
        self._destination, self._say = destination, say
        self._retry_at: dict[str, float] = {}

    def work(self, settle_seconds: float) -> None:
        """Works on all studies that wait; one that cannot be segmented or stored does not stop the others.

        Args:
            settle_seconds: Time without a further file after which a study counts as complete.

        Raises:
            WriteError: The disk is full; the study waits.
        """
        for study in self._queue.waiting(settle_seconds):
            if self._retry_at.get(study.name, 0.0) > time.monotonic():
                continue
            started = time.perf_counter()
            try:
                line = self._work_on(study)
            except TransferError as error:
                self._retry_at[study.name] = time.monotonic() + RETRY_SECONDS
                line = f"waits, and is sent again in {RETRY_SECONDS:.0f} s: {error}"
            except WriteError:
                raise
            except AutosegError as error:
                line = f"failed, and lies in {self._queue.fail(study)}: {' '.join(str(error).split())}"
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault of the program must not stop it at each restart again
                line = self._put_aside(study, error)
            self._say(f"study {study.name}: {line} ({time.perf_counter() - started:.0f} s)")

    def _put_aside(self, study: Path, error: Exception) -> str:
        """Puts a study aside on which the program itself failed, with what a developer needs; returns the line."""
        folder = self._queue.fail(study)
        report = folder.with_name(f"{folder.name}.txt")
        report.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"failed by a fault of the program, and lies in {folder}; please report {report}: {reason}"

    def _work_on(self, study: Path) -> str:
        """Segments a study unless an earlier process has, and stores its objects; returns what was done."""
        objects = study / "objects"
        if not objects.is_dir():
            if (tries := self._queue.count_try(study)) > MOST_TRIES:
                what = f"the program ended {tries - 1} times while the study was segmented"
                raise ImageError(what, "look whether the memory of the machine is enough, and segment it by itself")
            with atomic_folder(objects) as writing:
                self._segment_all(study / "images", writing)
        files, remarks = sorted(objects.glob("*.dcm")), (objects / REMARKS).read_text(encoding="utf-8")
        if files:
            send_files(files, self._destination.target, title=self._destination.title, tls=self._destination.tls)
        self._queue.finish(study)
        return (
            f"{len(files)} objects stored at {self._destination.target}{remarks}" if files else "no series to segment"
        )

    def _segment_all(self, images: Path, folder: Path) -> None:
        """Segments the series that the rule takes into a folder, and notes those that cannot be segmented.

        Raises:
            AutosegError: None of them can be segmented.
        """
        chosen = self._rule.choose(images)
        errors: list[AutosegError] = []
        for number, path in enumerate(chosen):
            work = folder / "work"
            try:
                for made in self._segment(path, work):
                    made.replace(folder / f"{number}_{made.name}")
            except WriteError:
                raise
            except AutosegError as error:
                errors.append(error)
            shutil.rmtree(work, ignore_errors=True)
        if errors and len(errors) == len(chosen):
            raise errors[0]
        remarks = "".join(f"; left out: {' '.join(str(error).split())}" for error in errors)
        (folder / REMARKS).write_text(remarks, encoding="utf-8")


def _fits(description: str, pattern: str) -> bool:
    return fnmatchcase(description.lower(), pattern.lower())


def _describe_series(folder: Path) -> tuple[str, str]:
    """Returns modality and description of the series in a folder; empty if its first file does not state them."""
    from pydicom import dcmread

    path = min(folder.iterdir())
    with quietly():
        header = dcmread(path, specific_tags=["Modality", "SeriesDescription"], stop_before_pixels=True, force=True)
        return str(header.get("Modality") or ""), str(header.get("SeriesDescription") or "")
