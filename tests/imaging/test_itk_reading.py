"""Files that ITK reads are read by one thread at a time."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.imaging.image_files import read_stored
from autoseg.imaging.image_headers import read_image_header
from autoseg.imaging.itk_reading import ITK_READING

read_by_itk = sitk.ReadImage


def read_in_turn(*arguments: str) -> sitk.Image:
    """Reads an image, for which the thread must have its turn."""
    assert ITK_READING.locked()
    return read_by_itk(*arguments)


@pytest.mark.parametrize("name", ["a.hdr", "a.png"])
def test_a_thread_waits_for_its_turn(tmp_path: Path, name: str) -> None:
    """So does that of an Analyze file, of which ITK's reader shares a string, and of a picture of 16-bit colours."""
    path = tmp_path / name
    voxels = np.arange(6 * 7 * 3, dtype=np.uint16).reshape(6, 7, 3)
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=name == "a.png"), str(path))
    with patch.object(sitk, "ReadImage", read_in_turn):
        assert read_stored(path).array.size == voxels.size
    assert not ITK_READING.locked()


def test_the_turn_ends_with_an_error(tmp_path: Path) -> None:
    """A file that cannot be read does not keep others waiting."""
    (tmp_path / "a.hdr").write_bytes(bytes(348))
    for read in (read_stored, read_image_header):
        with pytest.raises(Exception, match=r"a\.hdr"):
            read(tmp_path / "a.hdr")
        assert not ITK_READING.locked()
