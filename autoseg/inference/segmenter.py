"""From an image to its segmentation, and a trained model as something that can be called."""

from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import AutosegError, ImageError, ModelError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.structure_masks import structure_channels
from autoseg.imaging.targets import Targets
from autoseg.inference.accumulation import gathering_bytes
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.prediction import Prediction
from autoseg.inference.predictor import (
    EnsemblePredictor,
    MirroringPredictor,
    NetworkPredictor,
    Predictor,
    count_at_once,
    count_votes,
)
from autoseg.inference.sliding_window import OnProgress, ignore_progress, predict_volume
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import (
    PreprocessedCase,
    preprocess_case,
    preprocess_segmentation,
)
from autoseg.runtime.device import memory_named, precision
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.units import describe_memory

MAPS_AT_ONCE = 4
"""Of full resolution that a network holds at its peak: two that are joined, what becomes of them, and its skip."""

SHARE_OF_PREVIOUS = 0.2
"""Of the time of a cascade that its coarser configuration takes, on the progress bar. Decision: it has few voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """A trained configuration, ready to segment any number of images.

    Attributes:
        configuration: Says how images are prepared and tiled.
        axis_order: Of the plan.
        info: Channels and labels.
        predictor: Patches to logits; folds and mirroring are inside.
        tiles_at_once: That it is asked about together.
        previous: The coarser configuration whose segmentation this one sees as well, if it is a cascade.
        statistics: Of an image; to its orientation images are turned.
        maps_disagreement: Whether predictions have a map of it.
        exact: Whether the networks calculate in float32.
        rules: Applied to each segmentation.
        device: Where the networks are.
        dataset: Name of the dataset that they learned from.
        networks: Digest of their weights.
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
        """How many predictions of each tile are averaged."""
        return count_votes(self.predictor)

    @property
    def orientation(self) -> str | None:
        """Where the axes of each training case were made to lead; else where they led, if they agree."""
        found = None if self.statistics is None else self.statistics.orientation
        return self.info.orientation or found

    @property
    def digest(self) -> str:
        """Sixteen characters that tell this model from others: its networks, its plan, and its postprocessing."""
        former = "" if self.previous is None else self.previous.digest
        told = (
            self.networks,
            str(self.votes),
            self.configuration.model_dump_json(by_alias=True),  # with the names of version 0.1, so that it stays
            str(self.axis_order),
            self.rules.describe(),
            former,
            *([] if self.orientation is None else [self.orientation]),
            *(["exact"] if self.exact else []),
        )
        return sha256("\n".join(told).encode()).hexdigest()[:16]

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments one image: label map (z, y, x) or masks (structures, z, y, x) on its grid; see `predict`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Prediction:
        """Asks the networks about one image; see `prepare` and `Prepared.predict`."""
        return self.prepare(image).predict(on_progress)

    def prepare(self, image: Volume) -> "Prepared":
        """What comes before the networks.

        Args:
            image: Shape (c, z, y, x), as its scanner made it.

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
        """Asks the networks about a case that was preprocessed for this configuration; see `predict`."""
        self._check_tile()
        with memory_named(self.device, "stop other programs that use it, or choose another with --device"):
            poll = EnsembleAgreement(self.predictor, self.info.targets, with_map=self.maps_disagreement)
            logits = predict_volume(
                case.image,
                poll if self.votes > 1 else self.predictor,
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
            agreement=poll.result(),
        )

    def _check_tile(self) -> None:
        """Refuses what the system would end the program for: the maps of a tile that memory does not hold."""
        free = free_memory_bytes() if self.device.type == "cpu" else None
        widest = self.configuration.architecture.stages[0].features
        dtype = torch.float32 if self.exact else precision(self.device)
        needed = MAPS_AT_ONCE * widest * prod(self.configuration.patch_size) * torch.finfo(dtype).bits // 8
        if free is not None and needed > free:
            tile = "tiles of " + " x ".join(map(str, self.configuration.patch_size))
            what = f"the network takes about {describe_memory(needed)} for {tile}, and {describe_memory(free)} are free"
            raise AutosegError(what, "close other programs, or take a machine with more memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image that a segmenter is ready to be asked about.

    Attributes:
        segmenter: Whose networks are asked.
        case: As they see it.
        previous: As the coarser configuration of a cascade sees it.
    """

    segmenter: Segmenter
    case: PreprocessedCase
    previous: "Prepared | None" = None

    @property
    def gathering_bytes(self) -> int:
        """The memory that the logits would like to have."""
        return gathering_bytes(self.segmenter.info.targets.outputs, prod(self.case.record.shape))

    def predict(self, on_progress: OnProgress = ignore_progress, former: Volume | None = None) -> Prediction:
        """Asks the networks.

        Args:
            on_progress: Called with the share of the work, 0 to 1, that each step adds.
            former: Of a cascade, the coarser segmentation, if it is known already.

        Raises:
            ModelError: The network returned infinite values or NaN.
            AutosegError: The device's memory is full.
        """
        segmenter = self.segmenter
        if self.previous is None:
            return segmenter.predict_preprocessed(self.case, on_progress)
        if former is None:
            former = self.previous.predict(lambda share: on_progress(SHARE_OF_PREVIOUS * share)).segmentation()
        shown = show_previous(self.case, preprocess_segmentation(former, self.case.record), segmenter.info.targets)
        return segmenter.predict_preprocessed(shown, lambda share: on_progress((1 - SHARE_OF_PREVIOUS) * share))


def show_previous(case: PreprocessedCase, former: NDArray[np.integer], targets: Targets) -> PreprocessedCase:
    """The case with a channel more for each structure of a former segmentation (z, y, x) on its grid."""
    channels = structure_channels(torch.from_numpy(former)[None], targets.structures.values())[0].numpy()
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
        checkpoints: At least one.
        rules: Applied to each result.
        device: Where to put the networks.
        previous: Of a cascade, what segments first; left out if the cases bring the segmentation with them.
        mirroring: Average over mirrored copies, as the plan mirrored in training; several times slower, a little more
            accurate.
        exact: Calculate in float32, whatever is faster.

    Raises:
        ModelError: The folds are of different configurations or plans, or the weights do not fit the plan; or the
            network is not built in, and no installed package offers it.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if _interface(other) != _interface(first):
            raise ModelError(f"folds {first.fold} and {other.fold} follow different plans", "train them by one plan")
    folds: list[Predictor] = [
        NetworkPredictor(_restore_network(fold, device), device, exact=exact) for fold in checkpoints
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
    """Mirrors as the plan mirrored in training."""
    seen = configuration.augmentation
    return MirroringPredictor(
        predictor,
        seen.mirror_axes,
        seen.swap_axis,
        seen.swapped_labels,
        structures_from=configuration.image_channels if configuration.previous is not None else None,
        at_once=at_once,
    )


def _interface(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What the folds of an ensemble must share."""
    return checkpoint.configuration.without_estimates, checkpoint.plan.axis_order, checkpoint.info.targets


def _restore_network(checkpoint: Checkpoint, device: torch.device) -> torch.nn.Module:
    own = checkpoint.configuration.network
    network = make_network(checkpoint.configuration, seed=0, error=ModelError)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        if own is not None and checkpoint.configuration.is_foreign:
            text = f"the weights of fold {checkpoint.fold} do not fit the network {own.name!r} that is installed"
            raise ModelError(text, "install the version of its package that the fold was trained with") from error
        text = f"the weights of fold {checkpoint.fold} do not fit its plan"
        raise ModelError(text, "train that fold again") from error
    return network.to(device)
