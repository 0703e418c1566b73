"""Scans without labels, segmented by all folds of a configuration: what is known of each, and kept until it changes.

The folder `unlabelled` of a model has a segmentation and a record for each scan that was compared. Pseudo-labels and
suggestions both read them, so that neither predicts again what the other has predicted, nor what was there before a
stop.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.scan_images import read_scan
from autoseg.datasets.scans import check_channels, result_ending
from autoseg.errors import ArtifactError, AutosegError, UsageError, WriteError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_files import save_result
from autoseg.inference.fold_comparison import compare_folds
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.scan_records import FileState, states_of_scan
from autoseg.inference.segmenter import Segmenter
from autoseg.model_selection.validation import list_validated_folds
from autoseg.runtime.artifact import Artifact, Score
from autoseg.runtime.forks import calculation
from autoseg.runtime.prefetch import prefetch
from autoseg.runtime.reporting import Reporter, describe_item, log_line
from autoseg.workspace import Fold, ModelFolder

RECORDS = ".compared"
"""Subfolder with the record of each scan."""


class ComparedScan(Artifact):
    """What the folds of a model found in a scan without a label.

    Attributes:
        case: Name of the scan.
        model: Digests of the folds; see `Segmenter.digest`.
        files: State of the files of the scan when it was read.
        segmentation: Name of the file, or folder of masks, of the mean segmentation.
        agreement, fold_agreement: See `inference.fold_comparison`.
        descriptor: See `inference.descriptor`.
    """

    case: str
    model: tuple[str, ...]
    files: tuple[FileState, ...]
    segmentation: str
    agreement: Score
    fold_agreement: Score
    descriptor: tuple[float, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no structure was found."""
        return math.isnan(self.fold_agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldModel:
    """The folds of a trained configuration, each as a segmenter of its own.

    Attributes:
        folder: The model folder.
        folds: Numbers of the folds.
        segmenters: A segmenter for each fold.
    """

    folder: ModelFolder
    folds: tuple[Fold, ...]
    segmenters: tuple[Segmenter, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """A digest of each fold, which changes with its weights and its postprocessing."""
        return tuple(segmenter.digest for segmenter in self.segmenters)


def load_folds(folder: ModelFolder, device: str) -> FoldModel:
    """Loads the folds of a configuration that are trained and validated.

    Raises:
        UsageError: They are fewer than two.
        ModelError: One of them is damaged.
    """
    folds = list_validated_folds(folder)
    if len(folds) < 2:
        count = "one fold" if folds else "no fold"
        what = f"{folder.path} holds {count} that is trained and validated, and folds are to be compared"
        raise UsageError(what, "train several to their end with 'autoseg train -f cv'")
    segmenters = [load_segmenter(folder.path, PredictionOptions(folds=[fold], device=device)) for fold in folds]
    kept = tuple(segmenter for segmenter in segmenters if isinstance(segmenter, Segmenter))
    return FoldModel(folder=folder, folds=tuple(folds), segmenters=kept)


def compare_scans(model: FoldModel, scans: Sequence[Case], reporter: Reporter) -> tuple[list[ComparedScan], list[str]]:
    """Segments scans by each fold, unless that was done before; one that cannot be segmented does not stop the others.

    Args:
        model: The folds.
        scans: Cases without labels.
        reporter: Shows progress.

    Returns:
        What is known of each scan that could be segmented; and a line for each of the others.

    Raises:
        WriteError: The folder of the model cannot be written.
    """
    folder, digests = model.folder.unlabelled, model.digests
    known = {scan.name: record for scan in scans if (record := _load_record(folder, scan, digests)) is not None}
    if known:
        reporter.say(f"{len(known)} of {len(scans)} scans were segmented by an earlier run")
    waiting = [scan for scan in scans if scan.name not in known]
    problems: list[str] = []
    read = prefetch(_catching(lambda scan: _read(scan, model)), waiting)
    with (
        calculation(model.segmenters[0].device.type),
        reporter.task("segmenting by each fold", len(waiting)) as task,
        closing(read) as images,
    ):
        for number, (scan, image) in enumerate(zip(waiting, images, strict=True), start=1):
            result = image if isinstance(image, AutosegError) else _compare(scan, image, model, task.advance)
            problem = str(result) if isinstance(result, AutosegError) else None
            log_line(reporter, describe_item("segmenting", number, len(waiting), scan.name, problem))
            if isinstance(result, AutosegError):
                problems.append(f"case {scan.name!r}: {problem}")
            else:
                known[scan.name] = result
    return [known[scan.name] for scan in scans if scan.name in known], problems


def _catching(read: Callable[[Case], Volume]) -> Callable[[Case], Volume | AutosegError]:
    """Makes a function return its error, so that it stops nothing but its own scan."""

    def catch(scan: Case) -> Volume | AutosegError:
        try:
            return read(scan)
        except AutosegError as error:
            return error

    return catch


def _read(scan: Case, model: FoldModel) -> Volume:
    check_channels(scan, model.segmenters[0].info)
    return read_scan(scan)


def _compare(
    scan: Case, image: Volume, model: FoldModel, advance: Callable[[float], None]
) -> ComparedScan | AutosegError:
    """Segments a scan, and writes the segmentation and then the record."""
    folder, files = model.folder.unlabelled, states_of_scan(scan)
    try:
        comparison = compare_folds(model.segmenters, image, advance)
        path, _, _ = save_result(comparison.prediction, folder / (scan.name + result_ending(scan)))
    except WriteError:
        raise
    except AutosegError as error:
        return error
    record = ComparedScan(
        case=scan.name,
        model=model.digests,
        files=files,
        segmentation=path.name,
        agreement=comparison.agreement,
        fold_agreement=comparison.fold_agreement,
        descriptor=tuple(round(float(value), 5) for value in comparison.descriptor),
    )
    record.save(_record_file(folder, scan))
    return record


def _load_record(folder: Path, scan: Case, digests: tuple[str, ...]) -> ComparedScan | None:
    """Returns what the same folds found in the same files; None if they, or the segmentation, are others."""
    with suppress(ArtifactError):  # the file is missing, or was written by another version
        record = ComparedScan.load(_record_file(folder, scan))
        is_current = record.model == digests and record.files == states_of_scan(scan)
        if is_current and (folder / record.segmentation).exists():
            return record
    return None


def _record_file(folder: Path, scan: Case) -> Path:
    return folder / RECORDS / f"{scan.name}.json"
