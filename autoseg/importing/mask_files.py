"""Masks of single structures: files in a folder, or the segments of a file of 3D Slicer."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import DatasetError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, read_stored
from autoseg.imaging.volume_files.segment_file import Segment, read_segments
from autoseg.importing import pairing
from autoseg.importing.label_values import check_drawn, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """The file that holds the mask of a structure.

    Attributes:
        path: The file.
        segment: The segment of the file that is the mask; None if the whole file is.
    """

    path: Path
    segment: Segment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPart:
    """The voxels of one value in a mask.

    Attributes:
        name: Name of the mask.
        value: The value, which is not 0.
        voxels: The mask; True or another value than 0 where it has the value.
    """

    name: str
    value: int
    voxels: Volume


def list_masks(label: Path) -> dict[str, MaskFile]:
    """Returns the masks of a case by name; a picture among volumes is taken for a preview and left out.

    Args:
        label: Folder of the masks, or a segmentation of 3D Slicer.
    """
    if label.is_file():
        return {segment.name: MaskFile(path=label, segment=segment) for segment in read_segments(label)}
    images = pairing.list_images(label)
    ending, _ = Counter(map(pairing.ending_of, images)).most_common(1)[0] if images else ("", 0)
    return {pairing.stem_of(path): MaskFile(path=path) for path in images if pairing.ending_of(path) == ending}


def read_parts(masks: Mapping[str, MaskFile], label: Path) -> Iterator[MaskPart]:
    """Reads masks one after the other, and yields the voxels of each value that they hold besides 0.

    An empty mask has a part as well, of the value 1, so that its grid is known.

    Args:
        masks: Name to file.
        label: Folder of the masks, or their file, for errors.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids, or were blurred.
    """
    grid, layers = None, None
    for name, mask in masks.items():
        if mask.segment is None:
            volume = read_label_map(mask.path)
        else:
            layers = layers or read_stored(mask.path)
            volume = _cut_segment(layers, mask)
        grid = grid or volume.geometry
        if (difference := describe_difference(grid, volume.geometry)) is not None:
            raise DatasetError(f"the masks in {label} lie on different grids: {difference}", "put all on one grid")
        values = np.unique(volume.array[volume.array != 0]).tolist() or [1]
        if len(values) == 1:
            yield MaskPart(name=name, value=values[0], voxels=volume)
            continue
        check_drawn([values_of(volume.array)], mask.path)
        for value in values:
            yield MaskPart(name=name, value=value, voxels=Volume(array=volume.array == value, geometry=volume.geometry))


def _cut_segment(layers: Volume, mask: MaskFile) -> Volume:
    segment = mask.segment
    if segment is None or segment.layer >= len(layers.array):
        what = f"{mask.path} holds {len(layers.array)} layers, and a segment in layer {segment and segment.layer}"
        raise DatasetError(what, "save it again with 3D Slicer")
    return Volume(array=(layers.array[segment.layer] == segment.value).astype(np.uint8), geometry=layers.geometry)
