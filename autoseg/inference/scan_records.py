"""What a folder of segmentations knows of each scan: .report/CASE.json, from which report.csv is made.

Each scan has a file of its own, which is written whole or not at all, after the segmentation. So several machines may
share the folder, also on a network drive that has no locks: none of them writes into a file of another one, unless both
segment the same scan. A run that is killed between a segmentation and its file leaves a scan that counts as not
segmented, and which the next run segments again.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.errors import ArtifactError
from autoseg.runtime.artifact import Artifact, atomic_file, state_of_files
from autoseg.runtime.lock import change_alone

FOLDER_NAME = ".report"

FileState = tuple[str, int, int]
"""Name of a file, its size in bytes, and the time of its last change in nanoseconds."""


class ScanRecord(Artifact):
    """What is known of a scan that a run has come to.

    Attributes:
        case: Name of the scan.
        segmented: Whether it was segmented; else the remarks of its row say why not.
        program: Version of autoseg.
        model: Digest of the model and the options that change a segmentation; see `Segmenter.digest`.
        files: State of each file of the scan when it was read.
        images: Path of each image file of the scan, of a series in DICOM that of the first slice; empty in records of
            versions that did not keep them. A report finds the scan by them.
        time_point: Which volume of the file is the scan, from 0; None if the file is no series over time.
        maps: Paths of the maps that were written too, from the folder of the segmentations on.
        row: Row in report.csv: name of each column to its text.
    """

    case: str
    segmented: bool
    program: str
    model: str
    files: tuple[FileState, ...]
    images: tuple[str, ...] = ()
    time_point: int | None = None
    maps: tuple[str, ...] = ()
    row: Mapping[str, str]


class ScanRecords:
    """The records of a folder of segmentations.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> record = ScanRecord(case="a", segmented=True, program="1", model="0123", files=(), row={"case": "a"})
        >>> with TemporaryDirectory() as folder:
        ...     records = ScanRecords(Path(folder))
        ...     records.save(record)
        ...     records.load("a").model, records.load("b"), [name for name, _ in records.states()]
        ('0123', None, ['a'])
    """

    def __init__(self, output: Path) -> None:
        self._folder = output / FOLDER_NAME

    @property
    def exist(self) -> bool:
        """Whether any run has kept records here; earlier versions did not."""
        return self._folder.is_dir()

    def save(self, record: ScanRecord) -> None:
        """Writes the record of a scan in place of an earlier one; it need not survive a power cut.

        Raises:
            WriteError: The folder cannot be written.
        """
        with atomic_file(self._path(record.case), durable=False) as writing:
            writing.write_text(record.to_json(), encoding="utf-8", newline="\n")

    def load(self, case: str) -> ScanRecord | None:
        """Reads the record of a scan; None if there is none, or one that a power cut or another version damaged."""
        try:
            return ScanRecord.load(self._path(case))
        except ArtifactError:
            return None

    def states(self) -> tuple[tuple[str, FileState], ...]:
        """Returns the name of each scan that has a record, and the state of the record's file; ordered by name."""
        paths = sorted(self._folder.glob("[!.]*.json"))
        return tuple((state[0].removesuffix(".json"), state) for state in state_of_files(paths))

    def written_alone(self) -> AbstractContextManager[None]:
        """Lets runs that write a table of the records do so one after the other; see `change_alone`.

        Raises:
            UsageError: Another run has been writing it for twenty seconds.
            WriteError: The folder cannot be written.
        """
        return change_alone(self._folder / "table")

    def _path(self, case: str) -> Path:
        return self._folder / f"{case}.json"


def states_of_scan(scan: Case) -> tuple[FileState, ...]:
    """Returns the state of each file of a scan, in DICOM that of each slice.

    Decision: size and time of change are compared rather than content, which takes as long to read as the scan. A copy
    that has another time counts as another scan, and is segmented again.
    """
    slices = dict.fromkeys(frame.path for series in scan.series for frame in series.frames)
    straightened = (("straightened", 0, 0),) if any(series.straighten for series in scan.series) else ()
    return (*state_of_files(slices or scan.files), *straightened)
