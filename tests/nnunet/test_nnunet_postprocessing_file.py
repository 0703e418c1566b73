"""Postprocessing of nnU-Net is read from its JSON file or, safely, from its pickle; and written."""

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.nnunet.postprocessing_file import FUNCTION, MODULE, read_rules, write_rules

TARGETS = Targets.of_labels({"a": 1, "b": 2, "c": 3}, ignore=4)
NUMBERS = st.lists(st.integers(1, 3), min_size=1, max_size=2, unique=True).map(lambda numbers: tuple(sorted(numbers)))


def write_text(folder: Path, *steps: object, name: str = FUNCTION) -> None:
    """Writes postprocessing.json as nnU-Net does, with scores that are not read."""
    content = {"input_folder": {}, "postprocessing_fns": [name] * len(steps),
               "postprocessing_kwargs": [{"labels_or_regions": step} for step in steps]}  # fmt: skip
    (folder / "postprocessing.json").write_text(json.dumps(content))


def test_steps_are_our_rules(tmp_path: Path) -> None:
    """The foreground comes first; numbers, lists and regions are read alike; the ignore label is no foreground."""
    assert read_rules(tmp_path, TARGETS) is None
    write_text(tmp_path, [1, 2, 3], 2, [[1, 2], 3], [3, 1])
    rules = read_rules(tmp_path, TARGETS)
    assert rules == PostprocessingRules(keep_largest_foreground=True, keep_largest=((2,), (1, 2, 3), (1, 3)))
    write_text(tmp_path, 2, [1, 2, 3])
    assert read_rules(tmp_path, TARGETS) == PostprocessingRules(keep_largest=((2,), (1, 2, 3)))
    write_text(tmp_path)
    assert read_rules(tmp_path, TARGETS) == PostprocessingRules()


@settings(max_examples=20, deadline=None)
@given(foreground=st.booleans(), structures=st.lists(NUMBERS, max_size=3))
def test_rules_are_the_same_in_text_and_pickle(tmp_path_factory, foreground: bool, structures: list) -> None:
    """Rules are written and read back from either file; the pickle names nnU-Net's function without importing it."""
    folder = tmp_path_factory.mktemp("rules")
    rules = PostprocessingRules(keep_largest_foreground=foreground, keep_largest=tuple(structures))
    assert write_rules(rules, TARGETS, folder) == []
    if not (foreground or structures):
        assert read_rules(folder, TARGETS) is None
        return
    assert read_rules(folder, TARGETS) == rules
    (folder / "postprocessing.json").unlink()
    assert read_rules(folder, TARGETS) == rules


def test_pickle_is_the_one_that_nnunet_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pickle is read as two lists: functions, and their arguments."""
    module = ModuleType(MODULE)
    setattr(module, FUNCTION, print)
    for name in ("nnunetv2", "nnunetv2.postprocessing"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, MODULE, module)
    write_rules(PostprocessingRules(keep_largest_foreground=True, keep_largest=((2,),)), TARGETS, tmp_path)
    loaded = pickle.loads((tmp_path / "postprocessing.pkl").read_bytes())  # noqa: S301 - our own
    assert loaded == ([print, print], [{"labels_or_regions": [1, 2, 3]}, {"labels_or_regions": 2}])


def test_pickle_of_todays_protocol_is_read(tmp_path: Path) -> None:
    """Pickles of all protocols are read; regions are tuples there."""

    class Named:
        def __reduce__(self) -> str:
            return "Named"

    whole = (["x"], [{"labels_or_regions": (2, 3)}])
    for protocol in (2, 4, 5):
        written = pickle.dumps(whole, protocol)
        named = b"c" + MODULE.encode() + b"\n" + FUNCTION.encode() + b"\n"
        written = written.replace(b"X\x01\x00\x00\x00x", named).replace(b"\x8c\x01x", named)
        if protocol > 3:  # without its frame, whose length has changed
            written = written[:2] + written[11:]
        (tmp_path / "postprocessing.pkl").write_bytes(written)
        assert read_rules(tmp_path, TARGETS) == PostprocessingRules(keep_largest=((2, 3),))


@pytest.mark.parametrize(
    "crafted",
    [
        b"cos\nsystem\n(Vtouch harm\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch harm\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
    ],
)
def test_pickles_that_name_anything_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crafted: bytes
) -> None:
    """The refusal names the function, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "postprocessing.pkl").write_bytes(crafted)
    with pytest.raises(ModelError, match=r"'(os\.system|posix\.system|builtins\.eval)', which no model needs"):
        read_rules(tmp_path, TARGETS)
    assert [path.name for path in tmp_path.iterdir()] == ["postprocessing.pkl"]


@pytest.mark.parametrize("step", [0, -1, "all", [], [1, "x"], {"x": 1}, True, None])
def test_steps_that_are_unknown_are_refused(tmp_path: Path, step: object) -> None:
    """Unknown functions, other options, and files with other content are refused."""
    write_text(tmp_path, step)
    with pytest.raises(ModelError, match=r"asks for a step with .*, which is unknown here; remove the file"):
        read_rules(tmp_path, TARGETS)
    write_text(tmp_path, 1, name="fill_holes")
    with pytest.raises(ModelError, match="asks for 'fill_holes', which is unknown here"):
        read_rules(tmp_path, TARGETS)
    (tmp_path / "postprocessing.json").write_text("[]")
    with pytest.raises(ModelError, match="holds no postprocessing"):
        read_rules(tmp_path, TARGETS)
