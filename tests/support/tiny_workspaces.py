"""Whole workspaces whose datasets are learned within seconds, for tests from scans to masks."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from phantoms import write_json, write_picture
from scipy.spatial.transform import Rotation

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import IDENTITY, Geometry, Matrix, Shape, Vector, Volume
from autoseg.planning.patch_growth import PatchesName
from autoseg.planning.plan import Plan
from autoseg.workspace import DatasetFolders, Workspace

NUMBER = 1
NAME = "Dataset001_Tiny"
LABELS = {"background": 0, "bright": 1, "dark": 2}
TRAINING = {"epochs": 2, "steps_per_epoch": 2, "validation_steps": 1}
CHANNEL_SIGNS = (1.0, -1.0)
COARSENING = 1.15


def folders_of(root: Path) -> DatasetFolders:
    """The places of the tiny dataset of a workspace."""
    return Workspace(root=root).folders(NAME)


def files_in(folder: Path) -> set[str]:
    """Paths of all files below a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def tilted(*angles_degrees: float) -> Matrix:
    """The direction of a grid that is turned about its three axes."""
    first, second, third = Rotation.from_euler("zyx", angles_degrees, degrees=True).as_matrix().tolist()
    return tuple(first), tuple(second), tuple(third)


def boxes(shape: Shape, shift: int = 0) -> NDArray[np.uint8]:
    """A label map without any symmetry: a long bright box near the first corner, a dark one near the last."""
    z, y, x = shape
    label = np.zeros(shape, np.uint8)
    label[z // 6 : z // 2, y // 6 + shift : y * 3 // 4 + shift, x // 6 : x * 2 // 5] = 1
    label[z // 2 : z * 7 // 8, y // 3 : y * 3 // 4 + shift, x // 2 : x * 7 // 8] = 2
    return label


def scan(label: NDArray[np.uint8], sign: float, seed: int) -> NDArray[np.float32]:
    """One channel of a scan, in whole numbers: bright and dark stand out from grey, the other way round if negative."""
    noise = np.random.default_rng(seed).normal(0, 5, label.shape)
    return np.round(200 + sign * (100.0 * (label == 1) - 100.0 * (label == 2)) + noise).astype(np.float32)


def write_volumes(
    root: Path,
    *,
    shape: Shape = (14, 16, 18),
    spacing_mm: Vector = (1.0, 1.0, 1.0),
    direction: Matrix = IDENTITY,
    channels: int = 1,
    cases: int = 3,
    ending: str = ".nii.gz",
) -> DatasetFolders:
    """Writes a raw dataset of volumes, and in imagesTs one scan more; those of even number are coarser."""
    from autoseg.imaging.image_files import write_image, write_label_map  # tests of GPUs do without SimpleITK

    folders = folders_of(root)
    _info(channels, ending).save(folders.raw / "dataset.json")
    for number in range(1, cases + 2):
        label = boxes(shape, shift=number % 2)
        z_mm, y_mm, x_mm = (COARSENING ** (1 - number % 2) * size for size in spacing_mm)
        geometry = Geometry(
            shape=shape, spacing_mm=(z_mm, y_mm, x_mm), origin_mm=(10.5 * number, -20.25, 30.0), direction=direction
        )
        images = folders.raw / ("imagesTr" if number <= cases else "imagesTs")
        for channel, sign in enumerate(CHANNEL_SIGNS[:channels]):
            array = scan(label, sign, seed=10 * number + channel)[np.newaxis]
            write_image(images / f"case_{number}_{channel:04d}{ending}", Volume(array=array, geometry=geometry))
        if number <= cases:
            write_label_map(folders.raw / "labelsTr" / f"case_{number}{ending}", Volume(array=label, geometry=geometry))
    return folders


def write_pictures(root: Path, *, colours: int, cases: int = 3) -> DatasetFolders:
    """Writes a raw dataset of PNG files, grey or in three colours, and in imagesTs one picture more."""
    folders = folders_of(root)
    _info(colours, ".png").save(folders.raw / "dataset.json")
    for number in range(1, cases + 2):
        label = boxes((8, 32, 40), shift=number).max(axis=0)
        signs = (1.0, -1.0, 0.5)[:colours]
        array = np.stack([scan(label, sign, seed=number).clip(0, 255) for sign in signs], axis=-1).astype(np.uint8)
        images = folders.raw / ("imagesTr" if number <= cases else "imagesTs")
        write_picture(images / f"case_{number}.png", array if colours > 1 else array[..., 0])
        if number <= cases:
            write_picture(folders.raw / "labelsTr" / f"case_{number}.png", label)
    return folders


def plan_tiny(root: Path, patches: PatchesName = "growing", **training: float) -> Plan:
    """Plans and preprocesses, then edits plan.json, as a user would, so that training takes a moment."""
    from autoseg.pipeline.datasets import plan_and_preprocess

    with patch("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000):  # the usual number takes a second
        plan_and_preprocess(NUMBER, preset="small", patches=patches, workspace=root)
    return edit_training(root, **{**TRAINING, **training})


def edit_training(root: Path, **training: float) -> Plan:
    """Changes settings of the training in plan.json."""
    path = folders_of(root).plan
    plan = Plan.load(path)
    changed = plan.training.model_validate({**plan.training.model_dump(), **training})
    plan = plan.model_copy(update={"training": changed})
    plan.save(path)
    return plan


def write_splits(root: Path, folds: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Writes splits.json by hand: for each fold the names of the training and of the held-out cases."""
    content = [{"training": list(training), "validation": list(validation)} for training, validation in folds]
    write_json(folders_of(root).splits, {"format_version": 1, "folds": content})


def dice(one: NDArray[np.integer], other: NDArray[np.integer], label: int) -> float:
    """Overlap of a label in two label maps."""
    first, second = one == label, other == label
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def _info(channels: int, ending: str) -> DatasetInfo:
    names = {str(channel): f"channel_{channel}" for channel in range(channels)}
    return DatasetInfo(channel_names=names, labels=LABELS, file_ending=ending)
