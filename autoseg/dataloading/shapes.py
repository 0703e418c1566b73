"""Shapes that some losses need beside the labels: regions around connected components, skeletons, and borders.

They follow from the labels of a patch as the network is to predict them, so they are made after its augmentation, by
the threads that prepare batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from autoseg.imaging.borders import number_components, weigh_borders
from autoseg.imaging.skeletons import find_tube
from autoseg.imaging.structure_masks import structure_masks
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings

MOST_REGIONS = 1023
"""The most regions of a structure in a patch. Decision: of more components, those from this one on share a region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Shapes of the structures of patches.

    Attributes:
        regions: Number of the connected component that is nearest to each voxel, from 1, for each structure, shape (n,
            structures, *size), int16; 0 where a structure has no component. None if the loss does not need them.
        skeletons: Skeleton of each structure, thickened by a voxel, shape (n, structures, *size), bool. None if the
            loss does not need them.
        borders: How near each voxel is to two components, 0 to 1, shape (n, 1, *size), or (n, structures, *size) if
            structures may overlap, float32; see `imaging.borders`. None if the loss does not need them.
    """

    regions: torch.Tensor | None = None
    skeletons: torch.Tensor | None = None
    borders: torch.Tensor | None = None


NO_SHAPES = Shapes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeMaker:
    """Makes the shapes that a loss needs.

    Attributes:
        targets: The structures.
        regions: Whether regions are made.
        skeletons: Whether skeletons are made.
        border_sigma_voxels: How far the borders between components reach, in voxels; 0 if they are not made.
    """

    targets: Targets
    regions: bool = False
    skeletons: bool = False
    border_sigma_voxels: float = 0.0

    @classmethod
    def of(cls, settings: LossSettings, targets: Targets) -> "ShapeMaker | None":
        """Returns what makes the shapes for a loss; None if it needs none.

        Args:
            settings: The loss.
            targets: The structures.
        """
        if not needs_shapes(settings):
            return None
        return cls(
            targets=targets,
            regions=settings.component_weight > 0,
            skeletons=settings.skeleton_weight > 0,
            border_sigma_voxels=settings.border_sigma_voxels if settings.border_weight > 0 else 0.0,
        )

    def make(self, labels: torch.Tensor) -> Shapes:
        """Returns the shapes of label maps of shape (n, *size), on the CPU."""
        masks = structure_masks(labels, self.targets.structures.values()).numpy()
        return Shapes(
            regions=torch.from_numpy(_of_each(masks, find_regions)) if self.regions else None,
            skeletons=torch.from_numpy(_of_each(masks, find_tube)) if self.skeletons else None,
            borders=torch.from_numpy(self._make_borders(masks)) if self.border_sigma_voxels else None,
        )

    def _make_borders(self, masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Returns the borders between components of masks of shape (n, structures, *size); see `Shapes`."""
        groups = masks if self.targets.exclusive else masks.reshape(-1, 1, *masks.shape[2:])
        maps = [weigh_borders(number_components(group), self.border_sigma_voxels) for group in groups]
        return np.stack(maps).reshape(len(masks), -1, *masks.shape[2:])


def needs_shapes(settings: LossSettings) -> bool:
    """Returns whether a loss needs shapes beside the labels."""
    return settings.component_weight > 0 or settings.skeleton_weight > 0 or settings.border_weight > 0


def find_regions(mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Divides a patch among the connected components of a mask: each voxel belongs to the nearest one.

    Voxels that touch by a face, an edge or a corner are connected. Source: the metric of lesions, see
    `evaluation.lesions`. Distances are in voxels. Of components that are equally near, SciPy's distance transform
    chooses one.

    Example:
        >>> find_regions(np.array([1, 1, 0, 0, 1], dtype=bool)).tolist()
        [1, 1, 1, 2, 2]

    Args:
        mask: Shape (y, x) or (z, y, x).

    Returns:
        Number of the component of each voxel, from 1; 0 everywhere if there is none.
    """
    components, count = scipy.ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count < 2:
        return np.full(mask.shape, count, dtype=np.int16)
    nearest = scipy.ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
    regions: NDArray[np.int16] = np.minimum(components[tuple(nearest)], MOST_REGIONS).astype(np.int16)
    return regions


def _of_each(masks: NDArray[np.bool_], find: Callable[[NDArray[np.bool_]], NDArray[Any]]) -> NDArray[Any]:
    """Returns a map for each mask of shape (n, structures, *size), in an array of the same shape."""
    maps = [find(mask) for mask in masks.reshape(-1, *masks.shape[2:])]
    return np.stack(maps).reshape(masks.shape)
