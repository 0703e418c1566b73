"""An image that a Python user holds as a volume, with the way back to its type; and which voxels can be taken."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.sitk_conversion import join_series

KINDS_OF_IMAGES = (
    "give a path; an array of numpy or a tensor of torch, with spacing_mm; or an image of SimpleITK, nibabel or MONAI"
)
"""What to do about an object that is no image."""

NUMBERS = "biuf"
"""Kinds of numpy's types that hold voxels: booleans, which are 0 and 1, whole numbers, and fractions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedImage:
    """An image as a volume, and the way back to the type in which it was given.

    Attributes:
        volume: Shape (c, z, y, x), float32.
        give_back: Converts a map (z, y, x), or several (n, z, y, x), on its grid to the type of the image: an array, a
            tensor, an image of nibabel or MONAI, else an image of SimpleITK.
        channels_are: What holds the channels, for messages: "the first of its 4 axes".
        points_in_time: Number of volumes along a fourth axis, which are points in time for a model of one channel; 1
            for an image without such an axis.
        give_back_points: Converts such maps of all points in time to one image of that type.
    """

    volume: Volume
    give_back: Callable[[Volume], Any]
    channels_are: str
    points_in_time: int = 1
    give_back_points: Callable[[Sequence[Volume]], Any] = join_series

    def points(self) -> Iterator[Volume]:
        """Yields the volume (1, z, y, x) of each point in time."""
        for point in range(self.points_in_time):
            yield Volume(array=self.volume.array[point : point + 1], geometry=self.volume.geometry)

    def check_channels(self, names: Sequence[str]) -> bool:
        """Finds out whether the image has the channels of a model.

        Returns:
            Whether it is a series over time, for a model of one channel, whose volumes are points in time.

        Raises:
            ImageError: It has more or fewer channels.
        """
        if len(names) == 1 and self.points_in_time > 1:
            return True
        count = self.volume.array.shape[0]
        if count != len(names):
            what = (
                f"the image has {count} channel{'s' * (count != 1)}, the model wants {len(names)} ({', '.join(names)})"
            )
            raise ImageError(what, f"channels are {self.channels_are}; bring that in order")
        return False


def as_volume(array: NDArray[np.generic], geometry: Geometry, *, name: str) -> Volume:
    """Returns voxels (c, z, y, x) of any number type as a volume of float32; the array is left as it is.

    Args:
        array: Voxels, in any order of memory.
        geometry: Their grid.
        name: Name of the image in messages.

    Raises:
        ImageError: The array is empty or holds masked, complex, NaN or infinite voxels, or objects that are no numbers.

    Example:
        >>> grid = Geometry(shape=(1, 1, 2), spacing_mm=(1.0, 1.0, 1.0))
        >>> as_volume(np.array([[[[False, True]]]]), grid, name="an array").array.tolist()
        [[[[0.0, 1.0]]]]
    """
    check_numbers(array, name=name)
    with np.errstate(over="ignore"):  # values beyond 32 bit become infinite and are refused below
        voxels = np.ma.getdata(array).astype(np.float32, order="C")
    if voxels.size == 0:
        raise ImageError(f"{name} is empty: its shape is {array.shape}", "give one that has voxels")
    wrong = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
    if wrong:
        what = f"{name} holds NaN or infinite voxels: {wrong} of {voxels.size}"
        raise ImageError(what, "replace them by numbers below 3.4e38, for example by numpy.nan_to_num")
    return Volume(array=voxels, geometry=geometry)


def check_numbers(array: NDArray[np.generic], *, name: str) -> None:
    """Finds out whether an array holds numbers that can be voxels; for the errors see `as_volume`."""
    kind = array.dtype.kind
    if kind == "c":
        raise ImageError(f"{name} holds complex numbers", "give their magnitude, as numpy.abs returns it")
    if kind == "O":
        raise ImageError(f"{name} holds Python objects", "bring it to numbers of one type: array.astype('float32')")
    if kind not in NUMBERS:
        raise ImageError(f"{name} holds {array.dtype}, which are no numbers", "give numbers, a channel for each colour")
    if np.ma.is_masked(array):
        hidden = int(np.count_nonzero(np.ma.getmaskarray(array)))
        raise ImageError(f"{name} masks out {hidden} of {array.size} voxels", "say what they hold: array.filled(0)")


def resolve_spacing(spacing_mm: Any, shape: Sequence[int], *, name: str) -> tuple[float, float, float]:
    """Returns the spacing (z, y, x) of an array in mm; the thickness of a plane, if not given, is its larger step.

    Args:
        spacing_mm: What the user gave.
        shape: Shape (z, y, x) of the array.
        name: Name of the image in messages.

    Raises:
        ImageError: It is missing, has not a number for each axis, or one that is not positive.

    Example:
        >>> resolve_spacing((0.5, 0.7), (1, 4, 5), name="an array")
        (0.7, 0.5, 0.7)
    """
    fix = "pass spacing_mm=(z, y, x) in millimetres"
    try:
        steps = [] if spacing_mm is None or isinstance(spacing_mm, str | bytes) else [float(s) for s in spacing_mm]
    except (TypeError, ValueError) as error:
        raise ImageError(f"{name} needs its spacing, not {spacing_mm!r}", fix) from error
    if len(steps) == 2 and shape[0] == 1:
        steps.insert(0, max(steps))  # as planes are read from files, see `sitk_conversion`
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise ImageError(f"{name} needs its spacing, not {spacing_mm!r}", fix)
    z, y, x = steps
    return z, y, x


def name_type(value: object) -> str:
    """Returns the type of an object for messages.

    Example:
        >>> name_type([]), name_type(np.float32(1))
        ('list', 'numpy.float32')
    """
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
