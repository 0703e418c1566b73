"""The structures that a network segments: labels that exclude each other, or structures that may overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace

OUTSIDE = -1  # Label of background outside the nonzero region, see `label_encoding`. Source: the reference method

Numbers = tuple[int, ...]

CASCADE_NUMBERS = 180  # A label map of a cascade has fewer numbers than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The structures of a dataset, and how the outputs of a network stand for them.

    Three labels that exclude each other have four outputs, of which the first is the background: the classes of a
    softmax. Three regions, which may overlap, have three outputs, each a sigmoid of its own.

    Attributes:
        structures: Name to the numbers that voxels of the structure have in a label map; several for a region such as
            "whole tumor". In the order of the outputs.
        exclusive: Whether every voxel belongs to one structure, or to none.
        ignore: The number of voxels that were not annotated, if there are any.
        region_class_order: For regions: the number that each writes into a label map, one after the other; a later one
            overwrites those before it. Structures that may overlap and have no order are written as a mask each.

    Example:
        >>> targets = Targets.of_labels({"kidney": 1, "tumour": 2})
        >>> targets.outputs, targets.output_of, sorted(targets.values)
        (3, {'kidney': 1, 'tumour': 2}, [0, 1, 2])
        >>> regions = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
        >>> regions.outputs, regions.output_of
        (2, {'whole': 0, 'core': 1})
    """

    structures: dict[str, Numbers]
    exclusive: bool = True
    ignore: int | None = None
    region_class_order: Numbers = ()

    @classmethod
    def of_labels(cls, labels: dict[str, int], ignore: int | None = None) -> Targets:
        """Returns the targets of labels that exclude each other: name to number, without the background."""
        return cls(structures={name: (number,) for name, number in labels.items()}, ignore=ignore)

    @property
    def with_ignore(self) -> Targets:
        """These targets with a number for voxels that do not count: that of the dataset, else the next free one."""
        return self if self.ignore is not None else replace(self, ignore=max(self.values) + 1)

    @property
    def as_masks(self) -> bool:
        """Whether a segmentation is written as a mask for each structure, rather than as a label map."""
        return not self.exclusive and not self.region_class_order

    @property
    def fits_cascade(self) -> bool:
        """Whether a cascade can use a segmentation of these structures.

        It must be one label map, of so few numbers that two of them fit into 16 bits, see `label_encoding`. Decision:
        the masks of structures that overlap have no numbers of their own; 180 squared is 32400.
        """
        return not self.as_masks and max(self.values) < CASCADE_NUMBERS

    @property
    def outputs(self) -> int:
        """Number of channels that the network predicts."""
        return len(self.structures) + self.exclusive

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures."""
        return tuple(self.structures)

    @property
    def output_of(self) -> dict[str, int]:
        """Name to the channel that the network predicts for the structure."""
        return {name: channel for channel, name in enumerate(self.structures, start=int(self.exclusive))}

    @property
    def values(self) -> frozenset[int]:
        """The numbers that a label map may hold, the background included."""
        numbers = {0, *(number for numbers in self.structures.values() for number in numbers)}
        return frozenset(numbers if self.ignore is None else {*numbers, self.ignore})
