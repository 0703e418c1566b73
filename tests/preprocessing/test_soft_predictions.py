"""Predictions of a teacher on disk: a byte for each probability, whole or not at all."""

import numpy as np
import pytest

from autoseg.errors import ArtifactError
from autoseg.imaging.geometry import Box
from autoseg.preprocessing.soft_predictions import (
    CERTAIN,
    SoftContent,
    SoftPrediction,
    is_predicted,
    save_soft_prediction,
)

SHAPE = (20, 30, 40)
CONTENT = SoftContent(teacher="0" * 16, case="1" * 16, shape=SHAPE, structures=2)


@pytest.fixture
def saved(tmp_path):
    """Returns probabilities, and the folder in which they were saved."""
    maps = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    save_soft_prediction(tmp_path / "fold_0", "liver", CONTENT, iter(maps), patch_size=(16, 16, 16))
    return maps, tmp_path / "fold_0"


@pytest.mark.parametrize("loaded", [False, True])
def test_a_part_is_read_as_it_was_saved(saved, loaded):
    """But for the rounding of a byte, from the file as from memory."""
    maps, folder = saved
    stored = SoftPrediction.open(folder, "liver")
    stored = stored.load() if loaded else stored
    box = Box(start=(3, 0, 7), stop=(19, 30, 9))
    read = stored.read(box)
    assert read.dtype == np.float32
    assert np.abs(read - maps[(slice(None), *box.slices)]).max() <= 0.5 / CERTAIN + 1e-6
    assert stored.nbytes == maps.size


def test_what_is_certain_takes_next_to_no_space(tmp_path):
    """Most voxels of a scan are: less than a hundredth of a byte for each of them."""
    maps = np.zeros((2, 64, 64, 64), np.float32)
    maps[0, 20:40, 20:40, 20:40] = 1
    content = SoftContent(teacher="", case="", shape=(64, 64, 64), structures=2)
    save_soft_prediction(tmp_path, "liver", content, maps, patch_size=(32, 32, 32))
    assert (tmp_path / "liver.zip").stat().st_size < maps.size / 100


def test_only_the_same_whole_prediction_is_kept(saved):
    """Another teacher, another case, another shape and a damaged byte are told apart."""
    _, folder = saved
    assert is_predicted(folder, "liver", CONTENT)
    assert not is_predicted(folder, "spleen", CONTENT)
    for change in ({"teacher": "2" * 16}, {"case": "2" * 16}, {"structures": 3}):
        assert not is_predicted(folder, "liver", CONTENT.model_copy(update=change))
    path = folder / "liver.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert not is_predicted(folder, "liver", CONTENT)


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK"])
def test_damage_is_named(saved, damage):
    """The error names the file and the command that makes it anew."""
    _, folder = saved
    (folder / "liver.zip").write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"liver\.zip .*autoseg distil"):
        SoftPrediction.open(folder, "liver")
