"""Segmentations on disk: a label map, or a folder with a mask per structure if structures may overlap."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import DatasetError, UsageError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.formats import readable_name, split_ending
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, read_stored, write_label_map
from autoseg.imaging.label_combinations import number_masks
from autoseg.imaging.targets import Targets
from autoseg.imaging.volume_files.segment_file import read_segments
from autoseg.runtime.artifact import atomic_folder

UNSAFE = re.compile(r"[^\w-]+")  # Characters of a structure's name that file names do not get
LONGEST_LABEL = 60  # Characters of a structure's name in a file name. Decision: file systems allow 255 bytes in all


class SegmentationSource(Protocol):
    """Anything that segments an image, such as a prediction of a model; what `save_result` writes."""

    @property
    def targets(self) -> Targets:
        """The structures, and whether they become a label map or masks."""

    @property
    def geometry(self) -> Geometry:
        """The grid of the image."""

    def segmentation(self) -> Volume:
        """Returns the label map (z, y, x), or all `masks`, stacked to (structures, z, y, x)."""

    def masks(self) -> Iterator[Volume]:
        """Yields the mask (z, y, x), 0 or 1, of each structure, in the order of `targets`."""


def file_stem(label: str) -> str:
    """Returns the name of a structure as part of a file name: runs of unsafe characters become one underscore.

    Example:
        >>> file_stem("left kidney (cyst)")
        'left_kidney_cyst'
    """
    return UNSAFE.sub("_", readable_name(label)).strip("_")[:LONGEST_LABEL]


def result_path(path: Path, targets: Targets) -> Path:
    """Returns where a segmentation is written: the path of the label map, or for masks a folder without the ending.

    Example:
        >>> overlapping = Targets(structures={"ribs": (1,), "lung": (2,)}, exclusive=False)
        >>> result_path(Path("case_1.nii.gz"), overlapping).name
        'case_1'
    """
    return path.with_name(split_ending(path)[0]) if targets.as_masks else path


def save_result(prediction: SegmentationSource, path: Path) -> tuple[Path, Volume, Targets]:
    """Writes the segmentation of a scan, whole or not at all; `load_result` is its inverse.

    Args:
        prediction: The prediction of the scan.
        path: Path of the label map. Masks go into a folder of this name without the ending: CASE/liver.nii.gz.

    Returns:
        The path that was written; the label map, in which masks have a number for each combination; and the targets
        that say what its numbers mean.

    Raises:
        UsageError: Two structures would have the same file.
        WriteError: The folder cannot be written.
    """
    targets = prediction.targets
    if not targets.as_masks:
        segmentation = prediction.segmentation()
        write_label_map(path, segmentation)
        return path, segmentation, targets
    names, folder = name_files(targets.names, split_ending(path)[1]), result_path(path, targets)
    geometry = prediction.geometry
    with atomic_folder(folder) as writing:

        def write_each() -> Iterator[NDArray[np.generic]]:
            for name, mask in zip(names, prediction.masks(), strict=True):
                write_label_map(writing / name, mask)
                yield mask.array

        label, numbered_targets = number_masks(write_each(), geometry.shape, targets)
    return folder, Volume(array=label, geometry=geometry), numbered_targets


def check_mask_names(targets: Targets) -> None:
    """Finds out before the work whether each structure's mask gets a file of its own.

    Raises:
        UsageError: Two structures would have the same file.
    """
    if targets.as_masks:
        name_files(targets.names, "")


def load_result(path: Path, targets: Targets) -> tuple[Volume, Targets]:
    """Reads the segmentation that `save_result` wrote, a label map of the dataset, or a segmentation of 3D Slicer.

    Segments that are named as structures are these, whatever their values.

    Returns:
        The label map, and the targets that say what its numbers mean.

    Raises:
        ImageError: A file cannot be read.
        DatasetError: A mask is missing, or lies on another grid than the others.
    """
    if not path.is_dir():
        return _load_segments(path, targets) or (read_label_map(path), targets)
    stems = {split_ending(file)[0]: file for file in sorted(path.iterdir()) if split_ending(file)[1]}
    files = {stem.casefold(): file for stem, file in stems.items()} | stems
    missing = [name for name in targets.names if _find_mask(files, name) is None]
    if missing or not targets.as_masks:
        message = f"{path} holds no mask of {missing[0]!r}" if missing else f"{path} is a folder of masks"
        raise DatasetError(message, "give segmentations of this dataset")
    paths = [mask for mask in (_find_mask(files, name) for name in targets.names) if mask is not None]
    geometry = read_label_map(paths[0]).geometry

    def read_each() -> Iterator[NDArray[np.generic]]:
        for file in paths:
            mask = read_label_map(file)
            if (difference := describe_difference(geometry, mask.geometry)) is not None:
                raise DatasetError(f"the masks in {path} lie on different grids: {difference}", "predict again")
            yield mask.array

    label, numbered_targets = number_masks(read_each(), geometry.shape, targets)
    return Volume(array=label, geometry=geometry), numbered_targets


def _load_segments(path: Path, targets: Targets) -> tuple[Volume, Targets] | None:
    """Reads a segmentation of 3D Slicer whose segments have names of structures; None for any other file."""
    named = {segment.name.casefold(): segment for segment in read_segments(path)}
    segments = [named.get(name.casefold()) for name in targets.names]
    if not any(segments):
        return None
    layers = read_stored(path)
    masks = (
        np.zeros(layers.geometry.shape, bool) if segment is None else layers.array[segment.layer] == segment.value
        for segment in segments
    )
    if targets.as_masks:
        label, numbered_targets = number_masks(masks, layers.geometry.shape, targets)
        return Volume(array=label, geometry=layers.geometry), numbered_targets
    label = np.zeros(layers.geometry.shape, np.int32)
    for numbers, mask in zip(targets.structures.values(), masks, strict=True):
        label[mask] = numbers[0]
    return Volume(array=label, geometry=layers.geometry), targets


def name_files(labels: Sequence[str], ending: str, kind: str = "masks") -> list[str]:
    """Returns the file name of each structure.

    Args:
        labels: Names of the structures.
        ending: Ending of the files.
        kind: What the files hold, for the error.

    Raises:
        UsageError: Two names differ by unsafe characters alone, or by case, such as Kidney and kidney, which some file
            systems do not tell apart.
    """
    owners: dict[str, str] = {}
    for label in labels:
        other = owners.setdefault(file_stem(label).casefold(), label)
        if other != label:
            raise UsageError(
                f"the {kind} of {other!r} and of {label!r} would have the same file", "rename one in dataset.json"
            )
    return [file_stem(label) + ending for label in labels]


def _find_mask(files: Mapping[str, Path], label: str) -> Path | None:
    """Returns the file of a structure's mask, whose name may have other capital letters."""
    stem = file_stem(label)
    return files.get(stem) or files.get(stem.casefold())
