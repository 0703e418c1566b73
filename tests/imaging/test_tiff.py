"""Properties that TIFF files do not hold themselves."""

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import noise, write_picture

from autoseg.errors import ImageError
from autoseg.imaging.image_files import read_image
from autoseg.imaging.tiff import check_bits, find_spacing_file, read_spacing, write_spacing


def write_stack(path: Path) -> None:
    """Writes a volume in 16 bit that states a resolution in the plane."""
    image = sitk.GetImageFromArray(noise(0).astype(np.uint16))
    image.SetSpacing((0.35, 0.35, 1))
    sitk.WriteImage(image, str(path))


def test_a_volume_without_a_spacing_file_counts_millimetres(tmp_path: Path) -> None:
    """This is nnU-Net's rule: the resolution in a TIFF is rarely true; for a plane nothing else is known."""
    write_stack(tmp_path / "a.tif")
    assert sitk.ReadImage(str(tmp_path / "a.tif")).GetSpacing()[0] == pytest.approx(0.35)
    assert read_image((tmp_path / "a.tif",)).geometry.spacing_mm == (1, 1, 1)
    write_picture(tmp_path / "plane.tif", noise(1, (8, 9)).astype(np.uint8))
    assert read_image((tmp_path / "plane.tif",)).geometry.dimensions == 2


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["liver_0001.json", "liver.json"], "liver_0001.json"),
        (["liver.json"], "liver.json"),
        (["liver_0000.json"], None),
    ],
)
def test_spacing_files_are_found_by_name(tmp_path: Path, there: list[str], found: str | None) -> None:
    """The file's own name goes before that of its case; other formats need none."""
    for name in there:
        (tmp_path / name).touch()
    assert find_spacing_file(tmp_path / "liver_0001.TIF") == (tmp_path / found if found else None)
    assert find_spacing_file(tmp_path / "liver_0001.nii.gz") is None


def test_spacing_survives_the_disk(tmp_path: Path) -> None:
    """The file holds the spacing in the order z, y, x."""
    write_spacing(tmp_path / "a.tiff", (2.5, 0.5, 0.75))
    assert read_spacing(tmp_path / "a.tiff") == (2.5, 0.5, 0.75)
    assert (tmp_path / "a.json").read_text() == '{"spacing": [2.5, 0.5, 0.75]}\n'


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"spacing": 1}', '{"spacing": [1, 1]}', '{"spacing": [1, 0, 1]}', "\\xff"]
)
def test_impossible_spacing_files_are_refused(tmp_path: Path, content: str) -> None:
    """The message names the spacing file, as part of the case that it belongs to."""
    write_stack(tmp_path / "a_0000.tif")
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageError, match=r"a\.json holds no spacing of a volume; write"):
        read_image((tmp_path / "a_0000.tif",))


def tiff(order: str, *, big: bool, entries: list[tuple[int, int, int]], behind: bytes = b"") -> bytes:
    """The head and the first directory of a TIFF: entries of code, count and value, all of 16 bit."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + struct.pack(order + "Q", len(entries))
        rows = [struct.pack(order + "HHQH6x", code, 3, count, value) for code, count, value in entries]
    else:
        head = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(entries))
        rows = [
            struct.pack(order + "HHI" + ("H2x" if count < 3 else "I"), code, 3, count, value)
            for code, count, value in entries
        ]
    return head + b"".join(rows) + behind


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pixels_that_would_become_others_are_refused(tmp_path: Path, order: str, big: bool) -> None:
    """One bit, 64 bit, and tiles; whichever way the file is laid out."""
    path = tmp_path / "a.tif"
    for entries, said in (
        ([(256, 1, 9)], "1 bit"),
        ([(258, 1, 1)], "1 bit"),
        ([(258, 1, 64)], "64 bit"),
        ([(258, 1, 16), (322, 1, 16)], "16 bit in tiles"),
    ):
        path.write_bytes(tiff(order, big=big, entries=entries))
        with pytest.raises(ImageError, match=rf"a\.tif: pixels of {said} are not supported; save"):
            check_bits(path)
    path.write_bytes(tiff(order, big=big, entries=[(256, 1, 9), (258, 1, 32)]))
    check_bits(path)


def test_bits_of_colours_lie_elsewhere_in_the_file(tmp_path: Path) -> None:
    """Three numbers do not fit into an entry."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff("<", big=False, entries=[(258, 3, 22)], behind=struct.pack("<3H", 64, 64, 64)))
    with pytest.raises(ImageError, match="pixels of 64 bit"):
        check_bits(path)
    path.write_bytes(tiff("<", big=False, entries=[(258, 3, 22)], behind=struct.pack("<3H", 8, 8, 8)))
    check_bits(path)


@pytest.mark.parametrize("content", [b"", b"II", b"II*\0", b"no TIFF, whatever its ending says", b"MM\0*\0\0\xff\xff"])
def test_what_is_no_tiff_passes(tmp_path: Path, content: bytes) -> None:
    """Reading it fails anyway, with a reason."""
    (tmp_path / "a.tif").write_bytes(content)
    check_bits(tmp_path / "a.tif")
