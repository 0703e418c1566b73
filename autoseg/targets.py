"""What a network tells apart: labels that exclude each other, or regions and structures that may overlap."""

from dataclasses import dataclass

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The structures of a dataset, and how the outputs of a network stand for them.

    Three labels that exclude each other have four outputs, of which the first is the background: the classes of a
    softmax. Three structures that may overlap have three outputs, each a sigmoid of its own.

    Attributes:
        structures: Name to the numbers that voxels of the structure have in a label map; several for a region such as
            "whole tumor". In the order of the outputs.
        exclusive: Whether every voxel belongs to one structure, or to none.
        ignore: The number of voxels that nobody labelled, if there are any.
    """

    structures: dict[str, Numbers]
    exclusive: bool = True
    ignore: int | None = None

    @property
    def outputs(self) -> int:
        """Channels that the network predicts."""
        return len(self.structures) + self.exclusive

    @property
    def names(self) -> tuple[str, ...]:
        """Of the structures."""
        return tuple(self.structures)
