"""What a report knows of a segmented scan."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

from autoseg.imaging.geometry import Shape, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanMeasures:
    """A segmented scan of a report.

    Attributes:
        name: Name of the scan.
        problems: Why there is no mask, or why it or the scan cannot be shown.
        remarks: What predict remarked, and whether the scan changed since; empty for nothing.
        volumes_ml: Name of each structure to its volume, as predict recorded it; else counted in the mask.
        agreement: Agreement of folds and mirror images, 0 to 1; NaN if it is not known.
        shape: Number of voxels along (z, y, x); None if neither scan nor mask can be read.
        spacing_mm: Distance between voxels along the same axes; likewise.
        picture: A picture of the scan with its mask, in WebP; empty if one of them cannot be read.
    """

    name: str
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    volumes_ml: Mapping[str, float]
    agreement: float = nan
    shape: Shape | None = None
    spacing_mm: Vector | None = None
    picture: bytes = b""
