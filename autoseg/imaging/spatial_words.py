"""Sizes, spacings and points of grids in words: for people in the order x, y, z of viewers, and always labelled so.

Arrays, plans and Python go by (z, y, x) and superior, posterior, left; see `geometry`. Every message goes through here.
"""

from collections.abc import Sequence

VIEWERS_ORDER = "x, y, z"


def in_viewers_order(values: Sequence[float]) -> str:
    """Returns the sizes or steps of an array's axes, (z, y, x) or (y, x), in the order of viewers.

    Example:
        >>> in_viewers_order((3.0, 0.5, 0.25))
        '0.25 x 0.5 x 3'
    """
    return " x ".join(f"{value:.6g}" for value in reversed(values))


def describe_shape(shape: Sequence[float]) -> str:
    """Describes a shape (z, y, x), or (y, x) of a plane.

    Example:
        >>> describe_shape((12, 20, 24)), describe_shape((48, 64))
        ('24 x 20 x 12 voxels (x, y, z)', '64 x 48 pixels (x, y)')
    """
    return f"{in_viewers_order(shape)} {'voxels' if len(shape) == 3 else 'pixels'} ({_order(shape)})"


def describe_spacing(spacing_mm: Sequence[float]) -> str:
    """Describes a spacing (z, y, x), or (y, x) of a plane, in mm.

    Example:
        >>> describe_spacing((3.0, 0.5, 0.50001))
        '0.50001 x 0.5 x 3 mm (x, y, z)'
    """
    return f"{in_viewers_order(spacing_mm)} mm ({_order(spacing_mm)})"


def describe_point(point_mm: Sequence[float]) -> str:
    """Describes a point (z, y, x) of a `Geometry` as viewers show it: right, anterior, superior.

    Example:
        >>> describe_point((30.0, 12.5, -4.0))
        '(4, -12.5, 30) mm (right, anterior, superior)'
    """
    z, y, x = point_mm
    right, anterior, superior = (f"{round(value, 3) + 0.0:g}" for value in (-x, -y, z))
    return f"({right}, {anterior}, {superior}) mm (right, anterior, superior)"


def _order(values: Sequence[float]) -> str:
    return VIEWERS_ORDER[: 3 * len(values) - 2]
