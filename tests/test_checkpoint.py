"""A checkpoint comes back whole, and a bad or hostile file does no harm."""

import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from small_models import small_checkpoint

from autoseg.checkpoint import load_checkpoint, save_checkpoint
from autoseg.errors import ModelError


@pytest.fixture
def path(tmp_path):
    """A sound checkpoint on disk."""
    save_checkpoint(small_checkpoint(), tmp_path / "fold_0" / "checkpoint.pt")
    return tmp_path / "fold_0" / "checkpoint.pt"


def test_what_is_saved_is_what_is_loaded(path):
    """Every field, and every weight bit for bit."""
    saved, loaded = small_checkpoint(), load_checkpoint(path)
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


def _saved(folder):
    save_checkpoint(small_checkpoint(), folder / "checkpoint.pt")
    return folder / "checkpoint.pt"
