"""Predictors map patches to logits. Each wrapper takes a predictor and is one, so they combine freely.

Patches and logits are tensors of torch, or arrays of numpy where another runtime calculates; see `runtime.arrays`.

>>> import numpy as np
>>> double = FunctionPredictor(lambda patches: 2 * patches)
>>> both = EnsemblePredictor((double, MirroringPredictor(double, axes=(0, 1))))
>>> both.votes
5
>>> both(np.ones((1, 1, 2, 2), dtype=np.float32)).tolist()
[[[[2.0, 2.0], [2.0, 2.0]]]]
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from autoseg.inference.tiling import Slices, Tile
from autoseg.runtime.arrays import Array, namespace

Flip = tuple[int, ...]


class Predictor(ABC):
    """Maps patches (n, c, *patch) to logits (n, classes, *patch), or to the logits of their centre.

    Where several predictions of a patch are averaged, each of them is called a vote.
    """

    @abstractmethod
    def __call__(self, patches: Array) -> Array:
        """Predicts the logits of some patches; patches may be on any device."""

    @property
    def votes(self) -> int:
        """The number of predictions of each patch that are averaged."""
        return 1

    def list_votes(self, patches: Array) -> Iterator[Array]:
        """Yields the logits of each vote, one after the other; a predictor that does not average has one vote."""
        yield self(patches)

    def begin_image(  # noqa: B027 - most have nothing to prepare
        self, shape: Sequence[int], inside: Slices, wanted: Slices | None = None
    ) -> None:
        """Prepares for the patches of another image.

        Args:
            shape: Shape (z, y, x) of the image and its padding.
            inside: Where in that the image is.
            wanted: Where in that voxels are predicted, if it is not all of the image.
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

    function: Callable[[Array], Array]

    def __call__(self, patches: Array) -> Array:
        """Returns what the function returns."""
        return self.function(patches)


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
        opposite_only: Whether the only mirror image is that along all axes at once.
        at_once: Number of mirror images, of all patches, that `predictor` gets together; at least one of each patch.
    """

    predictor: Predictor
    axes: tuple[int, ...]
    swap_axis: int | None = None
    swapped_labels: tuple[tuple[int, int], ...] = ()
    structures_from: int | None = None
    opposite_only: bool = False
    at_once: int = 1

    def __call__(self, patches: Array) -> Array:
        """Returns the mean of the logits, float32."""
        return average(self.list_votes(patches))

    @property
    def votes(self) -> int:
        """The number of mirror images times the votes of the predictor."""
        return len(self._list_flips()) * self.predictor.votes

    def list_votes(self, patches: Array) -> Iterator[Array]:
        """Yields the logits of each mirror image, mirrored back, with each class where the patch itself has it."""
        flips = self._list_flips()
        flips_at_once = max(1, self.at_once // len(patches))
        for start in range(0, len(flips), flips_at_once):
            batch = flips[start : start + flips_at_once]
            mirrored = namespace(patches).concat([self._mirror(patches, flip) for flip in batch])
            for logits in self.predictor.list_votes(mirrored):
                for number, flip in enumerate(batch):
                    yield self._mirror_back(logits[number * len(patches) : (number + 1) * len(patches)], flip)

    def _list_flips(self) -> list[Flip]:
        """Returns the axes along which each image is mirrored, none for the patch itself."""
        if self.opposite_only:
            return list(dict.fromkeys([(), self.axes]))
        return list(chain.from_iterable(combinations(self.axes, count) for count in range(len(self.axes) + 1)))

    def _mirror(self, patches: Array, flip: Flip) -> Array:
        if self.swap_axis in flip and self.structures_from is not None:
            patches = self._exchange(patches, self.structures_from - 1)
        return _flip(patches, flip)

    def _mirror_back(self, logits: Array, flip: Flip) -> Array:
        logits = _flip(logits, flip)
        return self._exchange(logits, 0) if self.swap_axis in flip else logits

    def _exchange(self, maps: Array, first_class: int) -> Array:
        """Exchanges the maps of paired classes in (n, channels, *patch).

        Args:
            maps: Maps of classes.
            first_class: Channel at which the map of class 0 is, or would be.
        """
        channels = list(range(maps.shape[1]))
        for left, right in self.swapped_labels:
            channels[first_class + left], channels[first_class + right] = first_class + right, first_class + left
        return namespace(maps).concat([maps[:, channel : channel + 1] for channel in channels], axis=1)


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

    def __call__(self, patches: Array) -> Array:
        """Returns the mean of the logits, float32."""
        return average(self.list_votes(patches))

    @property
    def votes(self) -> int:
        """The votes of all predictors together."""
        return sum(predictor.votes for predictor in self.predictors)

    def list_votes(self, patches: Array) -> Iterator[Array]:
        """Yields the logits of each vote of each predictor."""
        for predictor in self.predictors:
            yield from predictor.list_votes(patches)


def _flip(maps: Array, flip: Flip) -> Array:
    """Flips maps (n, channels, *patch) along axes of the patch."""
    return namespace(maps).flip(maps, axis=tuple(axis + 2 for axis in flip))


def average(votes: Iterable[Array]) -> Array:
    """Returns the mean of some logits, float32; only one of them and the sum are held at a time.

    Example:
        >>> import numpy as np
        >>> average([np.zeros(2), np.ones(2)]).tolist()
        [0.5, 0.5]
    """
    total: Array | None = None
    count = 0
    for logits in votes:
        if total is None:
            xp = namespace(logits)
            total = xp.astype(logits, xp.float32, copy=True)
        else:
            total += logits
        count += 1
    if total is None:
        raise ValueError("there is nothing to average")
    total /= count
    return total
