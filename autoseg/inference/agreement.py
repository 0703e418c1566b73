"""How far the folds of a model and the mirror images of a scan agree: a by-product of the mean that is predicted.

Every tile is predicted by each fold and in each mirror image anyway. Of each of these opinions only the winners are
kept, a byte per voxel, until the mean of the tile is known; then they are compared with its winners and dropped.

Example: of three opinions on six voxels, two differ from the mean at the third voxel and one at the fourth.

                              Dice of class 1 with that of the mean
    opinion 1   0 1 1 1 0 0   1
    opinion 2   0 1 0 1 0 0   2 * 2 / (2 + 3) = 0.8
    opinion 3   0 1 0 0 0 0   2 * 1 / (1 + 3) = 0.5
    mean        0 1 1 1 0 0   agreement: 0.77
    map         0 0 2 1 0 0   thirds

Source of the score, as an estimate of how good a segmentation is: Roy et al. 2019, "Bayesian QuickNAT", the Dice of a
structure between samples. Decision: each is compared with the segmentation that is delivered.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.imaging.targets import Targets
from autoseg.inference.predictor import Predictor, average, list_votes

BITS = 8  # Structures that may overlap are kept eight to a byte

Slices = tuple[slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far opinions on an image agree, before postprocessing.

    Attributes:
        votes: How many there were: folds times mirror images. With one, nothing is known.
        structures: Name to the mean Dice, 0 to 1, of the opinions' structure with that of their mean; NaN where the
            mean holds none, or with one opinion.
        disagreement: If it was asked for: shape (z, y, x) of the preprocessed case, the share of opinions, 0 to 1,
            whose structures at a voxel are not those of the mean; float32.
    """

    votes: int
    structures: dict[str, float]
    disagreement: Tensor | None = None

    @property
    def score(self) -> float:
        """Mean over the structures that were found; NaN if none was, or with one opinion."""
        found = [value for value in self.structures.values() if not math.isnan(value)]
        return sum(found) / len(found) if found else math.nan

    @classmethod
    def pool(cls, members: Sequence["Agreement"]) -> "Agreement":
        """That of several configurations, each by its number of opinions; of their own opinions with their own mean."""
        every = sum(member.votes for member in members)

        def mean(name: str) -> float:
            known = [(one.structures[name], one.votes) for one in members if not math.isnan(one.structures[name])]
            return (
                sum(value * count for value, count in known) / sum(count for _, count in known) if known else math.nan
            )

        return cls(votes=every, structures={name: mean(name) for name in members[0].structures})


UNKNOWN = Agreement(votes=1, structures={})


class EnsembleAgreement:
    """A predictor around a predictor: gives the mean of its opinions, to the last bit, and notes how far they agree.

    Decision: every prediction is polled. With the smallest network and 3 classes that takes 3.5 % of the time of the
    network, on a CPU (4 % with the map; 7 % for the winners of 25 classes); of larger networks a smaller part.

    One image at a time: `begin`, then for each batch a call and a `count` for each of its patches, then `result`.
    """

    def __init__(self, predictor: Predictor, targets: Targets, *, with_map: bool = False) -> None:
        """Begins a poll.

        Args:
            predictor: Whose mean is wanted.
            targets: What its outputs stand for.
            with_map: Whether disagreement is gathered voxel by voxel as well, which takes a volume of memory.
        """
        self._predictor, self._targets, self._with_map = predictor, targets, with_map
        self._map: Tensor | None = None
        self._tally: _Tally | None = None
        self._opinions: Tensor = torch.empty(0)  # (opinions, words, n, *patch)
        self._mean: Tensor = torch.empty(0)  # (words, n, *patch)
        self._inside: Slices = ()
        self._padded = False

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the mean of the logits (n, outputs, *patch); of a single opinion itself, as float32."""
        winners: list[Tensor] = []
        mean = average(self._overhear(list_votes(self._predictor, patches), winners))
        if len(winners) > 1:
            self._mean, self._opinions = self._elect(mean), torch.stack(winners)
        return mean

    def begin(self, shape: Sequence[int], inside: Slices) -> None:
        """Makes ready for an image.

        Args:
            shape: Of the image, (z, y, x), and of what it was padded with.
            inside: The image; what was padded does not count.
        """
        self._inside = tuple(slice(*part.indices(size)) for part, size in zip(inside, shape, strict=True))
        self._padded = [part.stop - part.start for part in self._inside] != list(shape)
        self._map = torch.zeros(tuple(shape)) if self._with_map else None

    def count(self, number: int, places: Sequence[Slices], shares: Sequence[Tensor]) -> None:
        """Compares the opinions on a patch with their mean.

        Args:
            number: Of the patch in the batch that was predicted last.
            places: Where in the image it is, (z, y, x), once or more often.
            shares: The part that each place has in the result, voxel by voxel; so every voxel of the image counts once.
        """
        if not len(self._opinions):
            return
        votes, mean = self._opinions[:, :, number], self._mean[:, number]
        differ = (votes != mean).any(dim=1)
        of_some = (differ.any(dim=0) | (mean != 0).any(dim=0)).flatten().nonzero()[:, 0]
        if self._map is not None:
            part = differ.sum(dim=0).cpu() / len(votes)
            for place, share in zip(places, shares, strict=True):
                self._map[place] += part.view(share.shape) * share
        if len(of_some):
            weights = sum(self._within(*part).flatten() for part in zip(places, shares, strict=True))
            self._tally = self._tally or _Tally(self._targets, len(votes))
            self._tally.add(
                votes.flatten(2)[:, :, of_some],
                mean.flatten(1)[:, of_some],
                torch.as_tensor(weights, dtype=torch.float64)[of_some.cpu()].to(of_some.device),
            )

    def result(self) -> Agreement:
        """What was found in all patches since `begin`."""
        count = max(1, len(self._opinions))
        names = self._targets.names
        scores = [math.nan] * len(names) if self._tally is None else self._tally.scores()
        whole = None if self._map is None or count == 1 else self._map[self._inside].contiguous()
        return Agreement(votes=count, structures=dict(zip(names, scores, strict=True)), disagreement=whole)

    def _overhear(self, votes: Iterable[Tensor], winners: list[Tensor]) -> Iterator[Tensor]:
        for logits in votes:
            winners.append(self._elect(logits))
            yield logits

    def _elect(self, logits: Tensor) -> Tensor:
        """The structures at each voxel, (words, n, *patch): a class, or a bit for each that may overlap others."""
        if self._targets.exclusive:
            winners = _find_highest(logits)[None]
        else:
            found = logits > 0
            words = [_pack(found[:, first : first + BITS]) for first in range(0, found.shape[1], BITS)]
            winners = torch.stack(words)
        return winners if winners.device.type == "cuda" else winners.cpu()  # others lack numbers of 64 bit

    def _within(self, place: Slices, share: Tensor) -> Tensor:
        """The share of a place, 0 where the image was padded."""
        if not self._padded:
            return share
        pairs = list(zip(place, self._inside, strict=True))
        part = tuple(slice(max(0, own.start - one.start), max(0, own.stop - one.start)) for one, own in pairs)
        kept = torch.zeros_like(share)
        kept[part] = share[part]
        return kept


class _Tally:
    """Sums over voxels of each structure, each voxel by its share: in each opinion, in the mean, and in both."""

    def __init__(self, targets: Targets, votes: int) -> None:
        self._targets = targets
        count = len(targets.names)
        self._own, self._both = torch.zeros(2, votes, count, dtype=torch.float64)
        self._mean = torch.zeros(count, dtype=torch.float64)

    def add(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        """Adds voxels: what each opinion finds there, (opinions, words, n), and the mean, (words, n)."""
        count = self._add_classes if self._targets.exclusive else self._add_bits
        count(votes, mean, shares)

    def scores(self) -> list[float]:
        """Mean Dice of each structure; NaN if the mean has none of it."""
        dice = (2 * self._both / (self._own + self._mean)).mean(dim=0)
        return [float(value) if found > 0 else math.nan for value, found in zip(dice, self._mean, strict=True)]

    def _add_classes(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        classes, every = len(self._mean) + 1, len(votes)
        own, agreed = votes[:, 0].long(), mean[0].long()
        numbers = (own + classes * torch.arange(every, device=own.device)[:, None]).flatten()

        def all_reduce(weights: Tensor) -> Tensor:
            return numbers.bincount(weights.flatten(), every * classes).view(every, classes)[:, 1:].cpu()

        self._own += all_reduce(shares.expand(every, -1))
        self._both += all_reduce(shares * (own == agreed))
        self._mean += agreed.bincount(shares, classes)[1:].cpu()

    def _add_bits(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        for number in range(len(self._mean)):
            word, bit = divmod(number, BITS)
            own, agreed = (votes[:, word] >> bit) & 1, (mean[word] >> bit) & 1
            self._own[:, number] += (own * shares).sum(dim=1).cpu()
            self._both[:, number] += (own * agreed * shares).sum(dim=1).cpu()
            self._mean[number] += (agreed * shares).sum().cpu()


def _find_highest(logits: Tensor) -> Tensor:
    """The first of the highest classes, (n, *patch), from (n, classes, *patch).

    Decision: by bytes where each class has its own map in memory, which on a CPU is several times as fast as `argmax`
    over this axis; where the classes of a voxel are neighbours it is the other way round.
    """
    classes = logits.shape[1]
    if logits.stride(1) == 1:
        return logits.movedim(1, -1).argmax(dim=-1).to(torch.uint8 if classes < 256 else torch.int16)
    highest = logits.amax(dim=1)
    before_last = torch.zeros_like(highest, dtype=torch.uint8 if classes < 256 else torch.int16)
    for number in range(classes):
        found = (logits[:, number] == highest).to(before_last.dtype)
        torch.maximum(before_last, found.mul_(classes - number), out=before_last)
    return classes - before_last


def _pack(found: Tensor) -> Tensor:
    """Up to eight masks (n, structures, *patch) as the bits of one byte, (n, *patch)."""
    word = torch.zeros_like(found[:, 0], dtype=torch.uint8)
    for bit in range(found.shape[1]):
        word |= found[:, bit].to(torch.uint8) << bit
    return word
