"""Scans on disk, segmented by a pipeline: while one result is written, the next scan is predicted, a third one read."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from autoseg.datasets.dataset import Case
from autoseg.datasets.scan_images import read_scan
from autoseg.datasets.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER, check_channels, result_ending
from autoseg.errors import AutosegError, WriteError
from autoseg.imaging.image_files import write_probabilities
from autoseg.imaging.label_files import save_result
from autoseg.inference.crop import Crop
from autoseg.inference.interfaces import ImagePrediction, ImageSegmenter, PreparedImage
from autoseg.inference.quality_checks import ImageProperties, check_quality
from autoseg.inference.scan_records import FileState, states_of_scan
from autoseg.inference.sliding_window import OnProgress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.runtime.full_memory import memory_named
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.prefetch import prefetch
from autoseg.runtime.reporting import Reporter

SHARE_FOR_TWO = 0.25
"""Share of the free memory. Logits that take more are not computed while the result before them is still written.
Decision: writing needs its own logits, and some volumes of full resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScansToSegment:
    """The scans of a run.

    Attributes:
        turns: Cases without labels, each with the reason if it cannot be segmented; asked for one by one.
        most: Number of scans, at most.
    """

    turns: Iterable[tuple[Case, AutosegError | None]]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """The outcome of the segmentation of one scan.

    Attributes:
        name: Name of the scan.
        seconds: Time that reading, predicting and writing took; those of several scans overlap.
        result: Path of the segmentation; None if there is none.
        problem: Why there is none.
        volumes_ml: Name of each structure that was predicted to its volume.
        agreement: Agreement of folds and mirror images, 0 to 1; NaN if it is not known. See `agreement`.
        remarks: What looks unlike training, in the scan or in the result; see `quality_checks`.
        files: State of the files of the scan before they were read; see `states_of_scan`.
        crop: What of the scan was predicted, if a coarse model decided that.
    """

    name: str
    seconds: float
    result: Path | None = None
    problem: str | None = None
    volumes_ml: dict[str, float] = field(default_factory=dict)
    agreement: float = math.nan
    remarks: tuple[str, ...] = ()
    files: tuple[FileState, ...] = ()
    crop: Crop | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScanInProgress:
    """A scan on its way through the stages of the pipeline; see `ScanReport`."""

    scan: Case
    files: tuple[FileState, ...] = ()
    seconds: float = 0.0
    prepared: PreparedImage | None = None
    properties: ImageProperties | None = None
    prediction: ImagePrediction | None = None
    problem: str | None = None


class _CancelledError(Exception):
    """Ends the prediction of a scan between two batches of tiles, after its result is no longer needed."""


def segment_each(
    segmenter: ImageSegmenter,
    scans: ScansToSegment,
    output: Path,
    maps: Mapping[str, Mapping[int, str]],
    reporter: Reporter,
    *,
    begin: Callable[[], None],
) -> Iterator[ScanReport]:
    """Segments scans and writes the results; one that cannot be segmented does not stop the others.

    Reading and preprocessing, the network, and writing have a thread each. If two scans do not fit into the memory, the
    network waits until the result before it is written.

    Args:
        segmenter: The model.
        scans: The scans.
        output: Folder for the results.
        maps: Name of a scan, to the outputs whose probabilities are written too, to the names of their files.
        reporter: Shows progress.
        begin: Called once, before the first result is written.

    Yields:
        The report of each scan, in their order, once its result is on disk.

    Raises:
        WriteError: The folder cannot be written, or the disk is full, which would stop every other scan too.
    """
    cancelled = Event()
    with reporter.task("segmenting", total=scans.most) as task:

        def advance(share: float) -> None:
            if cancelled.is_set():
                raise _CancelledError
            task.advance(share)

        items = (
            _ScanInProgress(scan=scan, files=states_of_scan(scan), problem=None if problem is None else str(problem))
            for scan, problem in scans.turns
        )
        prepared = prefetch(_as_stage(lambda item: _prepare(segmenter, item)), items)
        predicted = prefetch(_as_stage(lambda item: _predict(item, advance)), prepared, apart=_is_large)
        with closing(predicted) as finished:
            is_first = True
            try:
                for item in finished:
                    if is_first and item.problem is None:
                        begin()
                        is_first = False
                    yield _write(item, output, maps[item.scan.name], segmenter.statistics)
            finally:
                cancelled.set()


def _as_stage(work: Callable[[_ScanInProgress], _ScanInProgress]) -> Callable[[_ScanInProgress], _ScanInProgress]:
    """Makes a stage of a function: it skips scans that failed before, and records the time and a problem."""

    def stage(item: _ScanInProgress) -> _ScanInProgress:
        if item.problem is not None:
            return item
        started = time.perf_counter()
        try:
            with memory_named(None, "close other programs, or take a machine with more memory"):
                item = work(item)
        except WriteError:
            raise
        except AutosegError as error:
            item = _ScanInProgress(scan=item.scan, files=item.files, seconds=item.seconds, problem=str(error))
        return replace(item, seconds=item.seconds + time.perf_counter() - started)

    return stage


def _prepare(segmenter: ImageSegmenter, item: _ScanInProgress) -> _ScanInProgress:
    """Reads and preprocesses a scan."""
    check_channels(item.scan, segmenter.info)
    image, statistics = read_scan(item.scan), segmenter.statistics
    properties = None if statistics is None else ImageProperties.of(image, statistics, item.scan.missing_channels)
    return replace(item, prepared=segmenter.prepare(image), properties=properties)


def _is_large(item: _ScanInProgress) -> bool:
    free = free_memory_bytes()
    return free is not None and item.prepared is not None and item.prepared.logits_bytes > SHARE_FOR_TWO * free


def _predict(item: _ScanInProgress, on_progress: OnProgress) -> _ScanInProgress:
    """Runs the networks on a scan."""
    prediction = None if item.prepared is None else item.prepared.predict(on_progress)
    return replace(item, prepared=None, prediction=prediction)


def _write(
    item: _ScanInProgress, output: Path, maps: Mapping[int, str], statistics: TrainingStatistics | None = None
) -> ScanReport:
    """Writes all maps, and then the segmentation: where one is, the maps of its scan are complete."""
    name = item.scan.name + result_ending(item.scan)
    report = ScanReport(name=item.scan.name, seconds=0.0, files=item.files)

    def save(item: _ScanInProgress) -> _ScanInProgress:
        nonlocal report
        if item.prediction is not None:
            for volume, map_name in zip(item.prediction.probabilities(list(maps)), maps.values(), strict=True):
                write_probabilities(output / PROBABILITIES_FOLDER / map_name, volume)
            disagreement = item.prediction.disagreement()
            if disagreement is not None:
                write_probabilities(output / DISAGREEMENT_FOLDER / name, disagreement)
            path, segmentation, targets = save_result(item.prediction, output / name)
            agreement = item.prediction.agreement
            check = check_quality(segmentation, targets, agreement.structures, statistics, item.properties)
            report = replace(
                report,
                result=path,
                volumes_ml=check.volumes_ml,
                agreement=agreement.score,
                remarks=(*check.remarks, *item.prediction.list_remarks(segmentation, targets)),
                crop=item.prediction.crop,
            )
        return item

    item = _as_stage(save)(item)
    return replace(report, seconds=item.seconds, problem=item.problem)
