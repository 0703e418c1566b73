"""Predictors map patches to logits. Each wrapper takes a predictor and is one, so they combine freely.

>>> double = FunctionPredictor(lambda patches: 2 * patches)
>>> both = EnsemblePredictor((double, MirroringPredictor(double, axes=(0, 1))))
>>> both.votes
5
>>> both(torch.ones(1, 1, 2, 2)).tolist()
[[[[2.0, 2.0], [2.0, 2.0]]]]
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod

import torch
from torch import Tensor, nn

from autoseg.inference.late_compilation import LateCompiler
from autoseg.inference.tiling import Slices, Tile
from autoseg.runtime.device import autocast, copy_to, exactly, free_cached_memory, is_memory_full, make_ready

VOXELS_AT_ONCE, VOXELS_AT_MOST = 2**20, 2**22
"""Number of voxels that a CPU predicts together, in small and in large patches; see `count_at_once`."""

Flip = tuple[int, ...]


class Predictor(ABC):
    """Maps patches (n, c, *patch) to logits (n, classes, *patch), or to the logits of their centre.

    Where several predictions of a patch are averaged, each of them is called a vote.
    """

    @abstractmethod
    def __call__(self, patches: Tensor) -> Tensor:
        """Predicts the logits of some patches; patches may be on any device."""

    @property
    def votes(self) -> int:
        """The number of predictions of each patch that are averaged."""
        return 1

    def list_votes(self, patches: Tensor) -> Iterator[Tensor]:
        """Yields the logits of each vote, one after the other; a predictor that does not average has one vote."""
        yield self(patches)

    def begin_image(self, shape: Sequence[int], inside: Slices) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepares for the patches of another image.

        Args:
            shape: Shape (z, y, x) of the image and its padding.
            inside: Where in that the image is.
        """

    def locate_patch(self, number: int, tiles: Sequence[Tile]) -> None:  # noqa: B027 - most do not need to know
        """Tells where in the image a patch of the batch that was predicted last is.

        Args:
            number: Index of the patch in the batch.
            tiles: The tiles that are predicted from it; several if the same patch occurs at several places of the
                image.
        """


@dataclass(frozen=True)
class FunctionPredictor(Predictor):
    """A function as a predictor.

    Attributes:
        function: Maps patches (n, c, *patch) to logits (n, classes, *patch).
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns what the function returns."""
        return self.function(patches)


def count_at_once(patch_size: Sequence[int], batch_size: int, device: torch.device) -> int:
    """Returns the number of patches that go through a network together.

    Decision, for a CPU: one for each core, up to four million voxels, and small ones up to one million. A convolution
    divides its samples among the cores; from one patch of 96 x 96 x 96 voxels to two, each took 0.7 of the time
    (measured on two cores). Elsewhere: as many as in training, whose steps take several times the memory.

    Example:
        >>> count_at_once((64, 64, 64), 2, torch.device("cuda"))
        2

    Args:
        patch_size: Size of a patch in voxels.
        batch_size: Batch size of training.
        device: Device of the network.
    """
    if device.type != "cpu":
        return batch_size
    voxels = prod(patch_size)
    return max(1, VOXELS_AT_ONCE // voxels, min(torch.get_num_threads(), VOXELS_AT_MOST // voxels))


@dataclass
class NetworkPredictor(Predictor):
    """A network as a predictor.

    Attributes:
        network: Moved to the device and put into evaluation mode, for good.
        device: Device of the network; patches may come from any other.
        most_patches: Number of patches that the memory of the device holds at once, as far as it is known; larger
            batches are divided.
        exact: Whether to calculate in float32, even where a lower precision is faster; then nothing is compiled.
    """

    network: nn.Module
    device: torch.device
    most_patches: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        make_ready(self.device)
        self._forward: Callable[[Tensor], Tensor] = self.network.to(self.device).eval()
        if not self.exact:
            self._forward = LateCompiler(self._forward, self.device)

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
            return self._forward(patches.to(self.device))


@dataclass(frozen=True)
class MirroringPredictor(Predictor):
    """Averages the logits of a patch over all its mirror images, each mirrored back.

    Source: the reference method: with three axes these are eight images, the patch itself included. Decision: what is
    left in the patch is right in its mirror image, so there the logits of such labels change places.

    Attributes:
        predictor: Predicts the mirror images.
        axes: Axes of the patch that are mirrored, 0 for its first; those of samples and channels do not count. May be
            empty.
        swap_axis: The axis, if any, along which a flip exchanges `swapped_labels`, as it did in training.
        swapped_labels: Pairs of classes, such as left and right kidney.
        structures_from: In a cascade, the first channel of the patches that shows a structure, that of class 1; these
            channels change places as well.
        at_once: Number of mirror images, of all patches, that `predictor` gets together; at least one of each patch.
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

    @property
    def votes(self) -> int:
        """The number of mirror images times the votes of the predictor."""
        return (1 << len(self.axes)) * self.predictor.votes

    def list_votes(self, patches: Tensor) -> Iterator[Tensor]:
        """Yields the logits of each mirror image, mirrored back, with each class where the patch itself has it."""
        flips = list(chain.from_iterable(combinations(self.axes, count) for count in range(len(self.axes) + 1)))
        flips_at_once = max(1, self.at_once // len(patches))
        for start in range(0, len(flips), flips_at_once):
            batch = flips[start : start + flips_at_once]
            mirrored = torch.cat([self._mirror(patches, flip) for flip in batch])
            for logits in self.predictor.list_votes(mirrored):
                for flip, part in zip(batch, torch.split(logits, len(patches)), strict=True):
                    yield self._mirror_back(part, flip)

    def _mirror(self, patches: Tensor, flip: Flip) -> Tensor:
        if self.swap_axis in flip and self.structures_from is not None:
            patches = self._exchange(patches, self.structures_from - 1)
        return patches.flip([axis + 2 for axis in flip])

    def _mirror_back(self, logits: Tensor, flip: Flip) -> Tensor:
        logits = logits.flip([axis + 2 for axis in flip])
        return self._exchange(logits, 0) if self.swap_axis in flip else logits

    def _exchange(self, maps: Tensor, first_class: int) -> Tensor:
        """Exchanges the maps of paired classes in (n, channels, *patch).

        Args:
            maps: Maps of classes.
            first_class: Channel at which the map of class 0 is, or would be.
        """
        channels = list(range(maps.shape[1]))
        for left, right in self.swapped_labels:
            channels[first_class + left], channels[first_class + right] = first_class + right, first_class + left
        return maps.index_select(1, copy_to(torch.tensor(channels), maps.device))


@dataclass(frozen=True)
class EnsemblePredictor(Predictor):
    """Averages the logits of several predictors, such as the folds of one configuration.

    Attributes:
        predictors: At least one; all predict the same classes.
    """

    predictors: tuple[Predictor, ...]

    def __post_init__(self) -> None:
        if not self.predictors:
            raise ValueError("an ensemble needs at least one predictor")

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits, float32."""
        return average(self.list_votes(patches))

    @property
    def votes(self) -> int:
        """The votes of all predictors together."""
        return sum(predictor.votes for predictor in self.predictors)

    def list_votes(self, patches: Tensor) -> Iterator[Tensor]:
        """Yields the logits of each vote of each predictor."""
        for predictor in self.predictors:
            yield from predictor.list_votes(patches)


def average(votes: Iterable[Tensor]) -> Tensor:
    """Returns the mean of some logits, float32; only one of them and the sum are held at a time.

    Example:
        >>> average([torch.zeros(2), torch.ones(2)]).tolist()
        [0.5, 0.5]
    """
    total: Tensor | None = None
    count = 0
    for logits in votes:
        total = logits.to(torch.float32, copy=True) if total is None else total.add_(logits)
        count += 1
    if total is None:
        raise ValueError("there is nothing to average")
    return total.div_(count)
