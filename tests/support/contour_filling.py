"""Contours filled by brute force, as readers do: by counting crossings of a ray, or windings around a point."""

import numpy as np


def count_crossings(points: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray]:
    """Counts how often rays from the centres of pixels towards growing columns cross a closed polygon.

    Args:
        points: Shape (points, 2), (column, row).
        shape: Number of rows and columns.

    Returns:
        The crossings of each pixel, and those downwards minus those upwards, each of shape (rows, columns).
    """
    rows, columns = np.indices(shape)
    crossings, windings = np.zeros(shape, int), np.zeros(shape, int)
    for (x, y), (next_x, next_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y == next_y:
            continue
        spans = (rows >= min(y, next_y)) & (rows < max(y, next_y))
        crosses = spans & (x + (rows - y) * (next_x - x) / (next_y - y) > columns)
        crossings += crosses
        windings += crosses * (1 if next_y > y else -1)
    return crossings, windings


def fill(contours, shape) -> np.ndarray:
    """Returns the mask of contours; those that count windings and those that count crossings must agree."""
    masks = np.zeros((3, *shape), int)
    for points in contours:
        crossings, windings = count_crossings(np.asarray(points), shape)
        masks[0] += crossings
        masks[1] |= crossings % 2
        masks[2] |= windings != 0
    by_difference, by_union, by_winding = masks[0] % 2, masks[1], masks[2]
    assert np.array_equal(by_difference, by_union)
    assert np.array_equal(by_difference, by_winding)
    return by_difference.astype(bool)
