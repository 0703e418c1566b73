"""Different configurations that segment together: the mean of their probabilities, on the grid of the image file.

Folds of one configuration have one grid and are averaged as logits, before the way back. Configurations have a grid
each, so their outputs meet where both are at home. Source of both means: the reference method. The maps of all outputs
at full resolution would be gigabytes; so the outputs are gone through one by one, and the best so far is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules, apply_rules, apply_to_mask
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import Agreement
from autoseg.inference.prediction import Prediction
from autoseg.inference.segmenter import Prepared, Segmenter
from autoseg.inference.sliding_window import OnProgress, ignore_progress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.preprocessing.case import PreprocessRecord

THRESHOLD = 0.5
"""Of the mean probability, above which a voxel belongs to a region. Source: the reference method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePrediction:
    """What several configurations say of one image; offers what a `Prediction` offers.

    Attributes:
        members: At least one, of the same image; their own rules are not looked at.
        rules: Applied to the segmentation.
    """

    members: tuple[Prediction, ...]
    rules: PostprocessingRules

    @property
    def record(self) -> PreprocessRecord:
        """That of the first; the grid of the image, which it names, is that of all."""
        return self.members[0].record

    @property
    def targets(self) -> Targets:
        """What the outputs stand for."""
        return self.members[0].targets

    def segmentation(self) -> Volume:
        """The label map (z, y, x) on the grid of the image, after postprocessing; all `masks`, if these it has.

        Of classes the likeliest, of several the first; of regions the last that is likelier than not.
        """
        if self.targets.as_masks:
            volumes = list(self.masks())
            return Volume(array=np.stack([one.array for one in volumes]), geometry=volumes[0].geometry)
        elected = self._elect_region() if self.targets.region_class_order else self._elect_class()
        return apply_rules(Volume(array=elected, geometry=self.record.geometry), self.rules)

    def masks(self) -> Iterator[Volume]:
        """The mask (z, y, x), 0 or 1, of each structure, for structures that may overlap; after postprocessing."""
        likely = self.probabilities(range(self.targets.outputs))
        for numbers, one in zip(self.targets.structures.values(), likely, strict=True):
            mask = Volume(array=(one.array > THRESHOLD).astype(np.uint8), geometry=one.geometry)
            yield apply_to_mask(mask, numbers, self.rules)

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Maps of the mean probabilities of some outputs on the grid of the image, made when they are asked for."""
        for maps in zip(*(member.probabilities(outputs) for member in self.members), strict=True):
            yield Volume(array=_mean([one.array for one in maps]), geometry=maps[0].geometry)

    @property
    def agreement(self) -> Agreement:
        """How far the opinions within each member agree."""
        return Agreement.pool([member.agreement for member in self.members])

    def disagreement(self) -> Volume | None:
        """Mean over the members of the share of opinions, 0 to 1, that differ from their mean; None if nobody asked."""
        maps = [found for member in self.members if (found := member.disagreement()) is not None]
        return Volume(array=_mean([one.array for one in maps]), geometry=maps[0].geometry) if maps else None

    def _elect_class(self) -> NDArray[np.integer]:
        shape, count = self.record.geometry.shape, self.targets.outputs
        winners = np.zeros(shape, dtype=np.uint8 if count <= 256 else np.int16)
        highest = np.zeros(shape, dtype=np.float32)
        for number, one in enumerate(self.probabilities(range(count))):
            np.copyto(winners, number, where=one.array > highest)
            np.maximum(highest, one.array, out=highest)
        return winners

    def _elect_region(self) -> NDArray[np.integer]:
        region_class_order = self.targets.region_class_order
        result = np.zeros(self.record.geometry.shape, dtype=np.uint8 if max(region_class_order) < 256 else np.int16)
        for number, one in zip(region_class_order, self.probabilities(range(len(region_class_order))), strict=True):
            np.copyto(result, number, where=one.array > THRESHOLD)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSegmenter:
    """Trained configurations that segment images together; offers what a `Segmenter` offers.

    Attributes:
        members: At least one. Where one is the coarser configuration that another follows, its networks run once.
        rules: Applied to each segmentation, in place of those of the members.
    """

    members: tuple[Segmenter, ...]
    rules: PostprocessingRules

    @property
    def info(self) -> DatasetInfo:
        """Channels and labels."""
        return self.members[0].info

    @property
    def dataset(self) -> str:
        """Name of the dataset that they learned from."""
        return self.members[0].dataset

    @property
    def votes(self) -> int:
        """Those of the member that has the most; only within a member they are compared."""
        return max(member.votes for member in self.members)

    @property
    def maps_disagreement(self) -> bool:
        """Whether predictions have a map of it."""
        return self.members[0].maps_disagreement

    @property
    def statistics(self) -> TrainingStatistics | None:
        """Of an image."""
        return self.members[0].statistics

    @property
    def digest(self) -> str:
        """See `Segmenter.digest`."""
        told = (*(member.digest for member in self.members), self.rules.describe())
        return sha256("\n".join(told).encode()).hexdigest()[:16]

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments one image; see `Segmenter.segment`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> EnsemblePrediction:
        """Asks the networks of all members about one image; see `Segmenter.predict`."""
        return self.prepare(image).predict(on_progress)

    def prepare(self, image: Volume) -> "EnsemblePrepared":
        """What comes before the networks; see `Segmenter.prepare`."""
        return EnsemblePrepared(members=tuple(member.prepare(image) for member in self.members), rules=self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePrepared:
    """An image that several configurations are ready to be asked about; offers what a `Prepared` offers.

    Attributes:
        members: The image as each sees it.
        rules: Applied to the segmentation.
    """

    members: tuple[Prepared, ...]
    rules: PostprocessingRules

    @property
    def gathering_bytes(self) -> int:
        """The memory that the logits of all members would like to have."""
        return sum(member.gathering_bytes for member in self.members)

    def predict(self, on_progress: OnProgress = ignore_progress) -> EnsemblePrediction:
        """Asks the networks of all members; see `Prepared.predict`."""
        done: dict[int, Prediction] = {}
        for member in sorted(self.members, key=lambda member: member.previous is not None):
            known = done.get(id(member.segmenter.previous))
            done[id(member.segmenter)] = member.predict(
                lambda share: on_progress(share / len(self.members)),
                former=None if known is None else known.segmentation(),
            )
        return EnsemblePrediction(
            members=tuple(done[id(member.segmenter)] for member in self.members), rules=self.rules
        )


AnyPrediction = Prediction | EnsemblePrediction
AnyPrepared = Prepared | EnsemblePrepared
AnySegmenter = Segmenter | EnsembleSegmenter


def make_ensemble(members: Sequence[Segmenter], rules: PostprocessingRules) -> AnySegmenter:
    """Lets configurations segment together.

    Args:
        members: Of one dataset; a single one stays itself.
        rules: Applied to each segmentation, in place of their own.

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


def with_disagreement(segmenter: AnySegmenter) -> AnySegmenter:
    """The same model, whose predictions have a map of disagreement as well."""
    if isinstance(segmenter, EnsembleSegmenter):
        return replace(segmenter, members=tuple(replace(one, maps_disagreement=True) for one in segmenter.members))
    return replace(segmenter, maps_disagreement=True)


def _mean(maps: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Into the first map, which nobody else has."""
    total = maps[0]
    for one in maps[1:]:
        total += one
    total /= len(maps)
    return total
