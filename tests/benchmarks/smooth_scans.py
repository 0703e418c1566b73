"""Makes arrays of clinical size for benchmarks: smooth images, round organs, logits of a confident network, scans."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Shape
from autoseg.preprocessing.resampling import resample_image

WAVELENGTH = 16  # Voxels between the independent values of a smooth field
DENT = 0.3  # How far a smooth field dents an organ, as a share of its radius
STEEPNESS = 20.0  # Logits per radius, from the surface of an organ to its centre
CONFIDENCE = 10.0  # The largest logit; far from the organ is the smallest, its negative
NOISE = 0.1  # Standard deviation

MEDIAN_SPACING_MM = (0.75, 0.75, 1.8)  # (x, y, z) of scans
SPREAD = (0.9, 1.1)  # Factors of the smallest and largest spacing
AIR_HU, TISSUE_HU, ORGAN_HU = -1000, 100, 10

ANY_SPACING = (1.0, 1.0, 1.0)


def scale(shape: Shape, factor: float) -> Shape:
    """Returns a shape with other edges, of at least two voxels."""
    z, y, x = (max(2, round(size * factor)) for size in shape)
    return z, y, x


def make_image(shape: Shape, seed: int) -> NDArray[np.float32]:
    """Makes a smooth field of a standard deviation near 1, with noise."""
    random = np.random.default_rng(seed)
    image = make_field(shape, random)
    image += NOISE * random.standard_normal(shape, dtype=np.float32)
    return image


def make_labels(shape: Shape, count: int, seed: int) -> NDArray[np.int8]:
    """Makes a map of labels 0 to `count`, each but 0 one dented ball; the balls overlap here and there."""
    labels = np.zeros(shape, dtype=np.int8)
    highest = np.zeros(shape, dtype=np.float32)
    for label, depth in enumerate(_make_depths(shape, count, seed), start=1):
        labels[depth > highest] = label
        np.maximum(highest, depth, out=highest)
    return labels


def make_logits(shape: Shape, classes: int, seed: int) -> NDArray[np.float32]:
    """Makes logits of background and dented balls, shape (classes, *shape), with noise."""
    logits = np.zeros((classes, *shape), dtype=np.float32)
    for values, depth in zip(logits[1:], _make_depths(shape, classes - 1, seed), strict=True):
        np.clip(STEEPNESS * depth, -CONFIDENCE, CONFIDENCE, out=values)
    random = np.random.default_rng(seed)
    for number in range(classes):
        logits[number] += NOISE * random.standard_normal(shape, dtype=np.float32)
    return logits


def write_scans(
    folder: Path, *, count: int, shape: Shape, labels: int, spacing_mm: tuple[float, ...] = MEDIAN_SPACING_MM
) -> bool:
    """Writes a raw dataset of CT-like scans in int16; one of the same kind that an earlier run wrote is kept.

    Args:
        folder: Folder of the raw dataset.
        count: Number of scans.
        shape: Shape of each scan, (z, y, x).
        labels: Number of labels beside the background.
        spacing_mm: Median spacing, (x, y, z); each scan has its own, up to a tenth smaller or larger.

    Returns:
        Whether the dataset was written now.
    """
    note = f"{count} scans of {shape} with {labels} labels, around {spacing_mm} mm"
    info = DatasetInfo(
        channel_names={"0": "CT"},
        labels={"background": 0, **{f"organ {label}": label for label in range(1, labels + 1)}},
        file_ending=".nii.gz",
    )
    written = folder / "dataset.json"
    if written.is_file() and json.loads(written.read_text()).get("description") == note:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number, share in enumerate(np.linspace(*SPREAD, count), start=1):
        spacing = tuple(float(share) * size for size in spacing_mm)
        image, label = make_scan(shape, labels, seed=number)
        _write(folder / "imagesTr" / f"scan_{number:03d}_0000.nii.gz", image, spacing)
        _write(folder / "labelsTr" / f"scan_{number:03d}.nii.gz", label, spacing)
    info.save(written, {"numTraining": count, "description": note})
    return True


def make_scan(shape: Shape, labels: int, seed: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Makes a body in air, in Hounsfield units, whose organs are a little brighter than the tissue between them."""
    label = make_labels(shape, labels, seed)
    y, x = (np.linspace(-1, 1, size) for size in shape[1:])
    is_body = (y[:, np.newaxis] / 0.7) ** 2 + (x / 0.9) ** 2 < 1
    label *= is_body
    tissue = TISSUE_HU * make_image(shape, seed) + ORGAN_HU * label
    return np.where(is_body, tissue, AIR_HU).astype(np.int16), label


def _write(path: Path, array: NDArray[np.integer], spacing: tuple[float, ...]) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), useCompression=True)


def _make_depths(shape: Shape, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yields for each of `count` organs the depth of all voxels in it, in radii: 1 in the centre, 0 at the surface."""
    random = np.random.default_rng(seed)
    dents = DENT * make_field(shape, random)
    for _ in range(count):
        centre = random.uniform(0, 1, 3)
        radius = random.uniform(0.6, 1.2) / 2 * count ** (-1 / 3)
        z, y, x = (
            ((np.arange(size, dtype=np.float32) / size - middle) / radius) ** 2
            for size, middle in zip(shape, centre.astype(np.float32), strict=True)
        )
        squared = (z[:, np.newaxis] + y)[:, :, np.newaxis] + x
        yield 1 + dents - np.sqrt(squared, dtype=np.float32)


def make_field(shape: Shape, random: np.random.Generator, wavelength: int = WAVELENGTH) -> NDArray[np.float32]:
    """Makes a smooth field whose values are independent of each other a wavelength apart."""
    z, y, x = (-(-size // wavelength) for size in shape)
    coarse = random.standard_normal((1, z, y, x), dtype=np.float32)
    return resample_image(coarse, ANY_SPACING, shape, ANY_SPACING)[0]
