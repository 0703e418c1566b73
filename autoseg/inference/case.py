"""From an image to its segmentation, and a trained model as something that can be called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.checkpoint import Checkpoint
from autoseg.data.previous import as_channels
from autoseg.device import memory_named
from autoseg.errors import ImageError, ModelError
from autoseg.geometry import Volume
from autoseg.inference.predictor import EnsemblePredictor, MirroringPredictor, NetworkPredictor, Predictor
from autoseg.inference.sliding_window import OnProgress, ignore_progress, predict_volume
from autoseg.info import DatasetInfo
from autoseg.network.making import make_network
from autoseg.plan import Configuration
from autoseg.postprocessing import PostprocessingRules, apply_rules, apply_to_mask
from autoseg.preprocessing.case import (
    PreprocessedCase,
    PreprocessRecord,
    follow_record,
    preprocess_case,
    restore_case,
    restore_masks,
)
from autoseg.preprocessing.probabilities import restore_probabilities
from autoseg.targets import Targets

SHARE_OF_PREVIOUS = 0.2
"""Of the time of a cascade that its coarser configuration takes, on the progress bar. Decision: it has few voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the networks say of one image; its segmentation and its probabilities both follow from it.

    Attributes:
        logits: Shape (outputs, z, y, x), float32, of the preprocessed case.
        record: How to get back to the grid of the image.
        targets: What the outputs stand for.
        rules: Applied to the segmentation.
    """

    logits: torch.Tensor
    record: PreprocessRecord
    targets: Targets
    rules: PostprocessingRules

    def segmentation(self) -> Volume:
        """The label map (z, y, x) on the grid of the image, after postprocessing; all `masks`, if these it has."""
        if self.targets.as_masks:
            volumes = list(self.masks())
            return Volume(array=np.stack([one.array for one in volumes]), geometry=volumes[0].geometry)
        restored = restore_case(self.logits, self.record, self.targets.painted)
        return Volume(array=apply_rules(restored.array, self.rules), geometry=restored.geometry)

    def masks(self) -> Iterator[Volume]:
        """The mask (z, y, x), 0 or 1, of each structure, for structures that may overlap; after postprocessing."""
        for numbers, mask in zip(
            self.targets.structures.values(), restore_masks(self.logits, self.record), strict=True
        ):
            yield Volume(array=apply_to_mask(mask.array, numbers, self.rules), geometry=mask.geometry)

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Maps of the probabilities of some outputs on the grid of the image, one at a time; see there.

        They are the networks' own: postprocessing changes the segmentation only.
        """
        return restore_probabilities(self.logits, self.record, outputs, exclusive=self.targets.exclusive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """A trained configuration, ready to segment any number of images.

    Attributes:
        configuration: Says how images are prepared and tiled.
        axis_order: Of the plan.
        info: Channels and labels.
        predictor: Patches to logits; folds and mirroring are inside.
        previous: The coarser configuration whose segmentation this one sees as well, if it is a cascade.
        rules: Applied to each segmentation.
        device: Where the networks are.
    """

    configuration: Configuration
    axis_order: tuple[int, int, int]
    info: DatasetInfo
    predictor: Predictor
    rules: PostprocessingRules
    device: torch.device
    previous: "Segmenter | None" = None

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments one image: label map (z, y, x) or masks (structures, z, y, x) on its grid; see `predict`."""
        return self.predict(image, on_progress).segmentation()

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Prediction:
        """Asks the networks about one image.

        Args:
            image: Shape (c, z, y, x), as its scanner made it.
            on_progress: Called with the share of the work, 0 to 1, that each step adds.

        Raises:
            ImageError: The image has another number of channels than the model, or colours outside 0 to 255.
            ModelError: The network returned infinite values or NaN.
            AutosegError: The device's memory is full.
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
        )
        if self.previous is None:
            return self.predict_preprocessed(case, on_progress)
        former = self.previous.segment(image, lambda share: on_progress(SHARE_OF_PREVIOUS * share))
        shown = show_previous(case, follow_record(former, case.record), self.info.targets)
        return self.predict_preprocessed(shown, lambda share: on_progress((1 - SHARE_OF_PREVIOUS) * share))

    def predict_preprocessed(self, case: PreprocessedCase, on_progress: OnProgress = ignore_progress) -> Prediction:
        """Asks the networks about a case that was preprocessed for this configuration; see `predict`."""
        with memory_named(self.device, "stop other programs that use it, or choose another with --device"):
            logits = predict_volume(
                case.image,
                self.predictor,
                patch_size=self.configuration.patch_size,
                batch_size=self.configuration.batch_size,
                device=self.device,
                on_progress=on_progress,
            )
        return Prediction(logits=logits, record=case.record, targets=self.info.targets, rules=self.rules)


def show_previous(case: PreprocessedCase, former: NDArray[np.integer], targets: Targets) -> PreprocessedCase:
    """The case with a channel more for each structure of a former segmentation (z, y, x) on its grid."""
    channels = as_channels(torch.from_numpy(former)[None], targets.structures.values())[0].numpy()
    return replace(case, image=np.concatenate([case.image, channels]))


def make_segmenter(
    checkpoints: list[Checkpoint],
    rules: PostprocessingRules,
    device: torch.device,
    *,
    mirroring: bool = True,
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

    Raises:
        ModelError: The folds are of different configurations or plans, or the weights do not fit the plan; or the
            network is not built in, and no installed package offers it.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if _interface(other) != _interface(first):
            raise ModelError(f"folds {first.fold} and {other.fold} follow different plans", "train them by one plan")
    folds: list[Predictor] = [NetworkPredictor(_restore_network(fold, device), device) for fold in checkpoints]
    predictor = folds[0] if len(folds) == 1 else EnsemblePredictor(tuple(folds))
    if mirroring:
        seen = first.configuration.augmentation
        structures = first.configuration.image_channels if first.configuration.previous is not None else None
        predictor = MirroringPredictor(predictor, seen.mirror_axes, seen.swap_axis, seen.swapped_labels, structures)
    return Segmenter(
        configuration=first.configuration,
        axis_order=first.plan.axis_order,
        info=first.info,
        predictor=predictor,
        rules=rules,
        device=device,
        previous=previous,
    )


def _interface(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What the folds of an ensemble must share."""
    return checkpoint.configuration, checkpoint.plan.axis_order, checkpoint.info.targets


def _restore_network(checkpoint: Checkpoint, device: torch.device) -> torch.nn.Module:
    own = checkpoint.configuration.network
    network = make_network(checkpoint.configuration, seed=0, error=ModelError)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        if own is not None:
            text = f"the weights of fold {checkpoint.fold} do not fit the network {own.name!r} that is installed"
            raise ModelError(text, "install the version of its package that the fold was trained with") from error
        text = f"the weights of fold {checkpoint.fold} do not fit its plan"
        raise ModelError(text, "train that fold again") from error
    return network.to(device)
