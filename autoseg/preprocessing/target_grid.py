"""The grid of a preprocessed case: its spacing, its shape, and whether memory holds it."""

from math import prod

from autoseg.errors import ImageError
from autoseg.imaging.geometry import Shape, Vector
from autoseg.imaging.spatial_words import describe_shape, describe_spacing
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.units import describe_memory

FLOAT_BYTES = 4


def target_spacing(configuration_mm: tuple[float, ...], image_mm: Vector) -> Vector:
    """Returns the spacing to resample to; a 2D configuration keeps the spacing of the first axis.

    Args:
        configuration_mm: Spacing of the configuration, (z, y, x), or (y, x) in 2D.
        image_mm: Spacing of the image, (z, y, x).

    Example:
        >>> target_spacing((0.5, 0.5), (3.0, 0.7, 0.7))
        (3.0, 0.5, 0.5)
    """
    z, y, x = configuration_mm if len(configuration_mm) == 3 else (image_mm[0], *configuration_mm)
    return z, y, x


def resampled_shape(shape: Shape, spacing_mm: Vector, target_mm: Vector) -> Shape:
    """Returns the shape (z, y, x) that covers the same part of space at another spacing; at least one voxel everywhere.

    Example:
        >>> resampled_shape((20, 320, 320), (3.6, 0.6125, 0.6125), (3.0, 0.5, 0.5))
        (24, 392, 392)
    """
    z, y, x = (max(1, round(old / new * size)) for size, old, new in zip(shape, spacing_mm, target_mm, strict=True))
    return z, y, x


def check_memory(channels: int, shape: Shape, spacing_mm: Vector, axis_order: Shape = (0, 1, 2)) -> None:
    """Refuses an image that would exceed the free memory, for which the operating system would kill the program.

    Such an image is huge, or the spacing of the plan is absurdly fine.

    Args:
        channels: Number of channels, float32.
        shape: Shape of the preprocessed case, in `axis_order`.
        spacing_mm: Its spacing, for the message.
        axis_order: The axis of (z, y, x) that comes first, second and third in the preprocessed case.

    Raises:
        ImageError: The image takes more than the free memory.
    """
    needed, free = FLOAT_BYTES * channels * prod(shape), free_memory_bytes()
    if free is not None and needed > free:
        places = [axis_order.index(axis) for axis in range(3)]
        spacing, size = ([values[place] for place in places] for values in (spacing_mm, shape))
        raise ImageError(
            f"at the spacing of the model, {describe_spacing(spacing)}, the image has {describe_shape(size)}, which "
            f"take {describe_memory(needed)}, and {describe_memory(free)} are free",
            "check the spacing of the image, cut it, or take a machine with more memory",
        )
