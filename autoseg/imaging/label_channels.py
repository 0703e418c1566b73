"""Label maps of several channels: those that are one label map all the same, and what to do about the others."""

from pathlib import Path

import numpy as np

from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_headers import is_series
from autoseg.imaging.pictures.files import is_picture, open_picture
from autoseg.imaging.volume_files.segment_file import read_segments


def join_shares(volume: Volume) -> Volume:
    """Returns the label map of channels of which exactly one is 1 at each voxel, and the others are 0.

    Args:
        volume: Shape (c, z, y, x); any other channels stay as they are.

    Returns:
        Shape (1, z, y, x): at each voxel the number of its channel.

    Example:
        >>> from autoseg.imaging.geometry import Geometry
        >>> shares = np.array([[[[1, 0, 0]]], [[[0, 1, 0]]], [[[0, 0, 1]]]])
        >>> join_shares(Volume(array=shares, geometry=Geometry(shape=(1, 1, 3), spacing_mm=(1, 1, 1)))).array.tolist()
        [[[[0, 1, 2]]]]
    """
    array = volume.array
    if len(array) == 1 or not (((array == 0) | (array == 1)).all() and (array.sum(axis=0) == 1).all()):
        return volume
    return Volume(array=array.argmax(axis=0)[np.newaxis], geometry=volume.geometry)


def advise_one_channel(path: Path) -> str:
    """Returns what to do about a label map of several channels."""
    if read_segments(path):
        return "let 'autoseg import' read its segments, which overlap, or export them from 3D Slicer as a label map"
    if is_series(path):
        return "save one label map, or let 'autoseg import' make a case of each point in time"
    if is_picture(path) and not open_picture(path).has_colours:
        return "save its channels as slices, if they are slices (axes ZYX in ImageJ), or save one of them"
    return "save it without colours"
