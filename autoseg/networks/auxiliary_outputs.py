"""Outputs of training that predict something other than the labels."""

from dataclasses import dataclass
from typing import Literal

Target = Literal["changes", "presence", "absence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryOutput:
    """An output that helps a network to learn, and that prediction does not use.

    It has a channel for each output of the network: for each structure, and for the background too where that is an
    output of its own. Each channel is a binary classification by a sigmoid. The losses are in
    `training.auxiliary_loss`.

    Attributes:
        target: What a channel predicts. "changes": the voxels at which its structure begins or ends from one slice to
            the next along the first axis; before the first slice there is nothing. "presence": whether the structure
            is in the patch at all; "absence": whether it is not.
        weight: Factor of the loss of this output in the total loss.
        balanced: Whether the voxels of the rarer answer weigh more.
    """

    target: Target
    weight: float = 1.0
    balanced: bool = False

    @property
    def is_per_patch(self) -> bool:
        """Whether there is one answer for the whole patch, rather than one for each voxel."""
        return self.target != "changes"
