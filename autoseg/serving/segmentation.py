"""An upload, segmented: the same steps as in the command `predict`, within limits, and given up when nobody waits."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import Event
from typing import Any

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.scan_images import find_grid
from autoseg.datasets.scans import DICOM_FOLDER, find_scans
from autoseg.dicom.detection import ZIP_ENDING
from autoseg.dicom.search import unpacked
from autoseg.errors import AutosegError, ImageError
from autoseg.imaging.image_headers import read_image_header
from autoseg.inference.dicom_objects import OBJECT_KINDS, choose_objects
from autoseg.inference.interfaces import ImageSegmenter, ResultWriter
from autoseg.inference.prediction_time import find_network_shape, list_networks
from autoseg.inference.result_writers import write_beside
from autoseg.inference.scan_pipeline import ScanReport, ScansToSegment, segment_each
from autoseg.runtime.forks import calculation
from autoseg.runtime.printable import printable
from autoseg.runtime.reporting import Task
from autoseg.serving.archives import check_archive
from autoseg.serving.limits import Limits, Refusal
from autoseg.serving.uploads import NAME, Upload

PROGRAM = f"autoseg {__version__}"

NO_OBJECT = "none"
DICOM_CHOICES = (*OBJECT_KINDS, NO_OBJECT)
"""What becomes of a scan in DICOM beside a NIfTI file: an object, or nothing."""


class _DroppedError(AutosegError):
    """Ends a scan between two batches of tiles, since its result is no longer wanted."""


class _Droppable:
    """A reporter and its task: shows nothing, and ends the work at its next step once it was dropped."""

    def __init__(self, dropped: Event) -> None:
        self._dropped = dropped

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:  # noqa: ARG002 - the protocol's names
        """Opens the task."""
        yield self

    def advance(self, units: float = 1) -> None:  # noqa: ARG002 - likewise
        """Ends the work if it was dropped."""
        if self._dropped.is_set():
            raise _DroppedError("nobody waits for this scan any more", "send it again")

    def say(self, line: str) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The result of an upload.

    Attributes:
        folder: Folder of the files.
        files: All files, as paths in the folder.
        masks: The file that answers for the scan, of each scan: the DICOM object, else the label map or masks.
        report: Model, volumes, agreement and remarks, for JSON.
    """

    folder: Path
    files: tuple[Path, ...]
    masks: tuple[Path, ...]
    report: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSegmenter:
    """Segments uploads with a model that is in memory.

    Attributes:
        segmenter: The model.
        limits: How large scans may be.
    """

    segmenter: ImageSegmenter
    limits: Limits

    def describe_model(self) -> dict[str, Any]:
        """Returns what people may want to know of the model, for JSON."""
        info = self.segmenter.info
        return {
            "model": self.segmenter.dataset,
            "digest": self.segmenter.digest,
            "program": PROGRAM,
            "channels": list(info.channel_names.values()),
            "labels": list(info.targets.names),
            "labels_overlap": info.targets.as_masks,
            "largest_upload_bytes": self.limits.upload_bytes,
            "most_voxels": self.limits.voxels,
            "most_waiting": self.limits.waiting,
        }

    def segment(self, upload: Upload, output: Path, dicom: str, dropped: Event) -> Segmentation:
        """Segments an upload.

        Args:
            upload: The upload.
            output: An empty folder for the results.
            dicom: What is written of a scan in DICOM beside a NIfTI file, of `DICOM_CHOICES`.
            dropped: Set when the result is no longer wanted.

        Raises:
            Refusal: It cannot be segmented, or is too large; or it was dropped.
        """
        started = time.perf_counter()
        output.mkdir()
        with upload.named(output):
            if upload.source.suffix == ZIP_ENDING:
                check_archive(upload.source, self.limits)
            with unpacked(upload.source) as opened, upload.named(opened, output):
                scans = self._find_scans(opened, upload)
                kinds = (dicom,) if scans[0].series and dicom != NO_OBJECT else ()
                objects = choose_objects(kinds, self.segmenter, scans)
                reports = self._segment(scans, output, () if objects is None else (objects,), dropped)
                self._check(reports, upload, (opened, output))
        files = tuple(sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file()))
        return Segmentation(
            folder=output,
            files=files,
            masks=tuple(path for path in files if path.parts[0] == DICOM_FOLDER) or files,
            report={
                "model": self.segmenter.dataset,
                "digest": self.segmenter.digest,
                "program": PROGRAM,
                "seconds": round(time.perf_counter() - started, 3),
                "scans": [_describe(report, output, files) for report in reports],
            },
        )

    def _find_scans(self, opened: Path, upload: Upload) -> list[Case]:
        """Finds the scans of an upload and checks their sizes; those of DICOM files get names of the server's own."""
        scans = find_scans(opened, self.segmenter.info, upload.choice)
        for scan in scans:
            self._check_voxels(scan)
        if not scans[0].series:
            return scans
        return [
            replace(scan, name=f"{NAME}_{number}" if len(scans) > 1 else NAME) for number, scan in enumerate(scans, 1)
        ]

    def _segment(
        self, scans: Sequence[Case], output: Path, writers: Sequence[ResultWriter], dropped: Event
    ) -> list[ScanReport]:
        maps: dict[str, dict[int, str]] = {scan.name: {} for scan in scans}
        turns = ScansToSegment(turns=((scan, None) for scan in scans), most=len(scans))
        reporter = _Droppable(dropped)
        with calculation(self.segmenter.device.type):
            segmented = segment_each(self.segmenter, turns, output, maps, reporter, begin=lambda: None)
            reports = list(write_beside(writers, segmented, {scan.name: scan for scan in scans}, output, maps))
        if dropped.is_set():
            raise Refusal(503, "the server is ending; send the scan again when it is back", {"Retry-After": "10"})
        return reports

    def _check(self, reports: Sequence[ScanReport], upload: Upload, folders: Sequence[Path]) -> None:
        """Refuses an upload of which a scan was not segmented."""
        problems = [report.problem for report in reports if report.problem is not None]
        if problems:
            raise Refusal(422, "\n".join(upload.name_files(problem, *folders) for problem in dict.fromkeys(problems)))

    def _check_voxels(self, scan: Case) -> None:
        """Refuses a scan by its headers before a voxel is read, as it is stored or as a network would see it.

        Raises:
            ImageError: It has more voxels than `Limits.voxels`, or its header cannot be read.
        """
        if scan.series:
            stored = sum(len(series.frames) * prod(series.frames[0].size) for series in scan.series)
        else:
            headers = [read_image_header(path) for path in scan.images]
            stored = sum(prod(header.shape) * (header.volumes or 1) * header.components for header in headers)
        self._check_number(stored, scan, "")
        grid = find_grid(scan)
        for part in list_networks(self.segmenter):
            seen = prod(find_network_shape(part, *grid)) * self.segmenter.info.channels
            self._check_number(seen, scan, " at the spacing of the model")

    def _check_number(self, voxels: int, scan: Case, where: str) -> None:
        if voxels > self.limits.voxels:
            what = f"{scan.images[0]} has {voxels} voxels{where}, and this server takes {self.limits.voxels} at most"
            raise ImageError(what, "crop it, or ask whoever runs the server")


def _describe(report: ScanReport, output: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Returns what is known of the segmentation of a scan, for JSON."""
    result = output if report.result is None else report.result.relative_to(output)
    own_files = [
        path.as_posix()
        for path in files
        if result in (path, *path.parents)
        or (path.parts[0] == DICOM_FOLDER and path.name.startswith(f"{report.name}_"))
    ]
    return {
        "name": report.name,
        "volumes_ml": {name: float(f"{volume:.6g}") for name, volume in report.volumes_ml.items()},
        "agreement": None if math.isnan(report.agreement) else round(report.agreement, 4),
        "remarks": [printable(remark) for remark in report.remarks],
        "files": own_files,
    }
