"""Image files that cannot be read, and pictures that a library would read wrongly without an error."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import noise, place, write_picture

from autoseg.errors import ImageError
from autoseg.imaging import corruption
from autoseg.imaging.corruption import check_file, check_picture
from autoseg.imaging.image_files import read_image, write_image
from autoseg.imaging.image_headers import read_grid

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


def test_a_sound_file_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is not unpacked again; a file that was written again is, and damage in it is found."""
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(noise(2, (6, 7, 8))), str(path))
    examined = []
    monkeypatch.setattr(corruption, "check_picture", examined.append)
    check_file(path)
    check_file(path)
    assert examined == [path]
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(ImageError, match=r"is cut off|is damaged"):
        check_file(path)
    path.write_bytes(content)
    check_file(path)
    assert examined == [path, path]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_cut_off_gipl_is_refused(tmp_path: Path, kind: type) -> None:
    """Its library would take zeros for what is missing, to the last byte."""
    path = tmp_path / "a.gipl"
    sitk.WriteImage(sitk.GetImageFromArray(noise(2, (6, 20, 30)).astype(kind)), str(path))
    read_image((path,))
    content = path.read_bytes()
    for share in (0.02, 0.5, 1):
        path.write_bytes(content[: int(len(content) * share) - 1])
        with pytest.raises(ImageError, match=r"is cut off|cannot be read as an image"):
            read_image((path,))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep such names out")
def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A library would end the program."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz"))
    write_image(tmp_path / "a.nii.gz", place(noise(0)[np.newaxis]))
    (tmp_path / "a.nii.gz").rename(path)
    with pytest.raises(ImageError, match=r"M\ufffdller\.nii\.gz has a name that is no text") as caught:
        read_image((path,))
    str(caught.value).encode()
    with pytest.raises(ImageError, match="has a name that is no text"):
        read_grid(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one encoding of names")
def test_a_name_in_another_encoding_than_the_locale_says_which(tmp_path: Path) -> None:
    """A name in UTF-8 is sound, so it is not called no text in UTF-8; and the line says how it is read."""
    (tmp_path / "M\u00fcller.nii.gz").touch()
    code = (
        "from pathlib import Path; from autoseg.imaging.corruption import check_name; import sys\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try: check_name(path)\n"
        "    except Exception as error: print(ascii(str(error)))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "has a name that is no text (ascii), which no library opens" in ran.stdout
    assert "set PYTHONUTF8=1" in ran.stdout
