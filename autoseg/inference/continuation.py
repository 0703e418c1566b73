"""Which scans of a folder are segmented already, by this very model, as they are now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER, result_ending
from autoseg.imaging.label_files import result_path
from autoseg.inference.interfaces import ImageSegmenter, ResultWriter
from autoseg.inference.report import read_tables
from autoseg.inference.result_writers import list_files
from autoseg.inference.scan_records import ScanRecord, ScanRecords, states_of_scan
from autoseg.runtime.artifact import Artifact
from autoseg.runtime.reporting import Reporter, list_names

PROVENANCE_FILE = "prediction.json"


class PredictionProvenance(Artifact):
    """The model that made the latest segmentations of a folder; prediction.json. Each scan has a `ScanRecord` as well.

    Attributes:
        program: Version of autoseg.
        dataset: Name of the dataset that the model was trained on.
        model: Digest of the networks, their plan and their postprocessing; see `Segmenter.digest`.
        postprocessing: Description of the postprocessing.
    """

    program: str
    dataset: str
    model: str
    postprocessing: str

    @classmethod
    def of(cls, segmenter: ImageSegmenter) -> Self:
        """Returns the provenance of the segmentations of a model."""
        return cls(
            program=__version__,
            dataset=segmenter.dataset,
            model=segmenter.digest,
            postprocessing=segmenter.rules.describe(),
        )

    def is_in(self, output: Path) -> bool:
        """Returns whether the latest segmentations in a folder were made by this model."""
        path = output / PROVENANCE_FILE
        return path.is_file() and PredictionProvenance.load(path).model == self.model


def list_maps(scan: Case, maps: Mapping[int, str], *, with_disagreement: bool) -> tuple[str, ...]:
    """Returns the paths of the maps that a run writes for a scan, from the folder of the segmentations on.

    Args:
        scan: The scan.
        maps: Outputs whose probabilities are written, to the names of their files.
        with_disagreement: Whether the map of disagreement is written too.

    Example:
        >>> list_maps(Case(name="a", images=(Path("a.nii.gz"),)), {1: "a_liver.nii.gz"}, with_disagreement=True)
        ('probabilities/a_liver.nii.gz', 'disagreement/a.nii.gz')
    """
    disagreement = (f"{DISAGREEMENT_FOLDER}/{scan.name}{result_ending(scan)}",) if with_disagreement else ()
    return (*(f"{PROBABILITIES_FOLDER}/{name}" for name in maps.values()), *disagreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingScans:
    """The scans that a run with --continue has to segment.

    Attributes:
        scans: Those that lack a result of this model, or a map that is asked for.
        finished: Number of the others.
        replaced: Names of scans whose files changed after they were segmented.
        outdated: Names of scans that another model segmented, or this one with other options.
    """

    scans: list[Case] = field(default_factory=list)
    finished: int = 0
    replaced: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """Returns a line about the scans that are finished, and about each reason for which others are not."""
        every = self.finished + len(self.scans)
        lines = [f"{self.finished} of {every} scans are segmented already"] if self.finished else []
        for names, reason in (
            (self.replaced, "their files were changed or replaced afterwards"),
            (self.outdated, "another model or other options (folds, quality, precision, postprocessing) were used"),
        ):
            if names:
                lines.append(f"segmented again, since {reason}: {list_names(names)}")
        return lines


def leave_out_finished(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    maps: Mapping[str, Mapping[int, str]],
    reporter: Reporter,
    writers: Sequence[ResultWriter] = (),
) -> list[Case]:
    """Returns the scans that a run has to segment which goes on with the work of others; see `find_waiting`.

    Says how many are left out, and why scans that have a result are not.
    """
    waiting = find_waiting(segmenter, scans, output, maps, writers)
    for line in waiting.describe():
        reporter.say(line)
    return waiting.scans


def find_waiting(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    maps: Mapping[str, Mapping[int, str]],
    writers: Sequence[ResultWriter] = (),
) -> WaitingScans:
    """Finds the scans that a run has to segment which goes on with the work of others.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder of the results. A file that is there is complete, since each is written as a whole or not at all.
        maps: Name of a scan, to the outputs whose probabilities are asked for, to the names of their files.
        writers: What writes further files that are asked for.
    """
    records, model, waiting, finished = ScanRecords(output), segmenter.digest, WaitingScans(), 0
    previous = _list_finished_before_records(segmenter, scans, output) if not records.exist else frozenset()
    for scan in scans:
        wanted = list_maps(scan, maps[scan.name], with_disagreement=segmenter.maps_disagreement)
        wanted += list_files(writers, scan, maps[scan.name])
        files = [_result_of(scan, output, segmenter), *(output / path for path in wanted)]
        record = records.load(scan.name)
        is_sound = scan.name in previous or (
            record is not None and record.segmented and _is_current(record, scan, model, wanted, waiting)
        )
        if is_sound and all(path.exists() for path in files):
            finished += 1
        else:
            waiting.scans.append(scan)
    return WaitingScans(scans=waiting.scans, finished=finished, replaced=waiting.replaced, outdated=waiting.outdated)


def _is_current(record: ScanRecord, scan: Case, model: str, maps: Sequence[str], waiting: WaitingScans) -> bool:
    """Returns whether a result is of this scan and model, with these maps; notes why not, if a user may wonder."""
    if record.model != model:
        waiting.outdated.append(scan.name)
        return False
    if record.files != states_of_scan(scan):
        waiting.replaced.append(scan.name)
        return False
    return set(maps) <= set(record.maps)


def _list_finished_before_records(segmenter: ImageSegmenter, scans: Sequence[Case], output: Path) -> frozenset[str]:
    """Returns the names of scans that a version without records has segmented with this model, and put into a table."""
    if not PredictionProvenance.of(segmenter).is_in(output):
        return frozenset()
    since = (output / PROVENANCE_FILE).stat().st_mtime_ns
    rows = read_tables(output)
    results = {scan.name: _result_of(scan, output, segmenter) for scan in scans if scan.name in rows}
    return frozenset(name for name, path in results.items() if path.exists() and path.stat().st_mtime_ns >= since)


def _result_of(scan: Case, output: Path, segmenter: ImageSegmenter) -> Path:
    return result_path(output / (scan.name + result_ending(scan)), segmenter.info.targets)
