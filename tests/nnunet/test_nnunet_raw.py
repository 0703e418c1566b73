"""Raw datasets of nnU-Net are used in place, from raw folders to preprocessed cases and predictions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from phantoms import Listener, write_json
from tiny_workspaces import NAME, NUMBER, edit_training, files_in, folders_of, write_pictures, write_volumes

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.splits import Splits
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.pipeline.datasets import plan_and_preprocess
from autoseg.pipeline.training import train
from autoseg.preprocessing.store import StoredCase
from autoseg.workspace import DatasetFolders, Workspace

CONFIGURATION = "3d_fullres"
FOLDS = [
    {"train": ["case_1", "case_2"], "val": ["case_3"]},
    {"train": ["case_2", "case_3"], "val": ["case_1"]},
]


def describe(folder: Path, **changes: object) -> None:
    """Changes keys of dataset.json."""
    path = folder / "dataset.json"
    write_json(path, json.loads(path.read_text()) | changes)


def prepare(root: Path, number: int = NUMBER) -> tuple[DatasetFolders, Listener]:
    """Plans and preprocesses all cases for 3D."""
    listener = Listener()
    plan_and_preprocess(number, preset="small", configurations=[CONFIGURATION], workspace=root, reporter=listener)
    return Workspace(root=root).dataset(number), listener


def prepared(folders: DatasetFolders, case: str) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Returns the preprocessed image and label of a case."""
    return StoredCase.open(folders.cases(CONFIGURATION), case).load()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Makes the folder nnUNet_raw with one dataset and its splits."""
    raw = write_volumes(tmp_path / "made").raw
    shutil.copytree(raw, tmp_path / "nnUNet_raw" / NAME)
    describe(tmp_path / "nnUNet_raw" / NAME, numTraining=3, name=NAME, description="x", release="1.0", reference=None)
    write_json(tmp_path / "nnUNet_raw" / NAME / "splits_final.json", FOLDS)
    return tmp_path / "nnUNet_raw"


def test_all_ways_to_a_dataset_lead_to_the_same(theirs: Path, tmp_path: Path) -> None:
    """Linked as raw folder, copied or listed, a dataset has the same facts, splits and cases, and stays unchanged.

    The same holds for a dataset in the first version of the format.
    """
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "raw").symlink_to(theirs, target_is_directory=True)
    found = [prepare(tmp_path / "linked")[0]]
    for link in (False, True):
        workspace = Workspace(root=tmp_path / f"imported_{link}")
        import_source(theirs / NAME, workspace=workspace, number=NUMBER, link=link)
        found.append(prepare(workspace.root)[0])
    assert before == {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}

    content = json.loads((theirs / NAME / "dataset.json").read_text())
    content["modality"], content["labels"] = content.pop("channel_names"), {"0": "bg", "1": "bright", "2": "dark"}
    del content["file_ending"]
    content["training"] = [
        {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in ("case_1", "case_2")
    ]
    write_json(theirs / NAME / "dataset.json", content)
    shutil.rmtree(tmp_path / "linked" / "preprocessed")
    found.append(prepare(tmp_path / "linked")[0])

    for folders in found:
        assert Fingerprint.load(folders.fingerprint) == Fingerprint.load(found[0].fingerprint)
        assert [fold.validation for fold in Splits.load(folders.splits).folds] == [("case_3",), ("case_1",)]
        for one, other in zip(prepared(folders, "case_2"), prepared(found[0], "case_2"), strict=True):
            np.testing.assert_array_equal(one, other)
    assert files_in(found[2].raw) == {"dataset.json", "splits_final.json"}


def test_the_number_of_cases_is_compared(theirs: Path, tmp_path: Path) -> None:
    """Another number is reported, and is no error."""
    describe(theirs / NAME, numTraining=4)
    shutil.move(theirs, tmp_path / "ws" / "raw")
    _, listener = prepare(tmp_path / "ws")
    assert "dataset.json states 4 training cases (numTraining), and 3 are there" in listener.text


def test_volumes_in_tiff_files_have_their_spacing_beside_them(tmp_path: Path) -> None:
    """Cases are stored as nnU-Net expects them; another spacing makes another case."""
    folders = write_volumes(tmp_path, ending=".tif")
    for number in (1, 2, 3):
        for channel_file in (folders.raw / "imagesTr").glob(f"case_{number}_*.json"):
            channel_file.rename(channel_file.with_name(f"case_{number}.json"))
    assert {"imagesTr/case_1.json", "labelsTr/case_1.json"} < files_in(folders.raw)
    prepare(tmp_path)
    before = Fingerprint.load(folders.fingerprint).cases[0].spacing_mm
    for part in ("imagesTr", "labelsTr"):
        write_json(folders.raw / part / "case_1.json", {"spacing": [3 * before[0], *before[1:]]})
    prepare(tmp_path)
    assert Fingerprint.load(folders.fingerprint).cases[0].spacing_mm == (3 * before[0], *before[1:])


def test_pictures_are_used_in_place(tmp_path: Path) -> None:
    """Colours are in one file, whatever its ending; the plan has two dimensions."""
    folders = write_pictures(tmp_path, colours=3)
    listed = {f"eye {n}": {"images": [f"imagesTr/case_{n}.png"], "label": f"labelsTr/case_{n}.png"} for n in (1, 2, 3)}
    describe(folders.raw, dataset=listed, overwrite_image_reader_writer="NaturalImage2DIO")
    plan = plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)
    assert list(plan.configurations) == ["2d"]
    assert [case.name for case in Fingerprint.load(folders.fingerprint).cases] == ["eye 1", "eye 2", "eye 3"]


def store_turned(path: Path, orientation: str) -> None:
    """Stores an image or a label map with other axis directions; no voxel moves in space."""
    if path.parent.name == "labelsTr":
        write_label_map(path, read_label_map(path).reoriented(orientation))
    else:
        write_image(path, read_image((path,)).reoriented(orientation))


def test_the_reader_that_turns_volumes_is_obeyed(tmp_path: Path) -> None:
    """Cases in any orientation are preprocessed alike, and so are new scans, whose masks lie on their own grids."""
    plain, mixed = (write_volumes(tmp_path / name) for name in ("plain", "mixed"))
    for folders in (plain, mixed):
        describe(folders.raw, overwrite_image_reader_writer="NibabelIOWithReorient")
    for case, orientation in (("case_1", "SAR"), ("case_2", "LIP")):
        for path in mixed.raw.glob(f"*/{case}*.nii.gz"):
            store_turned(path, orientation)
    for root in ("plain", "mixed"):
        prepare(tmp_path / root)
    assert {case.orientation for case in Fingerprint.load(mixed.fingerprint).cases} == {"SAR"}
    for case in ("case_1", "case_2", "case_3"):
        for one, other in zip(prepared(plain, case), prepared(mixed, case), strict=True):
            np.testing.assert_array_equal(one, other)

    edit_training(tmp_path / "mixed", epochs=1, steps_per_epoch=2, validation_steps=1)
    train(NUMBER, CONFIGURATION, 0, device="cpu", workspace=tmp_path / "mixed")
    model = folders_of(tmp_path / "mixed").model(CONFIGURATION)
    model.training_statistics.unlink()  # as where nnU-Net took the fingerprint
    segmenter = load_segmenter(model.path, PredictionOptions(device="cpu"))
    scan = read_image((plain.raw / "imagesTs" / "case_4_0000.nii.gz",))
    straight = segmenter.segment(scan)
    turned = segmenter.segment(Volume(array=scan.array, geometry=scan.geometry).reoriented("RSP"))
    assert turned.geometry.orientation == "RSP"
    np.testing.assert_array_equal(straight.array, turned.reoriented("SPL").array)
