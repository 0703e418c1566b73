"""The networks of some folds of a configuration, averaged: over folds and mirror images, whatever calculates them."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.errors import ModelError
from autoseg.inference.prediction_quality import PredictionQuality
from autoseg.inference.predictor import EnsemblePredictor, MirroringPredictor, Predictor
from autoseg.models.fold_description import FoldDescription
from autoseg.planning.plan import Configuration
from autoseg.runtime.arrays import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The networks of some folds of a configuration, in memory.

    Attributes:
        folds: Description of each fold, at least one.
        predictors: Predictor of each fold.
        digests: Digest of the weights of each fold.
        device: Their device.
        at_once: Number of patches that go through a network together.
    """

    folds: Sequence[FoldDescription]
    predictors: Sequence[Predictor]
    digests: Sequence[str]
    device: Device
    at_once: int


def check_folds(folds: Sequence[FoldDescription]) -> None:
    """Makes sure that folds can be averaged.

    Raises:
        ModelError: They are of different configurations or plans.
    """
    first = folds[0]
    for other in folds[1:]:
        if _interface(other) != _interface(first):
            raise ModelError(f"folds {first.fold} and {other.fold} follow different plans", "train them by one plan")


def average_networks(networks: Networks, quality: PredictionQuality) -> tuple[Predictor, int]:
    """Returns the predictor that averages the networks of some folds over mirror images.

    Args:
        networks: The networks.
        quality: Says which mirror images.

    Returns:
        The predictor, and the number of patches that it gets at once.
    """
    configuration, predictors = networks.folds[0].configuration, networks.predictors
    predictor = predictors[0] if len(predictors) == 1 else EnsemblePredictor(tuple(predictors))
    images = quality.count_images(len(configuration.augmentation.averaged_axes))
    if images > 1:
        predictor = _add_mirroring(predictor, configuration, quality, networks.at_once)
    return predictor, max(1, networks.at_once // images)


def _add_mirroring(
    predictor: Predictor, configuration: Configuration, quality: PredictionQuality, at_once: int
) -> MirroringPredictor:
    """Mirrors along the axes, and exchanges the labels, that training did."""
    augmentation = configuration.augmentation
    return MirroringPredictor(
        predictor,
        augmentation.averaged_axes,
        augmentation.swap_axis,
        augmentation.swapped_labels,
        structures_from=configuration.image_channels if configuration.previous is not None else None,
        opposite_only=quality.mirror_images == "two",
        at_once=at_once,
    )


def _interface(fold: FoldDescription) -> tuple[object, ...]:
    """Returns what the folds of an ensemble must have in common."""
    return fold.configuration.without_estimates, fold.plan.axis_order, fold.info.targets
