"""Voxels to centre patches on, drawn evenly from structures, cases and connected components."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.sampling import PatchSource
from autoseg.imaging.label_encoding import CascadeCodes, code_base, decode_labels
from autoseg.imaging.postprocessing import find_components, find_structure
from autoseg.imaging.targets import Targets
from autoseg.preprocessing.foreground import FOREGROUND_SEED, VoxelIndex, group_voxels

VOXELS_PER_COMPONENT = 1000
"""The most voxels of a component that are kept. Decision: patches that are centred on them differ enough."""


@dataclass(frozen=True, kw_only=True)
class ComponentSampling:
    """Draws voxels of connected components. The components of a case are found when it is first drawn, and kept.

    Attributes:
        cases: Preprocessed cases.
        targets: The structures of the dataset.
        is_cascade: Whether the cases hold codes of a cascade instead of labels; see `cascade_labels`.
    """

    cases: Sequence[PatchSource]
    targets: Targets
    is_cascade: bool = False
    _found: dict[int, list[list[NDArray[np.intp]]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def draw(self, random: np.random.Generator) -> tuple[int, VoxelIndex] | None:
        """Draws a structure that occurs, a case that has it, a component of it, and a voxel of that, each evenly.

        Args:
            random: Source of every random number.

        Returns:
            Number of the case, and the voxel (z, y, x); None if no case has any structure.
        """
        occurring = self._cases_of_structures
        if not occurring:
            return None
        structures = list(occurring)
        structure = structures[int(random.integers(len(structures)))]
        number = occurring[structure][int(random.integers(len(occurring[structure])))]
        components = self._components(number)[structure]
        voxels = components[int(random.integers(len(components)))]
        z, y, x = np.unravel_index(voxels[int(random.integers(len(voxels)))], self.cases[number].shape)
        return number, (int(z), int(y), int(x))

    @cached_property
    def _cases_of_structures(self) -> dict[int, list[int]]:
        """Index of each structure that occurs, with the numbers of the cases that have it."""
        counts = [case.foreground.counts for case in self.cases]
        cases_of = {
            structure: [number for number, of_case in enumerate(counts) if of_case[structure]]
            for structure in range(len(self.targets.structures))
        }
        return {structure: numbers for structure, numbers in cases_of.items() if numbers}

    def _components(self, number: int) -> list[list[NDArray[np.intp]]]:
        """Returns the voxels of each component of each structure of a case, as indices into its flattened label map."""
        if number not in self._found:  # two threads may both find them: the same ones
            label = self.cases[number].load_label()
            if self.is_cascade:
                label = decode_labels(CascadeCodes(label), code_base(self.targets))
            self._found[number] = [
                list_components(find_structure(label, numbers)) for numbers in self.targets.structures.values()
            ]
        return self._found[number]


def list_components(mask: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Returns voxels of each connected component of a mask, as indices into the flattened mask.

    Of a component with more than `VOXELS_PER_COMPONENT` voxels, that many are drawn, always the same ones.

    Args:
        mask: Shape (z, y, x).

    Example:
        >>> [voxels.tolist() for voxels in list_components(np.array([[[True, True, False, True]]]))]
        [[0, 1], [3]]
    """
    components = find_components(mask)
    if components is None:
        return []
    random = np.random.default_rng(FOREGROUND_SEED)
    listed = []
    for voxels in group_voxels(components.numbers).values():
        chosen = voxels
        if len(voxels) > VOXELS_PER_COMPONENT:
            chosen = np.sort(random.choice(voxels, size=VOXELS_PER_COMPONENT, replace=False))
        inside = np.unravel_index(chosen, components.numbers.shape)
        place = tuple(axis + first for axis, first in zip(inside, components.box.start, strict=True))
        listed.append(np.ravel_multi_index(place, mask.shape))
    return listed
