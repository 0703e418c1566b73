"""What the networks say of one image, from which its segmentation and its probabilities follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules, apply_rules, apply_to_mask
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import UNKNOWN, Agreement
from autoseg.preprocessing.case import PreprocessRecord, restore_case, restore_masks
from autoseg.preprocessing.probabilities import restore_map, restore_probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the networks say of one image; its segmentation and its probabilities both follow from it.

    Attributes:
        logits: Shape (outputs, z, y, x), float32, of the preprocessed case.
        record: How to get back to the grid of the image.
        targets: What the outputs stand for.
        rules: Applied to the segmentation.
        agreement: Of the opinions that the logits are the mean of.
    """

    logits: torch.Tensor
    record: PreprocessRecord
    targets: Targets
    rules: PostprocessingRules
    agreement: Agreement = UNKNOWN

    def segmentation(self) -> Volume:
        """The label map (z, y, x) on the grid of the image, after postprocessing; all `masks`, if these it has."""
        if self.targets.as_masks:
            volumes = list(self.masks())
            return Volume(array=np.stack([one.array for one in volumes]), geometry=volumes[0].geometry)
        return apply_rules(restore_case(self.logits, self.record, self.targets.region_class_order), self.rules)

    def masks(self) -> Iterator[Volume]:
        """The mask (z, y, x), 0 or 1, of each structure, for structures that may overlap; after postprocessing."""
        for numbers, mask in zip(
            self.targets.structures.values(), restore_masks(self.logits, self.record), strict=True
        ):
            yield apply_to_mask(mask, numbers, self.rules)

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Maps of the probabilities of some outputs on the grid of the image, one at a time; see there.

        They are the networks' own: postprocessing changes the segmentation only.
        """
        return restore_probabilities(self.logits, self.record, outputs, exclusive=self.targets.exclusive)

    def disagreement(self) -> Volume | None:
        """The share of opinions, 0 to 1, that differ from the mean, on the grid of the image; None if nobody asked."""
        found = self.agreement.disagreement
        return None if found is None else restore_map(found.numpy(), self.record)
