"""A model that looks where a coarse model found something: coarse to fine, for one image after the other."""

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from typing import Self

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.inference.crop import MARGIN_VOXELS, RegionOfInterest
from autoseg.inference.ensemble import EnsemblePrediction, EnsemblePrepared, EnsembleSegmenter
from autoseg.inference.prediction import Prediction
from autoseg.inference.segmenter import SHARE_OF_PREVIOUS, Prepared, Segmenter
from autoseg.inference.sliding_window import OnProgress, ignore_progress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.runtime.arrays import Device

AnySegmenter = Segmenter | EnsembleSegmenter
AnyPrepared = Prepared | EnsemblePrepared


@dataclass(frozen=True, slots=True, kw_only=True)
class CroppedSegmenter:
    """A model that segments the part of an image around what a coarse model found; an `ImageSegmenter`.

    Attributes:
        segmenter: The model.
        coarse: The coarse model. If it is the coarser configuration of a cascade, `segmenter.previous`, it runs once.
        margin_mm: Margin around what it found; None for `MARGIN_VOXELS` of its voxels.
    """

    segmenter: AnySegmenter
    coarse: AnySegmenter
    margin_mm: float | None = None

    @property
    def info(self) -> DatasetInfo:
        """Channels and labels."""
        return self.segmenter.info

    @property
    def device(self) -> Device:
        """Device of the networks."""
        return self.segmenter.device

    @property
    def dataset(self) -> str:
        """Name of the dataset that the model was trained on."""
        return self.segmenter.dataset

    @property
    def rules(self) -> PostprocessingRules:
        """Postprocessing of each segmentation."""
        return self.segmenter.rules

    @property
    def statistics(self) -> TrainingStatistics | None:
        """Statistics of the training cases."""
        return self.segmenter.statistics

    @property
    def votes(self) -> int:
        """Number of predictions of each tile that are averaged and compared."""
        return self.segmenter.votes

    @property
    def maps_disagreement(self) -> bool:
        """Whether predictions have a map of disagreement."""
        return self.segmenter.maps_disagreement

    @property
    def digest(self) -> str:
        """Sixteen characters that identify both models and the margin; see `Segmenter.digest`."""
        parts = (self.segmenter.digest, "cropped by", self.coarse.digest, str(self.margin_mm))
        return sha256("\n".join(parts).encode()).hexdigest()[:16]

    def with_disagreement(self) -> Self:
        """Returns the same model, whose predictions have a map of disagreement as well."""
        return replace(self, segmenter=self.segmenter.with_disagreement())

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments an image; see `Segmenter.segment`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Prediction | EnsemblePrediction:
        """Preprocesses an image and runs the networks of both models; see `Segmenter.predict`."""
        return self.prepare(image).predict(on_progress)

    def prepare(self, image: Volume) -> "CroppedPrepared":
        """Preprocesses an image for both models; see `Segmenter.prepare`."""
        prepared = self.segmenter.prepare(image)
        own = next((part for part in _list_previous(prepared) if part.segmenter is self.coarse), None)
        return CroppedPrepared(
            prepared=prepared,
            coarse=self.coarse.prepare(image) if own is None else own,
            margin_mm=self.margin_mm,
            coarse_is_own=own is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CroppedPrepared:
    """An image that is preprocessed for a model and for a coarse one; a `PreparedImage`.

    Attributes:
        prepared: The image as the model sees it.
        coarse: The image as the coarse model sees it.
        margin_mm: See `CroppedSegmenter`.
        coarse_is_own: Whether the coarse model is the coarser configuration of the model, a cascade.
    """

    prepared: AnyPrepared
    coarse: AnyPrepared
    margin_mm: float | None
    coarse_is_own: bool

    @property
    def logits_bytes(self) -> int:
        """The memory in bytes that the logits of the model take in full precision."""
        return self.prepared.logits_bytes

    def predict(self, on_progress: OnProgress = ignore_progress) -> Prediction | EnsemblePrediction:
        """Runs the networks of the coarse model, and those of the model where that found something.

        Args:
            on_progress: Called with the share of the work, 0 to 1, that each step adds.

        Raises:
            ModelError, AutosegError: See `Prepared.predict`.
        """
        started = time.perf_counter()
        segmentation = self.coarse.predict(lambda share: on_progress(SHARE_OF_PREVIOUS * share)).segmentation()
        region = RegionOfInterest(
            segmentation=segmentation,
            margin_mm=_choose_margin(self.coarse) if self.margin_mm is None else self.margin_mm,
            coarse_seconds=time.perf_counter() - started,
            is_needed_anyway=self.coarse_is_own,
        )

        def advance(share: float) -> None:
            on_progress((1 - SHARE_OF_PREVIOUS) * share)

        known = {id(self.coarse.segmenter): segmentation} if isinstance(self.coarse, Prepared) else {}
        if isinstance(self.prepared, EnsemblePrepared):
            return self.prepared.predict(advance, known, region)
        coarse = known.get(id(self.prepared.segmenter.previous))
        return self.prepared.predict(advance, coarse, region)


def _list_previous(prepared: AnyPrepared) -> list[Prepared]:
    """Returns the images as the coarser configurations of cascades see them."""
    members = prepared.members if isinstance(prepared, EnsemblePrepared) else (prepared,)
    return [member.previous for member in members if member.previous is not None]


def _choose_margin(coarse: AnyPrepared) -> float:
    """Returns the usual margin in mm: in voxels of the coarse model, or of the coarsest of its configurations."""
    members = coarse.members if isinstance(coarse, EnsemblePrepared) else (coarse,)
    return MARGIN_VOXELS * max(prod(member.case.record.spacing_mm) ** (1 / 3) for member in members)
