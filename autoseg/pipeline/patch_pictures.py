"""A picture of training patches: as they are, and as chance changes them by the plan."""

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
from autoseg.planning.plan_file import choose_configurations, list_stored_configurations, load_decisions, open_planned
from autoseg.preprocessing.dataset import check_prepared
from autoseg.preprocessing.store import StoredCase, open_stored
from autoseg.workspace import find_workspace

MOST_ROWS = 4  # Patches that are shown as they are
FEWEST_COLUMNS = 3  # Of the same patch, changed
MOST_PATCHES = 200
SEED = 1
AXIS_NAMES = ("z", "y", "x")  # of the array, in the plan's order


def draw_augmentations(
    number: int,
    configuration: ConfigurationName,
    output: str | os.PathLike[str],
    *,
    count: int = 24,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> Path:
    """Draws a few patches as they are, and beside each what training may make of it, as a PNG file.

    Of a patch with three axes the plane with the most labelled voxels is shown, of several channels the first.

    Args:
        number: Of the dataset.
        configuration: "2d", "3d_fullres" or "3d_lowres"; prepared, not necessarily trained.
        output: The PNG file.
        count: Changed patches.
        plan_name: Of the plan, if it is not the usual one.
        workspace: See `find_workspace`.

    Returns:
        The path of the picture.

    Raises:
        UsageError: The dataset is not preprocessed as its plan says, or there is no such configuration, or the count is
            out of range.
        ArtifactError: plan.json or splits.json is damaged, or the picture cannot be written.
        ProblemsError: Preprocessed cases are damaged or missing, each with its line.
    """
    if not 1 <= count <= MOST_PATCHES:
        raise UsageError(f"{count} patches make no picture", f"choose from 1 to {MOST_PATCHES} with --count")
    folders = find_workspace(workspace).dataset(number, plan_name)
    plan, splits = load_decisions(number, folders)
    [name] = choose_configurations(plan, [configuration])
    [owner] = list_stored_configurations(plan, [name])
    dataset = open_planned(number, folders, plan, splits)
    check_prepared(dataset, plan, owner, folders, number)
    random = np.random.default_rng(SEED)
    names = sorted(splits.names)
    rows_wanted = min(MOST_ROWS, math.ceil(count / FEWEST_COLUMNS))
    chosen = [names[place] for place in random.permutation(len(names))[:rows_wanted]]
    cases = list(open_stored(folders.cases(owner), chosen).values())
    rows = make_tiles(cases, plan.configurations[name], count, random, dataset.info.targets)
    draw_panels(
        Path(output),
        rows,
        title=f"{dataset.name}, {name}: patches as they are, and as training sees them",
        structures=dataset.info.targets.structures,
        pixel_aspect=plan.configurations[name].spacing_mm[-2] / plan.configurations[name].spacing_mm[-1],
    )
    return Path(output)


def make_tiles(
    cases: Sequence[StoredCase],
    configuration: Configuration,
    count: int,
    random: np.random.Generator,
    targets: Targets,
) -> list[list[Panel]]:
    """A row of tiles for each case: a patch centred on foreground, then the same patch, changed again and again."""
    size, beyond = configuration.patch_size, find_beyond(configuration, targets)
    plain = []
    for case in cases:
        start = place_patch(case, configuration, forced=True, random=random)
        plain.append(PatchRegion(case=case, start=start, patch_size=size, beyond=beyond))
    rows: list[list[Panel]] = [[tile] for tile in _show(plain, configuration, [(case.name,) for case in cases])]
    for left in range(count, 0, -len(cases)):
        regions = [
            region.with_augmentation(configuration, [other for other in range(len(cases)) if other != row], random)
            for row, region in enumerate(plain)
        ]
        tiles = _show(regions, configuration, [describe(region.augmentation, len(size)) for region in regions])
        for row, tile in zip(rows[:left], tiles, strict=False):
            row.append(tile)
    return rows


def _show(
    regions: Sequence[PatchRegion], configuration: Configuration, captions: Sequence[Sequence[str]]
) -> Iterator[Panel]:
    """Reads and changes the patches of a batch as the threads of training do; labels are shown where they count."""
    batch = augment_on_cpu([region.read(configuration.augmentation) for region in regions], regions, configuration)
    labels, margin = torch.zeros_like(batch.labels), configuration.patches.margin
    crop_to_centre(labels, margin).copy_(crop_to_centre(batch.labels, margin))
    for image, label, caption in zip(batch.images.numpy(), labels.numpy(), captions, strict=True):
        plane = () if label.ndim == 2 else (choose_plane(label),)
        yield Panel(image=image[(0, *plane)], labels=label[plane], caption=caption)


def choose_plane(labels: NDArray[np.integer]) -> int:
    """The plane of a label map (z, y, x) with the most labelled voxels; the middle one of several, or of none."""
    counts = (labels > 0).sum(axis=(1, 2))
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def describe(draw: AugmentationParameters, axes: int) -> list[str]:
    """What happens to the first channel of a patch of 2 or 3 axes, in the words of the table."""
    return [*_describe_places(draw, axes), *_describe_values(draw)] or ["unchanged"]


def _describe_values(draw: AugmentationParameters) -> Iterator[str]:
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


def _describe_places(draw: AugmentationParameters, axes: int) -> Iterator[str]:
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
