"""Untrusted checkpoints are read as tensors and plain values, or refused by the name of what they hold."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.errors import ModelError
from autoseg.models.pickles import CHECKPOINT_NAMES, IGNORED, read_pickle
from autoseg.nnunet.checkpoint_file import read_nnunet_checkpoint


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, function, *given) -> None:
        self.function, self.given = function, given

    def __reduce__(self):
        return self.function, self.given


def content(**more: object) -> dict[str, object]:
    """Makes a small checkpoint like nnU-Net's."""
    return {
        "network_weights": OrderedDict(
            {"a.weight": torch.arange(6.0).reshape(2, 3).t(), "module.b.bias": torch.ones(2)}
        ),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {"dice": [[np.float64(0.5), np.float32(0.25)], [np.nan]], "best": np.int64(3), "all": np.ones(3)},
        "_best_ema": np.float64(0.75),
        "current_epoch": 1000,
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cuda", 0)},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 2),
        **more,
    }


def refuse(path: Path) -> str:
    """Returns the line that says why a checkpoint is refused."""
    with pytest.raises(ModelError) as caught:
        read_nnunet_checkpoint(path)
    text = str(caught.value)
    assert str(path) in text
    assert text.isprintable()
    return text


def test_all_that_nnunet_writes_is_read(tmp_path: Path) -> None:
    """Weights with strides and the settings of prediction are read; optimizer, NumPy values and devices are ignored."""
    torch.save(content(), tmp_path / "c.pth")
    found = read_nnunet_checkpoint(tmp_path / "c.pth")
    assert (found.trainer, found.configuration, found.epochs) == ("nnUNetTrainer", "3d_fullres", 1000)
    assert found.mirror_axes == (0, 2)
    assert found.weights.keys() == {"a.weight", "b.bias"}
    assert torch.equal(found.weights["a.weight"], torch.arange(6.0).reshape(2, 3).t())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_numbers_of_any_width_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """All types are read bit by bit, also those of parameters."""
    weights = {"w": torch.nn.Parameter(torch.arange(5).to(dtype), requires_grad=False)}
    torch.save(content(network_weights=weights), tmp_path / "c.pth")
    found = read_nnunet_checkpoint(tmp_path / "c.pth").weights["w"]
    assert found.dtype == dtype
    assert torch.equal(found, weights["w"])


def test_missing_mirroring_is_none(tmp_path: Path) -> None:
    """As in nnU-Net, no axis is flipped."""
    torch.save(content(inference_allowed_mirroring_axes=None), tmp_path / "c.pth")
    assert read_nnunet_checkpoint(tmp_path / "c.pth").mirror_axes == ()


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (Call(os.system, "touch harm"), "posix.system"),
        (Call(eval, "open('harm', 'w')"), "__builtin__.eval"),
        (Call(getattr, 1, "real"), "__builtin__.getattr"),
        (Call(np.load, "harm.npy"), "numpy.load"),
        (Call(Path, "harm"), "pathlib.Path"),
        (Path, "pathlib.Path"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_every_other_name_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: object, name: str
) -> None:
    """A call is refused beside the weights, among them, and in values that are not read."""
    monkeypatch.chdir(tmp_path)
    for place in ("optimizer_state", "network_weights", "logging"):
        torch.save(content(**{place: {"x": [harm]}}), tmp_path / "c.pth")
        text = refuse(tmp_path / "c.pth")
        assert f"holds {name!r}, which no model needs; do not use it" in text
        assert not list(tmp_path.glob("harm*"))


def test_objects_of_numpy_are_refused(tmp_path: Path) -> None:
    """Arrays of objects can hold and call anything."""
    torch.save(content(logging=np.array([{}, None], dtype=object)), tmp_path / "c.pth")
    assert "holds values of NumPy of the type 'O8', which no model needs" in refuse(tmp_path / "c.pth")
    mixed = np.zeros(1, dtype=[("a", "f8"), ("b", "O")])
    torch.save(content(logging=mixed), tmp_path / "c.pth")
    assert "values of NumPy of the type" in refuse(tmp_path / "c.pth")


def test_names_are_shown_without_signs_that_terminals_obey() -> None:
    """Names are printed without control characters, and truncated if they are long."""
    crafted = b"cos\x1b[31m\n" + b"x" * 500 + b"\n."
    with pytest.raises(ModelError, match=r"holds 'os\?\[31m\.x{50,120}', which") as caught:
        read_pickle(crafted, CHECKPOINT_NAMES, "it")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("crafted", "text"),
    [
        (b"(S'x'\nios\nsystem\n.", "an instruction STRING"),
        (b"(ios\nsystem\n.", "an instruction INST"),
        (b"\x80\x02\x8a\x05aaaaa\x82\x01.", "an instruction EXT1"),
        (b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", "is damaged, or no plain values"),
        (b"\x80\x02ctorch\ndevice\n}\x8c\x05_make\x8c\x01xsb.", "is damaged, or no plain values"),
        (b"\x80\x02ctorch\ndevice\nN}\x8c\x05_make\x8c\x01xs\x86b.", "is damaged, or no plain values"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "is damaged"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_crafted_instructions_are_refused(crafted: bytes, text: str) -> None:
    """Pickles that would modify the reader or fill the memory are refused, too."""
    with pytest.raises(ModelError, match=text):
        read_pickle(crafted, CHECKPOINT_NAMES, "it")
    assert read_pickle(pickle.dumps(torch.device("cpu"), 2), CHECKPOINT_NAMES, "it") is IGNORED


def rewrite(path: Path, name: str, data: bytes, *, packed: int = zipfile.ZIP_STORED) -> None:
    """Replaces a part of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    place = next(part for part in parts if part.endswith(name))
    with zipfile.ZipFile(path, "w", packed) as archive:
        for part, old in {**parts, place: data}.items():
            archive.writestr(part, old)


def test_tensors_that_claim_more_than_is_stored_are_refused(tmp_path: Path) -> None:
    """Tensors are refused for their size, their strides, or the length of their storage."""
    path = tmp_path / "c.pth"
    torch.save(content(network_weights={"w": torch.zeros(1).expand(1000, 1000)}), path)
    assert "is damaged or no checkpoint" in refuse(path)
    torch.save(content(network_weights={"w": torch.arange(8.0)}), path)
    rewrite(path, "/data/0", b"\0" * 16)
    assert "is damaged or no checkpoint" in refuse(path)
    buffer = io.BytesIO()
    torch.save(content(network_weights={"w": torch.arange(8.0)}), buffer)
    path.write_bytes(buffer.getvalue())
    with zipfile.ZipFile(path) as archive:
        described = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    rewrite(path, "data.pkl", described.replace(b"K\x08\x85", b"K\x09\x85"))
    assert "is damaged or no checkpoint" in refuse(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    """No zip, a compressed zip, another kind of checkpoint, and one without its names are refused."""
    path = tmp_path / "c.pth"
    path.write_bytes(b"no zip")
    assert "is damaged or no checkpoint" in refuse(path)
    torch.save({"state_dict": {}}, path)
    assert "is no checkpoint of nnU-Net v2; check the path" in refuse(path)
    torch.save(content(trainer_name=3), path)
    assert "does not name its trainer and configuration" in refuse(path)
    torch.save(content(inference_allowed_mirroring_axes=("x",)), path)
    assert "mirrors along axes that are no numbers" in refuse(path)
    torch.save(content(network_weights={"w": 3}), path)
    assert "holds 'w', which is no tensor" in refuse(path)
    torch.save(content(), path)
    rewrite(path, "byteorder", b"big")
    assert "another order of bytes" in refuse(path)
    torch.save(content(), path)
    rewrite(path, "/version", b"3\n", packed=zipfile.ZIP_DEFLATED)
    assert "is packed in a way that no checkpoint is" in refuse(path)
