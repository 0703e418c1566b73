"""Images of cases, whether they lie in image files or in series of DICOM files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.dicom_scans import find_dicom_scans
from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.channels import read_channels
from autoseg.dicom.search import unpacked
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import UsageError
from autoseg.imaging.geometry import Shape, Vector, Volume
from autoseg.imaging.image_files import read_image
from autoseg.imaging.image_headers import read_grid


def read_scan(case: Case) -> Volume:
    """Reads the image of a case, from image files or from series of DICOM files; see `read_image`, `read_channels`.

    Channels that the case lacks are 0 everywhere, which preprocessing recognizes.
    """
    if case.series:
        return read_channels(case.series)
    volume = read_image(case.images, case.time_point)
    return insert_missing(volume, case.missing_channels) if len(volume.array) == len(case.images) else volume


def find_omitted(image: Any) -> tuple[int, ...]:
    """Returns the numbers of the channels for which a list of images holds None; none for any other object.

    Example:
        >>> find_omitted(["t1.nii.gz", None]), find_omitted("t1.nii.gz"), find_omitted([None])
        ((1,), (), ())
    """
    if not isinstance(image, list | tuple) or all(channel is None for channel in image):
        return ()
    return tuple(number for number, channel in enumerate(image) if channel is None)


def insert_missing(image: Volume, missing: Sequence[int]) -> Volume:
    """Returns an image with channels of zeros at the numbers of the missing channels.

    Args:
        image: The other channels, shape (c, z, y, x).
        missing: Numbers of the missing channels among all.

    Example:
        >>> from autoseg.imaging.geometry import Geometry
        >>> present = Volume(
        ...     array=np.ones((1, 1, 1, 2), np.float32), geometry=Geometry(shape=(1, 1, 2), spacing_mm=(1.0, 1.0, 1.0))
        ... )
        >>> insert_missing(present, [0]).array.tolist()
        [[[[0.0, 0.0]]], [[[1.0, 1.0]]]]
    """
    if not missing:
        return image
    channels, *size = image.array.shape
    array = np.zeros((channels + len(missing), *size), dtype=image.array.dtype)
    array[[number for number in range(len(array)) if number not in missing]] = image.array
    return replace(image, array=array)


def find_grid(case: Case) -> tuple[Shape, Vector]:
    """Returns shape (z, y, x) and spacing in mm of the first channel of a case, without reading any voxel.

    Raises:
        ImageError: The file is missing or no image, or the series has a defect.
    """
    if not case.series:
        return read_grid(case.images[0])
    grid = case.series[0].grid()
    return grid.shape, grid.spacing_mm


@contextmanager
def open_examination(source: Path, info: DatasetInfo, choice: SeriesChoice) -> Iterator[Case]:
    """Gives the only examination of a folder, zip file, DICOMDIR or file, whose files are there as long as needed.

    Raises:
        AutosegError: There are several, or it is not clear which series is meant; see `find_dicom_scans`.
    """
    with unpacked(source) as folder:
        scans = find_dicom_scans(folder, info, choice)
        if len(scans) != 1:
            names = ", ".join(scan.name for scan in scans[:5])
            raise UsageError(f"{source} holds {len(scans)} examinations ({names})", "give the folder of one of them")
        yield scans[0]


def read_examination(source: Path, info: DatasetInfo, choice: SeriesChoice) -> Volume:
    """Reads the only examination of a folder, zip file, DICOMDIR or file; errors as of `open_examination`."""
    with open_examination(source, info, choice) as scan:
        return read_scan(scan)
