"""Files of strangers are read or refused in a line: none ends the program, hangs it, or reads another file."""

import os
from pathlib import Path

import pytest
from hostile_files import IMAGES, MODELS, survive

from autoseg.errors import ImageError
from autoseg.imaging.image_files import read_image, read_label_map


@pytest.mark.parametrize("names", [sorted(IMAGES), sorted(MODELS)], ids=["images", "models"])
def test_any_file_is_read_or_refused_in_a_line(tmp_path: Path, names: list[str]) -> None:
    """Mutations of a sound file of each kind, most of them in its header."""
    assert survive(names, 8, tmp_path) == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_five_thousand_images_end_nothing(tmp_path: Path, name: str) -> None:
    """SimpleITK alone was ended by one in a hundred of them."""
    assert survive([name], 5000, tmp_path) == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_thousand_files_of_models_end_nothing(tmp_path: Path, name: str) -> None:
    """Bundles, checkpoints, plans and scores."""
    assert survive([name], 1000, tmp_path) == {"read", "refused"}


SECRET = b"secret " * 100


def test_no_image_reads_another_file(tmp_path: Path) -> None:
    """Whatever its header names: paths, links, lists, patterns, pipes, devices and standard input."""
    scans = tmp_path / "scans"
    scans.mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    (scans / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(scans / "pipe")
    named = [
        "../secret",
        str(tmp_path / "secret"),
        "link",
        "pipe",
        "-",
        "/dev/zero",
        "/dev/stdin",
        ".",
        "",
        "%s%n%d 1 2 1",
    ]
    for number, name in enumerate([*named, "LIST\nlink", "LIST 2\nlink", "missing", "x" * 300]):
        metaimage = "NDims = 3\nDimSize = 10 10 5\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
        nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 10 5\nspacings: 1 1 1\nencoding: raw\n"
        texts = {
            f"{number}.mhd": f"{metaimage}ElementDataFile = {name}\n",
            f"{number}.mha": f"{metaimage}ElementDataFile = {name}\n",
            f"{number}.nrrd": f"{nrrd}data file: {name}\n",
            f"{number}.nii": f"{nrrd}data file: {name}\n",
            f"{number}.png": f"{nrrd}data file: {name}\n",
            f"{number}_.png": f"ObjectType = Image\n{metaimage}ElementDataFile = {name}\n",
        }
        for file, text in texts.items():
            (scans / file).write_text(text)
            for read in (lambda path: read_image((path,)), read_label_map):
                with pytest.raises(ImageError) as caught:
                    read(scans / file)
                assert str(caught.value).isprintable()


def test_numbers_that_end_libraries_are_refused(tmp_path: Path) -> None:
    """Dimensions and patterns for which SimpleITK ends the process."""
    sizes = "2 " * 16
    texts = {
        "a.nrrd": f"NRRD0004\ntype: short\ndimension: 16\nsizes: {sizes}\nendian: little\nencoding: raw\n\n",
        "a.mha": "NDims = -1\nDimSize = 2 2\nElementSpacing = 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
        "b.mha": "NDims = 99\nDimSize = 2 2\nElementSpacing = 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode() + bytes(200))
        with pytest.raises(ImageError, match="an image has 2 or 3 dimensions, not"):
            read_image((tmp_path / name,))
