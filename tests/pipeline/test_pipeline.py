"""The whole way, from raw scans to masks and their scores, for every kind of image."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Listener
from tiny_workspaces import (
    LABELS,
    NUMBER,
    boxes,
    dice,
    edit_training,
    files_in,
    folders_of,
    plan_tiny,
    tilted,
    write_pictures,
    write_splits,
    write_volumes,
)

from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.postprocessing import PostprocessingRules, largest_component
from autoseg.pipeline.datasets import plan_and_preprocess, preprocess
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import evaluate
from autoseg.pipeline.training import train
from autoseg.planning.plan import Plan
from autoseg.preprocessing.store import StoredCase
from autoseg.workspace import DatasetFolders

OBLIQUE = {"shape": (26, 30, 8), "spacing_mm": (1.0, 0.8, 4.0), "direction": tilted(20, -15, 30), "channels": 2}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of dataset, and what must come of it."""

    write: Callable[[Path], DatasetFolders]
    configuration: str
    axis_order: tuple[int, int, int]
    ending: str


KINDS = {
    "isotropic": Kind(write=write_volumes, configuration="3d_fullres", axis_order=(0, 1, 2), ending=".nii.gz"),
    "oblique": Kind(
        write=lambda root: write_volumes(root, **OBLIQUE),
        configuration="3d_fullres",
        axis_order=(2, 0, 1),
        ending=".nii.gz",
    ),
    "planes of volumes": Kind(
        write=lambda root: write_volumes(root, **OBLIQUE), configuration="2d", axis_order=(2, 0, 1), ending=".nii.gz"
    ),
    "nrrd": Kind(
        write=lambda root: write_volumes(root, shape=(18, 12, 16), spacing_mm=(1.0, 1.5, 1.0), ending=".nrrd"),
        configuration="3d_fullres",
        axis_order=(1, 0, 2),
        ending=".nrrd",
    ),
    "colour": Kind(
        write=lambda root: write_pictures(root, colours=3), configuration="2d", axis_order=(0, 1, 2), ending=".png"
    ),
    "grey": Kind(
        write=lambda root: write_pictures(root, colours=1), configuration="2d", axis_order=(0, 1, 2), ending=".png"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Journey:
    """A workspace that went all the way, and what was said on it."""

    kind: Kind
    root: Path
    plan: Plan
    listener: Listener
    summary: Summary
    written: list[Path]

    @property
    def folders(self) -> DatasetFolders:
        """The dataset's places."""
        return folders_of(self.root)

    @property
    def scan(self) -> Path:
        """The first channel of the new scan."""
        return next(iter(sorted((self.folders.raw / "imagesTs").iterdir())))


USUAL = ("oblique", "colour")
"""What is tried every time; the other kinds take minutes together."""


@pytest.fixture(
    scope="module", params=[name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """Plans, preprocesses, trains fold 0, and segments the new scan."""
    kind, root, listener = KINDS[request.param], tmp_path_factory.mktemp("journey"), Listener()
    folders = kind.write(root)
    plan = plan_tiny(root, steps_per_epoch=12)
    where = {"device": "cpu", "workspace": root, "reporter": listener}
    summary = train(NUMBER, kind.configuration, [0], **where)
    written = predict(
        folders.raw / "imagesTs", root / "masks", number=NUMBER, probabilities=("background", "all"), **where
    )
    return Journey(kind=kind, root=root, plan=plan, listener=listener, summary=summary, written=written)


def test_axes_are_ordered_by_spacing(journey):
    """The thickest axis comes first, wherever it is in the file."""
    assert journey.plan.axis_order == journey.kind.axis_order
    assert journey.kind.configuration in journey.plan.configurations


def test_model_folder_holds_what_is_promised(journey):
    """Checkpoint, curves, scores, rules, and of the held-out case mask, scores and pictures; nothing is left over."""
    [held_out] = Splits.load(journey.folders.splits).fold(0).validation
    assert files_in(journey.folders.results) == {
        f"{journey.kind.configuration}/{path}"
        for path in (
            "postprocessing.json",
            "training_statistics.json",
            "calibration.json",
            "summary.json",
            "summary.csv",
            "fold_0/checkpoint.pt",
            "fold_0/progress.csv",
            "fold_0/progress.jsonl",
            "fold_0/progress.png",
            "fold_0/validation/" + held_out + journey.kind.ending,
            "fold_0/validation/summary.json",
            "fold_0/validation/summary.csv",
            "fold_0/validation/overlay_worst.png",
            "fold_0/validation/overlay_median.png",
            f"fold_0/validation/calibration_voxels/{held_out}.npz",
        )
    }


def test_curves_have_a_row_per_epoch(journey):
    """progress.csv is a table with a heading."""
    path = journey.folders.model(journey.kind.configuration).progress(0, "csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2
    assert float(rows[1]["training_loss"]) < float(rows[0]["training_loss"])


def test_network_learned(journey):
    """Bright and dark boxes of a held-out case are found, and the summary on disk is the one returned."""
    assert journey.summary.foreground_mean.dice > 0.7
    path = journey.folders.model(journey.kind.configuration).path / "summary.json"
    assert Summary.load(path) == journey.summary


def test_segmentation_lies_where_its_scan_lies(journey):
    """Name, file type, shape, spacing, origin and direction are those of the scan."""
    assert [path.name for path in journey.written] == ["case_4" + journey.kind.ending]
    scan, mask = sitk.ReadImage(str(journey.scan)), sitk.ReadImage(str(journey.written[0]))
    assert mask.GetSize() == scan.GetSize()
    assert mask.GetSpacing() == pytest.approx(scan.GetSpacing())
    assert mask.GetOrigin() == pytest.approx(scan.GetOrigin())
    assert mask.GetDirection() == pytest.approx(scan.GetDirection(), abs=1e-6)
    assert mask.GetPixelID() == sitk.sitkUInt8


def test_segmentation_finds_the_boxes_in_the_file(journey):
    """Voxel by voxel of the file, as another program would open it: axes went there and back."""
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(journey.written[0])))
    shape = mask.shape if mask.ndim == 3 else (8, *mask.shape)
    ground_truth = boxes(shape, shift=4 if mask.ndim == 2 else 0)
    ground_truth = ground_truth if mask.ndim == 3 else ground_truth.max(axis=0)
    for label in (1, 2):
        assert dice(mask, ground_truth, label) > 0.7


def test_probabilities_lie_where_their_scan_lies(journey):
    """8-bit images of the scan's file type and grid, of which the largest is the label that was segmented."""
    folder = journey.root / "masks" / "probabilities"
    names = [f"case_4_{label}{journey.kind.ending}" for label in LABELS]
    assert files_in(folder) == set(names)
    maps = [sitk.ReadImage(str(folder / name)) for name in names]
    mask = sitk.ReadImage(str(journey.written[0]))
    for one in maps:
        assert one.GetPixelID() == sitk.sitkUInt8
        assert one.GetSize() == mask.GetSize()
        assert one.GetSpacing() == pytest.approx(mask.GetSpacing())
        assert one.GetOrigin() == pytest.approx(mask.GetOrigin())
        assert one.GetDirection() == pytest.approx(mask.GetDirection(), abs=1e-6)
    arrays = np.stack([sitk.GetArrayFromImage(one).astype(int) for one in maps])
    assert np.abs(arrays.sum(axis=0) - 255).max() <= 1  # three numbers, each rounded
    segmented = sitk.GetArrayFromImage(mask)
    kept = segmented > 0  # rules may have made others background
    chosen = np.take_along_axis(arrays, segmented[np.newaxis].astype(int), axis=0)[0]
    np.testing.assert_array_equal(chosen[kept], arrays.max(axis=0)[kept])


def test_scores_are_those_of_the_files(journey, tmp_path):
    """`evaluate` on the files of the validation finds what training reported, and writes it beside them."""
    masks = tmp_path / "masks"
    shutil.copytree(journey.folders.model(journey.kind.configuration).validation(0), masks)
    (masks / "summary.json").unlink()
    summary = evaluate(journey.folders.raw / "labelsTr", masks)
    cases = [case.model_copy(update={"agreement": math.nan}) for case in journey.summary.cases]  # masks do not tell it
    assert summary == journey.summary.model_copy(update={"cases": tuple(cases)})
    assert summary == Summary.load(masks / "summary.json")
    assert list(summary.mean) == ["bright", "dark"]


def test_every_task_is_done_to_its_end(journey):
    """No bar stops short of its total, or overshoots it."""
    assert {"training", "validating", "segmenting"} <= journey.listener.totals.keys()
    assert journey.listener.advanced == pytest.approx(journey.listener.totals)


def test_bar_of_several_scans_counts_scans(trained_volumes, tmp_path):
    """Whatever the number of tiles, each scan moves the bar by one."""
    listener = Listener()
    source = folders_of(trained_volumes).raw / "imagesTr"
    predict(source, tmp_path / "out", number=NUMBER, workspace=trained_volumes, device="cpu", reporter=listener)
    assert listener.totals == {"segmenting": 3}
    assert listener.advanced["segmenting"] == pytest.approx(3)


def test_axes_survive_a_trained_network(trained_oblique, tmp_path):
    """A network that knows its scans gives back nearly their labels, on their tilted grid with its thick third axis."""
    folders = folders_of(trained_oblique)
    predict(
        folders.raw / "imagesTr",
        tmp_path / "masks",
        number=NUMBER,
        folds=["all"],
        workspace=trained_oblique,
        device="cpu",
    )
    summary = evaluate(folders.raw / "labelsTr", tmp_path / "masks")
    assert len(summary.cases) == 2
    for case in summary.cases:
        assert min(scores.dice for scores in case.scores.values()) > 0.9


def test_prepared_case_and_its_label_agree(trained_oblique):
    """On the grid that the network sees, the bright voxels are those labelled bright, in both channels."""
    stored = StoredCase.open(folders_of(trained_oblique).cases("3d_fullres"), "case_1")
    spacing_mm = Plan.load(folders_of(trained_oblique).plan).configurations["3d_fullres"].spacing_mm
    extent_mm = (8 * 4.0, 26 * 1.0, 30 * 0.8)
    image, label = stored.load()
    assert label.shape == tuple(round(length / size) for length, size in zip(extent_mm, spacing_mm, strict=True))
    assert label.shape != (8, 26, 30)  # resampled, because the other case is coarser
    for channel, sign in zip(image, (1, -1), strict=True):
        assert (sign * channel[label == 1]).mean() > 1
        assert (sign * channel[label == 2]).mean() < -1


def test_edited_folds_are_obeyed(tmp_path):
    """splits.json says what is trained on and what is held out, and planning anew keeps it and says so."""
    folders = write_volumes(tmp_path, cases=4)
    plan_tiny(tmp_path)
    folds = [(["case_2", "case_3"], ["case_4", "case_1"]), (["case_1", "case_4"], ["case_2"])]
    write_splits(tmp_path, folds)
    listener = Listener()
    plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path, reporter=listener)
    assert f"kept the folds of {folders.splits}" in listener.text
    edit_training(tmp_path, epochs=1, steps_per_epoch=2, validation_steps=1)
    summary = train(NUMBER, "3d_fullres", ["cv"], device="cpu", workspace=tmp_path, reporter=listener)
    model = folders.model("3d_fullres")
    assert model.trained_folds() == [0, 1]
    for number, (_, validation) in enumerate(folds):
        segmented = {path.name for path in model.validation(number).glob("*.nii.gz")}
        assert segmented == {f"{name}.nii.gz" for name in validation}
    assert [case.name for case in summary.cases] == ["case_1", "case_4", "case_2"]
    assert "fold 0: 2 cases, 2 held out" in listener.text


def test_folds_of_other_cases_are_assigned_anew(tmp_path):
    """After a case came or went the old folds cannot stand, and the user is told."""
    folders = write_volumes(tmp_path, cases=3)
    first, second = Listener(), Listener()
    plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path, reporter=first)
    plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path, skip=["case_2"], reporter=second)
    assert "3 cases make 3 folds instead of 5" in first.text
    assert "assigned the cases anew" not in first.text
    assert "assigned the cases anew" in second.text
    assert Splits.load(folders.splits).names == {"case_1", "case_3"}
    assert not list(folders.cases("3d_fullres").glob("case_2*"))


def test_edited_plan_is_prepared_and_trained(tmp_path):
    """A new spacing needs `preprocess`, which makes other cases by it; a new patch needs nothing."""
    folders = write_volumes(tmp_path)
    plan = plan_tiny(tmp_path, epochs=1)
    content = json.loads(folders.plan.read_text())
    content["configurations"]["3d_fullres"]["spacing_mm"] = [2.0, 2.0, 2.0]
    folders.plan.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"plan\.json has changed .* 'autoseg preprocess -d 1 -c 3d_fullres'"):
        train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    before = files_in(folders.cases("2d"))
    preprocess(NUMBER, configurations=["3d_fullres"], workspace=tmp_path)
    assert StoredCase.open(folders.cases("3d_fullres"), "case_1").shape == (7, 8, 9)
    assert files_in(folders.cases("2d")) == before
    content["configurations"]["3d_fullres"] |= {"patch_size": [8, 8, 8], "patch_growth": []}
    assert plan.configurations["3d_fullres"].patch_size != (8, 8, 8)
    folders.plan.write_text(json.dumps(content))
    train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    [path] = folders.model("3d_fullres").validation(0).glob("*.nii.gz")
    assert read_label_map(path).array.shape == (14, 16, 18)


def test_only_the_chosen_configuration_is_prepared(tmp_path):
    """The plan has both, the disk has one, in the standard preset as in the small one."""
    folders = write_volumes(tmp_path)
    plan = plan_and_preprocess(NUMBER, configurations=["2d"], memory="2GB", workspace=tmp_path)
    assert set(plan.configurations) == {"2d", "3d_fullres"}
    assert plan == Plan.load(folders.plan)
    assert [path.name for path in folders.preprocessed.iterdir() if path.is_dir()] == ["2d"]
    assert plan.memory_budget_bytes == 2 * 10**9


def test_evaluation_without_a_dataset_names_the_numbers(tmp_path):
    """Label maps that belong to no dataset are compared number by number."""
    journey_labels = write_volumes(tmp_path / "one").raw / "labelsTr"
    references, masks = tmp_path / "references", tmp_path / "masks"
    shutil.copytree(journey_labels, references)
    shutil.copytree(journey_labels, masks)
    summary = evaluate(references, masks)
    assert list(summary.mean) == ["label_1", "label_2"]
    assert summary.foreground_mean.dice == 1
    assert list(evaluate(references, masks, labels={"dark": LABELS["dark"]}).mean) == ["dark"]


@pytest.fixture
def model_copy(trained_volumes, tmp_path):
    """A copy of the model folder alone, outside any workspace."""
    copy = tmp_path / "models" / "mine"
    shutil.copytree(folders_of(trained_volumes).model("3d_fullres").path, copy)
    return copy


def test_copied_model_predicts_without_its_workspace(model_copy, trained_volumes, tmp_path, monkeypatch):
    """A model folder is all that prediction needs, and gives the same masks as in its workspace."""
    scans = folders_of(trained_volumes).raw / "imagesTr"
    expected = predict(scans, tmp_path / "expected", number=NUMBER, workspace=trained_volumes, device="cpu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOSEG_WORKSPACE", raising=False)
    written = predict(scans, tmp_path / "masks", model="models/mine", device="cpu")
    assert [path.name for path in written] == [path.name for path in expected]
    for one, other in zip(written, expected, strict=True):
        np.testing.assert_array_equal(read_label_map(one).array, read_label_map(other).array)


def test_one_file_of_another_type_is_segmented(model_copy, trained_volumes, tmp_path):
    """A MetaImage for a model that was trained on NIfTI, named directly; the mask is a MetaImage too."""
    source = tmp_path / "patient.mha"
    nifti = folders_of(trained_volumes).raw / "imagesTs" / "case_4_0000.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(source))
    [mask] = predict(source, tmp_path / "masks", model=model_copy, device="cpu")
    assert mask == tmp_path / "masks" / "patient.mha"
    [same] = predict(nifti, tmp_path / "masks", model=model_copy, device="cpu")
    assert same == tmp_path / "masks" / "case_4.nii.gz"
    np.testing.assert_array_equal(read_label_map(mask).array, read_label_map(same).array)


def test_mask_never_replaces_its_scan(model_copy, tmp_path):
    """Neither a folder nor the folder of a single file may be the output."""
    scan = tmp_path / "scans" / "a.nii.gz"
    scan.parent.mkdir()
    scan.touch()
    for source in (scan, scan.parent):
        with pytest.raises(UsageError, match="holds the scans"):
            predict(source, scan.parent, model=model_copy, device="cpu")
    assert files_in(scan.parent) == {"a.nii.gz"}


def test_probabilities_never_replace_a_scan(model_copy, trained_volumes, tmp_path):
    """Scans in the folder that the maps would go to are refused, unless no maps are asked for."""
    scans = tmp_path / "masks" / "probabilities"
    shutil.copytree(folders_of(trained_volumes).raw / "imagesTs", scans)
    with pytest.raises(UsageError, match="masks/probabilities holds the scans"):
        predict(scans, tmp_path / "masks", model=model_copy, probabilities="all", device="cpu")
    assert len(predict(scans, tmp_path / "masks", model=model_copy, device="cpu")) == 1
    assert files_in(scans) == {"case_4_0000.nii.gz"}


def test_rules_beside_the_model_are_applied(model_copy, trained_volumes, tmp_path):
    """Of what is found of two bright boxes without rules, the rules leave the largest component, and nothing else."""
    path = folders_of(trained_volumes).raw / "imagesTs" / "case_4_0000.nii.gz"
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    array[9:13, 1:6, 13:17] = 300
    second = sitk.GetImageFromArray(array)
    second.CopyInformation(image)
    sitk.WriteImage(second, str(tmp_path / "two.nii.gz"))

    def segment(rules: PostprocessingRules) -> np.ndarray:
        rules.save(model_copy / "postprocessing.json")
        [mask] = predict(tmp_path / "two.nii.gz", tmp_path / "masks", model=model_copy, device="cpu")
        return read_label_map(mask).array

    plain, clean = segment(PostprocessingRules()), segment(PostprocessingRules(keep_largest=((1,),)))
    largest = largest_component(plain == 1)
    assert (plain == 1).sum() > largest.sum() > 100
    np.testing.assert_array_equal(clean == 1, largest)
    np.testing.assert_array_equal(clean == 2, plain == 2)


def test_trained_configuration_is_the_usual_one(tmp_path):
    """Without -c, prediction takes the only configuration that is trained."""
    folders = write_volumes(tmp_path, cases=2)
    plan_tiny(tmp_path, epochs=1)
    train(NUMBER, "2d", [0], device="cpu", workspace=tmp_path)
    assert len(predict(folders.raw / "imagesTs", tmp_path / "masks", number=NUMBER, workspace=tmp_path)) == 1
