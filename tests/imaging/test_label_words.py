"""The words of which label names are made."""

from autoseg.imaging.label_words import split_words


def test_words_are_found():
    """Words end at capitals, at digits and around other characters; accents are removed."""
    assert split_words("leftKidney_2b") == ("left", "kidney", "2", "b")
    assert split_words("RVLateral-wall") == ("rv", "lateral", "wall")
    assert split_words("Rückenmark") == split_words("Ru\u0308ckenmark") == ("ruckenmark",)
    assert split_words("--") == ()
