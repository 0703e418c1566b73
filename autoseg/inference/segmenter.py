"""A trained configuration in memory: preprocesses an image, runs the networks on it, and returns its prediction."""

from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from typing import Any, Self

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.inference.accumulation import logits_bytes
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.averaged_networks import Networks, average_networks
from autoseg.inference.cascade_channels import show_previous
from autoseg.inference.crop import CroppedTiles, RegionOfInterest
from autoseg.inference.prediction import Prediction
from autoseg.inference.prediction_quality import BEST, PredictionQuality
from autoseg.inference.predictor import Predictor
from autoseg.inference.sliding_window import OnProgress, ignore_progress, predict_tiles
from autoseg.inference.tile_memory import check_tile_memory
from autoseg.inference.tiling import tile_image
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import PreprocessedCase, preprocess_case, preprocess_segmentation
from autoseg.runtime.arrays import Device
from autoseg.runtime.full_memory import memory_named

SHARE_OF_PREVIOUS = 0.2
"""Share of the time of a cascade that its coarser configuration takes, for the progress bar. Decision: it has few
voxels."""

READ_BY_TRAINING: dict[str, Any] = {
    "patch_growth": True,
    "augmentation": {"missing_channels_probability": True, "prediction_mirroring": True},
}
"""Fields of a configuration without which digests stay those of version 0.1; no prediction depends on them, except on
`prediction_mirroring`, which the number of votes in a digest tells."""

STATED_APART: dict[str, Any] = {"normalization": {"__all__": {"window_hu"}}, "neighbouring_slices": True}
"""Fields that version 0.1 lacked and that predictions depend on; a digest states them where they are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """A trained configuration, ready to segment any number of images; an `ImageSegmenter`.

    Attributes:
        configuration: How images are preprocessed and tiled.
        axis_order: Order of the axes in the plan.
        info: Channels and labels.
        predictor: Maps patches to logits; averages over folds and mirror images.
        tiles_at_once: Number of tiles that are predicted together.
        rules: Postprocessing of each segmentation.
        device: Device of the networks.
        dataset: Name of the dataset that the networks were trained on.
        networks: Digests of their weights.
        previous: The coarser configuration whose segmentation this one gets as further channels, if it is a cascade.
        statistics: Statistics of the training cases; images are reoriented as these were.
        maps_disagreement: Whether predictions have a map of disagreement.
        exact: Whether the networks calculate in float32.
        quality: How far tiles are apart, and how images are resampled; `predictor` has its mirror images.
        temperatures: A temperature for each output, by which logits are divided for probabilities; None if the model is
            not calibrated.
    """

    configuration: Configuration
    axis_order: tuple[int, int, int]
    info: DatasetInfo
    predictor: Predictor
    tiles_at_once: int
    rules: PostprocessingRules
    device: Device
    dataset: str
    networks: str
    previous: "Segmenter | None" = None
    statistics: TrainingStatistics | None = None
    maps_disagreement: bool = False
    exact: bool = False
    quality: PredictionQuality = BEST
    temperatures: tuple[float, ...] | None = None

    @property
    def votes(self) -> int:
        """The number of predictions of each tile that are averaged."""
        return self.predictor.votes

    @property
    def orientation(self) -> str | None:
        """The orientation to which training cases were brought; else the one that all of them had, if they agree."""
        common = None if self.statistics is None else self.statistics.orientation
        return self.info.orientation or common

    @property
    def digest(self) -> str:
        """Sixteen characters that identify the model: its networks, its plan, and its postprocessing."""
        previous = "" if self.previous is None else self.previous.digest
        neighbours = self.configuration.neighbouring_slices
        windows = [channel.window_hu for channel in self.configuration.normalization]
        parts = (
            self.networks,
            str(self.votes),
            self.configuration.model_dump_json(by_alias=True, exclude=READ_BY_TRAINING | STATED_APART),
            str(self.axis_order),
            self.rules.describe(),
            previous,
            *([] if self.orientation is None else [self.orientation]),
            *(["exact"] if self.exact else []),
            *([f"windows {windows}"] if any(windows) else []),
            *([f"neighbouring slices {neighbours}"] if neighbours else []),
            *self.quality.describe_tiles(),
            *([] if self.temperatures is None else [f"temperatures {self.temperatures}"]),
        )
        return sha256("\n".join(parts).encode()).hexdigest()[:16]

    def with_disagreement(self) -> Self:
        """Returns the same model, whose predictions have a map of disagreement as well."""
        return replace(self, maps_disagreement=True)

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments an image: label map (z, y, x) or masks (structures, z, y, x) on its grid; see `predict`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Prediction:
        """Preprocesses an image and runs the networks; see `prepare` and `Prepared.predict`."""
        return self.prepare(image).predict(on_progress)

    def prepare(self, image: Volume) -> "Prepared":
        """Preprocesses an image, for a cascade also as its coarser configuration needs it.

        Args:
            image: Shape (c, z, y, x), on the grid of its file.

        Raises:
            ImageError: The image has another number of channels than the model, or colours outside 0 to 255.
        """
        if image.array.shape[0] != self.info.channels:
            names = ", ".join(self.info.channel_names.values())
            what = f"the image has {image.array.shape[0]} channels, the model wants {self.info.channels} ({names})"
            raise ImageError(
                what, "give a file per channel, named CASE_0000, CASE_0001, ..., or say --missing-channels"
            )
        case = preprocess_case(
            image,
            None,
            axis_order=self.axis_order,
            configuration=self.configuration,
            device=self.device if self.device.type == "cuda" else None,
            orientation=self.orientation,
            image_order=self.quality.image_order,
        )
        previous = None if self.previous is None else self.previous.prepare(image)
        return Prepared(segmenter=self, case=case, previous=previous)

    def predict_preprocessed(
        self,
        case: PreprocessedCase,
        on_progress: OnProgress = ignore_progress,
        region: RegionOfInterest | None = None,
    ) -> Prediction:
        """Runs the networks on a case that was preprocessed for this configuration; see `Prepared.predict`."""
        check_tile_memory(self.configuration, self.device, exact=self.exact)
        configuration = self.configuration
        tiled = tile_image(
            case.image,
            configuration.patch_size,
            configuration.patches,
            configuration.neighbouring_slices,
            self.quality.overlap_step,
        )
        cropped = CroppedTiles.of(tiled, case.record, region)
        with memory_named(self.device, "stop other programs that use it, or choose another with --device"):
            agreement = EnsembleAgreement(self.predictor, self.info.targets, with_map=self.maps_disagreement)
            logits = predict_tiles(
                cropped.tiled,
                agreement if self.votes > 1 else self.predictor,
                patch_size=configuration.patch_size,
                batch_size=self.tiles_at_once,
                device=self.device,
                on_progress=on_progress,
            )
        return Prediction(
            logits=logits,
            record=case.record,
            targets=self.info.targets,
            rules=self.rules,
            agreement=agreement.result(),
            temperatures=self.temperatures,
            crop=cropped.finish(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image that is preprocessed for the networks of a configuration; a `PreparedImage`.

    Attributes:
        segmenter: The configuration.
        case: The preprocessed image.
        previous: The image as preprocessed for the coarser configuration of a cascade.
    """

    segmenter: Segmenter
    case: PreprocessedCase
    previous: "Prepared | None" = None

    @property
    def logits_bytes(self) -> int:
        """The memory in bytes that the logits take in full precision."""
        return logits_bytes(self.segmenter.info.targets.outputs, prod(self.case.record.shape))

    def predict(
        self,
        on_progress: OnProgress = ignore_progress,
        coarse: Volume | None = None,
        region: RegionOfInterest | None = None,
    ) -> Prediction:
        """Runs the networks.

        Args:
            on_progress: Called with the share of the work, 0 to 1, that each step adds.
            coarse: For a cascade, the segmentation of the coarser configuration, if it was predicted already.
            region: Part of the image to look at; None for all of it.

        Raises:
            ModelError: The network returned infinite values or NaN.
            AutosegError: The device's memory is full.
        """
        segmenter = self.segmenter
        if self.previous is None:
            return segmenter.predict_preprocessed(self.case, on_progress, region)
        coarse_runs = coarse is None
        if coarse is None:
            coarse = self.previous.predict(lambda share: on_progress(SHARE_OF_PREVIOUS * share)).segmentation()
        case = show_previous(self.case, preprocess_segmentation(coarse, self.case.record), segmenter.info.targets)
        share_of_fine = 1 - SHARE_OF_PREVIOUS if coarse_runs else 1.0
        return segmenter.predict_preprocessed(case, lambda share: on_progress(share_of_fine * share), region)


def assemble_segmenter(
    networks: Networks,
    rules: PostprocessingRules,
    *,
    quality: PredictionQuality = BEST,
    exact: bool = False,
    previous: Segmenter | None = None,
) -> Segmenter:
    """Returns the ensemble of some folds of one configuration; for the arguments see `torch_segmenter.make_segmenter`.

    Args:
        networks: The networks of the folds.
        rules: See above.
        quality: See above.
        exact: See above.
        previous: See above.
    """
    first = networks.folds[0]
    predictor, tiles_at_once = average_networks(networks, quality)
    return Segmenter(
        configuration=first.configuration,
        axis_order=first.plan.axis_order,
        info=first.info,
        predictor=predictor,
        tiles_at_once=tiles_at_once,
        rules=rules,
        device=networks.device,
        dataset=first.plan.dataset,
        networks=" ".join(networks.digests),
        previous=previous,
        exact=exact,
        quality=quality,
    )
