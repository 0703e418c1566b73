"""Datasets whose files stay where they are."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from import_sources import circle, colours, files, write_decathlon, write_pair
from phantoms import Listener, blocks, noise, place, write_dataset, write_json, write_picture

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset
from autoseg.errors import UsageError
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.pipeline.raw_datasets import check_files
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
    assert check_dataset(dataset).problems == ()


def test_decathlon_and_two_folders_are_listed(tmp_path: Path) -> None:
    """Test scans are named, and stay behind."""
    write_decathlon(tmp_path / "Task01")
    dataset, listener = run(tmp_path / "Task01", tmp_path / "one")
    assert "2 training cases, 1 test scans, which stay where they are" in listener.text
    assert check_dataset(dataset).problems == ()
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    dataset, _ = run((tmp_path / "images", tmp_path / "labels"), tmp_path / "two")
    assert [case.images[0] for case in dataset.cases] == [tmp_path / "images" / f"{name}.nii.gz" for name in "ab"]
    assert check_dataset(dataset).problems == ()


def test_types_of_files_may_differ(tmp_path: Path) -> None:
    """What is read in place need not be of one type; a colour picture holds all channels."""
    for number in (1, 2):
        write_picture(tmp_path / "source" / "images" / f"eye_{number}.jpg", colours(number))
        write_picture(tmp_path / "source" / "masks" / f"eye_{number}.png", circle((0, 1)))
    dataset, _ = run(tmp_path / "source", tmp_path)
    assert [(case.images[0].suffix, dataset.info.channels) for case in dataset.cases] == [(".jpg", 3)] * 2
    assert check_dataset(dataset).problems == ()


def test_channels_of_one_file_are_split_and_all_else_is_linked(tmp_path: Path) -> None:
    """Also beside cases whose channels are files; the channels are those of a copy, and no label map is written."""
    write_decathlon(tmp_path / "source", channels=3)
    dataset, listener = run(tmp_path / "source", tmp_path)
    said = "Written into the dataset, not linked: 2 images, because channels lie along a fourth axis: brain_1, brain_2"
    assert said in listener.text
    assert "which stay where they are" in listener.text
    assert "as all files do" not in listener.text
    copy, _ = run(tmp_path / "source", tmp_path / "copy", link=False)
    names = [f"imagesTr/brain_{case}_{channel:04d}.nii.gz" for case in (1, 2) for channel in range(3)]
    assert files(dataset.folder) == ["dataset.json", *names]
    for case, copied in zip(dataset.cases, copy.cases, strict=True):
        assert case.label is not None
        assert case.label.parent == tmp_path / "source" / "labelsTr"
        assert np.array_equal(read_image(case.images).array, read_image(copied.images).array)
    assert (check_dataset(dataset).problems, dataset.remarks) == ((), ())
    moved = dataset.folder.rename(tmp_path / "Dataset008_Moved")
    assert check_dataset(Dataset.open(moved)).problems == ()


@pytest.mark.parametrize("kind", ["mask values", "structures", "points in time"])
def test_only_what_must_be_converted_is_written(tmp_path: Path, kind: str) -> None:
    """With the reason: label maps, and images of several points in time; the images of the others stay."""
    source = tmp_path / "source"
    if kind == "mask values":
        write_pair(source, "a", values=(0, 255))
        write_pair(source, "b", values=(0, 255))
        said, written = (
            "2 label maps, because the mask values 0, 255 become 0 to 1: a, b",
            ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"],
        )
    elif kind == "structures":
        for name in ("s1", "s2"):
            write_image(source / name / "ct.nii.gz", place(noise(0)[np.newaxis]))
            write_label_map(source / name / "segmentations" / "liver.nii.gz", place(blocks((0, 1))))
        said, written = (
            "2 label maps, because masks of single structures are joined",
            ["labelsTr/s1.nii.gz", "labelsTr/s2.nii.gz"],
        )
    else:
        write_pair(source, "b")
        image, mask = (sitk.ReadImage(str(source / folder / "b.nii.gz")) for folder in ("images", "labels"))
        sitk.WriteImage(sitk.JoinSeries([image, image]), str(source / "images" / "a.nii.gz"))
        sitk.WriteImage(sitk.JoinSeries([mask, mask]), str(source / "labels" / "a.nii.gz"))
        said = "2 images, because points in time are split: a_t00, a_t01"
        written = [
            f"{folder}/a_t0{point}{end}"
            for folder, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz"))
            for point in (0, 1)
        ]
    dataset, listener = run(source, tmp_path)
    assert f"Written into the dataset, not linked: {said}" in listener.text
    assert files(dataset.folder) == ["dataset.json", *written]
    assert check_dataset(dataset).problems == ()
    copy, _ = run(source, tmp_path / "copy", link=False)
    for case, copied in zip(dataset.cases, copy.cases, strict=True):
        assert case.label is not None
        assert copied.label is not None
        assert np.array_equal(read_label_map(case.label).array, read_label_map(copied.label).array)


def test_a_source_is_linked_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the source that have the names of written ones are not taken for them."""
    write_dataset(tmp_path / "source")
    monkeypatch.chdir(tmp_path / "source")
    dataset, _ = run(Path(), tmp_path)
    assert dataset.cases[0].images[0].parent == tmp_path / "source" / "imagesTr"


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
    assert check_dataset(dataset).problems == ()


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


def test_files_are_checked_before_their_import(tmp_path: Path) -> None:
    """In the folders that `import` takes; nothing is kept, and problems and remarks are those of the dataset."""
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "source", name, values=(0, 255))
    listener = Listener()
    assert check_files(tmp_path / "source", reporter=listener) == []
    source = tmp_path / "source"
    assert (
        f"{source}: an import would bring 3 training cases and 0 test scans; this check keeps nothing" in listener.lines
    )
    assert "Mask values are renumbered: 0 becomes 0, 255 becomes 1" in listener.lines
    assert listener.lines[-1] == f"{source}: 3 cases, all sound"
    assert not any("Dataset" in line or "written" in line.lower() for line in listener.lines)
    write_label_map(tmp_path / "source" / "labels" / "b.nii.gz", place(blocks((0, 255)), spacing_mm=(2.5, 1.0, 1.0)))
    [problem] = check_files(tmp_path / "source" / "images", labels=tmp_path / "source" / "labels")
    assert (problem.case, "lie on different grids" in problem.what) == ("b", True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
