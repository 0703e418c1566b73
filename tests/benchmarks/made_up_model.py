"""A scan and a model that are made by hand, for predictions of many classes; nothing in them was learned.

The brightness of a voxel, beside that of its tile, decides its class. The classes lie around each other in shells of
very different thickness.
"""

import shutil
from itertools import count
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr
from smooth_scans import make_field

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import write_image
from autoseg.models.checkpoint import Checkpoint, save_checkpoint
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.default_unet import build_network
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration, Plan
from autoseg.planning.settings import AugmentationSettings, TrainingSettings
from autoseg.workspace import ModelFolder

WAVELENGTH = 64  # Voxels between the darkest and brightest spots of a scan, or so: a patch sees all classes
BRIGHTEST_HU, AIR_HU = 1000, -200
RANGE = (-1.7, 1.7)  # of evenly distributed values, in standard deviations
SPREAD = 1.5  # Standard deviation of the logarithm of the share of the range that a class has
STEEPNESS = 40.0


def choose_spacing(shape: Shape, grid: Shape) -> tuple[float, float, float]:
    """Returns the spacing in mm that brings a scan of 1 mm voxels from a shape to a grid."""
    z, y, x = (old / new for old, new in zip(shape, grid, strict=True))
    return z, y, x


def make_scan(folder: Path, shape: Shape) -> Path:
    """Writes a scan of a round body in air, whose brightness varies smoothly within it; returns its folder.

    A scan of the same shape that an earlier run wrote is kept.
    """
    path = folder / f"scan_{'_'.join(map(str, shape))}_0000.nii.gz"
    if not path.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        field = make_field(shape, np.random.default_rng(5), WAVELENGTH)
        field *= 1 / field.std()
        z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
        body = (y / 0.8) ** 2 + (x / 0.9) ** 2 + 0 * z < 1
        image = np.where(body, BRIGHTEST_HU * ndtr(field), AIR_HU).astype(np.float32)
        write_image(path, Volume(array=image[np.newaxis], geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0))))
    return folder


def make_model(
    folder: Path,
    *,
    classes: int,
    spacing_mm: tuple[float, float, float],
    patch: tuple[int, int, int],
    features: int,
    mirrored: bool = True,
) -> None:
    """Writes a model whose network passes the brightness on, beside its other features, and divides it into classes.

    Args:
        folder: Folder of the model, which gets fold 0.
        classes: Number of classes with the background.
        spacing_mm: Spacing to which a scan is resampled, (z, y, x).
        patch: Shape of its tiles, (z, y, x), divisible by 8.
        features: Features of the first of four stages; each further stage has twice as many.
        mirrored: Whether it predicts with mirroring.
    """
    ones, twos, threes = (1,) * 3, (2,) * 3, (3,) * 3
    stages = tuple(
        Stage(features=features * 2**level, kernel=threes, stride=twos if level else ones, convolutions=2)
        for level in range(4)
    )
    architecture = Architecture(residual="none", in_channels=1, out_channels=classes, stages=stages)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    pass_brightness(weights, features, classes)
    configuration = Configuration(
        spacing_mm=spacing_mm,
        patch_size=patch,
        batch_size=2,
        median_shape=patch,
        normalization=(Normalization(scheme="ct", lower=-1000, upper=1000, mean=0, std=500),),
        batch_dice=False,
        architecture=architecture,
        estimated_bytes=10**9,
        augmentation=AugmentationSettings(mirror_axes=(0, 1, 2) if mirrored else ()),
    )
    plan = Plan(
        dataset="Dataset999_Made",
        preset="8gb",
        memory_budget_bytes=8 * 10**9,
        axis_order=(0, 1, 2),
        configurations={"3d_fullres": configuration},
        training=TrainingSettings(),
    )
    labels = {"background": 0, **{f"organ {number}": number for number in range(1, classes)}}
    fold = Checkpoint(
        plan=plan,
        info=DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz"),
        configuration_name="3d_fullres",
        fold=0,
        cases="0" * 16,
        weights=weights,
        finished=True,
        training={},
    )
    save_checkpoint(fold, ModelFolder(path=folder).checkpoint(0))


def pass_brightness(weights: dict[str, torch.Tensor], features: int, classes: int) -> None:
    """Changes weights so that the network passes the brightness on to its head, which divides it into classes.

    Two channels of each convolution at full resolution hold the brightness and its negative, after the leaky ReLU.
    Their difference, which the next convolution takes, is the brightness times a constant. The normalization makes it
    relative to that of the tile. A class is a part of its range.
    """
    convolutions = [f"encoder.0.blocks.{number}" for number in range(2)] + [
        f"decoder.0.blocks.{number}" for number in range(2)
    ]
    for index, name in zip(count(), convolutions):
        kernel = weights[f"{name}.conv.weight"]
        kernel[:2] = 0
        skip = features if name == "decoder.0.blocks.0" else 0  # what came across follows what came from below
        for channel, sign in enumerate((1.0, -1.0)):
            kernel[channel, skip, 1, 1, 1] = sign
            if index:
                kernel[channel, skip + 1, 1, 1, 1] = -sign
        weights[f"{name}.conv.bias"][:2] = 0
        weights[f"{name}.norm.weight"][:2], weights[f"{name}.norm.bias"][:2] = 1, 0
    slopes, offsets = cut_brightness(classes)
    head = weights["heads.0.weight"]
    head.zero_()
    head[:, 0, 0, 0, 0], head[:, 1, 0, 0, 0] = slopes, -slopes
    weights["heads.0.bias"].copy_(offsets)


def cut_brightness(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns slopes and offsets of as many lines, each of which is the highest over its own part of the brightness.

    The parts are of very different width, as organs are.
    """
    widths = np.exp(np.random.default_rng(7).normal(0, SPREAD, classes))
    ends = np.cumsum(widths) / widths.sum() * (RANGE[1] - RANGE[0]) + RANGE[0]
    slopes = STEEPNESS * np.linspace(*RANGE, classes)
    steps = -np.diff(slopes) * ends[:-1]  # where one line ends, the next one crosses it
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    return torch.tensor(slopes, dtype=torch.float32), torch.tensor(offsets, dtype=torch.float32)
