"""A small synthetic dataset to try everything on: an abdomen of four organs in two MR-like channels.

Each organ has a typical place, size and contrast, which vary from case to case as in patients, so that a small network
learns all of them within minutes. The anatomy is not realistic.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import UsageError
from autoseg.imaging.geometry import Geometry, Matrix, Vector, Volume
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.runtime.artifact import atomic_folder

Floats = NDArray[np.float64]

TEST_SCANS = 2
SPACING_MM = (4.0, 1.6, 1.6)
LOWEST_SHAPE, HIGHEST_SHAPE = (15, 36, 36), (20, 44, 44)
"""Spacing and shapes of the scans. Decision: thick slices and few voxels, so that several hundred steps of training,
which learn all organs, take about a minute on two cores."""

BODY_RADII_MM = (1000.0, 27.0, 29.0)  # along z the body extends beyond the field of view
BODY_INTENSITIES = (300.0, 300.0)
NOISE = 25.0
BIAS = 0.1  # standard deviation of the logarithm of the bias field
LARGEST_TILT_DEGREES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Organ:
    """An organ of the average patient: one or several ellipsoids.

    Attributes:
        label: Name of the organ.
        centres_mm: Centre of each ellipsoid, (z, y, x), relative to the centre of the body.
        radii_mm: Radii of each ellipsoid, (z, y, x).
        intensities: Mean intensity in each channel.
    """

    label: str
    centres_mm: tuple[Vector, ...]
    radii_mm: Vector
    intensities: tuple[float, float]


# Where two organs overlap, the later one wins.
ORGANS = (
    Organ(label="liver", centres_mm=((4, -3, -12),), radii_mm=(16, 14, 12), intensities=(450, 180)),
    Organ(label="spleen", centres_mm=((8, 6, 17),), radii_mm=(12, 9, 8), intensities=(150, 330)),
    Organ(label="kidneys", centres_mm=((-13, 13, -11), (-13, 13, 11)), radii_mm=(9, 7, 6), intensities=(280, 520)),
    Organ(label="pancreas", centres_mm=((-3, -11, 9),), radii_mm=(8, 6.5, 8), intensities=(540, 400)),
)


def make_demo_dataset(folder: str | os.PathLike[str], *, cases: int = 12, seed: int = 0) -> Dataset:
    """Makes a small synthetic dataset: four organs in two MR-like channels, and two more scans without labels.

    Args:
        folder: Folder of the dataset, such as raw/Dataset001_Demo; must not exist.
        cases: Number of training cases.
        seed: Seed of the random numbers; the same seed makes the same voxels.

    Returns:
        The dataset; the scans without labels are in imagesTs.

    Raises:
        UsageError: The folder exists or the number of cases is not positive.
        ArtifactError: The folder cannot be written.

    Example:
        >>> import autoseg
        >>> dataset = autoseg.make_demo_dataset("raw/Dataset001_Demo", cases=2)
        >>> [case.name for case in dataset.cases], list(dataset.info.labels)
        (['demo_001', 'demo_002'], ['background', 'liver', 'spleen', 'kidneys', 'pancreas'])
    """
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists already", "choose another folder or remove it")
    if cases < 1:
        raise UsageError(f"{cases} cases are too few", "ask for at least 1")
    info = DatasetInfo(
        channel_names={"0": "T1", "1": "T2"},
        labels={"background": 0} | {organ.label: number for number, organ in enumerate(ORGANS, start=1)},
        file_ending=".nii.gz",
        name="Demo",
    )
    with atomic_folder(folder) as writing:
        for name in (TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES):
            (writing / name).mkdir()
        for number in range(1, cases + TEST_SCANS + 1):
            image, label = make_case(np.random.default_rng([seed, number]))
            name = f"demo_{number:03d}"
            _write_channels(image, writing / (TRAINING_IMAGES if number <= cases else TEST_IMAGES), name)
            if number <= cases:
                write_label_map(writing / TRAINING_LABELS / f"{name}.nii.gz", label)
        info.save(info_file(writing), {"numTraining": cases})
    return Dataset.open(folder)


def make_case(random: np.random.Generator) -> tuple[Volume, Volume]:
    """Draws one random patient.

    Returns:
        The image, shape (2, z, y, x), float32, and its label map, shape (z, y, x), uint8, which holds every organ.
    """
    geometry = _draw_geometry(random)
    position = _positions_mm(geometry)
    size = random.uniform(0.92, 1.08)  # of the patient, relative to the average
    label = np.zeros(geometry.shape, np.uint8)
    inside_body = _ellipsoid(position, (0.0, 0.0, 0.0), _scaled(BODY_RADII_MM, size)) < 1
    image = np.where(inside_body, np.reshape(BODY_INTENSITIES, (2, 1, 1, 1)), 0.0)
    for number, organ in enumerate(ORGANS, start=1):
        mask = _draw_organ(organ, position, geometry, size, random) & inside_body
        label[mask] = number
        image[:, mask] = np.reshape(organ.intensities, (2, 1)) * random.uniform(0.95, 1.05)
    image = _simulate_scan(image, geometry, random)
    return Volume(array=image, geometry=geometry), Volume(array=label, geometry=geometry)


def _draw_geometry(random: np.random.Generator) -> Geometry:
    """Draws the shape, spacing, origin and tilt of a scan."""
    z, y, x = (int(size) for size in random.integers(LOWEST_SHAPE, HIGHEST_SHAPE, endpoint=True))
    spacing = np.round(np.asarray(SPACING_MM) * random.uniform(0.95, 1.05, size=3), 3)
    angles = random.uniform(-LARGEST_TILT_DEGREES, LARGEST_TILT_DEGREES, size=3)
    origin = np.round(random.uniform(-100, 100, size=3), 2)
    return Geometry(
        shape=(z, y, x),
        spacing_mm=_vector(spacing),
        origin_mm=_vector(origin),
        direction=_matrix(Rotation.from_euler("zyx", angles, degrees=True).as_matrix()),
    )


def _draw_organ(
    organ: Organ, position: Floats, geometry: Geometry, size: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Draws an ellipsoid for each part of an organ: shifted, scaled, and deformed by smooth noise."""
    mask = np.zeros(geometry.shape, bool)
    for centre in organ.centres_mm:
        shifted_centre = np.asarray(centre) * size + random.normal(0.0, 1.0, size=3)
        radii = np.asarray(organ.radii_mm) * size * random.uniform(0.9, 1.1, size=3)
        dents = 0.08 * _smooth_noise(geometry, 6.0, random)
        mask |= _ellipsoid(position, _vector(shifted_centre), _vector(radii)) + dents < 1
    return mask


def _simulate_scan(tissue: Floats, geometry: Geometry, random: np.random.Generator) -> NDArray[np.float32]:
    """Simulates a scanner: multiplies by a gain and a smooth bias field, blurs a little, adds noise, and rounds."""
    channels = []
    for values in tissue:
        gain = random.uniform(0.8, 1.2)
        bias = np.exp(BIAS * _smooth_noise(geometry, 25.0, random))
        blurred = gaussian_filter(values, _sigma(geometry, 0.5))
        noise = random.normal(0.0, NOISE, size=values.shape)
        channels.append(gain * np.abs(blurred * bias + noise))
    return np.round(np.stack(channels)).astype(np.float32)


def _smooth_noise(geometry: Geometry, width_mm: float, random: np.random.Generator) -> Floats:
    """Returns noise of mean 0 and standard deviation 1 that varies over distances of about `width_mm`."""
    noise = gaussian_filter(random.normal(size=geometry.shape), _sigma(geometry, width_mm), mode="wrap")
    standardized: Floats = (noise - noise.mean()) / noise.std()
    return standardized


def _sigma(geometry: Geometry, width_mm: float) -> list[float]:
    return [width_mm / spacing for spacing in geometry.spacing_mm]


def _positions_mm(geometry: Geometry) -> Floats:
    """Returns the position of each voxel from the centre of the grid, along the array axes; shape (3, z, y, x)."""
    axes = [
        (np.arange(count) - (count - 1) / 2) * spacing
        for count, spacing in zip(geometry.shape, geometry.spacing_mm, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _ellipsoid(position: Floats, centre_mm: Vector, radii_mm: Vector) -> Floats:
    """Returns the distance of each voxel from the centre, scaled to be 1 on the surface; shape (z, y, x)."""
    offset = position - np.reshape(centre_mm, (3, 1, 1, 1))
    distance: Floats = np.linalg.norm(offset / np.reshape(radii_mm, (3, 1, 1, 1)), axis=0)
    return distance


def _write_channels(image: Volume, folder: Path, name: str) -> None:
    for channel in range(image.array.shape[0]):
        part = Volume(array=image.array[channel : channel + 1], geometry=image.geometry)
        write_image(folder / f"{name}_{channel:04d}.nii.gz", part)


def _scaled(values: Vector, factor: float) -> Vector:
    return _vector(np.asarray(values) * factor)


def _vector(values: Floats) -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _matrix(values: Floats) -> Matrix:
    first, second, third = (_vector(row) for row in values)
    return first, second, third
