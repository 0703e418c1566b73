"""Things that turn patches into logits. Each wrapper takes a predictor and is one, so they combine freely."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Protocol

import torch
from torch import Tensor, nn

from autoseg.device import autocast


class Predictor(Protocol):
    """Anything that maps patches (n, c, *patch) to logits (n, classes, *patch)."""

    def __call__(self, patches: Tensor) -> Tensor:
        """Predicts the logits of some patches, on the device of the patches."""


@dataclass(frozen=True)
class NetworkPredictor:
    """A network as a predictor.

    Attributes:
        network: Moved to the device and put into evaluation mode, for good.
        device: Where it runs; patches may come from anywhere.
    """

    network: nn.Module
    device: torch.device

    def __post_init__(self) -> None:
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Returns float32 logits on the predictor's device."""
        with autocast(self.device):
            logits: Tensor = self.network(patches.to(self.device))
        return logits.float()


@dataclass(frozen=True)
class MirroringPredictor:
    """Averages the logits of a patch over all its mirror images, each mirrored back.

    Source: the reference method: with three axes these are eight images, the patch itself included. Decision: what is
    left in the patch is right in its mirror image, so there the logits of such labels change places.

    Attributes:
        predictor: Sees the mirror images.
        axes: Axes of the patch, 0 for its first; those of samples and channels do not count. May be empty.
        swap_axis: The axis, if any, along which a flip exchanges `swapped_labels`, as it did in training.
        swapped_labels: Pairs of classes, such as left and right kidney.
        structures_from: In a cascade, the first channel of the patches that shows a structure, that of class 1: these
            change places as well.
    """

    predictor: Predictor
    axes: tuple[int, ...]
    swap_axis: int | None = None
    swapped_labels: tuple[tuple[int, int], ...] = ()
    structures_from: int | None = None

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits."""
        flips = chain.from_iterable(combinations(self.axes, count) for count in range(len(self.axes) + 1))
        return _mean(self._predict_mirrored(patches, flip) for flip in flips)

    def _predict_mirrored(self, patches: Tensor, flip: tuple[int, ...]) -> Tensor:
        """The logits of one mirror image, mirrored back, each class where the patch itself has it."""
        axes = [axis + 2 for axis in flip]
        if self.swap_axis not in flip:
            return self.predictor(patches.flip(axes)).flip(axes)
        if self.structures_from is not None:
            patches = self._exchange(patches, self.structures_from - 1)
        return self._exchange(self.predictor(patches.flip(axes)).flip(axes), 0)

    def _exchange(self, maps: Tensor, first_class: int) -> Tensor:
        """Maps (n, channels, *patch) of which that of class 0 would be channel `first_class`, pairs exchanged."""
        channels = list(range(maps.shape[1]))
        for one, other in self.swapped_labels:
            channels[first_class + one], channels[first_class + other] = first_class + other, first_class + one
        return maps[:, channels]


@dataclass(frozen=True)
class EnsemblePredictor:
    """Averages the logits of several predictors, such as the folds of one configuration.

    Attributes:
        predictors: At least one, of the same classes.
    """

    predictors: tuple[Predictor, ...]

    def __post_init__(self) -> None:
        if not self.predictors:
            raise ValueError("an ensemble needs at least one predictor")

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits."""
        return _mean(predictor(patches) for predictor in self.predictors)


def _mean(predictions: Iterable[Tensor]) -> Tensor:
    """Mean of some tensors of which only one, and the sum, are held at a time."""
    total: Tensor | None = None
    count = 0
    for prediction in predictions:
        total = prediction if total is None else total + prediction
        count += 1
    if total is None:
        raise ValueError("there is nothing to average")
    return total / count
