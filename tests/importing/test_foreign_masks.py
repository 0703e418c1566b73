"""Masks as other programs write them: any values, several structures in a file, layers of segments, tables of names."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import Listener

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset
from autoseg.errors import AutosegError
from autoseg.imaging.image_files import read_label_map
from autoseg.pipeline import import_dataset

SHAPE = (10, 12, 6)  # (x, y, z)
AFFINE = np.array([[-1, 0, 0, 40], [0, -1, 0, 30], [0, 0, 2.5, -20], [0, 0, 0, 1]])


def box(x: slice, y: slice = slice(2, 9), z: slice = slice(1, 5)) -> np.ndarray:
    """A mask (x, y, z) that is a box."""
    mask = np.zeros(SHAPE, bool)
    mask[x, y, z] = True
    return mask


LEFT, RIGHT, BOTH = box(slice(1, 4)), box(slice(6, 9)), box(slice(2, 8), slice(4, 7))


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Writes a NIfTI file by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def write_scan(path: Path, seed: int = 0) -> None:
    """Writes an image of noise."""
    write(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))


def bring(tmp_path: Path) -> tuple[Dataset, Listener]:
    """Imports the folder "source"; returns the dataset, which is sound, and what was said."""
    listener = Listener()
    dataset = import_dataset(tmp_path / "source", 3, name="Foreign", workspace=tmp_path / "work", reporter=listener)
    return dataset, listener


def label_of(dataset: Dataset, name: str) -> np.ndarray:
    """The label map (x, y, z) of a case, as nibabel reads it."""
    return np.asarray(nibabel.load(dataset.folder / "labelsTr" / f"{name}.nii.gz").dataobj)


VALUES = {
    "FreeSurfer's numbers": ((0, 614, 454), (0, 277, 454), {0: 0, 277: 1, 454: 2, 614: 3}),
    "the largest numbers": ((0, 2_000_000_000), (0, 7), {0: 0, 7: 1, 2_000_000_000: 2}),
    "negative": ((-1, 0, 1), (0, 1, 2), {0: 0, 1: 1, 2: 2, -1: 3}),
    "negative alone": ((0, -1), (0, -2), {0: 0, -2: 1, -1: 2}),
    "saved in two ways": ((0, 1), (0, 255), {0: 0, 1: 1, 255: 1}),
    "no two ways, since a mask holds both": ((0, 1, 255), (0, 255), {0: 0, 1: 1, 255: 2}),
    "no two ways, since there are others": ((0, 1), (0, 128), {0: 0, 1: 1, 128: 2}),
    "the usual": ((0, 1), (0, 1, 2), {0: 0, 1: 1, 2: 2}),
}


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
@pytest.mark.parametrize(("first", "second", "numbers"), VALUES.values(), ids=VALUES)
def test_values_become_numbers(tmp_path: Path, first, second, numbers, dtype) -> None:
    """Whatever they are, as whole numbers or as floats."""
    masks = {}
    for name, values in (("a", first), ("b", second)):
        masks[name] = np.zeros(SHAPE, np.int64)
        for value, region in zip((value for value in values if value != 0), (LEFT, RIGHT), strict=False):
            masks[name][region] = value
        write_scan(tmp_path / "source" / "images" / f"{name}.nii.gz")
        write(tmp_path / "source" / "masks" / f"{name}.nii.gz", masks[name].astype(dtype))
    dataset, listener = bring(tmp_path)
    assert check_dataset(dataset).problems == ()
    for name, mask in masks.items():
        expected = np.vectorize(numbers.__getitem__)(mask)
        assert np.array_equal(label_of(dataset, name), expected)
    assert set(dataset.info.labels.values()) == set(numbers.values())
    assert ("both are the same label" in listener.text) == (len(set(numbers.values())) < len(numbers))
    assert ("hold negative values" in listener.text) == (min(numbers) < 0)


TABLES = {
    "seg.label": '# ITK-SnAP\n    0     0    0    0        0  0  0    "Clear Label"\n'
    '    1   255    0    0        1  1  1    "left lung"\n    4   0  255    0        1  1  1    "right lung"\n',
    "lungs.ctbl": "# Color table file\n0 background 0 0 0 0\n1 left lung 128 174 128 255\n4 right lung 1 2 3 255\n",
    "lut.txt": "#No. Label Name:\n0   Unknown   0 0 0 0\n1   left lung   70 130 180 0\n4 right lung 245 245 245 0\n",
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("folder", ["masks", "."])
def test_tables_name_the_values(tmp_path: Path, name: str, folder: str) -> None:
    """Of ITK-SNAP, 3D Slicer and FreeSurfer; other texts do not matter, and values without a name get their number."""
    write_scan(tmp_path / "source" / "images" / "a.nii.gz")
    write(tmp_path / "source" / "masks" / "a.nii.gz", (1 * LEFT + 4 * RIGHT).astype(np.uint8))
    write_scan(tmp_path / "source" / "images" / "b.nii.gz")
    write(tmp_path / "source" / "masks" / "b.nii.gz", (1 * LEFT + 9 * RIGHT).astype(np.uint8))
    (tmp_path / "source" / folder / name).write_text(TABLES[name])
    (tmp_path / "source" / folder / "README.txt").write_text("1 note about these masks\n")
    dataset, listener = bring(tmp_path)
    assert dict(dataset.info.labels) == {"background": 0, "left lung": 1, "right lung": 2, "label_9": 3}
    assert f"The names of the labels are those of {tmp_path / 'source' / folder / name}" in listener.text


def test_two_tables_name_nothing(tmp_path: Path) -> None:
    """Either may be wrong."""
    write_scan(tmp_path / "source" / "images" / "a.nii.gz")
    write(tmp_path / "source" / "masks" / "a.nii.gz", LEFT.astype(np.uint8))
    for name, text in TABLES.items():
        (tmp_path / "source" / name).write_text(text)
    assert dict(bring(tmp_path)[0].info.labels) == {"background": 0, "label_1": 1}


def test_masks_of_several_values_are_several_structures(tmp_path: Path) -> None:
    """Even where a case has one of them only; one value that differs from case to case is one structure."""
    for name, lungs, heart in (("a", 1 * LEFT + 5 * RIGHT, BOTH * 255), ("b", 5 * LEFT, BOTH * 1)):
        write_scan(tmp_path / "source" / name / "ct.nii.gz")
        write(tmp_path / "source" / name / "segmentations" / "lungs.nii.gz", lungs.astype(np.uint8))
        write(tmp_path / "source" / name / "segmentations" / "heart.nii.gz", heart.astype(np.uint8))
    dataset, listener = bring(tmp_path)
    assert "masks 'lungs' hold several values, and each is a structure: lungs_1, lungs_5" in listener.lines
    structures = dataset.info.targets.structures
    assert list(structures) == ["heart", "lungs_1", "lungs_5"]
    expected = {"a": {"lungs_1": LEFT, "lungs_5": RIGHT, "heart": BOTH}, "b": {"lungs_5": LEFT, "heart": BOTH}}
    for name, masks in expected.items():
        label = label_of(dataset, name)
        for structure, numbers in structures.items():
            assert np.array_equal(np.isin(label, numbers), masks.get(structure, np.zeros(SHAPE, bool)))
    assert dataset.info.annotated is None


def test_blurred_structures_are_named(tmp_path: Path) -> None:
    """Their grey seams are no structures."""
    write_scan(tmp_path / "source" / "a" / "ct.nii.gz")
    blurred = np.zeros(SHAPE, np.uint8)
    blurred[2:8, 2:10, 1:5] = np.arange(1, 1 + 6 * 8 * 4).reshape(6, 8, 4)
    write(tmp_path / "source" / "a" / "segmentations" / "lung.nii.gz", blurred)
    with pytest.raises(AutosegError, match=r"lung\.nii\.gz holds 193 values, 192 of them along edges only: blurred"):
        bring(tmp_path)


def write_segments(path: Path, segments: dict[str, tuple[int, int]], layers: np.ndarray, start=(0, 0, 0)) -> None:
    """Writes a file as 3D Slicer does: layers (n, x, y, z) that are cut to a box, and notes about the segments."""
    first = AFFINE @ [*start, 1]
    n, x, y, z = layers.shape
    lines = ["NRRD0004", "# Complete NRRD file format specification at:", "type: unsigned char"]
    lines += ["dimension: 3" if n == 1 else "dimension: 4", "space: left-posterior-superior"]
    lines += [f"sizes: {x} {y} {z}" if n == 1 else f"sizes: {n} {x} {y} {z}"]
    lines += [f"space directions: {'' if n == 1 else 'none '}(1,0,0) (0,1,0) (0,0,2.5)"]
    lines += ["kinds: " + ("" if n == 1 else "list ") + "domain domain domain", "endian: little", "encoding: raw"]
    lines += [f"space origin: ({-first[0]},{-first[1]},{first[2]})"]
    for number, (name, (layer, value)) in enumerate(segments.items()):
        lines += [f"Segment{number}_ID:=Segment_{number}", f"Segment{number}_Name:={name}"]
        lines += [f"Segment{number}_Layer:={layer}", f"Segment{number}_LabelValue:={value}"]
    lines += [f"Segmentation_ReferenceImageExtentOffset:={' '.join(map(str, start))}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + layers.astype(np.uint8).tobytes(order="F"))


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut to what was drawn"])
def test_segments_of_slicer_are_structures(tmp_path: Path, cut: bool) -> None:
    """Layers that overlap, the same value in both; and in another case one layer, and another order of values."""
    box_of_all = (slice(1, 9), slice(2, 9), slice(1, 5)) if cut else (slice(None),) * 3
    start = (1, 2, 1) if cut else (0, 0, 0)
    layers = np.stack([1 * LEFT + 2 * RIGHT, 1 * BOTH])[(slice(None), *box_of_all)]
    masks = tmp_path / "source" / "masks"
    segments = {"left lung": (0, 1), "right lung": (0, 2), "heart": (1, 1)}
    write_segments(masks / "a.seg.nrrd", segments, layers, start)
    write_segments(masks / "b.seg.nrrd", {"right lung": (0, 1), "left lung": (0, 7)}, (1 * RIGHT + 7 * LEFT)[None])
    for name in "ab":
        write_scan(tmp_path / "source" / "images" / f"{name}.nii.gz")
    dataset, listener = bring(tmp_path)
    assert check_dataset(dataset).problems == ()
    structures = dataset.info.targets.structures
    assert list(structures) == ["heart", "left lung", "right lung"]
    expected = {"heart": BOTH, "left lung": LEFT, "right lung": RIGHT}
    for name, present in (("a", expected), ("b", {**expected, "heart": np.zeros(SHAPE, bool)})):
        label = label_of(dataset, name)
        assert np.allclose(nibabel.load(dataset.folder / "labelsTr" / f"{name}.nii.gz").affine, AFFINE)
        for structure, numbers in structures.items():
            assert np.array_equal(np.isin(label, numbers), present[structure])
    assert dataset.info.annotated == {"b": ("left lung", "right lung")}
    assert "1 of 2 cases lack masks of some structures, which count as not annotated there" in listener.text


def test_layers_of_segments_are_no_label_map(tmp_path: Path) -> None:
    """Where one is needed, it is said what to do; one layer is a label map of its values."""
    write_segments(tmp_path / "a.seg.nrrd", {"a": (0, 1), "b": (1, 1)}, np.stack([1 * LEFT, 1 * BOTH]))
    with pytest.raises(
        AutosegError, match=r"one channel, not 2; let 'autoseg import' read its segments, which overlap"
    ):
        read_label_map(tmp_path / "a.seg.nrrd")
    write_segments(tmp_path / "b.seg.nrrd", {"a": (0, 1)}, np.stack([1 * LEFT]))
    assert np.array_equal(read_label_map(tmp_path / "b.seg.nrrd").array.T, LEFT)


def test_an_axis_of_length_one_is_none(tmp_path: Path) -> None:
    """Of images and of masks."""
    for name in "ab":
        write(tmp_path / "source" / "images" / f"{name}.nii.gz", np.random.default_rng(0).normal(size=(*SHAPE, 1)))
        write(tmp_path / "source" / "masks" / f"{name}.nii.gz", LEFT[..., None].astype(np.uint8))
    dataset, _ = bring(tmp_path)
    assert check_dataset(dataset).problems == ()
    assert np.array_equal(read_label_map(dataset.cases[0].label).array.T, LEFT)


def test_numbers_with_gaps_in_a_description(tmp_path: Path) -> None:
    """As FreeSurfer's table has them."""
    for name in "ab":
        write_scan(tmp_path / "source" / "imagesTr" / f"{name}.nii.gz")
        write(tmp_path / "source" / "labelsTr" / f"{name}.nii.gz", (277 * LEFT + 614 * RIGHT).astype(np.int16))
    content = {"modality": {"0": "MR"}, "labels": {"0": "background", "277": "left", "614": "right"}}
    (tmp_path / "source" / "dataset.json").write_text(json.dumps(content))
    dataset, _ = bring(tmp_path)
    assert dict(dataset.info.labels) == {"background": 0, "left": 1, "right": 2}
    assert np.array_equal(label_of(dataset, "a"), 1 * LEFT + 2 * RIGHT)


def test_scale_factors_and_shares(tmp_path: Path) -> None:
    """Rounding of a factor of 32 bit is none; a channel for each label, the background among them, is a label map."""
    scaled = nibabel.Nifti1Image((LEFT * 255).astype(np.uint8), AFFINE)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    with (tmp_path / "scaled.nii").open("r+b") as file:
        file.seek(112)
        file.write(np.float32(3 / 255).tobytes())
    assert np.array_equal(read_label_map(tmp_path / "scaled.nii").array.T, 3 * LEFT)
    shares = np.stack([~(LEFT | RIGHT), LEFT, RIGHT], axis=-1).astype(np.uint8)
    write(tmp_path / "source" / "masks" / "a.nii.gz", shares)
    write_scan(tmp_path / "source" / "images" / "a.nii.gz")
    dataset, _ = bring(tmp_path)
    assert np.array_equal(label_of(dataset, "a"), 1 * LEFT + 2 * RIGHT)
    shares[0, 0, 0] = 0
    write(tmp_path / "b.nii.gz", shares)
    with pytest.raises(AutosegError, match="a label map has one channel, not 3"):
        read_label_map(tmp_path / "b.nii.gz")
