"""A picture of training patches: unchanged, and augmented at random as the plan says."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation_parameters import AugmentationParameters
from autoseg.dataloading.loader import augment_on_cpu
from autoseg.dataloading.patch import PatchRegion, crop_to_centre, find_beyond, place_patch
from autoseg.errors import UsageError
from autoseg.evaluation.panels import Panel, draw_panels
from autoseg.imaging.targets import Targets
from autoseg.planning.plan import Configuration, ConfigurationName
from autoseg.planning.plan_file import (
    choose_configurations,
    configurations_to_preprocess,
    load_plan_and_splits,
    open_planned_dataset,
)
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.preprocessing.store import StoredCase, open_stored
from autoseg.runtime.paths import as_path
from autoseg.runtime.writable import check_place
from autoseg.workspace import find_workspace

MOST_ROWS = 4  # number of different patches
FEWEST_COLUMNS = 3  # number of augmented copies of each patch
MOST_PATCHES = 200
SEED = 1
AXIS_NAMES = ("z", "y", "x")  # array axes, in the plan's order


def draw_augmentations(
    number: int,
    configuration: ConfigurationName,
    output: str | os.PathLike[str],
    *,
    count: int = 24,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> Path:
    """Draws up to four patches, and beside each the same patch as training augments it, as a PNG file.

    Of a patch with three axes, the plane with the most labelled voxels is drawn; of several channels, the first; of
    neighbouring slices, the one in their middle.

    Args:
        number: Number of the dataset.
        configuration: "2d", "3d_fullres" or "3d_lowres"; prepared, not necessarily trained.
        output: Path of the PNG file.
        count: Number of augmented patches, 1 to 200.
        plan_name: Name of the plan, if it is not the usual one.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.

    Returns:
        The path of the picture.

    Raises:
        UsageError: The dataset is not preprocessed as its plan says, or there is no such configuration, or the count is
            out of range, or `output` does not end in .png.
        ArtifactError: plan.json or splits.json is damaged, or the picture cannot be written.
        ProblemsError: Preprocessed cases are damaged or missing, with a line for each.

    Example:
        For dataset 4, after it was preprocessed::

            autoseg.draw_augmentations(4, "3d_fullres", "patches.png")
    """
    if not 1 <= count <= MOST_PATCHES:
        raise UsageError(f"{count} patches make no picture", f"choose from 1 to {MOST_PATCHES} with --count")
    picture = as_path(output, "output")
    if picture.suffix.lower() != ".png":
        raise UsageError(f"{picture} is no name of a PNG file", "give one that ends in .png")
    check_place(picture)
    folders = find_workspace(workspace).dataset(number, plan_name)
    plan, splits = load_plan_and_splits(number, folders)
    [name] = choose_configurations(plan, [configuration])
    [owner] = configurations_to_preprocess(plan, [name])
    dataset = open_planned_dataset(number, folders, plan, splits)
    check_prepared(dataset, plan, owner, folders, number)
    random = np.random.default_rng(SEED)
    names = sorted(splits.names)
    row_count = min(MOST_ROWS, math.ceil(count / FEWEST_COLUMNS))
    chosen = [names[index] for index in random.permutation(len(names))[:row_count]]
    cases = list(open_stored(folders.cases(owner), chosen).values())
    rows = make_tiles(cases, plan.configurations[name], count, random, dataset.info.targets)
    draw_panels(
        picture,
        rows,
        title=f"{dataset.name}, {name}: patches as they are, and as training sees them",
        structures=dataset.info.targets.structures,
        pixel_aspect=plan.configurations[name].spacing_mm[-2] / plan.configurations[name].spacing_mm[-1],
    )
    return picture


def make_tiles(
    cases: Sequence[StoredCase],
    configuration: Configuration,
    count: int,
    random: np.random.Generator,
    targets: Targets,
) -> list[list[Panel]]:
    """Makes a row of panels for each case: a patch centred on foreground, then augmented copies of it.

    Args:
        cases: The cases, at most `MOST_ROWS`.
        configuration: Its patch size and augmentation are used.
        count: Number of augmented patches in all rows together.
        random: Source of the patches' places and of their changes.
        targets: Structures of the dataset.
    """
    size, beyond = configuration.patch_size, find_beyond(configuration, targets)
    unchanged, neighbours = [], configuration.neighbouring_slices
    for case in cases:
        start = place_patch(case, configuration, forced=True, random=random)
        unchanged.append(PatchRegion(case=case, start=start, patch_size=size, beyond=beyond, neighbours=neighbours))
    rows: list[list[Panel]] = [
        [tile] for tile in _read_panels(unchanged, configuration, [(case.name,) for case in cases])
    ]
    for left in range(count, 0, -len(cases)):
        augmented = [
            patch.with_augmentation(configuration, [other for other in range(len(cases)) if other != row], random)
            for row, patch in enumerate(unchanged)
        ]
        tiles = _read_panels(augmented, configuration, [describe(patch.augmentation, len(size)) for patch in augmented])
        for row, tile in zip(rows[:left], tiles, strict=False):
            row.append(tile)
    return rows


def _read_panels(
    patches: Sequence[PatchRegion], configuration: Configuration, captions: Sequence[Sequence[str]]
) -> Iterator[Panel]:
    """Reads and augments the patches of a batch as training does; labels outside the scored centre are left out."""
    batch = augment_on_cpu([patch.read(configuration.augmentation) for patch in patches], patches, configuration)
    labels, margin = torch.zeros_like(batch.labels), configuration.patches.margin
    crop_to_centre(labels, margin).copy_(crop_to_centre(batch.labels, margin))
    for image, label, caption in zip(batch.images.numpy(), labels.numpy(), captions, strict=True):
        plane = () if label.ndim == 2 else (choose_plane(label),)
        yield Panel(image=image[(configuration.neighbouring_slices, *plane)], labels=label[plane], caption=caption)


def choose_plane(labels: NDArray[np.integer]) -> int:
    """Returns the index of the plane of a label map (z, y, x) that has the most labelled voxels.

    If several planes have the same number, the middle one of them is taken; without any label, the middle plane.
    """
    counts = (labels > 0).sum(axis=(1, 2))
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def describe(draw: AugmentationParameters, axes: int) -> list[str]:
    """Returns a line for each change of the first channel of a patch.

    Args:
        draw: The random parameters of the patch.
        axes: Number of axes of the patch, 2 or 3.
    """
    return [*_describe_transform(draw, axes), *_describe_intensities(draw)] or ["unchanged"]


def _describe_intensities(draw: AugmentationParameters) -> Iterator[str]:
    if draw.partner is not None:
        yield "histogram of another"
    if draw.noise_std is not None:
        yield f"noise {draw.noise_std:.2f}"
    if draw.blur_sigmas is not None and draw.blur_sigmas[0].any():
        yield f"blur {draw.blur_sigmas[0].mean():.2f}"
    if draw.resolution is not None and draw.resolution[0] < 1:
        yield f"resolution {draw.resolution[0]:.2f}"
    factors = {
        "brightness": draw.brightness,
        "contrast": draw.contrast,
        "inverted gamma": draw.gamma_inverted,
        "gamma": draw.gamma,
    }
    for name, amounts in factors.items():
        if amounts is not None:
            yield f"{name} {amounts[0]:.2f}"


def _describe_transform(draw: AugmentationParameters, axes: int) -> Iterator[str]:
    if draw.affine is not None:
        lengths = np.linalg.norm(draw.affine, axis=1)
        cosine = (np.trace(draw.affine / lengths[:, np.newaxis]) - (axes - 2)) / 2
        if cosine < 1 - 1e-9:
            yield f"turned {math.degrees(math.acos(max(-1.0, cosine))):.0f}°"
        if abs(lengths[-1] - 1) > 1e-9:
            yield f"size {1 / lengths[-1]:.2f}"
    if draw.displacements is not None:
        yield "deformed"
    if draw.mirrored:
        yield f"flipped {' '.join(AXIS_NAMES[axis - axes] for axis in draw.mirrored)}"
