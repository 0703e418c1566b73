"""A folder per case, with a mask per structure."""

from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset
from autoseg.errors import DatasetError, ProblemsError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.workspace import Workspace

SHAPE = (4, 6, 8)
GRID = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))


def box(*slices: slice) -> np.ndarray:
    """A mask that is a box."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[slices] = 1
    return mask


RIBS, LUNG, TUBE = box(slice(0, 3)), box(slice(2, 4)), box(slice(2, 3), slice(0, 2), slice(0, 2))


def write_case(folder: Path, image: str = "ct.nii.gz", masks: str = "segmentations", **structures: np.ndarray) -> None:
    """Writes an image of noise, and masks."""
    noise = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    write_image(folder / image, Volume(array=noise, geometry=GRID))
    for name, mask in structures.items():
        write_label_map(folder / masks / f"{name}.nii.gz", Volume(array=mask, geometry=GRID))


def bring(tmp_path: Path) -> tuple[Dataset, str]:
    """Imports the cases; returns the dataset and what was said."""
    listener = Listener()
    workspace = Workspace(root=tmp_path / "workspace")
    return import_source(tmp_path / "source", workspace=workspace, number=3, reporter=listener), listener.text


def labels_of(dataset: Dataset, name: str) -> np.ndarray:
    """The label map of a case."""
    return read_label_map(dataset.folder / "labelsTr" / f"{name}.nii.gz").array


def test_masks_that_overlap_become_combinations(tmp_path: Path) -> None:
    """Each structure is the region of all numbers that it is in; the pictures of previews are left alone."""
    source = tmp_path / "source"
    write_case(source / "s1", ribs=RIBS, lung=LUNG, tube=TUBE)
    write_case(source / "s2", ribs=RIBS * 255, lung=0 * LUNG, tube=0 * TUBE)
    (source / "s1" / "segmentations" / "preview.png").write_bytes(b"not read")
    (source / "meta.csv").write_text("image_id;age")
    dataset, said = bring(tmp_path)
    assert "3 structures, of which some overlap: each is segmented as a mask of its own" in said
    assert dataset.info.channel_names == {"0": "CT"}
    assert dataset.info.masks
    assert dataset.info.annotated is None
    targets = dataset.info.targets
    assert targets.as_masks
    assert list(targets.structures) == ["lung", "ribs", "tube"]
    label = labels_of(dataset, "s1")
    for name, mask in {"ribs": RIBS, "lung": LUNG, "tube": TUBE}.items():
        np.testing.assert_array_equal(np.isin(label, targets.structures[name]), mask == 1)
    np.testing.assert_array_equal(labels_of(dataset, "s2") > 0, RIBS == 1)
    assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 5}


def test_masks_that_do_not_overlap_are_labels(tmp_path: Path) -> None:
    """They exclude each other, so the network need not learn them apart; the image of an MR says so."""
    write_case(tmp_path / "source" / "s1", image="mri.nii.gz", left=box(slice(0, 1)), right=box(slice(3, 4)))
    write_case(tmp_path / "source" / "s2", image="mri.nii.gz", left=box(slice(0, 2)), right=box(slice(3, 4)))
    dataset, said = bring(tmp_path)
    assert "2 structures, of which none overlap: they are labels that exclude each other" in said
    assert "counts as MR" in said
    assert dict(dataset.info.labels) == {"background": 0, "left": 1, "right": 2}
    assert not dataset.info.masks
    np.testing.assert_array_equal(np.unique(labels_of(dataset, "s1")), [0, 1, 2])


def test_a_missing_mask_was_not_looked_for(tmp_path: Path) -> None:
    """The case lists what was; a structure that no case holds is left out."""
    write_case(tmp_path / "source" / "s1", ribs=RIBS, lung=LUNG, ghost=0 * LUNG)
    write_case(tmp_path / "source" / "s2", ribs=RIBS)
    dataset, _ = bring(tmp_path)
    assert dataset.info.targets.names == ("lung", "ribs")
    assert dataset.info.annotated == {"s2": ("ribs",)}
    assert dataset.info.unannotated_in("s2") == ("lung",)
    assert dataset.info.unannotated_in("s1") == ()


def test_several_channels_are_kept(tmp_path: Path) -> None:
    """Numbered as in datasets of nnU-Net."""
    for name in ("s1", "s2"):
        for channel in range(2):
            write_case(tmp_path / "source" / name, image=f"scan_{channel:04d}.nii.gz", a=RIBS)
    dataset, _ = bring(tmp_path)
    assert dataset.info.channels == 2
    assert len(dataset.cases[0].images) == 2


def test_what_cannot_be_read_as_such_is_said(tmp_path: Path) -> None:
    """In one line each; and nothing is left behind."""
    source = tmp_path / "source"
    write_case(source / "s1", ribs=0 * RIBS)
    with pytest.raises(DatasetError, match=r"the masks in .*source are all empty"):
        bring(tmp_path)
    write_case(source / "s1", image="pet.nii.gz", ribs=RIBS)
    with pytest.raises(DatasetError, match=r"s1 must hold one image, not these: ct\.nii\.gz, pet\.nii\.gz"):
        bring(tmp_path)
    (source / "s1" / "pet.nii.gz").unlink()
    other = Volume(array=RIBS, geometry=Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 3.0)))
    write_label_map(source / "s1" / "segmentations" / "other.nii.gz", other)
    with pytest.raises(ProblemsError, match=r"the masks in .*segmentations lie on different grids: spacing"):
        bring(tmp_path)
    with pytest.raises(UsageError, match="nor folders of cases"):
        import_source(tmp_path, workspace=Workspace(root=tmp_path / "w"), number=1)
    assert not (tmp_path / "workspace").exists() or not list((tmp_path / "workspace").rglob("*.nii.gz"))


def test_structures_that_differ_in_capitals_are_one(tmp_path: Path) -> None:
    """By the more usual name, and it is said."""
    for number, name in enumerate(("liver", "Liver", "liver")):
        write_case(tmp_path / "source" / f"s{number}", **{name: RIBS})
    dataset, said = bring(tmp_path)
    assert "masks 'Liver' and 'liver' differ only in capital letters: they are one structure, 'liver'" in said
    assert dataset.info.targets.names == ("liver",)
    assert dataset.info.annotated is None
    for number in range(3):
        assert np.array_equal(labels_of(dataset, f"s{number}"), RIBS)


def test_structures_of_one_case_are_two(tmp_path: Path) -> None:
    """Whoever drew both meant two."""
    write_case(tmp_path / "source" / "s1", Liver=RIBS, liver=LUNG)
    write_case(tmp_path / "source" / "s2", Liver=RIBS, liver=0 * LUNG)
    dataset, said = bring(tmp_path)
    assert "a case has both: they are two structures" in said
    assert dataset.info.targets.names == ("Liver", "liver")
    problems = [str(problem) for problem in check_dataset(dataset).problems]
    assert "the masks of 'Liver' and of 'liver' would have the same file; rename one in dataset.json" in problems
