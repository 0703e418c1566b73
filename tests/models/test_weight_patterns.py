"""Patterns rename foreign weights part by part, and files that say nonsense are one line."""

import time

import pytest
from phantoms import write_json

from autoseg.errors import ArtifactError, UsageError
from autoseg.models.weight_patterns import WeightPatterns, match_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "texts"),
    [
        ("a.b", "a.b", []),
        ("a.b", "a.c", None),
        ("a.*", "a.b.c", None),
        ("a.**", "a.b.c", ["b.c"]),
        ("a.**", "a", None),
        ("**.bias", "a.b.bias", ["a.b"]),
        ("layer*.*.conv*.weight", "layer4.0.conv2.weight", ["4", "0", "2"]),
        ("layer*", "layer", None),
        ("x*y", "xay", ["a"]),
        ("x*y", "xy", None),
        ("a.**.b.*", "a.1.2.3.b.weight", ["1.2.3", "weight"]),
    ],
)
def test_signs_stand_for_parts(pattern, name, texts):
    """One star stays within a part, two stand for one part or more, and neither for nothing."""
    assert match_pattern(pattern, name) == texts


def test_first_pattern_counts_and_idle_ones_are_known(tmp_path):
    """The order of the file is kept; comments are read past."""
    path = tmp_path / "names.json"
    names = '{"a.0.*": "stem.*", "a.*.**": "encoder.*.**", "z": "z"}'
    path.write_text(f'{{"weights": "model", // the key\n"names": {names}}}')
    patterns = WeightPatterns.load(path)
    assert patterns.weights == "model"
    assert patterns.rename("a.0.bias") == "stem.bias"
    assert patterns.rename("a.1.conv.bias") == "encoder.1.conv.bias"
    assert patterns.list_idle(["b.0.bias"]) == ["a.0.*", "a.*.**", "z"]
    assert patterns.translate(["a.0.bias", "a.1.conv.bias", "b"]) == {
        "stem.bias": ["a.0.bias"],
        "encoder.1.conv.bias": ["a.1.conv.bias"],
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"names": {}}, "names: "),
        ({"nmes": {"a": "b"}}, "names: Field required; write"),
        ({"names": {"a.**.b.**": "c.**.d.**"}}, r"'a\.\*\*\.b\.\*\*' has \*\* more than once"),
        ({"names": {"a*b*.c": "x*y*"}}, r"has more than one \* in a part"),
        ({"names": {"a.*.**": "b.**.*"}}, r"'b\.\*\*\.\*' needs the signs \* and \*\* of"),
        ({"names": {"a.*": "b"}}, "needs the signs"),
        ({"names": {"a" * 301: "b"}}, "names"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, content, text):
    """The line names the file and the field."""
    path = tmp_path / "names.json"
    write_json(path, content)
    with pytest.raises(UsageError, match=text) as refused:
        WeightPatterns.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ArtifactError):
        WeightPatterns.load(tmp_path / "nowhere.json")


def test_no_pattern_takes_long():
    """A pattern of many stars against a long name that nearly matches."""
    pattern = ".".join(["a*a"] * 60)
    began = time.perf_counter()
    assert match_pattern(pattern, ".".join(["a" * 5] * 59 + ["b"])) is None
    assert match_pattern("**." + pattern, "a" * 300) is None
    assert time.perf_counter() - began < 0.5
