"""Files of a case that are mended in place, in a copy of their dataset."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import AutosegError, WriteError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, read_stored, transform_image, write_label_map
from autoseg.imaging.placing import find_displacement
from autoseg.importing.label_values import is_identity, renumber

LARGEST_ROUNDING = 0.5
"""Part of a voxel by which a header may differ from another one as by rounding; see `placing.find_displacement`."""

PNG_START, PNG_KIND, PALETTE = b"\x89PNG", 25, 3
"""How a PNG file begins, where it says how its pixels are stored, and the code of palettes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A change of a file.

    Attributes:
        file: Path of the file in the copy of the dataset, relative to its folder.
        change: What was changed, in a few words.
    """

    file: str
    change: str


def mend_case(case: Case, info: DatasetInfo, folder: Path) -> list[Fix]:
    """Mends the files of a case; what cannot be read stays as it is, for `check` to name.

    Args:
        case: A case of the copy.
        info: States the labels.
        folder: Folder of the copy.

    Raises:
        ArtifactError: A file cannot be written.
    """
    fixes = []
    try:
        grid = read_stored(case.images[0]).geometry
        for image in case.images[1:]:
            if (change := _lay_image(image, grid)) is not None:
                fixes.append(Fix(file=image.relative_to(folder).as_posix(), change=change))
        if case.label is not None:
            changes = _mend_label(case.label, grid, info)
            fixes += [Fix(file=case.label.relative_to(folder).as_posix(), change=change) for change in changes]
    except WriteError:
        raise
    except AutosegError:
        return fixes
    return fixes


def _lay_image(path: Path, grid: Geometry) -> str | None:
    """Lays a channel on the grid of the first one, if only rounding is between them; returns what was done."""
    change = _describe_rounding(read_stored(path).geometry, grid, "the first channel")
    if change is not None:
        transform_image(path, path, lambda volume: Volume(array=volume.array, geometry=grid))
    return change


def _mend_label(path: Path, grid: Geometry, info: DatasetInfo) -> list[str]:
    """Mends a label map; returns what was done."""
    stored, label_map = read_stored(path), read_label_map(path)
    array, place = label_map.array, label_map.geometry
    changes = list(_describe_storage(path, stored))
    if (change := _describe_rounding(place, grid, "its image")) is not None:
        changes.append(change)
        place = grid
    numbers = _find_numbers(array, info)
    if not is_identity(numbers):
        changes.append("255 became 1")
        array = renumber(array, numbers)
    if changes:
        write_label_map(path, Volume(array=array, geometry=place))
    return changes


def _describe_storage(path: Path, stored: Volume) -> Iterator[str]:
    """Yields how a label map was stored that other programs may read otherwise."""
    with path.open("rb") as file:
        start = file.read(PNG_KIND + 1)
    if start.startswith(PNG_START) and start[PNG_KIND] == PALETTE:
        yield "the indices of its palette became grey values"
    elif len(stored.array) > 1:
        yield f"{len(stored.array)} equal channels became one"
    if np.issubdtype(stored.array.dtype, np.floating):
        yield f"{stored.array.dtype} became whole numbers"


def _describe_rounding(geometry: Geometry, grid: Geometry, owner: str) -> str | None:
    """Returns what is done with a header that differs from another one by rounding; None if it does not."""
    if geometry.dimensions == 2 or geometry.shape != grid.shape or describe_difference(grid, geometry) is None:
        return None
    displacement = find_displacement(grid, geometry)
    if displacement >= LARGEST_ROUNDING:
        return None
    return f"its header became that of {owner}, from which it was {displacement:.2f} voxels away at most"


def _find_numbers(array: "np.ndarray[tuple[int, ...], np.dtype[np.integer]]", info: DatasetInfo) -> dict[int, int]:
    """Returns value to number of a mask of 0 and 255 in a dataset of one label; else that all values stay."""
    if info.targets.values != {0, 1}:
        return {}
    return {0: 0, 255: 1} if set(np.unique(array).tolist()) in ({255}, {0, 255}) else {}
