"""First masks by the command and by the function, with tiny weights; and with weights that learned what a box is."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener, write_picture
from small_segment_anything import TINY, box_of, draw_discs, random_network, save_weights, train_on_discs
from tiny_workspaces import dice
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry, Volume, direction_of
from autoseg.imaging.image_files import read_label_map, write_image, write_label_map
from autoseg.networks.segment_anything.network import SegmentAnything
from autoseg.networks.segment_anything.sizes import VIT_B

GEOMETRY = Geometry(
    shape=(6, 64, 64), spacing_mm=(4.0, 1.0, 1.0), origin_mm=(5.0, -30.0, 40.0), direction=direction_of("SAL")
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny network."""
    return save_weights(random_network(), tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of six slices of noise, on a grid whose rows run from back to front."""
    array = np.random.default_rng(3).normal(100, 20, (1, 6, 64, 64)).astype(np.float32)
    write_image(tmp_path / "scan.nii.gz", Volume(array=array, geometry=GEOMETRY))
    return tmp_path / "scan.nii.gz"


def run(*args: object) -> tuple[int, str, list[str]]:
    """Runs a command; returns its exit code, its output and the lines of its error stream."""
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output, [line for line in result.stderr.splitlines() if line]


def test_masks_lie_on_the_grid_of_the_scan(weights: Path, scan: Path, tmp_path: Path) -> None:
    """Exactly, and prompts in mm and in voxels, by command and function, give the same one."""
    code, output, errors = run(
        "prompt", scan, "-o", tmp_path / "a.nii.gz", "--weights", weights, "--box", "10,20,1,40,50,3", "--label", "7"
    )
    assert (code, errors) == (0, [])
    assert "slices of 64 x 64 pixels, prepared as sam learned them" in output
    mask = read_label_map(tmp_path / "a.nii.gz")
    assert mask.geometry.difference(GEOMETRY) is None
    assert set(np.unique(mask.array)) == {0, 7}
    assert set(np.flatnonzero(mask.array.any(axis=(1, 2)))) == {1, 2, 3}
    image = sitk.ReadImage(str(scan))
    corners = [image.TransformContinuousIndexToPhysicalPoint(index) for index in ((9.5, 19.5, 0.5), (40.5, 50.5, 3.5))]
    text = ",".join(f"{value:.6f}" for x, y, z in corners for value in (-x, -y, z))  # right, anterior, superior
    code, _, errors = run(
        "prompt", scan, "-o", tmp_path / "b.nii.gz", "--weights", weights, "--mm", "--box", text, "--label", 7
    )
    assert (code, errors) == (0, [])
    written = autoseg.prompt(
        scan, tmp_path / "c.nrrd", weights=weights, boxes=[(3, 50, 10, 1, 20, 40)], label=7, device="cpu"
    )
    for path in (tmp_path / "b.nii.gz", written):
        assert np.array_equal(read_label_map(path).array, mask.array)


def test_masks_are_added_to(weights: Path, scan: Path, tmp_path: Path) -> None:
    """What has a label keeps it."""
    output, listener = tmp_path / "mask.nii.gz", Listener()
    before = np.zeros(GEOMETRY.shape, np.int32)
    before[2, :32] = 1
    write_label_map(output, Volume(array=before, geometry=GEOMETRY))
    points = {"points": [(2, 20, 20), (3, 40, 40)], "background_points": [(3, 5, 5)]}
    autoseg.prompt(scan, output, weights=weights, **points, label=2, add=True, reporter=listener)
    autoseg.prompt(scan, tmp_path / "alone.nii.gz", weights=weights, **points, label=2)
    mask, alone = read_label_map(output).array, read_label_map(tmp_path / "alone.nii.gz").array
    assert np.array_equal(mask[before == 1], before[before == 1])
    assert np.array_equal(mask[before == 0], alone[before == 0])
    taken = int(((alone > 0) & (before > 0)).sum())
    assert taken > 0
    assert f"{int((mask == 2).sum())} voxels are labelled 2; {taken} more have a label already" in listener.text


def test_pictures_are_prompted_too(weights: Path, tmp_path: Path) -> None:
    """In colours, with points and boxes of the plane."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    write_picture(tmp_path / "photo.png", picture)
    code, _, errors = run(
        "prompt", tmp_path / "photo.png", "-o", tmp_path / "mask.png", "--weights", weights, "--box", "5,6,30,20",
        "--point", "7,8", "--background-point", "2,2", "1,1",
    )  # fmt: skip
    assert (code, errors) == (0, [])
    assert read_label_map(tmp_path / "mask.png").array.shape == (1, 40, 50)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "nothing is prompted; give a box around the structure, or a point in it"),
        (["--box", "1,2,3,4"], "a prompt has 4 coordinates; a point of a volume has 3, and a box 6"),
        (["--box", "1,2,3,4,5"], "--box 1,2,3,4,5 has 5 coordinates; give 4 for a picture, 6 for a volume"),
        (["--box", "1,2,x"], "--box 1,2,x are no numbers; divide them by commas, without spaces"),
        (["--point", "1,2,nan"], "--point 1,2,nan are no coordinates or intensities; give numbers"),
        (["--point", "64,0,0"], "the voxel 64 x 0 x 0 lies outside of the scan of 64 x 64 x 6 voxels (x, y, z)"),
        (["--point", "-1,0,0"], "the voxel -1 x 0 x 0 lies outside of the scan"),
        (["--point", "1,1,1", "--slices", "2,9"], "the slices 2 to 9 are not all among those of the scan"),
        (["--point", "1,1,1", "--slices", "2.5,3"], "--slices 2.5,3 are no numbers of slices"),
        (["--point", "1,1,1", "--window", "3"], "--window 3 has 1 numbers; give two, divided by a comma"),
        (["--point", "1,1,1", "--window", "9,3"], "the window 9 to 3 is empty"),
        (["--point", "1,1,1", "--plane", "oblique"], "there is no plane 'oblique'"),
        (["--point", "1,1,1", "--preparation", "sam3"], "there is no preparation 'sam3'"),
        (["--point", "1,1,1", "--channel", "1"], "the scan has no channel 1; choose a channel from 0 to 0"),
        (["--point", "1,1,1", "--series", "t2*"], "holds no DICOM series; leave --series out"),
        (["--point", "1,1,1", "-o", "mask.jpg"], "masks cannot be written as .jpg; choose .png"),
        (["--point", "1,1,1", "-o", "mask.png"], "mask.png cannot hold a volume; choose .nii.gz"),
        (["--point", "1,1,1", "-o", "mask"], "mask is no file of an image format"),
        (["--point", "1,1,1", "-o", "scan.nii.gz"], "scan.nii.gz is the scan itself; give another file for the mask"),
        (
            ["--point", "1,1,1", "-o", "other.nii.gz", "--add"],
            "other.nii.gz is no mask of this scan: shape 64 x 64 x 6",
        ),
        (["--point", "1,1,1", "--weights", "none.pth"], "none.pth does not exist; check the path"),
        (["--point", "1,1,1", "--weights", "scan.nii.gz"], "scan.nii.gz is damaged or no checkpoint"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], text: str, weights: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit code 2, and nothing is written or changed."""
    monkeypatch.chdir(scan.parent)
    other = Geometry(shape=(3, 3, 3), spacing_mm=(1.0, 1.0, 1.0))
    write_label_map(Path("other.nii.gz"), Volume(array=np.ones((3, 3, 3), np.int32), geometry=other))
    files = {path: path.read_bytes() for path in scan.parent.iterdir()}
    given = ["-o", "mask.nii.gz"] if "-o" not in arguments else []
    given += ["--weights", str(weights)] if "--weights" not in arguments else []
    code, _, errors = run("prompt", "scan.nii.gz", *given, *arguments)
    assert (code, len(errors)) == (2, 1)
    assert text in errors[0]
    assert {path: path.read_bytes() for path in scan.parent.iterdir()} == files


def test_a_dicom_series_is_a_scan(weights: Path, tmp_path: Path) -> None:
    """Of a folder of its files."""
    dicom_files = pytest.importorskip("dicom_files")
    voxels = np.random.default_rng(1).integers(0, 400, (5, 24, 32)).astype(np.int16)
    dicom_files.write_series(tmp_path / "series", dicom_files.make_series(voxels, description="T2", number=1))
    written = autoseg.prompt(tmp_path / "series", tmp_path / "mask.nii.gz", weights=weights, points=[(2, 10, 10)])
    assert read_label_map(written).array.shape == (5, 24, 32)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_that_learned_segment_what_is_prompted(tmp_path: Path) -> None:
    """One of several alike discs, and not the others; in a volume slice by slice from a box on one of its slices."""
    save_weights(train_on_discs(400), tmp_path / "medsam_tiny.pth")
    random, listener = np.random.default_rng(99), Listener()
    overlaps, strays = [], []
    for number in range(5):
        picture, masks = draw_discs(random)
        write_picture(tmp_path / f"{number}.png", picture.clip(0, 255).astype(np.uint8))
        for mask in masks:
            written = autoseg.prompt(
                tmp_path / f"{number}.png",
                tmp_path / "mask.png",
                weights=tmp_path / "medsam_tiny.pth",
                boxes=[box_of(mask)],
                window=(0, 255),
                reporter=listener,
            )
            found = read_label_map(written).array[0]
            others = np.logical_or.reduce([other for other in masks if other is not mask])
            overlaps.append(dice(found, mask.astype(int), 1))
            strays.append((found.astype(bool) & others).sum() / mask.sum())
    assert "prepared as medsam learned them" in listener.text
    assert np.mean(overlaps) > 0.85
    assert np.mean(strays) < 0.05
    check_propagation(tmp_path)


def check_propagation(folder: Path) -> None:
    """A ball beside a pillar: from a box on its largest slice, its mask shrinks with it, and the pillar stays out."""
    rows, columns = np.mgrid[:64, :64]
    radii = [6, 8, 9, 10, 9, 8, 6]
    ball = np.stack([np.hypot(rows - 22, columns - 20 - number) < radius for number, radius in enumerate(radii)])
    pillar = np.broadcast_to(np.hypot(rows - 46, columns - 46) < 8, ball.shape)
    noise = np.random.default_rng(5).normal(0, 12, ball.shape)
    array = (np.where(ball | pillar, 160.0, 60.0) + noise).astype(np.float32)[None]
    geometry = Geometry(shape=ball.shape, spacing_mm=(3.0, 1.0, 1.0), direction=direction_of("SPL"))
    write_image(folder / "ball.nii.gz", Volume(array=array, geometry=geometry))
    top, left, bottom, right = box_of(ball[3])
    options = {"weights": folder / "medsam_tiny.pth", "window": (0, 255)}
    box = [(3, top, left, 3, bottom, right)]
    written = autoseg.prompt(folder / "ball.nii.gz", folder / "mask.nii.gz", boxes=box, propagate=True, **options)
    found = read_label_map(written).array
    assert dice(found, ball.astype(int), 1) > 0.8
    assert not (found.astype(bool) & pillar).any()
    autoseg.prompt(folder / "ball.nii.gz", folder / "mask.nii.gz", boxes=box, propagate=True, slices=(2, 4), **options)
    assert set(np.flatnonzero(read_label_map(written).array.any(axis=(1, 2)))) == {2, 3, 4}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_of_the_published_size_is_loaded_and_segments(tmp_path: Path, scan: Path) -> None:
    """A checkpoint of 93,735,472 parameters, as wide as Segment Anything and MedSAM, on one slice."""
    torch.manual_seed(0)
    save_weights(SegmentAnything(VIT_B), tmp_path / "sam_vit_b.pth")
    assert (tmp_path / "sam_vit_b.pth").stat().st_size > 374_000_000
    listener = Listener()
    with patch("autoseg.runtime.device.precision", return_value=torch.float32):
        written = autoseg.prompt(
            scan, tmp_path / "m.nii.gz", weights=tmp_path / "sam_vit_b.pth", points=[(2, 20, 20)], reporter=listener
        )
    assert "slices of 1024 x 1024 pixels, prepared as sam learned them" in listener.text
    assert read_label_map(written).array.shape == (6, 64, 64)


def test_weights_of_another_network_are_refused_before_anything_is_written(
    weights: Path, scan: Path, tmp_path: Path
) -> None:
    """By the name of what they lack, and so is a call in the file."""
    content = torch.load(weights, weights_only=True)
    del content["mask_decoder.iou_token.weight"]
    torch.save(content, tmp_path / "other.pth")
    torch.save({**content, "harm": print}, tmp_path / "harm.pth")
    for name, text in (("other", "lacks the weights 'mask_decoder.iou_token.weight'"), ("harm", "builtin__.print'")):
        with pytest.raises(AutosegError) as caught:
            autoseg.prompt(scan, tmp_path / "m.nii.gz", weights=tmp_path / f"{name}.pth", points=[(1, 1, 1)])
        assert text in str(caught.value)
    assert not (tmp_path / "m.nii.gz").exists()
    assert TINY.image == 64
