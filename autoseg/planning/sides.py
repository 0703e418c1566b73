"""Finds labels with sides by their names alone: "kidney_left" and "Kidney right", "hip_links", "ctx-lh-insula"."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.label_words import SIDE_WORDS, Words, split_words

PairNumbers = tuple[int, int]

# (left, right). Decision: these are ambiguous, so they count only where the counterpart exists: "r" is a side in
# "kidney_r" beside "kidney_l", but not in "lesion_r1".
SIDE_ABBREVIATIONS: tuple[tuple[str, str], ...] = (
    ("l", "r"),
    ("lt", "rt"),
    ("lh", "rh"),  # left and right hemisphere
    ("li", "re"),
    ("sin", "dex"),
    ("sin", "dx"),
    ("sx", "dx"),
    ("izq", "der"),
    ("esq", "dir"),
    ("sol", "sag"),
    ("좌", "우"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The meaning of a side word: left (0) or right (1), and whether it counts without a counterpart."""

    side: int
    is_certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _ParsedName:
    """A label's name with its side words removed.

    Attributes:
        rest: The words of the name, None in place of each side word; equal for the two labels of a pair.
        sides: The side that each side word means, left (0) or right (1), in their order.
        is_certain: Whether the name means a single side, in a word that counts without a counterpart.
    """

    rest: tuple[str | None, ...]
    sides: tuple[int, ...]
    is_certain: bool

    def is_counterpart(self, other: "_ParsedName") -> bool:
        """Returns whether exchanging left and right turns one name into the other."""
        return self.rest == other.rest and self.sides == tuple(1 - side for side in other.sides)


def pair_sides_by_name(info: DatasetInfo) -> tuple[tuple[PairNumbers, ...], tuple[int, ...]]:
    """Pairs the labels whose names become equal when side words are exchanged.

    Decision: a name with both sides, such as "left_and_right_lung", has no side. A name with two possible counterparts,
    such as "kidney_right" beside "kidney_left" and "Kidney left", is paired with neither.

    >>> labels = {"background": 0, "kidney_left": 1, "Kidney Right": 2, "liver": 3, "left lung": 4}
    >>> pair_sides_by_name(DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz"))
    (((1, 2),), (4,))

    Args:
        info: The content of dataset.json.

    Returns:
        Pairs of outputs, the left one first, and the outputs that have a side and no counterpart. The output of a label
        is its number.
    """
    vocabulary = _vocabulary(info.sides)
    names = {number: _parse_name(name, vocabulary) for name, number in info.targets.output_of.items()}
    sided = {number: name for number, name in names.items() if name.sides}
    counterparts = {
        number: [other for other, other_name in sided.items() if other_name.is_counterpart(name)]
        for number, name in sided.items()
    }
    pairs = tuple(
        (number, others[0])
        for number, others in counterparts.items()
        if sided[number].sides[0] == 0 and len(others) == 1 and counterparts[others[0]] == [number]
    )
    paired = {label for pair in pairs for label in pair}
    return pairs, tuple(number for number, name in sided.items() if name.is_certain and number not in paired)


def differ_in_numbers_only(first: str, second: str) -> bool:
    """Returns whether two names differ in numbers and single letters alone.

    >>> differ_in_numbers_only("organ_1", "organ_2")
    True
    """
    stems = [[word for word in split_words(name) if len(word) > 1 and not word.isdigit()] for name in (first, second)]
    return stems[0] == stems[1]


def _vocabulary(sides: Iterable[tuple[str, str]] | None) -> Mapping[Words, _Side]:
    """Returns the meaning of each side word; the user's words replace all others, and count without a counterpart."""
    sources = [(SIDE_ABBREVIATIONS, False), (SIDE_WORDS, True)] if sides is None else [(sides, True)]
    return {
        split_words(pair[side]): _Side(side=side, is_certain=is_certain)
        for pairs, is_certain in sources
        for pair in pairs
        for side in (0, 1)
    }


def _parse_name(name: str, vocabulary: Mapping[Words, _Side]) -> _ParsedName:
    words = split_words(name)
    longest = max(map(len, vocabulary), default=0)
    rest: list[str | None] = []
    side_words: list[_Side] = []
    position = 0
    while position < len(words):
        lengths = range(min(longest, len(words) - position), 0, -1)
        length = next((length for length in lengths if words[position : position + length] in vocabulary), 0)
        if length:
            side_words.append(vocabulary[words[position : position + length]])
        rest.append(None if length else words[position])
        position += max(length, 1)
    sides = tuple(word.side for word in side_words)
    is_certain = len(set(sides)) == 1 and any(word.is_certain for word in side_words)
    return _ParsedName(rest=tuple(rest), sides=sides, is_certain=is_certain)
