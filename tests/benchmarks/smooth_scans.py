"""Made-up arrays of clinical size for benchmarks: smooth images, round organs, and the logits of a confident network."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autoseg.geometry import Shape
from autoseg.preprocessing.resampling import resample_image

WAVELENGTH = 16  # Voxels between the independent values of a smooth field
DENT = 0.3  # How far a smooth field dents an organ, as a share of its radius
STEEPNESS = 20.0  # Logits per radius, from the surface of an organ to its centre
CONFIDENCE = 10.0  # The largest logit, and far from the organ the smallest
NOISE = 0.1  # Deviation

ANY_SPACING = (1.0, 1.0, 1.0)


def make_image(shape: Shape, seed: int) -> NDArray[np.float32]:
    """A smooth field of deviation 1 or so, with noise."""
    random = np.random.default_rng(seed)
    image = _make_field(shape, random)
    image += NOISE * random.standard_normal(shape, dtype=np.float32)
    return image


def make_labels(shape: Shape, count: int, seed: int) -> NDArray[np.int8]:
    """A map of labels 0 to `count`, each but 0 one dented ball; the balls overlap here and there."""
    labels = np.zeros(shape, dtype=np.int8)
    highest = np.zeros(shape, dtype=np.float32)
    for label, depth in enumerate(_make_depths(shape, count, seed), start=1):
        labels[depth > highest] = label
        np.maximum(highest, depth, out=highest)
    return labels


def make_logits(shape: Shape, classes: int, seed: int) -> NDArray[np.float32]:
    """Logits of background and dented balls, shape (classes, *shape), with noise."""
    logits = np.zeros((classes, *shape), dtype=np.float32)
    for values, depth in zip(logits[1:], _make_depths(shape, classes - 1, seed), strict=True):
        np.clip(STEEPNESS * depth, -CONFIDENCE, CONFIDENCE, out=values)
    random = np.random.default_rng(seed)
    for values in logits:
        values += NOISE * random.standard_normal(shape, dtype=np.float32)
    return logits


def _make_depths(shape: Shape, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """How deep each voxel lies in each of `count` organs, in radii: 1 in the centre, 0 at the surface."""
    random = np.random.default_rng(seed)
    dents = DENT * _make_field(shape, random)
    for _ in range(count):
        centre = random.uniform(0, 1, 3)
        radius = random.uniform(0.6, 1.2) / 2 * count ** (-1 / 3)
        z, y, x = (
            ((np.arange(size, dtype=np.float32) / size - middle) / radius) ** 2
            for size, middle in zip(shape, centre.astype(np.float32), strict=True)
        )
        squared = (z[:, np.newaxis] + y)[:, :, np.newaxis] + x
        yield 1 + dents - np.sqrt(squared, dtype=np.float32)


def _make_field(shape: Shape, random: np.random.Generator) -> NDArray[np.float32]:
    z, y, x = (-(-size // WAVELENGTH) for size in shape)
    coarse = random.standard_normal((1, z, y, x), dtype=np.float32)
    return resample_image(coarse, ANY_SPACING, shape, ANY_SPACING)[0]
