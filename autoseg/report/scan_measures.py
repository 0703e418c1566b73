"""Measures of a segmented scan for a report: what predict recorded, and what its scan and its mask look like."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import nan

from autoseg.datasets.scan_images import read_scan
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_files import load_result
from autoseg.imaging.targets import Targets
from autoseg.inference.quality_checks import measure_volumes
from autoseg.report.case_pictures import draw_thumbnail
from autoseg.report.predictions import PredictedScan
from autoseg.report.segmented_scan import ScanMeasures
from autoseg.report.viewed_cases import split_channels
from autoseg.report.viewed_volumes import number_structures
from autoseg.report.viewer import ViewedCase, ViewedVolumes

NOT_SEGMENTED = "not segmented: "
"""Begin of the remarks of a scan without a mask. Source: `inference.report`."""

REMARKS = re.compile(r"; (?!it was turned for the model)")
"""What stands between two remarks of a row; the text after the negation is part of one. Source: `quality_checks`."""


def measure_scan(scan: PredictedScan, targets: Targets) -> ScanMeasures:
    """Measures a scan; what cannot be read is a problem of it, and ends nothing.

    Args:
        scan: What is known of the scan.
        targets: The structures of the model.
    """
    remarks = scan.row.get("remarks", "")
    if scan.mask is None:
        problem = remarks.removeprefix(NOT_SEGMENTED) or "its mask is not in the folder any more"
        text = f"{NOT_SEGMENTED}{problem}" if remarks.startswith(NOT_SEGMENTED) else problem
        return ScanMeasures(name=scan.name, problems=(text,), volumes_ml={})
    changed = ("its image files have changed since it was segmented",) if scan.is_changed else ()
    measures = ScanMeasures(
        name=scan.name,
        remarks=(*(REMARKS.split(remarks) if remarks else ()), *changed),
        volumes_ml=_read_volumes(scan.row, targets),
        agreement=_number(scan.row.get("agreement", "")),
    )
    try:
        label, numbered = load_result(scan.mask, targets)
    except AutosegError as error:
        return replace(measures, problems=(str(error),))
    counted = measure_volumes(label, numbered, label.geometry.voxel_size)
    measures = replace(
        measures,
        volumes_ml={name: volume / 1000 for name, volume in counted.items()} | dict(measures.volumes_ml),
        shape=label.geometry.shape,
        spacing_mm=label.geometry.spacing_mm,
    )
    try:
        image = _read_fitting(scan, label)
    except AutosegError as error:
        return replace(measures, problems=(str(error),))
    return measures if image is None else replace(measures, picture=draw_thumbnail(image, label, numbered))


def view_scan(scan: PredictedScan, channels: tuple[str, ...], targets: Targets) -> ViewedCase:
    """Returns a scan with its mask for the viewer; it is read when it is shown."""

    def read() -> ViewedVolumes:
        if scan.mask is None:
            raise DatasetError(f"scan {scan.name!r} has no mask", "predict it")
        label, numbered = load_result(scan.mask, targets)
        image = _read_fitting(scan, label)
        if image is None:
            raise DatasetError(f"it is not known where the image of {scan.name!r} is", "name its folder with --images")
        return ViewedVolumes(images=split_channels(image), masks=(number_structures(label, numbered),))

    return ViewedCase(name=scan.name, images=channels, masks=("mask",), read=read)


def _read_fitting(scan: PredictedScan, label: Volume) -> Volume | None:
    """Reads the image of a scan, which must lie on the grid of its mask; None if it is not known where it is."""
    if scan.case is None:
        return None
    image = read_scan(scan.case)
    if (difference := describe_difference(image.geometry, label.geometry)) is not None:
        what = f"the mask of {scan.name!r} lies on another grid than its scan: {difference}"
        raise DatasetError(what, "predict it again, or name the folder of its scan with --images")
    return image


def _read_volumes(row: Mapping[str, str], targets: Targets) -> dict[str, float]:
    volumes = {name: _number(row.get(f"{name}_ml", "")) for name in targets.names}
    return {name: volume for name, volume in volumes.items() if volume >= 0}


def _number(text: str) -> float:
    """Returns a number of a table, also as a spreadsheet of some countries writes it; NaN if it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return nan
