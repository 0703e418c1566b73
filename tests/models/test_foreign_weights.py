"""Weights of other programs are read from the files that these write, and nothing else in the files is touched."""

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from autoseg.errors import ModelError
from autoseg.models.foreign_weights import read_foreign_weights

WEIGHTS = OrderedDict({"stem.weight": torch.arange(6.0).reshape(2, 3).t(), "stem.bias": torch.ones(2).half()})


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {f"module.{name}": value for name, value in WEIGHTS.items()}, "optimizer": {"state": {}}},
        {"epoch": torch.ones(1).int().item(), "network_weights": {f"_orig_mod.{n}": v for n, v in WEIGHTS.items()}},
    ],
    ids=["plain", "state_dict", "wrapped for several devices", "compiled"],
)
def test_weights_are_found_where_programs_put_them(tmp_path: Path, content: dict) -> None:
    """Alone or beside other things, and without the prefixes of torch's wrappers."""
    torch.save(content, tmp_path / "weights.pth")
    found = read_foreign_weights(tmp_path / "weights.pth")
    assert found.keys() == WEIGHTS.keys()
    assert all(found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"epoch": 3, "state_dict": {}}, "holds no weights; give a dictionary of tensors, or one under 'state_dict'"),
        ([torch.ones(1)], "holds no weights"),
        ({"weight": torch.ones(1), "version": 3}, "holds 'version', which is no tensor"),
        ({3: torch.ones(1)}, "holds a weight without a name"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: object, text: str) -> None:
    """Each refusal names the file and what it holds."""
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ModelError) as caught:
        read_foreign_weights(path)
    assert str(caught.value).startswith(f"{path} {text}")


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is refused by its name; a missing file is named, too."""

    class Call:
        def __reduce__(self):
            return os.system, ("touch harm",)

    monkeypatch.chdir(tmp_path)
    torch.save({**WEIGHTS, "harm": Call()}, "weights.pth")
    with pytest.raises(ModelError, match=r"weights\.pth holds 'posix\.system', which no model needs"):
        read_foreign_weights(Path("weights.pth"))
    assert not Path("harm").exists()
    with pytest.raises(ModelError, match="does not exist; check the path"):
        read_foreign_weights(Path("other.pth"))
