"""Ensembles of different configurations: the mean of their probabilities, on the grid of the image file.

Folds of one configuration have one grid and are averaged as logits, before they are resampled to the grid of the image.
Configurations have a grid each, so their probabilities are averaged on the grid of the image. Source of both means: the
reference method. The maps of all outputs at full resolution would be gigabytes; so the outputs are gone through one by
one, and the best so far is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.postprocessing import PostprocessingRules, apply_rules, apply_to_mask
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import Agreement
from autoseg.inference.crop import Crop, RegionOfInterest
from autoseg.inference.prediction import Prediction, stack_masks
from autoseg.inference.segmenter import Prepared, Segmenter
from autoseg.inference.sliding_window import OnProgress, ignore_progress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.runtime.arrays import Device

THRESHOLD = 0.5
"""Mean probability above which a voxel belongs to a region. Source: the reference method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePrediction:
    """The prediction of several configurations for one image; an `ImagePrediction`.

    Its probabilities are the mean of what the networks give, without temperatures, since the segmentation follows from
    this mean. Decision: the temperatures of each configuration alone would change which label wins.

    Attributes:
        members: Predictions of at least one configuration for the same image, without temperatures; their own rules are
            not applied.
        rules: Postprocessing of the segmentation.
    """

    members: tuple[Prediction, ...]
    rules: PostprocessingRules

    @property
    def geometry(self) -> Geometry:
        """The grid of the image."""
        return self.members[0].geometry

    @property
    def targets(self) -> Targets:
        """What the outputs stand for."""
        return self.members[0].targets

    def segmentation(self) -> Volume:
        """Returns the label map (z, y, x) on the grid of the image, after postprocessing; or all `masks`, stacked.

        Among classes the most probable wins, the first one of several; among regions the last one whose probability is
        above one half.
        """
        if self.targets.as_masks:
            return stack_masks(self.masks())
        labels = self._decide_regions() if self.targets.region_class_order else self._decide_classes()
        return apply_rules(Volume(array=labels, geometry=self.geometry), self.rules, self.targets)

    def masks(self) -> Iterator[Volume]:
        """Yields the mask (z, y, x), 0 or 1, of each structure, where structures may overlap; after postprocessing."""
        probabilities = self.probabilities(range(self.targets.outputs))
        for numbers, probability in zip(self.targets.structures.values(), probabilities, strict=True):
            mask = Volume(array=(probability.array > THRESHOLD).astype(np.uint8), geometry=probability.geometry)
            yield apply_to_mask(mask, numbers, self.rules)

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Yields maps of the mean probabilities of some outputs on the grid of the image, each computed when needed."""
        for maps in zip(*(member.probabilities(outputs) for member in self.members), strict=True):
            yield _average(maps)

    @property
    def agreement(self) -> Agreement:
        """How far the votes within each member agree."""
        return Agreement.pool([member.agreement for member in self.members])

    @property
    def crop(self) -> Crop | None:
        """What of the image the members predicted, all together."""
        crops = [member.crop for member in self.members if member.crop is not None]
        return Crop.pool(crops) if crops else None

    def list_remarks(self, segmentation: Volume, targets: Targets) -> tuple[str, ...]:
        """Returns remarks about what was predicted of the image; see `Prediction`; members have one box."""
        return self.members[0].list_remarks(segmentation, targets)

    def disagreement(self) -> Volume | None:
        """Returns the mean over the members of their `Prediction.disagreement`; None if it was not asked for."""
        maps = [disagreement for member in self.members if (disagreement := member.disagreement()) is not None]
        return _average(maps) if maps else None

    def _decide_classes(self) -> NDArray[np.integer]:
        """Returns the number of the most probable class at each voxel."""
        shape, count = self.geometry.shape, self.targets.outputs
        winners = np.zeros(shape, dtype=np.uint8 if count <= 256 else np.int16)
        highest = np.zeros(shape, dtype=np.float32)
        for number, probability in enumerate(self.probabilities(range(count))):
            np.copyto(winners, number, where=probability.array > highest)
            np.maximum(highest, probability.array, out=highest)
        return winners

    def _decide_regions(self) -> NDArray[np.integer]:
        """Returns at each voxel the label value of the last region that contains it, 0 if none does."""
        values = self.targets.region_class_order
        labels = np.zeros(self.geometry.shape, dtype=np.uint8 if max(values) < 256 else np.int16)
        for value, probability in zip(values, self.probabilities(range(len(values))), strict=True):
            np.copyto(labels, value, where=probability.array > THRESHOLD)
        return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSegmenter:
    """Trained configurations that segment images together; an `ImageSegmenter`.

    Attributes:
        members: At least one. Where a member is the coarser configuration of a cascade that is a member too, its
            networks run once.
        rules: Postprocessing of each segmentation, in place of the members' own.
    """

    members: tuple[Segmenter, ...]
    rules: PostprocessingRules

    @property
    def info(self) -> DatasetInfo:
        """Channels and labels."""
        return self.members[0].info

    @property
    def device(self) -> Device:
        """Device of the networks."""
        return self.members[0].device

    @property
    def dataset(self) -> str:
        """Name of the dataset that the members were trained on."""
        return self.members[0].dataset

    @property
    def votes(self) -> int:
        """The votes of the member that has the most; they are compared within a member only."""
        return max(member.votes for member in self.members)

    @property
    def maps_disagreement(self) -> bool:
        """Whether predictions have a map of disagreement."""
        return self.members[0].maps_disagreement

    @property
    def statistics(self) -> TrainingStatistics | None:
        """Statistics of the training cases."""
        return self.members[0].statistics

    @property
    def digest(self) -> str:
        """Sixteen characters that identify the model; see `Segmenter.digest`."""
        parts = (*(member.digest for member in self.members), self.rules.describe())
        return sha256("\n".join(parts).encode()).hexdigest()[:16]

    def with_disagreement(self) -> Self:
        """Returns the same model, whose predictions have a map of disagreement as well."""
        return replace(self, members=tuple(member.with_disagreement() for member in self.members))

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments an image; see `Segmenter.segment`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> EnsemblePrediction:
        """Preprocesses an image and runs the networks of all members; see `Segmenter.predict`."""
        return self.prepare(image).predict(on_progress)

    def prepare(self, image: Volume) -> "EnsemblePrepared":
        """Preprocesses an image for each member; see `Segmenter.prepare`."""
        return EnsemblePrepared(members=tuple(member.prepare(image) for member in self.members), rules=self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePrepared:
    """An image that is preprocessed for several configurations; a `PreparedImage`.

    Attributes:
        members: The image as each configuration sees it.
        rules: Postprocessing of the segmentation.
    """

    members: tuple[Prepared, ...]
    rules: PostprocessingRules

    @property
    def logits_bytes(self) -> int:
        """The memory in bytes that the logits of all members take in full precision."""
        return sum(member.logits_bytes for member in self.members)

    def predict(
        self,
        on_progress: OnProgress = ignore_progress,
        known: Mapping[int, Volume] | None = None,
        region: RegionOfInterest | None = None,
    ) -> EnsemblePrediction:
        """Runs the networks of all members; see `Prepared.predict`.

        Args:
            on_progress: See there.
            known: The id of a segmenter to its segmentation, if it was predicted already.
            region: Part of the image to look at; None for all of it. A cascade still sees all of what its coarser
                configuration found.
        """
        predictions: dict[int, Prediction] = {}
        for member in sorted(self.members, key=lambda member: member.previous is not None):
            previous = id(member.segmenter.previous)
            coarse = None if known is None else known.get(previous)
            if coarse is None and region is None and previous in predictions:
                coarse = predictions[previous].segmentation()
            predictions[id(member.segmenter)] = member.predict(
                lambda share: on_progress(share / len(self.members)), coarse, region
            )
        members = tuple(replace(predictions[id(member.segmenter)], temperatures=None) for member in self.members)
        return EnsemblePrediction(members=members, rules=self.rules)


def make_ensemble(members: Sequence[Segmenter], rules: PostprocessingRules) -> Segmenter | EnsembleSegmenter:
    """Returns the ensemble of some configurations.

    Args:
        members: Configurations of one dataset. A single one is returned itself, with other rules: its logits need no
            average of probabilities.
        rules: Postprocessing of each segmentation, in place of their own.

    Raises:
        ModelError: They were trained on different channels or labels.
    """
    first = members[0]
    for other in members[1:]:
        if (other.info.channels, other.info.targets) != (first.info.channels, first.info.targets):
            what = "configurations that predict together were trained on different channels or labels"
            raise ModelError(what, "train them again with the present dataset.json")
    if len(members) == 1:
        return replace(first, rules=rules)
    return EnsembleSegmenter(members=tuple(members), rules=rules)


def _average(maps: Sequence[Volume]) -> Volume:
    """Returns the mean of some maps, which is written into the first of them."""
    total = maps[0].array
    for volume in maps[1:]:
        total += volume.array
    total /= len(maps)
    return Volume(array=total, geometry=maps[0].geometry)
