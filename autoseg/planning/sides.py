"""Which labels have sides, by their names alone: "kidney_left" and "Right Kidney", "hip_links", "ctx-lh-insula"."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from autoseg.datasets.info import DatasetInfo

PairNumbers = tuple[int, int]
Words = tuple[str, ...]

# (left, right). Each says a side even where the counterpart is missing. Decision: the languages in which datasets that
# we know name their labels, in the forms that stand beside a noun; accents and capitals do not matter.
SIDE_WORDS: tuple[tuple[str, str], ...] = (
    ("left", "right"),
    *(("link" + ending, "recht" + ending) for ending in ("s", "e", "er", "es", "en")),  # German, Dutch
    ("gauche", "droite"),
    ("gauche", "droit"),
    ("sinistra", "destra"),
    ("sinistro", "destro"),
    ("izquierda", "derecha"),
    ("izquierdo", "derecho"),
    ("esquerda", "direita"),
    ("esquerdo", "direito"),
    ("sinister", "dexter"),
    ("sinistrum", "dextrum"),
    ("sinistra", "dextra"),
    *(("lev" + ending, "prav" + ending) for ending in ("y", "a", "e", "i", "o")),  # Czech, Slovak, Slovene, Croatian
    *(("lew" + ending, "praw" + ending) for ending in ("y", "a", "e")),  # Polish
    ("левый", "правый"),
    ("левая", "правая"),
    ("левое", "правое"),
    ("venstre", "hoyre"),
    ("venstre", "højre"),
    ("venstre", "høyre"),
    ("vanster", "hoger"),
    ("vasen", "oikea"),
    ("左", "右"),
    ("왼쪽", "오른쪽"),
)

# (left, right). Decision: these mean other things as well, so they count only where the counterpart is there: "r" is a
# side in "kidney_r" beside "kidney_l", but not in "lesion_r1".
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

# "leftkidney" is taken apart; "cleft" and "bright" are not.
WORD = re.compile(r"left|right|[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """What a word says: left (0) or right (1), and whether it says so without a counterpart."""

    side: int
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A label's name with its side words taken out.

    Attributes:
        rest: Its words, None in place of each side word; two labels of a pair share it.
        sides: What the side words say, in their order.
        lone: Whether the name says a single side, in words that count without a counterpart.
    """

    rest: tuple[str | None, ...]
    sides: tuple[int, ...]
    lone: bool

    def is_counterpart(self, other: "_Reading") -> bool:
        """Whether exchanging left and right turns one name into the other."""
        return self.rest == other.rest and self.sides == tuple(1 - side for side in other.sides)


def pair_by_name(info: DatasetInfo) -> tuple[tuple[PairNumbers, ...], tuple[int, ...]]:
    """Pairs the labels whose names become equal when side words are exchanged.

    Decision: a name that says both sides, such as "left_and_right_lung", has no side. A name with two possible
    counterparts, such as "kidney_right" beside "kidney_left" and "Kidney left", has none of them.

    Returns:
        Pairs of outputs, the left one first, and the outputs that say a side and have no counterpart. Those of labels
        are their numbers.
    """
    vocabulary = _vocabulary(info.sides)
    readings = {number: _read(name, vocabulary) for name, number in info.targets.output_of.items()}
    sided = {number: reading for number, reading in readings.items() if reading.sides}
    counterparts = {
        number: [other for other, its in sided.items() if its.is_counterpart(reading)]
        for number, reading in sided.items()
    }
    pairs = tuple(
        (number, others[0])
        for number, others in counterparts.items()
        if sided[number].sides[0] == 0 and len(others) == 1 and counterparts[others[0]] == [number]
    )
    paired = {label for pair in pairs for label in pair}
    return pairs, tuple(number for number, reading in sided.items() if reading.lone and number not in paired)


def tell_nothing_apart(first: str, second: str) -> bool:
    """Whether two names differ in numbers and single letters alone, as "organ_1" and "organ_2" do."""
    stems = [[word for word in split_words(name) if len(word) > 1 and not word.isdigit()] for name in (first, second)]
    return stems[0] == stems[1]


def split_words(name: str) -> Words:
    """Splits a name into words, without accents and capitals.

    Words end where a letter or digit does not follow, between letters and digits, and before a capital that starts a
    word: "leftKidney" gives ("left", "kidney"), "LKidney" ("l", "kidney"), "RV" ("rv",), "rib_L3" ("rib", "l", "3").
    Each Chinese or Korean character is a word.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = unicodedata.normalize("NFC", "".join(sign for sign in plain if not unicodedata.combining(sign)))
    spaced = plain[:1]
    for (before, here), after in zip(pairwise(plain), f"{plain[2:]} ", strict=False):
        spaced += f" {here}" if _starts_word(before, here, after) else here
    return tuple(WORD.findall(spaced.casefold()))


def _starts_word(before: str, here: str, after: str) -> bool:
    if before.isdigit() != here.isdigit() or _is_whole_word(before) or _is_whole_word(here):
        return True
    return here.isupper() and (before.islower() or (before.isupper() and after.islower()))


def _is_whole_word(sign: str) -> bool:
    """Whether it is a character of Chinese or a syllable of Korean."""
    return "\u3400" <= sign <= "\u9fff" or "\uac00" <= sign <= "\ud7a3"


def _vocabulary(sides: Iterable[tuple[str, str]] | None) -> Mapping[Words, _Side]:
    """What each side word says; the user's words replace all others, and count without a counterpart."""
    known = [(SIDE_ABBREVIATIONS, False), (SIDE_WORDS, True)] if sides is None else [(sides, True)]
    return {
        split_words(pair[side]): _Side(side=side, alone=alone)
        for pairs, alone in known
        for pair in pairs
        for side in (0, 1)
    }


def _read(name: str, vocabulary: Mapping[Words, _Side]) -> _Reading:
    words = split_words(name)
    longest = max(map(len, vocabulary), default=0)
    rest: list[str | None] = []
    found: list[_Side] = []
    place = 0
    while place < len(words):
        lengths = range(min(longest, len(words) - place), 0, -1)
        length = next((length for length in lengths if words[place : place + length] in vocabulary), 0)
        if length:
            found.append(vocabulary[words[place : place + length]])
        rest.append(None if length else words[place])
        place += max(length, 1)
    sides = tuple(word.side for word in found)
    return _Reading(rest=tuple(rest), sides=sides, lone=len(set(sides)) == 1 and any(word.alone for word in found))
