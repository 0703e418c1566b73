"""What the loader gives to a training step: a batch of patches, and what a thread prepares for it."""

from dataclasses import dataclass

import torch

from autoseg.dataloading.device_augmentation import UnfinishedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's worth of patches.

    Attributes:
        images: Shape (n, c, *patch), float32; in a cascade with a channel more for each structure.
        labels: `TargetLabels` of shape (n, *centre), int64; the centre is what the network predicts of a patch, mostly
            all of it.
        unknown: Shape (n, structures), bool: structures that nobody looked for in the case of a patch; None if
            everybody always looked for all.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unknown: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a thread makes of a batch.

    Attributes:
        patches: Finished, or to be finished by a device.
        unknown: See `Batch`.
    """

    patches: Batch | UnfinishedBatch
    unknown: torch.Tensor | None
