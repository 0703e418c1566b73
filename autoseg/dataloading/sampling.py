"""The cases that training patches are read from, where patches are placed, and how they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from autoseg.dataloading.label_warping import warp_labels
from autoseg.imaging.geometry import Box, Shape
from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.imaging.targets import OUTSIDE
from autoseg.preprocessing.foreground import Foreground, VoxelIndex


class PatchSource(Protocol):
    """A preprocessed case of which parts can be read."""

    @property
    def shape(self) -> Shape:
        """Number of voxels along (z, y, x)."""

    @property
    def foreground(self) -> Foreground:
        """A sample of the positions of its foreground voxels."""

    @property
    def missing_channels(self) -> tuple[int, ...]:
        """Channels that the scan lacks: they are 0 everywhere, and no augmentation changes that."""

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image (c, z, y, x) and the label map (z, y, x) inside a box that lies within the case."""

    def load_label(self) -> NDArray[np.integer]:
        """Reads the whole label map (z, y, x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemoryCase:
    """A case that is held in memory.

    Attributes:
        image: Preprocessed image, shape (c, z, y, x).
        label: Label map, shape (z, y, x); `OUTSIDE` marks voxels outside the scan.
        foreground: Sample of the positions of its foreground voxels.
        missing_channels: Channels that the scan lacks.
    """

    image: NDArray[np.float32]
    label: NDArray[np.integer]
    foreground: Foreground
    missing_channels: tuple[int, ...] = ()

    @property
    def shape(self) -> Shape:
        """Number of voxels along (z, y, x)."""
        z, y, x = self.label.shape
        return z, y, x

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image and the label map inside a box."""
        return self.image[(slice(None), *box.slices)], self.label[box.slices]

    def load_label(self) -> NDArray[np.integer]:
        """Returns the whole label map."""
        return self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedCase:
    """A case that is read otherwise than the case it is made of, whose shape, foreground and labels it keeps.

    Attributes:
        case: The other case.
    """

    case: PatchSource

    @property
    def shape(self) -> Shape:
        """Number of voxels along (z, y, x)."""
        return self.case.shape

    @property
    def foreground(self) -> Foreground:
        """A sample of the positions of its foreground voxels."""
        return self.case.foreground

    @property
    def missing_channels(self) -> tuple[int, ...]:
        """Channels that the scan lacks."""
        return self.case.missing_channels

    def load_label(self) -> NDArray[np.integer]:
        """Loads the whole label map (z, y, x)."""
        return self.case.load_label()


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredCase(DerivedCase):
    """A case that continues beyond its border as its own mirror image; see `imaging.mirror_padding`.

    Attributes:
        case: The case itself.
        mark: Returns changed labels (z, y, x), given labels and a mask of the same shape that is true beyond the
            border.
    """

    mark: Callable[[NDArray[np.integer], NDArray[np.bool_]], NDArray[np.integer]]

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image and the label map inside a box, which may extend beyond the case or lie outside it."""
        lines = list(zip(box.start, box.shape, self.shape, strict=True))
        axes = [mirror_indices(first, count, size) for first, count, size in lines]
        lowest, highest = _three([axis.min() for axis in axes]), _three([axis.max() + 1 for axis in axes])
        image, label = self.case.read(Box(start=lowest, stop=highest))
        voxels: Any = np.ix_(*(axis - first for axis, first in zip(axes, lowest, strict=True)))
        beyond = np.ones(label[voxels].shape, dtype=bool)
        beyond[tuple(slice(max(0, -first), max(0, size - first)) for first, _, size in lines)] = False
        return np.ascontiguousarray(image[(slice(None), *voxels)]), self.mark(label[voxels], beyond)


def count_forced(batch_size: int, foreground_fraction: float) -> int:
    """Returns the number of patches in a batch that are centred on foreground.

    Source: the reference method, in which these are the last patches of a batch, from round(batch * (1 - fraction)) on.

    Example:
        >>> [count_forced(batch_size, 1 / 3) for batch_size in (2, 3, 5, 12)]
        [1, 1, 2, 4]
    """
    return batch_size - round(batch_size * (1 - foreground_fraction))


def choose_start(
    case: PatchSource,
    patch: Shape,
    *,
    forced: bool,
    random: np.random.Generator,
    voxel: VoxelIndex | None = None,
) -> tuple[int, int, int]:
    """Draws the first voxel of a patch; it may be negative, and the patch may extend beyond the case.

    Source: the reference method. An ordinary patch lies inside the case, or around it if the case is smaller. A forced
    patch is centred on a voxel of a structure that is drawn evenly from those that occur; near the lower border it is
    moved inside, near the upper border it extends beyond the case. If some voxels of a case are not labelled, an
    ordinary patch is centred on a voxel that is.

    Example along one axis of 10 voxels with a patch of 4: ordinary starts are 0 to 6; a patch forced on voxel 1 starts
    at 0, and one forced on voxel 9 starts at 7, with its last voxel outside. With a patch of 14 the start is -2.

    Args:
        case: The case that the patch is read from.
        patch: Size of the patch along (z, y, x), in voxels.
        forced: Whether the patch is centred on foreground.
        random: Source of every random number.
        voxel: Voxel that the patch is centred on; None draws one.

    Returns:
        The first voxel, (z, y, x).
    """
    lowest = [min(0, -((size - extent) // -2)) for size, extent in zip(case.shape, patch, strict=True)]
    if voxel is None:
        voxel = case.foreground.draw(random) if forced else case.foreground.draw_labelled(random)
    if voxel is not None:
        z, y, x = (max(low, at - extent // 2) for low, at, extent in zip(lowest, voxel, patch, strict=True))
        return z, y, x
    highest = [max(low, size - extent) for low, size, extent in zip(lowest, case.shape, patch, strict=True)]
    z, y, x = (int(random.integers(low, high + 1)) for low, high in zip(lowest, highest, strict=True))
    return z, y, x


def read_patch(
    case: PatchSource,
    start: tuple[int, int, int],
    patch: Shape,
    affine: NDArray[np.float64] | None = None,
    field: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads a patch; if `affine` or `field` is given, rotated, scaled and deformed about its centre.

    Beyond the border of the case the image is 0 and the label `OUTSIDE`, unless it is a `MirroredCase`. The image is
    interpolated linearly; the label is the one with the largest interpolated share, the smallest label if several have
    it.

    Args:
        case: The case that the patch is read from.
        start: First voxel of the patch, (z, y, x).
        patch: Size of the patch along (z, y, x), in voxels; (1, y, x) for a 2D configuration.
        affine: Matrix from `affine.draw_affine`, of 3 dimensions, or of 2 for a patch of one slice.
        field: Displacement of each voxel, in voxels, before the matrix is applied, along the last 2 or 3 axes: shape
            (2, y, x), the same for all slices, or (3, z, y, x).

    Returns:
        Image (c, z, y, x), float32, and label map (z, y, x), int16.

    Example:
        >>> label = np.array([[[0, 1, 2]]])
        >>> case = InMemoryCase(
        ...     image=label[None].astype(np.float32), label=label, foreground=Foreground.of([])
        ... )
        >>> read_patch(case, (0, 0, 1), (1, 1, 3))[1]
        tensor([[[ 1,  2, -1]]], dtype=torch.int16)
    """
    if affine is None and field is None:
        image, label = _read_padded(case, start, patch)
        return torch.from_numpy(image), torch.from_numpy(label.astype(np.int16))
    image, label = read_source_region(case, start, patch, affine, field)
    return _warp(image, label, _place_voxels(patch, affine, field))


def read_source_region(
    case: PatchSource,
    start: tuple[int, int, int],
    patch: Shape,
    affine: NDArray[np.float64] | None,
    field: torch.Tensor | None,
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Reads the part of a case that a rotated, scaled or deformed patch is interpolated from.

    Takes the arguments of `read_patch`.

    Returns:
        Image (c, z, y, x) and label map (z, y, x). Their centre is that of the patch; along an axis along which no
        voxel is displaced, they are as large as the patch.
    """
    half = (np.asarray(patch) - 1) / 2
    # Without deformation, the corners of the patch reach furthest.
    reach = np.abs(_in_space(affine)) @ half
    if field is not None:
        reach = _place_voxels(patch, affine, field).abs().amax(dim=(0, 1, 2)).double().numpy()
    wider = np.maximum(np.ceil(reach - half), 0).astype(int)
    return _read_padded(case, _three(np.asarray(start) - wider), _three(np.asarray(patch) + 2 * wider))


def _in_space(affine: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Returns the matrix in three dimensions, with the identity along the axes before its own."""
    matrix = np.eye(3)
    if affine is not None:
        matrix[3 - len(affine) :, 3 - len(affine) :] = affine
    return matrix


def _place_voxels(patch: Shape, affine: NDArray[np.float64] | None, field: torch.Tensor | None) -> torch.Tensor:
    """Returns the offset from the centre at which each voxel of a patch is read, in voxels; shape (z, y, x, 3)."""
    axes = [torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    if field is not None:
        offsets[..., 3 - len(field) :] += field.movedim(0, -1)
    return offsets @ torch.from_numpy(_in_space(affine).T).float()


def _warp(
    image: NDArray[np.float32], label: NDArray[np.integer], offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolates image and label map at `offsets` from their centre, in voxels; shape (z, y, x, 3)."""
    extent = torch.tensor([max(size - 1, 1) for size in label.shape], dtype=torch.float32)
    # grid_sample wants (x, y, z) from -1 to 1 between the first and the last voxel centre; a single slice is at 0.
    grid = (offsets / extent * 2).flip(-1)[None]
    warped = F.grid_sample(torch.from_numpy(image)[None], grid, align_corners=True, padding_mode="zeros")[0]
    return warped, warp_labels(label, offsets, grid)


def _read_padded(
    case: PatchSource, start: tuple[int, int, int], patch: Shape
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Reads a patch that may extend beyond the case on any side, or lie outside it."""
    if isinstance(case, MirroredCase):
        stop = _three([first + extent for first, extent in zip(start, patch, strict=True)])
        return case.read(Box(start=start, stop=stop))
    inner_start = [min(max(first, 0), size) for first, size in zip(start, case.shape, strict=True)]
    inner_stop = [
        min(max(first + extent, 0), size) for first, extent, size in zip(start, patch, case.shape, strict=True)
    ]
    image, label = case.read(Box(start=_three(inner_start), stop=_three(inner_stop)))
    if label.shape == patch:
        return np.ascontiguousarray(image), label
    inside = tuple(
        slice(inner - first, inner - first + size)
        for inner, first, size in zip(inner_start, start, label.shape, strict=True)
    )
    padded_image = np.zeros((image.shape[0], *patch), dtype=np.float32)
    padded_label = np.full(patch, OUTSIDE, dtype=label.dtype)
    padded_image[(slice(None), *inside)] = image
    padded_label[inside] = label
    return padded_image, padded_label


def _three(values: "NDArray[np.integer] | list[Any]") -> tuple[int, int, int]:
    z, y, x = (int(value) for value in values)
    return z, y, x
