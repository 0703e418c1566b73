"""Scans on disk, segmented in a line: while one is written, the network sees the next, and a third is read."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import torch

from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER, check_channels, result_ending
from autoseg.errors import AutosegError, WriteError
from autoseg.imaging.files import read_image, write_probabilities
from autoseg.imaging.label_files import save_result
from autoseg.inference.interfaces import ImagePrediction, ImageSegmenter, PreparedImage
from autoseg.inference.quality_checks import Look, make_remarks, measure_volumes
from autoseg.inference.sliding_window import OnProgress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.runtime.device import memory_named
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.prefetch import prefetch
from autoseg.runtime.reporting import Reporter

CPU = torch.device("cpu")

SHARE_FOR_TWO = 0.25
"""Of the free memory: what takes more is not gathered while the former result is still written. Decision: that needs
its own logits, and some volumes of full resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What became of a scan.

    Attributes:
        name: Of the scan.
        seconds: That reading, predicting and writing took; those of several scans overlap.
        result: The segmentation, if there is one.
        problem: Why there is none.
        volumes_ml: Of each structure that was looked for, by name.
        agreement: Of folds and mirror images, 0 to 1; NaN if it is not known. See `inference.agreement`.
        remarks: What looks unlike training, in the scan or in the result.
    """

    name: str
    seconds: float
    result: Path | None = None
    problem: str | None = None
    volumes_ml: dict[str, float] = field(default_factory=dict)
    agreement: float = math.nan
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A scan on its way through the line."""

    scan: Case
    seconds: float = 0.0
    prepared: PreparedImage | None = None
    look: Look | None = None
    prediction: ImagePrediction | None = None
    problem: str | None = None


class _Dismissed(Exception):  # noqa: N818 - no error: nobody wants the result any more
    """Ends the work on a scan between two batches of tiles."""


def segment_each(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    maps: Mapping[str, Mapping[int, str]],
    reporter: Reporter,
    *,
    begin: Callable[[], None],
) -> Iterator[ScanReport]:
    """Segments scans and writes the results; one that cannot be segmented does not stop the others.

    Reading and preparing, the network, and what follows it have a thread each. If two scans do not fit into the memory,
    the network waits until the former result is written.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder for the results.
        maps: Of each scan, the outputs whose probabilities are written too, and the files for them.
        reporter: Shows progress.
        begin: Called once, before the first result is written.

    Yields:
        What became of each scan, in their order, once it is on disk.

    Raises:
        WriteError: The folder cannot be written, or the disk is full, which every other scan would meet too.
    """
    dismissed = Event()
    with reporter.task("segmenting", total=len(scans)) as task:

        def advance(share: float) -> None:
            if dismissed.is_set():
                raise _Dismissed
            task.advance(share)

        prepared = prefetch(_stage(lambda step: _prepare(segmenter, step)), (_Step(scan=scan) for scan in scans))
        predicted = prefetch(_stage(lambda step: _predict(step, advance)), prepared, apart=_is_large)
        with closing(predicted) as steps:
            is_first = True
            try:
                for step in steps:
                    if is_first and step.problem is None:
                        begin()
                        is_first = False
                    yield _write(step, output, maps[step.scan.name], segmenter.statistics)
            finally:
                dismissed.set()


def _stage(work: Callable[[_Step], _Step]) -> Callable[[_Step], _Step]:
    """Passes over what failed before, and keeps the problem and the time of each step."""

    def do(step: _Step) -> _Step:
        if step.problem is not None:
            return step
        started = time.perf_counter()
        try:
            with memory_named(CPU, "close other programs, or take a machine with more memory"):
                step = work(step)
        except WriteError:
            raise
        except AutosegError as error:
            step = _Step(scan=step.scan, seconds=step.seconds, problem=str(error))
        return replace(step, seconds=step.seconds + time.perf_counter() - started)

    return do


def _prepare(segmenter: ImageSegmenter, step: _Step) -> _Step:
    check_channels(step.scan, segmenter.info)
    image, statistics = read_image(step.scan.images), segmenter.statistics
    look = None if statistics is None else Look.at(image, statistics)
    return replace(step, prepared=segmenter.prepare(image), look=look)


def _is_large(step: _Step) -> bool:
    free = free_memory_bytes()
    return free is not None and step.prepared is not None and step.prepared.logits_bytes > SHARE_FOR_TWO * free


def _predict(step: _Step, on_progress: OnProgress) -> _Step:
    prediction = None if step.prepared is None else step.prepared.predict(on_progress)
    return replace(step, prepared=None, prediction=prediction)


def _write(
    step: _Step, output: Path, maps: Mapping[int, str], statistics: TrainingStatistics | None = None
) -> ScanReport:
    """Writes all maps, and then the segmentation: where one is, the maps of its scan are complete."""
    name = step.scan.name + result_ending(step.scan)
    report = ScanReport(name=step.scan.name, seconds=0.0)

    def save(step: _Step) -> _Step:
        nonlocal report
        if step.prediction is not None:
            for volume, map_name in zip(step.prediction.probabilities(list(maps)), maps.values(), strict=True):
                write_probabilities(output / PROBABILITIES_FOLDER / map_name, volume)
            disagreement = step.prediction.disagreement()
            if disagreement is not None:
                write_probabilities(output / DISAGREEMENT_FOLDER / name, disagreement)
            path, segmentation, known = save_result(step.prediction, output / name)
            volumes_mm3 = measure_volumes(segmentation, known, segmentation.geometry.voxel_size)
            agreement = step.prediction.agreement
            report = replace(
                report,
                result=path,
                volumes_ml={name: volume / 1000 for name, volume in volumes_mm3.items()},
                agreement=agreement.score,
                remarks=tuple(make_remarks(statistics, step.look, volumes_mm3, agreement.structures)),
            )
        return step

    step = _stage(save)(step)
    return replace(report, seconds=step.seconds, problem=step.problem)
