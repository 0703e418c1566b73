"""Outputs of training that stand for something else than the labels, as a page writes them down."""

from dataclasses import dataclass
from typing import Literal

Target = Literal["changes", "presence", "absence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryOutput:
    """An output that helps a network to learn, and that nobody asks for afterwards.

    It has a channel for each output of the network: for each structure, and for the background too where that is an
    output of its own. Each channel is a yes or no of its own, told by a sigmoid. The losses stand in
    `training.auxiliary_outputs`.

    Attributes:
        target: What a channel tells. "changes": where its structure begins or ends from one slice to the next along the
            first axis; before the first slice there is nothing. "presence": whether the structure is in the patch at
            all; "absence": whether it is not.
        weight: What the loss of the output is multiplied with before it is added to that of the labels.
        balanced: Whether the voxels of the rarer answer weigh more.
    """

    target: Target
    weight: float = 1.0
    balanced: bool = False

    @property
    def asks_of_patch(self) -> bool:
        """Whether there is one answer for the whole patch, rather than one for each voxel."""
        return self.target != "changes"
