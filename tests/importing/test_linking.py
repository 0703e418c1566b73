"""Datasets whose files stay where they are."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from import_sources import circle, colours, files, write_decathlon, write_pair
from phantoms import Listener, blocks, noise, place, write_dataset, write_json, write_picture

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset
from autoseg.errors import UsageError
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.workspace import Workspace


def run(source: Path | tuple[Path, Path], root: Path, *, link: bool = True) -> tuple[Dataset, Listener]:
    """Imports as dataset 7, and makes sure that the source is as it was."""
    folders = source if isinstance(source, tuple) else (source,)
    before = [{path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in folders]
    listener = Listener()
    workspace = Workspace(root=root / "ws")
    try:
        dataset = import_source(source, workspace=workspace, number=7, name="X", link=link, reporter=listener)
    finally:
        assert before == [{path: path.read_bytes() for path in one.rglob("*") if path.is_file()} for one in folders]
    return dataset, listener


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".gipl", ".tif"])
def test_raw_folder_of_nnunet_is_listed(tmp_path: Path, ending: str) -> None:
    """The new folder holds nothing but dataset.json, from which all files are found and sound, wherever one stands."""
    source = tmp_path / "theirs" / "Dataset004_Y"
    write_dataset(source, channels=2, ending=ending)
    dataset, _ = run(Path(os.path.relpath(source)), tmp_path)
    assert files(dataset.folder) == ["dataset.json"]
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert (content["numTraining"], content["file_ending"]) == (3, ending)
    assert content["dataset"]["case_2"] == {
        "images": [str(source / "imagesTr" / f"case_2_{channel:04d}{ending}") for channel in (0, 1)],
        "label": str(source / "labelsTr" / f"case_2{ending}"),
    }
    assert check_dataset(dataset) == []


def test_decathlon_and_two_folders_are_listed(tmp_path: Path) -> None:
    """Test scans are named, and stay behind."""
    write_decathlon(tmp_path / "Task01")
    dataset, listener = run(tmp_path / "Task01", tmp_path / "one")
    assert "2 training cases, 1 test scans, which stay where they are" in listener.text
    assert check_dataset(dataset) == []
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    dataset, _ = run((tmp_path / "images", tmp_path / "labels"), tmp_path / "two")
    assert [case.images[0] for case in dataset.cases] == [tmp_path / "images" / f"{name}.nii.gz" for name in "ab"]
    assert check_dataset(dataset) == []


def test_types_of_files_may_differ(tmp_path: Path) -> None:
    """What is read in place need not be of one type; a colour picture holds all channels."""
    for number in (1, 2):
        write_picture(tmp_path / "source" / "images" / f"eye_{number}.jpg", colours(number))
        write_picture(tmp_path / "source" / "masks" / f"eye_{number}.png", circle((0, 1)))
    dataset, _ = run(tmp_path / "source", tmp_path)
    assert [(case.images[0].suffix, dataset.info.channels) for case in dataset.cases] == [(".jpg", 3)] * 2
    assert check_dataset(dataset) == []


@pytest.mark.parametrize("kind", ["four dimensions", "mask values", "structures"])
def test_what_must_be_converted_is_refused(tmp_path: Path, kind: str) -> None:
    """With the reason, and nothing is made."""
    if kind == "four dimensions":
        write_decathlon(tmp_path / "source", channels=3)
        said = r"brain_1\.nii\.gz holds all channels as a fourth dimension, which must be split"
    elif kind == "mask values":
        write_pair(tmp_path / "source", "a", values=(0, 255))
        said = "the mask values 0, 255 must be numbered 0 to 1"
    else:
        write_image(tmp_path / "source" / "s1" / "ct.nii.gz", place(noise(0)[np.newaxis]))
        write_label_map(tmp_path / "source" / "s1" / "segmentations" / "liver.nii.gz", place(blocks((0, 1))))
        said = "masks of single structures must be joined into label maps"
    with pytest.raises(UsageError, match=rf"cannot stay where they are, because .*{said}; import a copy"):
        run(tmp_path / "source", tmp_path)
    assert not (tmp_path / "ws").exists()


def test_paths_that_name_variables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net, and this program, would put a value in the place of the name."""
    monkeypatch.setenv("LAB", "elsewhere")
    write_dataset(tmp_path / "$LAB")
    with pytest.raises(UsageError, match="holds the name of an environment variable; rename"):
        run(tmp_path / "$LAB", tmp_path)


@pytest.mark.parametrize("link", [False, True])
def test_listed_datasets_are_sources_too(tmp_path: Path, link: bool) -> None:
    """Their files are copied under the names of their cases, or listed anew; what is missing is said."""
    source = tmp_path / "Dataset004_Y"
    for name in ("scan 1", "scan 2"):
        write_image(tmp_path / "far" / f"{name}.nii.gz", place(noise(len(name))[np.newaxis]))
        write_label_map(tmp_path / "far" / f"{name} mask.nii.gz", place(blocks((0, 1))))
    listed = {
        f"case_{n}": {"images": [f"../far/scan {n}.nii.gz"], "label": f"../far/scan {n} mask.nii.gz"} for n in (1, 2, 3)
    }
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    write_json(source / "dataset.json", info | {"dataset": listed, "numTraining": 3, "licence": "CC0"})
    dataset, listener = run(source, tmp_path, link=link)
    assert "Left out: cases whose files are missing: case_3" in listener.text
    assert [case.name for case in dataset.cases] == ["case_1", "case_2"]
    assert dataset.remarks == ()
    assert len(files(dataset.folder)) == (1 if link else 5)
    assert json.loads((dataset.folder / "dataset.json").read_text())["licence"] == "CC0"
    assert check_dataset(dataset) == []


@pytest.mark.parametrize("link", [False, True])
def test_folds_come_along(tmp_path: Path, link: bool) -> None:
    """Those of nnU-Net, unless they name a case that does not."""
    write_dataset(tmp_path / "source")
    folds = [{"train": ["case_1", "case_2"], "val": ["case_3"]}]
    write_json(tmp_path / "source" / "splits_final.json", folds)
    dataset, _ = run(tmp_path / "source", tmp_path / "one", link=link)
    assert json.loads((dataset.folder / "splits_final.json").read_text()) == folds
    (tmp_path / "source" / "labelsTr" / "case_2.nii.gz").unlink()
    dataset, listener = run(tmp_path / "source", tmp_path / "two", link=link)
    assert "splits_final.json, which names 'case_2', a case that is not imported" in listener.text
    assert not (dataset.folder / "splits_final.json").exists()
