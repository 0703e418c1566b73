"""Several series of one examination as the channels of one volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.pixels import read_series
from autoseg.dicom.series import Series
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.sitk_conversion import to_sitk


def read_channels(series: Sequence[Series]) -> Volume:
    """Reads series as the channels of a volume, on the grid of the first.

    A series on another grid is interpolated linearly; outside of it the volume has its smallest value.

    Args:
        series: One per channel.

    Returns:
        Volume of shape (c, z, y, x), float32.

    Raises:
        ImageError: A series cannot be read (see `read_series`), or does not overlap with the first at all.
    """
    first = read_series(series[0])
    arrays = [first.array]
    for other in series[1:]:
        volume = read_series(other)
        if first.geometry.difference(volume.geometry) is not None:
            volume = resample(volume, first.geometry, nearest=False, name=other.name)
        arrays.append(volume.array)
    return Volume(array=np.concatenate(arrays), geometry=first.geometry)


def resample(volume: Volume, grid: Geometry, *, nearest: bool, name: str) -> Volume:
    """Resamples a volume of one channel, or a label map, onto another grid.

    Args:
        volume: Shape (1, z, y, x) or (z, y, x).
        grid: The grid of the result.
        nearest: Whether each voxel gets the value of the nearest one, and 0 outside, as labels need it.
        name: Name of the volume in messages.

    Raises:
        ImageError: The volume lies entirely outside of the grid.
    """
    import SimpleITK as sitk

    array: NDArray[np.generic] = volume.array[0] if volume.array.ndim == 4 else volume.array
    moving = to_sitk(Volume(array=array, geometry=volume.geometry))
    fixed = to_sitk(Volume(array=np.zeros(grid.shape, dtype=np.uint8), geometry=grid))
    covered = to_sitk(Volume(array=np.ones(array.shape, dtype=np.uint8), geometry=volume.geometry))
    if not sitk.GetArrayFromImage(sitk.Resample(covered, fixed, sitk.Transform(), sitk.sitkNearestNeighbor)).any():
        raise ImageError(f"{name} lies nowhere on the grid of the first series", "choose series of one examination")
    kind, outside = (sitk.sitkNearestNeighbor, 0.0) if nearest else (sitk.sitkLinear, float(volume.array.min()))
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.Transform(), kind, outside))
    return Volume(array=resampled[np.newaxis] if volume.array.ndim == 4 else resampled, geometry=grid)
