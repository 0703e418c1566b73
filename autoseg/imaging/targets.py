"""What a network tells apart: labels that exclude each other, or regions and structures that may overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
OUTSIDE = -1  # Label of background outside the region that is not zero. Source: the reference method

Numbers = tuple[int, ...]

CASCADE_NUMBERS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The structures of a dataset, and how the outputs of a network stand for them.

    Three labels that exclude each other have four outputs, of which the first is the background: the classes of a
    softmax. Three regions, which may overlap, have three outputs, each a sigmoid of its own.

    Attributes:
        structures: Name to the numbers that voxels of the structure have in a label map; several for a region such as
            "whole tumor". In the order of the outputs.
        exclusive: Whether every voxel belongs to one structure, or to none.
        ignore: The number of voxels that nobody labelled, if there are any.
        region_class_order: For regions: the number that each writes into a label map, one after the other; a later one
            covers those before it. Structures that may overlap and have no order are written as a mask each.
    """

    structures: dict[str, Numbers]
    exclusive: bool = True
    ignore: int | None = None
    region_class_order: Numbers = ()

    @classmethod
    def of_labels(cls, labels: dict[str, int], ignore: int | None = None) -> Targets:
        """Of labels that exclude each other: name to number, the background left out."""
        return cls(structures={name: (number,) for name, number in labels.items()}, ignore=ignore)

    @property
    def with_ignore(self) -> Targets:
        """The same, with a number for voxels that do not count: that of the dataset, or else the next free one."""
        return self if self.ignore is not None else replace(self, ignore=max(self.values) + 1)

    @property
    def as_masks(self) -> bool:
        """Whether a segmentation is a mask for each structure, rather than a label map."""
        return not self.exclusive and not self.region_class_order

    @property
    def fits_cascade(self) -> bool:
        """Whether a cascade can see a segmentation of them: one label map, of so few numbers that two fit into 16 bits.

        Decision: the masks of structures that overlap have no numbers of their own; 180 squared is 32400.
        """
        return not self.as_masks and max(self.values) < CASCADE_NUMBERS

    @property
    def outputs(self) -> int:
        """Channels that the network predicts."""
        return len(self.structures) + self.exclusive

    @property
    def names(self) -> tuple[str, ...]:
        """Of the structures."""
        return tuple(self.structures)

    @property
    def output_of(self) -> dict[str, int]:
        """Name to the channel that the network predicts for it."""
        return {name: channel for channel, name in enumerate(self.structures, start=int(self.exclusive))}

    @property
    def values(self) -> frozenset[int]:
        """What a label map may hold, the background included."""
        numbers = {0, *(number for numbers in self.structures.values() for number in numbers)}
        return frozenset(numbers if self.ignore is None else {*numbers, self.ignore})
