"""Image files that cannot be read, and pictures that a library would read wrongly without an error."""

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import noise, write_picture

from autoseg.errors import ImageError
from autoseg.imaging.corruption import check_file, check_picture
from autoseg.imaging.image_files import read_image

GREY = noise(0, (40, 50)).astype(np.uint8)
COLOURS = noise(1, (40, 50, 3)).astype(np.uint8)
ENDINGS = [".jpg", ".jpeg", ".bmp", ".png", ".tif", ".tiff"]


@pytest.mark.parametrize("array", [GREY, COLOURS], ids=["grey", "colours"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_cut_off_pictures_are_refused(tmp_path: Path, array: np.ndarray, ending: str, share: float) -> None:
    """Wherever a copy was interrupted; the whole file is read."""
    path = tmp_path / f"a{ending}"
    write_picture(path, array)
    check_file(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"is cut off|cannot be read as an image"):
        read_image((path,))


@pytest.mark.parametrize("ending", [".jpg", ".bmp"])
def test_last_byte_counts(tmp_path: Path, ending: str) -> None:
    """A file without its last byte is refused, in the formats whose library reports nothing."""
    path = tmp_path / f"a{ending}"
    write_picture(path, COLOURS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match=r"is cut off: it ends before its last pixel; copy it again"):
        check_picture(path)


@pytest.mark.parametrize("packed", [False, True])
def test_every_page_of_a_tiff_is_missed(tmp_path: Path, packed: bool) -> None:
    """A stack that lost its last pages would be read as a thinner one."""
    path = tmp_path / "stack.tif"
    sitk.WriteImage(sitk.GetImageFromArray(noise(2, (6, 20, 30)).astype(np.uint8)), str(path), useCompression=packed)
    content = path.read_bytes()
    for share in np.linspace(0.2, 0.95, 16):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ImageError, match=r"is cut off|cannot be read as an image"):
            read_image((path,))


def test_end_mark_of_a_thumbnail_does_not_count(tmp_path: Path) -> None:
    """Cameras put a small JPEG into the head of the large one."""
    path = tmp_path / "a.jpg"
    write_picture(path, GREY)
    content = path.read_bytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content
    path.write_bytes(content[:2] + thumbnail + content[2:])
    check_picture(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ImageError, match="cut off"):
        check_picture(path)


def test_filling_between_segments_is_passed_over(tmp_path: Path) -> None:
    """Some programs fill the head of a JPEG up to a round length."""
    path = tmp_path / "a.jpg"
    write_picture(path, GREY)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff" * 5 + content[2:])
    check_picture(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ImageError, match="cut off"):
        check_picture(path)


@pytest.mark.parametrize("height", [-2, 2])
def test_bmp_may_be_stored_from_either_side(tmp_path: Path, height: int) -> None:
    """A negative height is one; rows are filled up to four bytes; packed pixels have a length of their own."""
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54)
    plain = head + struct.pack("<IiiHHII16x", 40, 3, height, 1, 24, 0, 0)
    (tmp_path / "a.bmp").write_bytes(plain + bytes(24))
    check_picture(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").write_bytes(plain + bytes(23))
    with pytest.raises(ImageError, match="cut off"):
        check_picture(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").write_bytes(head + struct.pack("<IiiHHII16x", 40, 3, height, 1, 8, 1, 5) + bytes(5))
    check_picture(tmp_path / "a.bmp")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "content", [b"", b"BM", b"II", b"\xff\xd8", b"these are words and no pixels at all, only words"]
)
def test_files_that_are_no_pictures_are_left_to_the_reader(tmp_path: Path, ending: str, content: bytes) -> None:
    """Which refuses them in one line."""
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"a{ending} (is cut off|cannot be read as an image)"):
        read_image((path,))


def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, a folder, or without permission."""
    with pytest.raises(ImageError, match=r"a\.nrrd does not exist; check the path"):
        check_file(tmp_path / "a.nrrd")
    with pytest.raises(ImageError, match=r"is a folder; put an image file in its place"):
        check_file(tmp_path)
    (tmp_path / "a.nrrd").touch()

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"cannot read .*a\.nrrd: Permission denied; check that you may read it"):
        check_file(tmp_path / "a.nrrd")
