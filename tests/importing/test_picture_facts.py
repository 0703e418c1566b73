"""Pictures are imported as they are shown, with the depth of their colours known before any work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from import_sources import circle, colours
from phantoms import Listener
from PIL import Image

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset, load_case
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.importing.sources import import_source
from autoseg.workspace import Workspace


def run(root: Path, **options: Any) -> tuple[Dataset, str]:
    """Imports the folders images and masks as dataset 7, and returns what was said."""
    (root / "images").mkdir(exist_ok=True)
    listener = Listener()
    source, workspace = (root / "images", root / "masks"), Workspace(root=root / "ws")
    dataset = import_source(source, workspace=workspace, number=7, name="A", reporter=listener, **options)
    return dataset, listener.text


def write_cases(root: Path, depths: tuple[str, ...], ending: str) -> None:
    """Writes a picture in colours of each depth, and its mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number, depth in enumerate(depths):
        pixels = colours(number).astype(depth) * (256 if depth == "u2" else 1)
        if ending == ".tif":
            tifffile.imwrite(root / "images" / f"c{number}.tif", pixels, photometric="rgb")
        else:
            sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(root / "images" / f"c{number}.png"))
        Image.fromarray(circle((0, 1, 2))).save(root / "masks" / f"c{number}.png")


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize(
    ("depths", "names"),
    [
        (("u1", "u1"), ["rgb_to_0_1"] * 3),
        (("u2", "u2"), ["red", "green", "blue"]),
        (("u1", "u2"), ["red", "green", "blue"]),
    ],
)
def test_the_depth_of_colours_names_the_channels(
    tmp_path: Path, depths: tuple[str, ...], names: list[str], ending: str
) -> None:
    """Those of 8 bits are divided by 255, and any others are z-scored."""
    write_cases(tmp_path, depths, ending)
    dataset, text = run(tmp_path)
    assert list(dataset.info.channel_names.values()) == names
    assert ("more than 8 bits" in text) == ("u2" in depths)
    assert check_dataset(dataset).problems == ()
    image, label = load_case(dataset.cases[-1], dataset.info)
    np.testing.assert_array_equal(image.array, read_image((tmp_path / "images" / f"c1{ending}",)).array)
    np.testing.assert_array_equal(label.array[0], circle((0, 1, 2)))


def test_turned_pictures_are_said_and_become_upright(tmp_path: Path) -> None:
    """Other programs that read the dataset need not know of the tag."""
    write_cases(tmp_path, ("u1", "u1"), ".png")
    exif = Image.Exif()
    exif[0x112] = 3
    Image.fromarray(colours(1)[::-1, ::-1]).save(tmp_path / "images" / "c1.png", exif=exif)
    dataset, text = run(tmp_path)
    assert "1 of 2 pictures are turned as their orientation tag (EXIF) says" in text
    assert "c1" in text
    with Image.open(dataset.folder / "imagesTr" / "c1.png") as image:
        np.testing.assert_array_equal(np.asarray(image), colours(1))
        assert not image.getexif()


def test_palettes_and_transparency_do_not_reach_the_dataset(tmp_path: Path) -> None:
    """Masks of indices, and colours alone."""
    write_cases(tmp_path, ("u1", "u1"), ".png")
    for number in range(2):
        with Image.open(tmp_path / "images" / f"c{number}.png") as image:
            image.convert("RGBA").save(tmp_path / "images" / f"c{number}.png")
        mask = Image.frombytes("P", circle((0, 1, 2)).shape[::-1], circle((0, 1, 2)).tobytes())
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        mask.save(tmp_path / "masks" / f"c{number}.png")
    dataset, _ = run(tmp_path)
    for case in dataset.cases:
        with Image.open(case.images[0]) as image, Image.open(case.label) as mask:
            assert (image.mode, mask.mode) == ("RGB", "L")
            np.testing.assert_array_equal(np.asarray(mask), circle((0, 1, 2)))
    assert check_dataset(dataset).problems == ()


def test_a_mask_without_a_scale_lies_on_its_stack(tmp_path: Path) -> None:
    """ImageJ's stacks of slices and channels, whose masks state no scale."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(2):
        label = np.zeros((5, 24, 24), np.uint8)
        label[1:4, 5:15, 5 : 15 + number] = 1
        image = np.random.default_rng(number).integers(0, 900, (5, 2, 24, 24)).astype(np.uint16)
        metadata = {"axes": "ZCYX", "spacing": 2.0, "unit": "um"}
        tifffile.imwrite(tmp_path / "images" / f"i{number}.tif", image, imagej=True, metadata=metadata)
        tifffile.imwrite(tmp_path / "masks" / f"i{number}.tif", label, imagej=True, metadata={"axes": "ZYX"})
    dataset, _ = run(tmp_path)
    assert json.loads((dataset.folder / "dataset.json").read_text())["channel_names"].keys() == {"0", "1"}
    assert check_dataset(dataset).problems == ()
    grid = read_label_map(dataset.cases[0].label).geometry
    assert grid.spacing_mm == pytest.approx((2e-3, 1e-3, 1e-3))
