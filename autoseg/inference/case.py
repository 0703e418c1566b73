"""From an image to its segmentation, and a trained model as something that can be called."""

from dataclasses import dataclass

import torch

from autoseg.checkpoint import Checkpoint
from autoseg.device import memory_named
from autoseg.errors import ImageError, ModelError
from autoseg.geometry import Volume
from autoseg.inference.predictor import EnsemblePredictor, MirroringPredictor, NetworkPredictor, Predictor
from autoseg.inference.sliding_window import OnProgress, ignore_progress, predict_volume
from autoseg.info import DatasetInfo
from autoseg.network.unet import build_network
from autoseg.plan import Configuration
from autoseg.postprocessing import PostprocessingRules, apply_rules
from autoseg.preprocessing.case import PreprocessedCase, preprocess_case, restore_case


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """A trained configuration, ready to segment any number of images.

    Attributes:
        configuration: Says how images are prepared and tiled.
        axis_order: Of the plan.
        info: Channels and labels.
        predictor: Patches to logits; folds and mirroring are inside.
        rules: Applied to each result.
        device: Where the networks are.
    """

    configuration: Configuration
    axis_order: tuple[int, int, int]
    info: DatasetInfo
    predictor: Predictor
    rules: PostprocessingRules
    device: torch.device

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments one image.

        Args:
            image: Shape (c, z, y, x), as its scanner made it.
            on_progress: Called with the share of the work, 0 to 1, that each step adds.

        Returns:
            Label map (z, y, x) on the grid of the image.

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
        case = preprocess_case(image, None, axis_order=self.axis_order, configuration=self.configuration)
        return self.segment_preprocessed(case, on_progress)

    def segment_preprocessed(self, case: PreprocessedCase, on_progress: OnProgress = ignore_progress) -> Volume:
        """Segments a case that was preprocessed for this configuration; see `segment`."""
        with memory_named(self.device, "stop other programs that use it, or choose another with --device"):
            logits = predict_volume(
                case.image,
                self.predictor,
                patch_size=self.configuration.patch_size,
                batch_size=self.configuration.batch_size,
                device=self.device,
                on_progress=on_progress,
            )
        segmentation = restore_case(logits, case.record)
        return Volume(array=apply_rules(segmentation.array, self.rules), geometry=segmentation.geometry)


def make_segmenter(
    checkpoints: list[Checkpoint], rules: PostprocessingRules, device: torch.device, *, mirroring: bool = True
) -> Segmenter:
    """Builds the ensemble of some folds of one configuration.

    Args:
        checkpoints: At least one.
        rules: Applied to each result.
        device: Where to put the networks.
        mirroring: Average over mirrored copies, as the plan mirrored in training; several times slower, a little more
            accurate.

    Raises:
        ModelError: The folds are of different configurations or plans, or the weights do not fit the plan.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if _interface(other) != _interface(first):
            raise ModelError(f"folds {first.fold} and {other.fold} follow different plans", "train them by one plan")
    folds: list[Predictor] = [NetworkPredictor(_restore_network(fold, device), device) for fold in checkpoints]
    predictor = folds[0] if len(folds) == 1 else EnsemblePredictor(tuple(folds))
    if mirroring:
        seen = first.configuration.augmentation
        predictor = MirroringPredictor(predictor, seen.mirror_axes, seen.swap_axis, seen.swapped_labels)
    return Segmenter(
        configuration=first.configuration,
        axis_order=first.plan.axis_order,
        info=first.info,
        predictor=predictor,
        rules=rules,
        device=device,
    )


def _interface(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What the folds of an ensemble must share."""
    return checkpoint.configuration, checkpoint.plan.axis_order, checkpoint.info.labels


def _restore_network(checkpoint: Checkpoint, device: torch.device) -> torch.nn.Module:
    network = build_network(checkpoint.configuration.architecture)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        text = f"the weights of fold {checkpoint.fold} do not fit its plan"
        raise ModelError(text, "train that fold again") from error
    return network.to(device)
