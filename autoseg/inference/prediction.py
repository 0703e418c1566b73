"""The prediction of one configuration for one image, from which its segmentation and its probabilities follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.postprocessing import PostprocessingRules, apply_rules, apply_to_mask
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import UNKNOWN, Agreement
from autoseg.inference.crop import Crop, clear_outside, list_remarks
from autoseg.preprocessing.case import PreprocessRecord, restore_case, restore_masks
from autoseg.preprocessing.probabilities import BACKGROUND, restore_map, restore_probabilities
from autoseg.runtime.arrays import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction of one configuration for one image; an `ImagePrediction`.

    Attributes:
        logits: Shape (outputs, z, y, x) of the preprocessed case, float32 or float16.
        record: How the image was preprocessed, and so the way back to its grid.
        targets: What the outputs stand for.
        rules: Postprocessing of the segmentation.
        agreement: Agreement of the votes whose mean the logits are.
        temperatures: A temperature for each output, by which logits are divided for probabilities; see
            `evaluation.reliability`. The segmentation does not depend on them.
        crop: What of the image was predicted; None for all of it. Elsewhere is background.
    """

    logits: Array
    record: PreprocessRecord
    targets: Targets
    rules: PostprocessingRules
    agreement: Agreement = UNKNOWN
    temperatures: tuple[float, ...] | None = None
    crop: Crop | None = None

    @property
    def geometry(self) -> Geometry:
        """The grid of the image."""
        return self.record.geometry

    def segmentation(self) -> Volume:
        """Returns the label map (z, y, x) on the grid of the image, after postprocessing; or all `masks`, stacked."""
        if self.targets.as_masks:
            return stack_masks(self.masks())
        labels = restore_case(self.logits, self.record, self.targets.region_class_order)
        return apply_rules(self._clear_outside(labels), self.rules, self.targets)

    def masks(self) -> Iterator[Volume]:
        """Yields the mask (z, y, x), 0 or 1, of each structure, where structures may overlap; after postprocessing."""
        masks = restore_masks(self.logits, self.record)
        for numbers, mask in zip(self.targets.structures.values(), masks, strict=True):
            yield apply_to_mask(self._clear_outside(mask), numbers, self.rules)

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Yields maps of the probabilities of some outputs on the grid of the image; see `restore_probabilities`.

        They are those of the networks, calibrated: postprocessing changes the segmentation only.
        """
        maps = restore_probabilities(
            self.logits,
            self.record,
            outputs,
            exclusive=self.targets.exclusive,
            temperatures=self.temperatures,
        )
        for output, volume in zip(outputs, maps, strict=True):
            is_background = self.targets.exclusive and output == BACKGROUND
            yield self._clear_outside(volume, outside=float(is_background))

    def disagreement(self) -> Volume | None:
        """Returns the share of votes that differ from their mean; see `ImagePrediction.disagreement`."""
        disagreement = self.agreement.disagreement
        return None if disagreement is None else self._clear_outside(restore_map(disagreement, self.record))

    def list_remarks(self, segmentation: Volume, targets: Targets) -> tuple[str, ...]:
        """Returns remarks about what was predicted of the image; none if that was all of it. See `crop.list_remarks`.

        Args:
            segmentation: What `segmentation` returned, or what a file of it holds.
            targets: What its numbers, or masks, mean.
        """
        return () if self.crop is None else list_remarks(self.crop, segmentation, self.record, targets)

    def _clear_outside(self, volume: Volume, outside: float = 0) -> Volume:
        return volume if self.crop is None else clear_outside(volume, self.record, self.crop.kept, outside)


def stack_masks(masks: Iterator[Volume]) -> Volume:
    """Returns masks (z, y, x) on the same grid as one volume (structures, z, y, x)."""
    volumes = list(masks)
    return Volume(array=np.stack([volume.array for volume in volumes]), geometry=volumes[0].geometry)
