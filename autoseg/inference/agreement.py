"""How far the folds of a model and the mirror images of a scan agree: a by-product of the mean that is predicted.

Every tile is predicted by each fold and in each mirror image anyway. Of each of these votes only the winning classes
are kept, a byte per voxel, until the mean of the tile is known; then they are compared with its winning classes and
dropped.

Example: of three votes on six voxels, two differ from the mean at the third voxel and one at the fourth.

                         Dice of class 1 between the vote and the mean
    vote 1   0 1 1 1 0 0   1
    vote 2   0 1 0 1 0 0   2 * 2 / (2 + 3) = 0.8
    vote 3   0 1 0 0 0 0   2 * 1 / (1 + 3) = 0.5
    mean     0 1 1 1 0 0   agreement: 0.77
    map      0 0 2 1 0 0   thirds

Source of the score, as an estimate of how good a segmentation is: Roy et al. 2019, "Bayesian QuickNAT", the Dice of a
structure between samples. Decision: each vote is compared with the segmentation that is delivered.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.targets import Targets
from autoseg.inference.accumulation import allocate_logits
from autoseg.inference.dice_sums import BITS, DiceSums
from autoseg.inference.predictor import Predictor, average
from autoseg.inference.tile_weights import TileWeights
from autoseg.inference.tiling import Slices, Tile
from autoseg.runtime.arrays import Array, bring_to_cpu, device_of, move_like, namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the votes on an image agree, before postprocessing.

    Attributes:
        votes: Number of votes: folds times mirror images. With a single one, agreement is not known.
        structures: Name of each structure to the mean, 0 to 1, of the Dice between each vote and their mean; NaN where
            the mean holds none of the structure, or with a single vote.
        disagreement: If it was asked for: the share of votes, 0 to 1, whose structures at a voxel are not those of the
            mean; shape (z, y, x) of the preprocessed case, float32.
    """

    votes: int
    structures: dict[str, float]
    disagreement: NDArray[np.float32] | None = None

    @property
    def score(self) -> float:
        """The mean over the structures that are in the mean prediction; NaN if none is, or with a single vote.

        Example:
            >>> Agreement(votes=2, structures={"liver": 0.5, "spleen": 1.0, "tumour": math.nan}).score
            0.75
        """
        defined = [value for value in self.structures.values() if not math.isnan(value)]
        return sum(defined) / len(defined) if defined else math.nan

    @classmethod
    def pool(cls, members: Sequence["Agreement"]) -> "Agreement":
        """Pools the agreement within each of several configurations, weighted by their numbers of votes.

        Each configuration's votes were compared with its own mean only.

        Example:
            >>> members = [Agreement(votes=3, structures={"liver": 0.9}), Agreement(votes=1, structures={"liver": 0.5})]
            >>> round(Agreement.pool(members).structures["liver"], 3)
            0.8
        """

        def mean(name: str) -> float:
            defined = [
                (member.structures[name], member.votes) for member in members if not math.isnan(member.structures[name])
            ]
            if not defined:
                return math.nan
            return sum(value * votes for value, votes in defined) / sum(votes for _, votes in defined)

        votes = sum(member.votes for member in members)
        return cls(votes=votes, structures={name: mean(name) for name in members[0].structures})


UNKNOWN = Agreement(votes=1, structures={})


class EnsembleAgreement(Predictor):
    """A predictor around a predictor: returns the mean of its votes, to the last bit, and records how far they agree.

    Decision: agreement is recorded in every prediction. With the smallest network and 3 classes that takes 3.5 % of the
    time of the network, on a CPU (4 % with the map; 7 % for the winners of 25 classes); of larger networks a smaller
    part.

    It serves one image at a time: `begin_image`, then for each batch a call and a `locate_patch` for each of its
    patches, then `result`.
    """

    def __init__(self, predictor: Predictor, targets: Targets, *, with_map: bool = False) -> None:
        """Wraps a predictor.

        Args:
            predictor: Predictor whose votes are averaged.
            targets: What its outputs stand for.
            with_map: Whether disagreement is gathered voxel by voxel as well, which takes a volume of memory.
        """
        self._predictor, self._targets, self._with_map = predictor, targets, with_map
        self._map: Array | None = None
        self._sums: DiceSums | None = None
        self._winners: Array = np.empty(0)  # of the votes on the present batch: (votes, words, n, *patch)
        self._mean: Array = np.empty(0)  # (words, n, *patch)
        self._inside: Slices = ()
        self._counted: Slices = ()
        self._counts_all = True
        self._shape: tuple[int, ...] = ()
        self._weights: TileWeights | None = None

    def __call__(self, patches: Array) -> Array:
        """Returns the mean of the logits (n, outputs, *patch), float32, also of a single vote."""
        winners: list[Array] = []
        mean = average(self._record_winners(self._predictor.list_votes(patches), winners))
        if len(winners) > 1:
            self._mean, self._winners = self._find_winners(mean), namespace(mean).stack(winners)
        return mean

    def begin_image(self, shape: Sequence[int], inside: Slices, wanted: Slices | None = None) -> None:
        """Prepares for an image; what is not wanted, and padding, do not count. See `Predictor.begin_image`."""
        self._shape, self._inside = tuple(shape), inside
        counted = inside if wanted is None else wanted
        self._counted = tuple(slice(*part.indices(size)) for part, size in zip(counted, shape, strict=True))
        self._counts_all = [part.stop - part.start for part in self._counted] == list(shape)
        self._map = self._weights = self._sums = None

    def locate_patch(self, number: int, tiles: Sequence[Tile]) -> None:
        """Compares the votes on a patch with their mean; see `Predictor.locate_patch`.

        Since the shares of each voxel add up to 1 over all tiles, every voxel of the image counts once.
        """
        if not len(self._winners):
            return
        votes, mean = self._winners[:, :, number], self._mean[:, number]
        weights = self._weights = self._weights or TileWeights(device_of(votes))
        xp = namespace(votes)
        differ = xp.any(votes != mean, axis=1)
        if self._with_map:
            regions = [(tile.region[1:], weights(tile)) for tile in tiles]
            self._add_to_map(xp.sum(differ, axis=0, dtype=xp.float32) / len(votes), regions)
        chosen = _choose_voxels(differ, mean)
        if not isinstance(chosen, slice) and not len(chosen):
            return
        total = reduce(
            add, (weights(tile) if self._counts_all else weights.inside(tile, self._counted) for tile in tiles)
        )
        self._sums = self._sums or DiceSums(self._targets, len(votes), device_of(votes))
        flat = votes.reshape(*votes.shape[:2], -1), mean.reshape(len(mean), -1), total.reshape(-1)
        self._sums.add(flat[0][:, :, chosen], flat[1][:, chosen], flat[2][chosen])

    def result(self) -> Agreement:
        """Returns the agreement over all patches since `begin_image`."""
        count = max(1, len(self._winners))
        names = self._targets.names
        scores = [math.nan] * len(names) if self._sums is None else self._sums.dice()
        disagreement = (
            None if self._map is None else bring_to_cpu(self._map[self._inside]).astype(np.float32, order="C")
        )
        structures = dict(zip(names, scores, strict=True))
        return Agreement(votes=count, structures=structures, disagreement=disagreement)

    def _record_winners(self, votes: Iterable[Array], winners: list[Array]) -> Iterator[Array]:
        """Passes the logits of votes on, and adds the winners of each to a list."""
        for logits in votes:
            winners.append(self._find_winners(logits))
            yield logits

    def _find_winners(self, logits: Array) -> Array:
        """Returns the structures at each voxel, (words, n, *patch): a class, or a bit for each that may overlap."""
        if self._targets.exclusive:
            winners = _find_highest(logits)[None]
        else:
            masks = logits > 0
            words = [_pack(masks[:, first : first + BITS]) for first in range(0, masks.shape[1], BITS)]
            winners = namespace(logits).stack(words)
        return winners if device_of(winners).type in ("cpu", "cuda") else winners.cpu()  # others lack 64 bit

    def _add_to_map(self, disagreement: Array, weights: Sequence[tuple[Slices, Array]]) -> None:
        """Adds the disagreement in a patch, (*patch), to the map, at each region and with the weights there."""
        if self._map is None:
            self._map = allocate_logits((1, *self._shape), device_of(disagreement))[0]
        for region, weight in weights:
            self._map[region] += move_like(disagreement.reshape(weight.shape) * weight, self._map)


def _choose_voxels(differ: Array, mean: Array) -> Array | slice:
    """Returns the voxels that agreement depends on, as indices into a flattened patch.

    Decision: on a CPU these are the voxels that are of a structure in some vote, since fewer numbers are summed up
    faster. On a GPU they are all, since the CPU would have to wait for the number of the others.

    Args:
        differ: Whether a vote differs from the mean, (votes, *patch).
        mean: Winners of the mean, (words, *patch).
    """
    if device_of(mean).type != "cpu":
        return slice(None)
    xp = namespace(mean)
    return xp.nonzero(xp.reshape(xp.any(differ, axis=0) | xp.any(mean != 0, axis=0), (-1,)))[0]


def _find_highest(logits: Array) -> Array:
    """Returns the first of the highest classes, (n, *patch), of logits (n, classes, *patch).

    Decision: by bytes where each class has its own map in the memory of a CPU, which is several times as fast as
    `argmax` over this axis; where the classes of a voxel are neighbours it is the other way round. On a GPU `argmax` is
    one kernel instead of four for each class, and takes the first of equal classes as well.

    Example:
        >>> _find_highest(np.array([[[0.0, 1.0], [2.0, 1.0]]])).tolist()
        [[1, 0]]
    """
    classes, xp = logits.shape[1], namespace(logits)
    dtype = xp.uint8 if classes < 256 else xp.int16
    if device_of(logits).type == "cuda" or _has_neighbouring_classes(logits):
        return xp.astype(xp.argmax(xp.moveaxis(logits, 1, -1), axis=-1), dtype)
    highest = xp.max(logits, axis=1)
    before_last = xp.zeros_like(highest, dtype=dtype)
    for number in range(classes):
        is_highest = xp.astype(logits[:, number] == highest, dtype)
        is_highest *= classes - number
        before_last = xp.maximum(before_last, is_highest)
    return classes - before_last


def _has_neighbouring_classes(logits: Array) -> bool:
    """Returns whether the classes of a voxel are neighbours in memory."""
    if isinstance(logits, np.ndarray):
        return logits.strides[1] == logits.itemsize
    return bool(logits.stride(1) == 1)


def _pack(masks: Array) -> Array:
    """Packs up to eight masks (n, structures, *patch) into the bits of one byte, (n, *patch).

    Example:
        >>> _pack(np.array([[[True, False], [True, True]]])).tolist()
        [[3, 2]]
    """
    xp = namespace(masks)
    word = xp.zeros_like(masks[:, 0], dtype=xp.uint8)
    for bit in range(masks.shape[1]):
        word |= xp.astype(masks[:, bit], xp.uint8) << bit
    return word
