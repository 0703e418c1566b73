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

import torch
from torch import Tensor

from autoseg.imaging.targets import Targets
from autoseg.inference.predictor import Predictor, average
from autoseg.inference.tiling import Slices, Tile

BITS = 8  # Masks of structures that may overlap are kept eight to a byte


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
    disagreement: Tensor | None = None

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
        self._map: Tensor | None = None
        self._sums: _DiceSums | None = None
        self._winners: Tensor = torch.empty(0)  # of the votes on the present batch: (votes, words, n, *patch)
        self._mean: Tensor = torch.empty(0)  # (words, n, *patch)
        self._inside: Slices = ()
        self._padded = False

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits (n, outputs, *patch), float32, also of a single vote."""
        winners: list[Tensor] = []
        mean = average(self._record_winners(self._predictor.list_votes(patches), winners))
        if len(winners) > 1:
            self._mean, self._winners = self._find_winners(mean), torch.stack(winners)
        return mean

    def begin_image(self, shape: Sequence[int], inside: Slices) -> None:
        """Prepares for an image; its padding does not count. See `Predictor.begin_image`."""
        self._inside = tuple(slice(*part.indices(size)) for part, size in zip(inside, shape, strict=True))
        self._padded = [part.stop - part.start for part in self._inside] != list(shape)
        self._map = torch.zeros(tuple(shape)) if self._with_map else None

    def locate_patch(self, number: int, tiles: Sequence[Tile]) -> None:
        """Compares the votes on a patch with their mean; see `Predictor.locate_patch`.

        Since the shares of each voxel add up to 1 over all tiles, every voxel of the image counts once.
        """
        if not len(self._winners):
            return
        votes, mean = self._winners[:, :, number], self._mean[:, number]
        differ = (votes != mean).any(dim=1)
        relevant = (differ.any(dim=0) | (mean != 0).any(dim=0)).flatten().nonzero()[:, 0]
        if self._map is not None:
            disagreement = differ.sum(dim=0).cpu() / len(votes)
            for tile in tiles:
                share = tile.shares
                self._map[tile.region[1:]] += disagreement.view(share.shape) * share
        if len(relevant):
            weights = sum(self._shares_inside(tile).flatten() for tile in tiles)
            self._sums = self._sums or _DiceSums(self._targets, len(votes))
            self._sums.add(
                votes.flatten(2)[:, :, relevant],
                mean.flatten(1)[:, relevant],
                torch.as_tensor(weights, dtype=torch.float64)[relevant.cpu()].to(relevant.device),
            )

    def result(self) -> Agreement:
        """Returns the agreement over all patches since `begin_image`."""
        count = max(1, len(self._winners))
        names = self._targets.names
        scores = [math.nan] * len(names) if self._sums is None else self._sums.dice()
        disagreement = None if self._map is None or count == 1 else self._map[self._inside].contiguous()
        structures = dict(zip(names, scores, strict=True))
        return Agreement(votes=count, structures=structures, disagreement=disagreement)

    def _record_winners(self, votes: Iterable[Tensor], winners: list[Tensor]) -> Iterator[Tensor]:
        """Passes the logits of votes on, and adds the winners of each to a list."""
        for logits in votes:
            winners.append(self._find_winners(logits))
            yield logits

    def _find_winners(self, logits: Tensor) -> Tensor:
        """Returns the structures at each voxel, (words, n, *patch): a class, or a bit for each that may overlap."""
        if self._targets.exclusive:
            winners = _find_highest(logits)[None]
        else:
            masks = logits > 0
            words = [_pack(masks[:, first : first + BITS]) for first in range(0, masks.shape[1], BITS)]
            winners = torch.stack(words)
        return winners if winners.device.type == "cuda" else winners.cpu()  # other devices lack numbers of 64 bit

    def _shares_inside(self, tile: Tile) -> Tensor:
        """Returns the shares of a tile, with 0 where the image was padded."""
        shares = tile.shares
        if not self._padded:
            return shares
        _, part = tile.clip(self._inside)
        kept = torch.zeros_like(shares)
        kept[part] = shares[part]
        return kept


class _DiceSums:
    """Sums over voxels for the Dice of each structure, weighted by shares: in each vote, in the mean, and in both."""

    def __init__(self, targets: Targets, votes: int) -> None:
        self._targets = targets
        count = len(targets.names)
        self._in_vote, self._in_both = torch.zeros(2, votes, count, dtype=torch.float64)
        self._in_mean = torch.zeros(count, dtype=torch.float64)

    def add(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        """Adds n voxels.

        Args:
            votes: Winners of each vote, (votes, words, n).
            mean: Winners of their mean, (words, n).
            shares: Weight of each voxel, (n,).
        """
        add = self._add_classes if self._targets.exclusive else self._add_bits
        add(votes, mean, shares)

    def dice(self) -> list[float]:
        """Returns the mean Dice of each structure; NaN if the mean has none of it."""
        dice = (2 * self._in_both / (self._in_vote + self._in_mean)).mean(dim=0)
        return [float(value) if size > 0 else math.nan for value, size in zip(dice, self._in_mean, strict=True)]

    def _add_classes(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        classes, count = len(self._in_mean) + 1, len(votes)
        voted, agreed = votes[:, 0].long(), mean[0].long()
        bins = (voted + classes * torch.arange(count, device=voted.device)[:, None]).flatten()

        def sum_by_class(weights: Tensor) -> Tensor:
            return bins.bincount(weights.flatten(), count * classes).view(count, classes)[:, 1:].cpu()

        self._in_vote += sum_by_class(shares.expand(count, -1))
        self._in_both += sum_by_class(shares * (voted == agreed))
        self._in_mean += agreed.bincount(shares, classes)[1:].cpu()

    def _add_bits(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        for number in range(len(self._in_mean)):
            word, bit = divmod(number, BITS)
            voted, agreed = (votes[:, word] >> bit) & 1, (mean[word] >> bit) & 1
            self._in_vote[:, number] += (voted * shares).sum(dim=1).cpu()
            self._in_both[:, number] += (voted * agreed * shares).sum(dim=1).cpu()
            self._in_mean[number] += (agreed * shares).sum().cpu()


def _find_highest(logits: Tensor) -> Tensor:
    """Returns the first of the highest classes, (n, *patch), of logits (n, classes, *patch).

    Decision: by bytes where each class has its own map in memory, which on a CPU is several times as fast as `argmax`
    over this axis; where the classes of a voxel are neighbours it is the other way round.

    Example:
        >>> _find_highest(torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])).tolist()
        [[1, 0]]
    """
    classes = logits.shape[1]
    if logits.stride(1) == 1:
        return logits.movedim(1, -1).argmax(dim=-1).to(torch.uint8 if classes < 256 else torch.int16)
    highest = logits.amax(dim=1)
    before_last = torch.zeros_like(highest, dtype=torch.uint8 if classes < 256 else torch.int16)
    for number in range(classes):
        is_highest = (logits[:, number] == highest).to(before_last.dtype)
        torch.maximum(before_last, is_highest.mul_(classes - number), out=before_last)
    return classes - before_last


def _pack(masks: Tensor) -> Tensor:
    """Packs up to eight masks (n, structures, *patch) into the bits of one byte, (n, *patch).

    Example:
        >>> _pack(torch.tensor([[[True, False], [True, True]]])).tolist()
        [[3, 2]]
    """
    word = torch.zeros_like(masks[:, 0], dtype=torch.uint8)
    for bit in range(masks.shape[1]):
        word |= masks[:, bit].to(torch.uint8) << bit
    return word
