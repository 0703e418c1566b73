"""Corrected label maps become a revision: placed on their image, recorded, and listed where dataset.json lists them."""

import json

import numpy as np
import pytest
from phantoms import Listener, write_json
from tiny_workspaces import boxes, write_volumes

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.revisions import digest_file, list_revisions, revision_folder
from autoseg.datasets.scans import find_scans
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_label_map
from autoseg.importing.corrections import (
    Corrections,
    find_corrected,
    finish_revisions,
    read_corrections,
    write_revision,
)

SHAPE = (14, 16, 18)


@pytest.fixture
def raw(tmp_path):
    """Returns the folder of a raw dataset of three cases, and a fourth scan in imagesTs."""
    return write_volumes(tmp_path / "work", channels=2).raw


def correct(raw, folder, *, machine=None):
    """Returns what a folder of corrected label maps becomes: what was read, and the revision, and what was said."""
    dataset, listener = Dataset.open(raw), Listener()
    corrections = Corrections(
        label_maps=find_corrected(folder, dataset),
        scans={case.name: case for case in find_scans(raw / "imagesTs", dataset.info)},
        machine={} if machine is None else find_corrected(machine, dataset),
        models={"case_4": "0123456789abcdef"},
    )

    def measure(label, reference, _):
        return {"bright": float((label == reference).mean())}

    read = read_corrections(corrections, dataset, measure, listener)
    return read, write_revision(read, corrections, dataset) if read else None, listener.text


def grid_of(raw, name):
    """Returns the grid of a scan."""
    [path] = raw.glob(f"images*/{name}_0000.nii.gz")
    return read_image((path,)).geometry


def write_mask(path, array, geometry):
    """Writes a label map."""
    write_label_map(path, Volume(array=array, geometry=geometry))


def test_masks_of_a_part_of_another_type_are_laid_on_the_scan(raw, tmp_path):
    """3D Slicer saves NRRD files that are cut to what was drawn."""
    grid = grid_of(raw, "case_4")
    z, y, x = 3, 2, 4
    steps = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)
    origin = tuple(np.asarray(grid.origin_mm) + steps @ np.array([z, y, x]))
    cut = Geometry(shape=(5, 6, 7), spacing_mm=grid.spacing_mm, origin_mm=origin, direction=grid.direction)
    array = np.ones(cut.shape, np.uint8)
    write_mask(tmp_path / "corrected" / "case_4.nrrd", array, cut)
    machine = tmp_path / "machine"
    write_mask(machine / "case_4.nii.gz", np.zeros(SHAPE, np.uint8), grid)
    _, revision, _ = correct(raw, tmp_path / "corrected", machine=machine)
    written = read_label_map(raw / "labelsTr" / "case_4.nii.gz")
    assert written.geometry.difference(grid) is None
    assert written.array.sum() == array.sum() == revision.cases["case_4"].changed_voxels
    assert (written.array[z : z + 5, y : y + 6, x : x + 7] == 1).all()
    assert revision.cases["case_4"].machine_model == "0123456789abcdef"
    assert [case.name for case in Dataset.open(raw).cases][-1] == "case_4"
    assert sorted(path.name for path in (raw / "imagesTr").glob("case_4*")) == [
        "case_4_0000.nii.gz",
        "case_4_0001.nii.gz",
    ]


def test_second_revision_keeps_the_first(raw, tmp_path):
    """What was corrected twice is there three times; the same mask again is no revision."""
    grid, folder = grid_of(raw, "case_1"), tmp_path / "corrected"
    original = digest_file(raw / "labelsTr" / "case_1.nii.gz")
    for value in (1, 2):
        write_mask(folder / "case_1.nii.gz", np.full(SHAPE, value, np.uint8), grid)
        correct(raw, folder)
    first, second = list_revisions(raw)
    assert (first.number, second.number) == (1, 2)
    assert first.cases["case_1"].before == original
    assert second.cases["case_1"].before == first.cases["case_1"].after
    assert digest_file(raw / "labelsTr" / "case_1.nii.gz") == second.cases["case_1"].after
    read, revision, said = correct(raw, folder)
    assert (read, revision) == ([], None)
    assert "the dataset has these label maps already: case_1" in said


def test_listed_files_stay_where_they_are(raw, tmp_path):
    """dataset.json lists the corrected label map in labelsTr instead, and its number of cases; it is kept as it was."""
    elsewhere = tmp_path / "elsewhere"
    (raw / "labelsTr").rename(elsewhere)
    info = json.loads((raw / "dataset.json").read_text())
    names = ("case_1", "case_2", "case_3")
    listed = {
        name: {
            "images": [f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in (0, 1)],
            "label": str(elsewhere / f"{name}.nii.gz"),
        }
        for name in names
    }
    write_json(raw / "dataset.json", {**info, "numTraining": 3, "dataset": listed})
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    folder = tmp_path / "corrected"
    for name in ("case_1", "case_4"):
        write_mask(folder / f"{name}.nii.gz", boxes(SHAPE, shift=2), grid_of(raw, name))
    correct(raw, folder)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before
    content = json.loads((raw / "dataset.json").read_text())
    assert content["numTraining"] == 4
    assert content["dataset"]["case_1"]["label"] == "labelsTr/case_1.nii.gz"
    assert content["dataset"]["case_2"] == listed["case_2"]
    assert content["dataset"]["case_4"]["images"] == ["imagesTr/case_4_0000.nii.gz", "imagesTr/case_4_0001.nii.gz"]
    dataset = Dataset.open(raw)
    assert (len(dataset.cases), dataset.remarks, dataset.problems) == (4, (), ())
    assert json.loads((revision_folder(raw, 1) / "dataset.json").read_text())["numTraining"] == 3
    listener = Listener()
    revision = list_revisions(raw)[0].model_copy(update={"applied": False})
    revision.save(revision_folder(raw, 1) / "revision.json")
    assert finish_revisions(raw, ".nii.gz", listener)[0].applied
    assert "revision 1 was begun by an earlier run, and is finished now" in listener.text
    assert json.loads((raw / "dataset.json").read_text()) == content


def test_bad_masks_have_a_line_each(raw, tmp_path):
    """Nothing is written; masks of structures are refused as a whole."""
    folder, grid = tmp_path / "corrected", grid_of(raw, "case_1")
    write_mask(folder / "case_1.nii.gz", np.full(SHAPE, 7, np.uint8), grid)
    write_mask(folder / "case_2.nii.gz", np.ones(SHAPE, np.uint8), grid)
    write_mask(folder / "other.nii.gz", np.ones(SHAPE, np.uint8), grid)
    with pytest.raises(ProblemsError) as refused:
        correct(raw, folder)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert "other.nii.gz has no scan; give the folder of the scans with --scans" in lines[0]
    assert any("case_2.nii.gz: image and label map lie on different grids" in line for line in lines)
    assert not (raw / "revisions").exists()
    info = Dataset.open(raw).info.model_copy(update={"masks": True})
    with pytest.raises(DatasetError, match="has a mask for each structure, and corrections are label maps"):
        find_corrected(folder, Dataset(folder=raw, info=info, cases=()))
