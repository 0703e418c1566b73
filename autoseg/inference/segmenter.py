"""A trained configuration in memory: preprocesses an image, runs the networks on it, and returns its prediction."""

from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ImageError, ModelError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.structure_masks import structure_channels
from autoseg.imaging.targets import Targets
from autoseg.inference.accumulation import logits_bytes
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.prediction import Prediction
from autoseg.inference.predictor import (
    EnsemblePredictor,
    MirroringPredictor,
    NetworkPredictor,
    Predictor,
    count_at_once,
)
from autoseg.inference.sliding_window import OnProgress, ignore_progress, predict_volume
from autoseg.inference.tile_memory import check_tile_memory
from autoseg.models.build import make_network, place_network
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import PreprocessedCase, preprocess_case, preprocess_segmentation
from autoseg.runtime.device import memory_named

SHARE_OF_PREVIOUS = 0.2
"""Share of the time of a cascade that its coarser configuration takes, for the progress bar. Decision: it has few
voxels."""


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
    """

    configuration: Configuration
    axis_order: tuple[int, int, int]
    info: DatasetInfo
    predictor: Predictor
    tiles_at_once: int
    rules: PostprocessingRules
    device: torch.device
    dataset: str
    networks: str
    previous: "Segmenter | None" = None
    statistics: TrainingStatistics | None = None
    maps_disagreement: bool = False
    exact: bool = False

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
        parts = (
            self.networks,
            str(self.votes),
            # With the names of version 0.1, and without what only training reads, so that it stays.
            self.configuration.model_dump_json(by_alias=True, exclude={"patch_growth"}),
            str(self.axis_order),
            self.rules.describe(),
            previous,
            *([] if self.orientation is None else [self.orientation]),
            *(["exact"] if self.exact else []),
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
            raise ImageError(
                f"the image has {image.array.shape[0]} channels, the model wants {self.info.channels} ({names})",
                "give one file per channel, named CASE_0000, CASE_0001, ...",
            )
        case = preprocess_case(
            image,
            None,
            axis_order=self.axis_order,
            configuration=self.configuration,
            device=self.device if self.device.type == "cuda" else None,
            orientation=self.orientation,
        )
        previous = None if self.previous is None else self.previous.prepare(image)
        return Prepared(segmenter=self, case=case, previous=previous)

    def predict_preprocessed(self, case: PreprocessedCase, on_progress: OnProgress = ignore_progress) -> Prediction:
        """Runs the networks on a case that was preprocessed for this configuration; see `Prepared.predict`."""
        check_tile_memory(self.configuration, self.device, exact=self.exact)
        with memory_named(self.device, "stop other programs that use it, or choose another with --device"):
            agreement = EnsembleAgreement(self.predictor, self.info.targets, with_map=self.maps_disagreement)
            logits = predict_volume(
                case.image,
                agreement if self.votes > 1 else self.predictor,
                patch_size=self.configuration.patch_size,
                batch_size=self.tiles_at_once,
                device=self.device,
                patches=self.configuration.patches,
                on_progress=on_progress,
            )
        return Prediction(
            logits=logits,
            record=case.record,
            targets=self.info.targets,
            rules=self.rules,
            agreement=agreement.result(),
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

    def predict(self, on_progress: OnProgress = ignore_progress, coarse: Volume | None = None) -> Prediction:
        """Runs the networks.

        Args:
            on_progress: Called with the share of the work, 0 to 1, that each step adds.
            coarse: For a cascade, the segmentation of the coarser configuration, if it was predicted already.

        Raises:
            ModelError: The network returned infinite values or NaN.
            AutosegError: The device's memory is full.
        """
        segmenter = self.segmenter
        if self.previous is None:
            return segmenter.predict_preprocessed(self.case, on_progress)
        if coarse is None:
            coarse = self.previous.predict(lambda share: on_progress(SHARE_OF_PREVIOUS * share)).segmentation()
        case = show_previous(self.case, preprocess_segmentation(coarse, self.case.record), segmenter.info.targets)
        return segmenter.predict_preprocessed(case, lambda share: on_progress((1 - SHARE_OF_PREVIOUS) * share))


def show_previous(case: PreprocessedCase, coarse: NDArray[np.integer], targets: Targets) -> PreprocessedCase:
    """Returns a case with one more channel for each structure of a coarse segmentation.

    Args:
        case: Case of the finer configuration of a cascade.
        coarse: Segmentation by the coarser configuration, (z, y, x) on the grid of the case.
        targets: What its numbers mean.
    """
    channels = structure_channels(torch.from_numpy(coarse)[None], targets.structures.values())[0].numpy()
    return replace(case, image=np.concatenate([case.image, channels]))


def make_segmenter(
    checkpoints: list[Checkpoint],
    rules: PostprocessingRules,
    device: torch.device,
    *,
    mirroring: bool = True,
    exact: bool = False,
    previous: Segmenter | None = None,
) -> Segmenter:
    """Builds the ensemble of some folds of one configuration.

    Args:
        checkpoints: Checkpoints of at least one fold.
        rules: Postprocessing of each segmentation.
        device: Device of the networks.
        mirroring: Whether to average over mirror images along the axes that training mirrored; several times slower, a
            little more accurate.
        exact: Whether to calculate in float32, even where a lower precision is faster.
        previous: For a cascade, the coarser configuration; left out if the cases bring its segmentation with them.

    Raises:
        ModelError: The folds are of different configurations or plans, or the weights do not fit the plan; or the
            network is not built in, and no installed package offers it.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if _interface(other) != _interface(first):
            raise ModelError(f"folds {first.fold} and {other.fold} follow different plans", "train them by one plan")
    folds: list[Predictor] = [
        NetworkPredictor(place_network(_restore_network(fold), device, exact=exact), device, exact=exact)
        for fold in checkpoints
    ]
    predictor = folds[0] if len(folds) == 1 else EnsemblePredictor(tuple(folds))
    at_once = count_at_once(first.configuration.patch_size, first.configuration.batch_size, device)
    axes = first.configuration.augmentation.mirror_axes if mirroring else ()
    if axes:
        predictor = _add_mirroring(predictor, first.configuration, at_once)
    return Segmenter(
        configuration=first.configuration,
        axis_order=first.plan.axis_order,
        info=first.info,
        predictor=predictor,
        tiles_at_once=max(1, at_once // 2 ** len(axes)),
        rules=rules,
        device=device,
        dataset=first.plan.dataset,
        networks=" ".join(digest_weights(fold.weights) for fold in checkpoints),
        previous=previous,
        exact=exact,
    )


def _add_mirroring(predictor: Predictor, configuration: Configuration, at_once: int) -> MirroringPredictor:
    """Mirrors along the axes, and exchanges the labels, that training did."""
    augmentation = configuration.augmentation
    return MirroringPredictor(
        predictor,
        augmentation.mirror_axes,
        augmentation.swap_axis,
        augmentation.swapped_labels,
        structures_from=configuration.image_channels if configuration.previous is not None else None,
        at_once=at_once,
    )


def _interface(checkpoint: Checkpoint) -> tuple[object, ...]:
    """Returns what the folds of an ensemble must have in common."""
    return checkpoint.configuration.without_estimates, checkpoint.plan.axis_order, checkpoint.info.targets


def _restore_network(checkpoint: Checkpoint) -> torch.nn.Module:
    """Builds the network of a checkpoint with its weights, on the CPU."""
    plugin = checkpoint.configuration.network
    network = make_network(checkpoint.configuration, seed=0, error=ModelError)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        if plugin is not None and checkpoint.configuration.is_foreign:
            text = f"the weights of fold {checkpoint.fold} do not fit the network {plugin.name!r} that is installed"
            raise ModelError(text, "install the version of its package that the fold was trained with") from error
        text = f"the weights of fold {checkpoint.fold} do not fit its plan"
        raise ModelError(text, "train that fold again") from error
    return network
