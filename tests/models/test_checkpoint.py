"""A checkpoint comes back whole, and a bad or hostile file does no harm."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import small_checkpoint

from autoseg.errors import ModelError
from autoseg.models.checkpoint import check_resumable, load_checkpoint, save_checkpoint


@pytest.fixture
def path(tmp_path):
    """A sound checkpoint on disk."""
    save_checkpoint(small_checkpoint(), tmp_path / "fold_0" / "checkpoint.pt")
    return tmp_path / "fold_0" / "checkpoint.pt"


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_saved_is_what_is_loaded(path, mapped):
    """Every field, and every weight bit for bit."""
    saved, loaded = small_checkpoint(), load_checkpoint(path, mapped=mapped)
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert loaded.weights.keys() == saved.weights.keys()
    assert all(torch.equal(loaded.weights[name], weight) for name, weight in saved.weights.items())


def test_missing_checkpoint_is_said(tmp_path):
    """The path and what to do."""
    with pytest.raises(ModelError, match="does not exist; train that fold first"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_cut_off_checkpoint_is_refused(path, keep):
    """A copy that broke off is named, not half loaded."""
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(path)


class Hostile:
    """Would run a command when unpickled."""

    def __reduce__(self):
        """Makes a file named "harmed"."""
        return (open, ("harmed", "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    """A pickle that calls a function is refused before anything is called."""
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": 1, "weights": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="more than weights"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(ModelError):
        load_checkpoint(tmp_path / "plain.pt")
    assert not (tmp_path / "harmed").exists()


def test_other_versions_and_other_files_are_refused(tmp_path):
    """Each with its own line."""
    torch.save({"format_version": 99}, tmp_path / "newer.pt")
    with pytest.raises(ModelError, match="format version 99, this program reads 2"):
        load_checkpoint(tmp_path / "newer.pt")
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="no checkpoint of this program"):
        load_checkpoint(tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError):
        load_checkpoint(tmp_path / "zip.pt")


def test_failed_write_leaves_the_former_checkpoint(path, monkeypatch):
    """A disk that fills up in the middle costs nothing that was there."""
    before = path.read_bytes()

    def fill(content, place):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(Exception, match="No space left"):
        save_checkpoint(small_checkpoint(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("weights", [[1, 2], {"a": 1.0}, {"a": torch.zeros(2), "b": "text"}, None])
def test_weights_that_are_no_tensors_are_refused(tmp_path, weights):
    """In one line, before anything is done with them."""
    content = torch.load(_saved(tmp_path), weights_only=True)
    torch.save({**content, "weights": weights}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="is damaged: its weights are no tensors"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def crafted(path, **changes):
    """A checkpoint with other content, as a stranger could write it."""
    content = torch.load(_saved(path.parent), weights_only=True)
    torch.save({**content, **changes}, path)
    return path


def larger_plan(**stage):
    """The plan of the small checkpoint with other numbers in its last stage, as text."""
    plan = json.loads(small_checkpoint().plan.model_dump_json())
    plan["configurations"]["3d_fullres"]["architecture"]["stages"][-1].update(stage)
    return json.dumps(plan)


@pytest.mark.parametrize("stage", [{"features": 10**9}, {"convolutions": 10**12}, {"blocks": 10**400}])
def test_network_far_larger_than_its_weights_is_not_built(tmp_path, stage):
    """A few kilobytes that describe terabytes are refused at once."""
    with pytest.raises(ModelError, match=r"holds \d+ weights, less than a part of the network that its plan describes"):
        load_checkpoint(crafted(tmp_path / "crafted.pt", plan=larger_plan(**stage)))


def test_tensors_larger_than_what_is_stored_are_refused(tmp_path):
    """One number that is repeated a billion times, in weights or elsewhere; tensors without numbers; sparse ones."""
    huge = torch.zeros(1).expand(10**12)
    for tensor in (huge, torch.empty(10**12, device="meta"), torch.zeros(3, 3).to_sparse()):
        for change in ({"weights": {"a": tensor}}, {"training": {"b": [tensor]}}):
            with pytest.raises(ModelError, match="is damaged or no checkpoint"):
                load_checkpoint(crafted(tmp_path / "crafted.pt", **change))


def test_tensor_that_reaches_beyond_what_is_stored_is_refused(tmp_path):
    """Its sizes are changed in the pickle; nothing outside the file is read."""
    _saved(tmp_path)
    torch.save({"format_version": 2, "weights": torch.arange(11.0)}, tmp_path / "sound.pt")
    with zipfile.ZipFile(tmp_path / "sound.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    assert parts[name].count(b"K\x0b") >= 2
    parts[name] = parts[name].replace(b"K\x0b", b"J\x00\x00\x00\x10")
    with zipfile.ZipFile(tmp_path / "crafted.pt", "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    with pytest.raises(ModelError, match="is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "crafted.pt")


def test_packed_container_is_refused(tmp_path):
    """Torch's own writer packs nothing; a megabyte of nothing would be small."""
    with zipfile.ZipFile(_saved(tmp_path)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "crafted.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    with pytest.raises(ModelError, match="packed in a way that no checkpoint is"):
        load_checkpoint(tmp_path / "crafted.pt")


def test_any_bytes_are_read_or_refused(path):
    """Three hundred files that differ from a sound one in a few bytes, most of them where its structure is."""
    sound, random = path.read_bytes(), np.random.default_rng(0)
    lines = []
    for _ in range(300):
        data = bytearray(sound)
        for place in (random.integers(0, 3000), -random.integers(1, 1500), random.integers(0, len(data))):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except ModelError as error:
            lines.append(str(error))
    assert len(lines) > 200
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(tmp_path, value):
    """A single one that is not spoils every result; the line names where it is."""
    weights = {name: tensor.clone() for name, tensor in small_checkpoint().weights.items()}
    weights["heads.0.bias"][1] = value
    with pytest.raises(
        ModelError, match=r"damaged: its weights 'heads.0.bias' are infinite or no numbers; get a sound"
    ):
        load_checkpoint(crafted(tmp_path / "crafted.pt", weights=weights))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fold": -1}, "its fold is no number"),
        ({"fold": "../up"}, "its fold is no number"),
        ({"configuration": "2d"}, "is of an unknown configuration '2d'"),
        ({"configuration": ["x"]}, "is of an unknown configuration"),
        ({"training": 3}, "is damaged"),
        ({"plan": "{}"}, "is damaged"),
        ({"dataset": '{"labels": {"a": 1, "a": 2}}'}, "its dataset.json has the key 'a' twice in one object"),
        ({"format_version": "\x1b[2J"}, r"format version '\\x1b\[2J'"),
    ],
)
def test_other_content_is_refused(tmp_path, change, text):
    """Each in one line."""
    with pytest.raises(ModelError, match=text) as caught:
        load_checkpoint(crafted(tmp_path / "crafted.pt", **change))
    assert "\n" not in str(caught.value)


def test_model_that_was_passed_on_is_not_trained_on(tmp_path):
    """It predicts, but lacks what training needs."""
    whole = replace(small_checkpoint(), training={"step": 1})
    check_resumable(whole, tmp_path / "checkpoint.pt")
    save_checkpoint(whole.to_pass_on(), tmp_path / "checkpoint.pt")
    passed_on = load_checkpoint(tmp_path / "checkpoint.pt")
    assert passed_on.training == {}
    with pytest.raises(ModelError, match=r"was passed on without what training needs to go on; begin with its weights"):
        check_resumable(passed_on, tmp_path / "checkpoint.pt")


def _saved(folder):
    save_checkpoint(small_checkpoint(), folder / "checkpoint.pt")
    return folder / "checkpoint.pt"
