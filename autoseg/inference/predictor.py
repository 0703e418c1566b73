"""Things that turn patches into logits. Each wrapper takes a predictor and is one, so they combine freely."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from autoseg.runtime.device import autocast, exactly, free_cached_memory, is_memory_full, make_ready

VOXELS_AT_ONCE, VOXELS_AT_MOST = 2**20, 2**22
"""Of the patches that a CPU predicts together; see `count_at_once`."""

Flip = tuple[int, ...]


class Predictor(Protocol):
    """Anything that maps patches (n, c, *patch) to logits (n, classes, *patch), or to those of their middle."""

    def __call__(self, patches: Tensor) -> Tensor:
        """Predicts the logits of some patches, on the device of the patches."""


def list_votes(predictor: Predictor, patches: Tensor) -> Iterator[Tensor]:
    """The logits of everything that a predictor averages over, one after the other: of each fold and mirror image.

    A predictor that does not average has one opinion.
    """
    if isinstance(predictor, MirroringPredictor | EnsemblePredictor):
        yield from predictor.list_votes(patches)
    else:
        yield predictor(patches)


def count_votes(predictor: Predictor) -> int:
    """How many `list_votes` gives."""
    if isinstance(predictor, EnsemblePredictor):
        return sum(count_votes(one) for one in predictor.predictors)
    if isinstance(predictor, MirroringPredictor):
        return (1 << len(predictor.axes)) * count_votes(predictor.predictor)
    return 1


def count_at_once(patch_size: Sequence[int], batch_size: int, device: torch.device) -> int:
    """How many patches go through a network together.

    Decision, for a CPU: one for each core, up to four million voxels, and small ones up to one million. A convolution
    divides its samples among the cores; from one patch of 96 x 96 x 96 voxels to two, each took 0.7 of the time
    (measured on two cores). Elsewhere: as many as in training, whose steps take several times the memory.

    Args:
        patch_size: Of a patch.
        batch_size: Of training.
        device: Where the network is.
    """
    if device.type != "cpu":
        return batch_size
    voxels = prod(patch_size)
    return max(1, VOXELS_AT_ONCE // voxels, min(torch.get_num_threads(), VOXELS_AT_MOST // voxels))


@dataclass
class NetworkPredictor:
    """A network as a predictor.

    Attributes:
        network: Moved to the device and put into evaluation mode, for good.
        device: Where it runs; patches may come from anywhere.
        most_patches: That its memory holds at once, once that is known; larger batches are then divided.
        exact: Whether it calculates in float32, whatever is faster.
    """

    network: nn.Module
    device: torch.device
    most_patches: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        make_ready(self.device)
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Returns logits in the precision of the network, on the predictor's device.

        If the memory of the device runs out, the batch is halved, down to single patches.
        """
        try:
            parts = torch.split(patches, self.most_patches or len(patches))
            logits = [self._predict(part) for part in parts]
            return logits[0] if len(logits) == 1 else torch.cat(logits)
        except RuntimeError as error:
            if not is_memory_full(error) or len(patches) == 1 or self.most_patches == 1:
                raise
        self.most_patches = (min(self.most_patches or len(patches), len(patches)) + 1) // 2
        free_cached_memory(self.device)
        return self(patches)

    def _predict(self, patches: Tensor) -> Tensor:
        with exactly(self.device) if self.exact else autocast(self.device):
            logits: Tensor = self.network(patches.to(self.device))
        return logits


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
        at_once: Mirror images that `predictor` sees together, of all patches; at least one of each.
    """

    predictor: Predictor
    axes: tuple[int, ...]
    swap_axis: int | None = None
    swapped_labels: tuple[tuple[int, int], ...] = ()
    structures_from: int | None = None
    at_once: int = 1

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits, float32."""
        return average(self.list_votes(patches))

    def list_votes(self, patches: Tensor) -> Iterator[Tensor]:
        """The logits of each mirror image, mirrored back, each class where the patch itself has it."""
        flips = list(chain.from_iterable(combinations(self.axes, count) for count in range(len(self.axes) + 1)))
        together = max(1, self.at_once // len(patches))
        for start in range(0, len(flips), together):
            some = flips[start : start + together]
            mirrored = torch.cat([self._mirror(patches, flip) for flip in some])
            for logits in list_votes(self.predictor, mirrored):
                for flip, part in zip(some, torch.split(logits, len(patches)), strict=True):
                    yield self._mirror_back(part, flip)

    def _mirror(self, patches: Tensor, flip: Flip) -> Tensor:
        if self.swap_axis in flip and self.structures_from is not None:
            patches = self._exchange(patches, self.structures_from - 1)
        return patches.flip([axis + 2 for axis in flip])

    def _mirror_back(self, logits: Tensor, flip: Flip) -> Tensor:
        logits = logits.flip([axis + 2 for axis in flip])
        return self._exchange(logits, 0) if self.swap_axis in flip else logits

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
        """Returns the mean of the logits, float32."""
        return average(self.list_votes(patches))

    def list_votes(self, patches: Tensor) -> Iterator[Tensor]:
        """The logits of each predictor; of each of its own opinions, if it has several."""
        for predictor in self.predictors:
            yield from list_votes(predictor, patches)


def average(votes: Iterable[Tensor]) -> Tensor:
    """Mean of some logits, float32; only one, and the sum, are held at a time."""
    total: Tensor | None = None
    count = 0
    for logits in votes:
        total = logits.to(torch.float32, copy=True) if total is None else total.add_(logits)
        count += 1
    if total is None:
        raise ValueError("there is nothing to average")
    return total.div_(count)
