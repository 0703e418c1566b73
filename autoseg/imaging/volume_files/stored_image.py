"""Images that are stored as a text or binary header and voxels behind it or beside it: NRRD, MetaImage and GIPL.

Their headers are read here and not by ITK, because a header may come from a stranger. ITK 5.4 follows a header to any
file, pipe or device of the machine, ends the process for some numbers of dimensions, and takes 1 for a spacing that is
no number. Here a number that cannot be is refused by name, voxels come from the file or from a plain file beside it,
and the size of the file decides whether the header may be true before memory is taken.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import LEFT_AND_BACK, grid_of_affine
from autoseg.imaging.file_kind import check_kind
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.volume_files.stored_voxels import StoredVoxels, read_voxels
from autoseg.runtime.printable import printable

LARGEST_EDGE = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """What a header says of its image, checked.

    Attributes:
        path: The file of the header.
        geometry: Grid of a volume, or of a plane.
        voxels: Where the voxels are.
        vector_axis: Axis of the file that holds the components of a voxel, counted from the fastest; None without.
        volume_axis: Axis of the file along which volumes follow one another; None without.
        time_step_s: Seconds from one of these volumes to the next; 1 if the header does not state them.
    """

    path: Path
    geometry: Geometry
    voxels: StoredVoxels
    vector_axis: int | None = None
    volume_axis: int | None = None
    time_step_s: float = 1.0

    @property
    def components(self) -> int:
        """Number of components of a voxel."""
        return 1 if self.vector_axis is None else self.voxels.sizes[self.vector_axis]

    @property
    def volumes(self) -> int | None:
        """Number of volumes along a fourth axis; None without."""
        return None if self.volume_axis is None else self.voxels.sizes[self.volume_axis]


def grid_by_header(
    path: Path, sizes: tuple[int, ...], spacing: tuple[float, ...], origin: tuple[float, ...], axes: NDArray[np.float64]
) -> Geometry:
    """Returns the grid of a plane or volume by the numbers of its header, in the order (x, y, z) of the file.

    Args:
        path: Path of the file, for messages.
        sizes: Number of voxels along two or three axes.
        spacing: Distance of voxels along each axis, in mm.
        origin: Position of the first voxel, left, posterior, superior.
        axes: Shape (n, n); column j is the unit vector of axis j.

    Raises:
        ImageError: A number is not finite or not positive where it must be, or axes are not at right angles.
    """
    if not all(0 < step < math.inf for step in spacing):
        raise nonsense(path, "spacing", spacing)
    if not np.isfinite([*origin, *axes.flat]).all():
        raise nonsense(path, "place", [*map(float, origin), *axes.flatten().tolist()])
    count = len(sizes)
    matrix = np.eye(4)
    x, y, z = (*sizes, 1)[:3]
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        matrix[:count, :count] = axes * spacing
        matrix[:count, 3] = origin
        matrix[:3] *= LEFT_AND_BACK[:, np.newaxis]
        geometry = grid_of_affine(matrix, (z, y, x), name=str(path))
    x_mm, y_mm, z_mm = (*spacing, max(spacing))[:3]
    return Geometry(
        shape=geometry.shape,
        spacing_mm=(z_mm, y_mm, x_mm),
        origin_mm=geometry.origin_mm,
        direction=geometry.direction,
        dimensions=2 if count == 2 else 3,
    )


OTHER_UNITS = {"m", "dm", "cm", "um", "\u00b5m", "\u03bcm", "nm", "in", "inch", "inches", "micron", "microns"}
"""Units of length that are not millimetres, in lower case; any other word says nothing of the size."""


def check_unit(path: Path, words: Iterable[str]) -> None:
    """Refuses a header that measures space in another unit than millimetres.

    Decision: programs that are built on ITK take such numbers for millimetres. A result that is converted would be
    shown elsewhere than its scan there, and a scan that is not converted would have a false size here.

    Args:
        path: Path of the file, for the message.
        words: The units that the header names.

    Raises:
        ImageError: One of them is another unit of length.
    """
    for unit in (word.strip(' "') for word in words):
        if unit.lower() in OTHER_UNITS:
            what = f"{path} measures space in {unit!r}, which other programs take for millimetres"
            raise ImageError(what, "write its spacing and origin in millimetres, and 'mm' as its unit")


def known_time_step(step: float) -> float:
    """Returns the seconds between volumes that a header states; 1 if it states no positive number.

    Example:
        >>> known_time_step(0.035), known_time_step(0.0), known_time_step(math.nan)
        (0.035, 1.0, 1.0)
    """
    return step if 0 < step < math.inf else 1.0


def nonsense(path: Path, field: str, value: object) -> ImageError:
    """Returns the error of a header that holds what cannot be; the value is cut short, and shown without control codes.

    Example:
        >>> print(nonsense(Path("a.nrrd"), "sizes", "-20 24 20"))
        a.nrrd is damaged: its header has the sizes '-20 24 20', which cannot be; replace it
    """
    shown = ascii(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return ImageError(f"{path} is damaged: its header has the {field} {shown}, which cannot be", "replace it")


def beside(path: Path, name: str) -> Path:
    """Returns the file that a header names, which must lie in its own folder, also where links lead to.

    Raises:
        ImageError: The name leads elsewhere, or to several files, or to what is no file.
    """
    if name.startswith("LIST") or "%" in name:
        raise ImageError(f"{path} takes its voxels from several files", "save header and voxels in one file")
    if name in ("", ".", "..", "-") or any(separator in name for separator in "/\\\0"):
        what = f"{path} takes its voxels from {ascii(name)[:60]}, which is no plain file beside it"
        raise ImageError(what, "save header and voxels in one file")
    file, shown = path.parent / name, printable(name)
    if not file.is_symlink() and not file.exists():
        raise ImageError(f"{path} is a header whose voxels, {shown}, are missing", "copy that file beside it")
    check_kind(file)
    if file.resolve().parent != path.parent.resolve():
        what = f"{path} takes its voxels from {shown}, a link that leads out of its folder"
        raise ImageError(what, "put the file itself in its place")
    return file


def open_stored(image: StoredImage) -> Volume:
    """Reads the voxels of an image as (c, z, y, x) in their own number type: its components, or its volumes.

    Raises:
        ImageError: The file ends too early or too late, cannot be unpacked, or does not fit into the memory.
        ValueError: It holds several volumes of several components.
    """
    sizes = image.voxels.sizes
    if image.volume_axis is not None and image.components > 1:
        raise ValueError(f"its voxels have {len(sizes)} dimensions, of sizes {sizes}, and several values")
    array = read_voxels(image.voxels).reshape(sizes[::-1])
    channel_axis = image.vector_axis if image.volume_axis is None else image.volume_axis
    if channel_axis is not None:
        array = np.moveaxis(array, -1 - channel_axis, 0)
    channels = 1 if channel_axis is None else sizes[channel_axis]
    return Volume(array=array.reshape(channels, *image.geometry.shape), geometry=image.geometry)
