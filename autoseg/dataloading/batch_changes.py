"""The changes of all patches of a batch as tensors, prepared by a loader thread.

`device_augmentation` copies them to the device and makes the changes there. So the main thread, which starts the
calculations of the device, neither calculates amounts nor copies them one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation import make_noise
from autoseg.dataloading.augmentation_parameters import Amounts, AugmentationParameters
from autoseg.dataloading.deformation import spline_tensors
from autoseg.dataloading.filter_matrices import blur_matrices, coarsening_matrices
from autoseg.dataloading.label_swaps import swap_table
from autoseg.dataloading.warping import WarpGrid, make_grid
from autoseg.networks.architecture import Axes
from autoseg.planning.settings import AugmentationSettings

ChannelMatrices = Sequence[NDArray[np.float32] | None]
"""The matrix of each axis for one channel; empty if the channel stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warping:
    """Rotation, scaling and deformation of k patches.

    Attributes:
        index: Indices of the patches in the batch, shape (k,).
        grid: Where their voxels lie in their source regions.
        displacements: Displacements of the points of a coarse grid, shape (k, deformed axes, *points); None if none of
            the patches is deformed.
        splines: Weights that interpolate them along each deformed axis; see `deformation.spline_weights`.
    """

    index: torch.Tensor
    grid: WarpGrid
    displacements: torch.Tensor | None
    splines: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAmounts:
    """A change of m patches by one amount per channel.

    Attributes:
        index: Indices of the patches in the batch, shape (m,).
        amounts: Amounts, shape (m * c, 1, ...).
    """

    index: torch.Tensor
    amounts: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFilter:
    """Products of the lines of voxels of m channels with matrices.

    Attributes:
        index: Indices of the channels among those of all patches, shape (m,).
        matrices: For each axis, a matrix of each channel, shape (m, size, size); None for an axis that stays as it is.
    """

    index: torch.Tensor
    matrices: tuple[torch.Tensor | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Mirroring along one axis.

    Attributes:
        axis: The axis.
        index: Indices of the patches in the batch.
        partners: New label of each label, if structures change sides; see `label_swaps.swap_table`.
    """

    axis: int
    index: torch.Tensor
    partners: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChanges:
    """The changes of a batch after it was warped, in their order; None for a change that no patch gets.

    Attributes:
        matched: Indices of the patches whose histograms change, and of those whose histograms they take on.
        noise: Indices of the patches that get noise, and their noise, shape (h, c, *patch).
        blur: Gaussian blur.
        brightness: Factor of each channel of all patches, shape (n, c, 1, ...).
        contrast: Contrast.
        resolution: Low resolution.
        gamma_inverted: Gamma of the inverted channels.
        gamma: Gamma.
        missing: Indices of the channels that become 0, among those of all patches.
        flips: Mirroring, axis by axis.
    """

    matched: tuple[torch.Tensor, torch.Tensor] | None
    noise: tuple[torch.Tensor, torch.Tensor] | None
    blur: LineFilter | None
    brightness: torch.Tensor | None
    contrast: ChannelAmounts | None
    resolution: LineFilter | None
    gamma_inverted: ChannelAmounts | None
    gamma: ChannelAmounts | None
    missing: torch.Tensor | None
    flips: tuple[Flip, ...]


def prepare_changes(
    parameters: Sequence[AugmentationParameters], settings: AugmentationSettings, patch: Axes, channels: int
) -> BatchChanges:
    """Prepares the changes of a batch.

    Args:
        parameters: Changes of each patch, in the order of the batch.
        settings: Augmentation settings of the plan.
        patch: Size of the patches, in voxels.
        channels: Number of channels of the images.
    """
    axes, coarsened = len(patch), settings.in_plane_axes(len(patch))
    return BatchChanges(
        matched=_prepare_matching(parameters),
        noise=_prepare_noise(parameters, (channels, *patch)),
        blur=_make_filter([params.blur_sigmas for params in parameters], lambda sigmas: blur_matrices(patch, sigmas)),
        brightness=_prepare_factors([params.brightness for params in parameters], channels, axes),
        contrast=_choose([params.contrast for params in parameters], axes),
        resolution=_make_filter(
            [params.resolution for params in parameters],
            lambda factor: coarsening_matrices(patch, coarsened, factor),
        ),
        gamma_inverted=_choose([params.gamma_inverted for params in parameters], axes),
        gamma=_choose([params.gamma for params in parameters], axes),
        missing=_number_missing(parameters, channels),
        flips=_prepare_flips(parameters, settings),
    )


def prepare_warping(
    parameters: Sequence[AugmentationParameters], settings: AugmentationSettings, patch: Axes, sizes: Sequence[int]
) -> Warping | None:
    """Prepares the warp of the patches that are rotated, scaled or deformed; None if there are none.

    A patch without rotation and scaling gets the identity matrix, one without deformation displacements of zero.

    Args:
        parameters: Changes of each patch, in the order of the batch.
        settings: Augmentation settings of the plan.
        patch: Size of the patches, in voxels.
        sizes: Size of the source regions, in voxels.
    """
    warped = [(number, params) for number, params in enumerate(parameters) if params.is_warped]
    if not warped:
        return None
    identity = np.eye(len(patch))
    matrices = np.stack([identity if params.affine is None else params.affine for _, params in warped])
    points = [params.displacements for _, params in warped if params.displacements is not None]
    deformed = settings.in_plane_axes(len(patch)) if points else ()
    displacements = None
    if points:
        zeros = np.zeros_like(points[0])
        every = [zeros if params.displacements is None else params.displacements for _, params in warped]
        displacements = torch.from_numpy(np.stack(every))
    return Warping(
        index=torch.tensor([number for number, _ in warped]),
        grid=make_grid(sizes, patch, matrices, len(deformed)),
        displacements=displacements,
        splines=spline_tensors([patch[axis] for axis in deformed], settings.deformation_spacing_voxels),
    )


def _prepare_matching(parameters: Sequence[AugmentationParameters]) -> tuple[torch.Tensor, torch.Tensor] | None:
    pairs = [(number, params.partner) for number, params in enumerate(parameters) if params.partner is not None]
    if not pairs:
        return None
    matched, partners = torch.tensor(pairs).unbind(1)
    return matched, partners


def _prepare_noise(
    parameters: Sequence[AugmentationParameters], shape: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    noisy = [number for number, params in enumerate(parameters) if params.noise_std is not None]
    if not noisy:
        return None
    return torch.tensor(noisy), torch.stack([make_noise(parameters[number], shape) for number in noisy])


def _prepare_factors(amounts: Sequence[Amounts | None], channels: int, axes: int) -> torch.Tensor | None:
    """Returns a factor for each channel of all patches, 1 for those that stay as they are; None if all do."""
    if all(amount is None for amount in amounts):
        return None
    ones = np.ones(channels, np.float32)
    factors = np.stack([ones if amount is None else amount for amount in amounts])
    return torch.from_numpy(factors).reshape(len(amounts), channels, *[1] * axes)


def _choose(amounts: Sequence[Amounts | None], axes: int) -> ChannelAmounts | None:
    """Returns the patches that have amounts, one per channel; None if no patch has."""
    chosen = [(number, amount) for number, amount in enumerate(amounts) if amount is not None]
    if not chosen:
        return None
    column = torch.from_numpy(np.concatenate([amount for _, amount in chosen]))
    return ChannelAmounts(index=torch.tensor([number for number, _ in chosen]), amounts=column.reshape(-1, *[1] * axes))


def _make_filter(amounts: Sequence[Amounts | None], make: Callable[[Any], ChannelMatrices]) -> LineFilter | None:
    """Returns the matrices that a change multiplies channels by; None if it changes no channel.

    Args:
        amounts: Amounts of each patch, one per channel; None for a patch that stays as it is.
        make: Returns the matrices of a channel, given its amount.
    """
    filtered = [
        (number * len(amount) + channel, matrices)
        for number, amount in enumerate(amounts)
        if amount is not None
        for channel, matrices in enumerate(map(make, amount))
        if matrices
    ]
    if not filtered:
        return None
    by_axis = (
        [matrix for matrix in matrices if matrix is not None]
        for matrices in zip(*(matrices for _, matrices in filtered), strict=True)
    )
    return LineFilter(
        index=torch.tensor([number for number, _ in filtered]),
        matrices=tuple(torch.from_numpy(np.stack(matrices)) if matrices else None for matrices in by_axis),
    )


def _number_missing(parameters: Sequence[AugmentationParameters], channels: int) -> torch.Tensor | None:
    """Returns the numbers of the missing channels among the channels of all patches; None if none is missing."""
    missing = [number * channels + channel for number, params in enumerate(parameters) for channel in params.missing]
    return torch.tensor(missing) if missing else None


def _prepare_flips(parameters: Sequence[AugmentationParameters], settings: AugmentationSettings) -> tuple[Flip, ...]:
    flips = []
    for axis in settings.mirror_axes:
        flipped = [number for number, params in enumerate(parameters) if axis in params.mirrored]
        partners = swap_table(settings.swapped_labels) if axis == settings.swap_axis else None
        if flipped:
            flips.append(Flip(axis=axis, index=torch.tensor(flipped), partners=partners))
    return tuple(flips)
