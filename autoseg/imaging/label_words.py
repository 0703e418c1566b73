"""The words of which label names are made, and which of them mean a side: "kidney_left", "RightKidney", "hip_links"."""

import re
import unicodedata
from itertools import pairwise

Words = tuple[str, ...]

# (left, right). Each means a side even where the counterpart is missing. Decision: the languages in which datasets that
# we know name their labels, in the forms that stand beside a noun; accents and capitals are ignored.
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

# "leftkidney" is split into two words; "cleft" and "bright" are not.
WORD = re.compile(r"left|right|[^\W_]+")


def split_words(name: str) -> Words:
    """Splits a name into words, without accents and capitals.

    Words end at any other character than a letter or digit, between letters and digits, and before a capital that
    starts a word: "leftKidney" gives ("left", "kidney"), "LKidney" ("l", "kidney"), "RV" ("rv",), "rib_L3" ("rib", "l",
    "3"). Each Chinese or Korean character is a word.

    >>> split_words("leftKidney")
    ('left', 'kidney')
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = unicodedata.normalize("NFC", "".join(letter for letter in plain if not unicodedata.combining(letter)))
    spaced = plain[:1]
    for (before, letter), after in zip(pairwise(plain), f"{plain[2:]} ", strict=False):
        spaced += f" {letter}" if _starts_word(before, letter, after) else letter
    return tuple(WORD.findall(spaced.casefold()))


def _starts_word(before: str, letter: str, after: str) -> bool:
    if before.isdigit() != letter.isdigit() or _is_whole_word(before) or _is_whole_word(letter):
        return True
    return letter.isupper() and (before.islower() or (before.isupper() and after.islower()))


def _is_whole_word(letter: str) -> bool:
    """Returns whether it is a Chinese character or a Korean syllable."""
    return "\u3400" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7a3"
