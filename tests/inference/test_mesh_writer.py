"""Meshes beside the segmentations of a folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from phantoms import place
from tiny_workspaces import NUMBER, folders_of

from autoseg.datasets.dataset import Case
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import write_label_map
from autoseg.imaging.targets import Targets
from autoseg.inference.mesh_writer import choose_meshes
from autoseg.pipeline import predict

TARGETS = Targets.of_labels({"liver": 1, "left kidney": 2, "missing": 3})


def write_segmentation(folder: Path) -> Path:
    """A label map of two of three structures."""
    array = np.zeros((8, 9, 10), np.uint8)
    array[1:4, 2:6, 2:8], array[4:7, 2:6, 2:8] = 1, 2
    write_label_map(folder / "a.nii.gz", place(array, spacing_mm=(2.0, 1.0, 1.0)))
    return folder / "a.nii.gz"


def test_each_kind_has_its_files(tmp_path):
    """STL a folder with a file for each structure that was found, GLB a file; both replace what was there."""
    result, scan = write_segmentation(tmp_path), Case(name="a", images=(Path("a_0000.nii.gz"),))
    writer = choose_meshes(["stl", "glb", "stl"], TARGETS)
    stale = tmp_path / "meshes" / "a" / "missing.stl"
    stale.parent.mkdir(parents=True)
    stale.touch()
    writer.write(scan, result, tmp_path, {})
    assert writer.list_files(scan, {}) == ("meshes/a", "meshes/a.glb")
    assert sorted(path.name for path in (tmp_path / "meshes" / "a").iterdir()) == ["left_kidney.stl", "liver.stl"]
    assert (tmp_path / "meshes" / "a.glb").stat().st_size > 1000
    assert choose_meshes([], TARGETS) is None


def test_what_cannot_be_meshed_is_refused_in_one_line(tmp_path):
    """Kinds that there are not, structures that would share a file, and planes."""
    with pytest.raises(UsageError, match="no meshes of the kind 'obj'; choose from stl, glb"):
        choose_meshes(["stl", "obj"], TARGETS)
    alike = Targets.of_labels({"kidney": 1, "Kidney": 2})
    with pytest.raises(UsageError, match="the meshes of 'kidney' and of 'Kidney' would have the same file"):
        choose_meshes(["stl"], alike)
    assert choose_meshes(["glb"], alike) is not None
    grid = Geometry(shape=(1, 9, 10), spacing_mm=(1.0,) * 3, dimensions=2)
    write_label_map(tmp_path / "p.png", Volume(array=np.ones((1, 9, 10), np.uint8), geometry=grid))
    scan = Case(name="p", images=(Path("p_0000.png"),))
    with pytest.raises(ImageError, match=r"p_0000\.png is a plane, which has no surface; leave out --meshes"):
        choose_meshes(["glb"], TARGETS).write(scan, tmp_path / "p.png", tmp_path, {})


def test_predict_writes_meshes_and_goes_on_with_them(trained_volumes, tmp_path):
    """A run with --continue writes those that are missing, and leaves alone what is complete."""
    scans = folders_of(trained_volumes).raw / "imagesTs"
    where = {"number": NUMBER, "workspace": trained_volumes, "device": "cpu", "configuration": "3d_fullres"}
    written = predict(scans, tmp_path / "masks", **where)
    assert not (tmp_path / "masks" / "meshes").exists()
    again = predict(scans, tmp_path / "masks", meshes=["glb"], resume=True, **where)
    assert again == written
    meshes = tmp_path / "masks" / "meshes"
    assert {path.suffix for path in meshes.iterdir()} == {".glb"}
    assert predict(scans, tmp_path / "masks", meshes="glb", resume=True, **where) == []
    shutil.rmtree(meshes)
    assert predict(scans, tmp_path / "masks", meshes="glb", resume=True, **where) == written
    with pytest.raises(UsageError, match="DICOM objects nor meshes"):
        predict(next(scans.iterdir()), tmp_path / "mask.nii.gz", meshes=["stl"], **where)
