"""Regions that overlap, and voxels that were not annotated: from dataset.json to masks and scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, dice, edit_training, folders_of, write_splits, write_volumes

from autoseg import load_model
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.errors import DatasetError, ProblemsError, UsageError
from autoseg.evaluation.summary import Summary
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules, largest_component
from autoseg.importing.sources import import_source
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.datasets import plan_and_preprocess, preprocess
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import evaluate, find_best
from autoseg.pipeline.training import train
from autoseg.planning.plan import Plan
from autoseg.preprocessing.store import StoredCase
from autoseg.training.losses import Loss
from autoseg.workspace import DatasetFolders, Workspace

NAME = "3d_fullres"
REGIONS = {"background": 0, "both": [1, 2], "dark": 2}


def describe(folders: DatasetFolders, **changes: object) -> None:
    """Changes dataset.json."""
    path = folders.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def leave_planes_out(folders: DatasetFolders, number: int) -> None:
    """Gives every second plane of each label map a number that says that nobody labelled it."""
    for path in (folders.raw / "labelsTr").iterdir():
        label = read_label_map(path)
        array = label.array.copy()
        array[1::2] = number
        write_label_map(path, Volume(array=array, geometry=label.geometry))


def learn(root: Path, *, steps: int = 120) -> Summary:
    """Prepares and trains fold 0 for some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
        plan_and_preprocess(NUMBER, configurations=[NAME], preset="small", workspace=root)
    edit_training(root, epochs=1, steps_per_epoch=steps, validation_steps=2)
    summary = train(NUMBER, NAME, 0, workspace=root, device="cpu")
    assert summary is not None
    return summary


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a trained fold of two regions."""
    root = tmp_path_factory.mktemp("regions")
    folders = write_volumes(root)
    describe(folders, labels=REGIONS, regions_class_order=[1, 2])
    learn(root)
    return root


@pytest.mark.slow
def test_regions_are_learned_and_written_as_numbers(regions: Path) -> None:
    """A voxel of the inner region is one of the outer region too; the label map holds the number of the inner."""
    folders = folders_of(regions)
    plan = Plan.load(folders.plan)
    assert {one.architecture.out_channels for one in plan.configurations.values()} == {2}
    summary = Summary.load(folders.model(NAME).path / "summary.json")
    assert list(summary.mean) == ["both", "dark"]
    assert summary.mean["both"].dice > 0.8
    [case] = summary.cases
    prediction = read_label_map(folders.model(NAME).validation(0) / case.prediction_file).array
    ground_truth = read_label_map(folders.raw / "labelsTr" / case.reference_file).array
    assert set(np.unique(prediction)) <= {0, 1, 2}
    assert dice(prediction > 0, ground_truth > 0, True) == pytest.approx(case.scores["both"].dice)
    assert dice(prediction, ground_truth, 2) == pytest.approx(case.scores["dark"].dice)


@pytest.mark.slow
def test_regions_are_predicted_with_probabilities_and_evaluated(regions: Path, tmp_path: Path) -> None:
    """Probabilities of regions need not sum to one; where one is above a half, the mask has its region."""
    folders = folders_of(regions)
    folder = folders.model(NAME).path
    [mask] = predict(folders.raw / "imagesTs", tmp_path, model=folder, probabilities="all", device="cpu")
    segmentation = read_label_map(mask).array
    both, dark = (
        read_label_map(tmp_path / "probabilities" / f"case_4_{name}.nii.gz").array for name in ("both", "dark")
    )
    assert (both[segmentation > 0] >= 127).mean() > 0.99
    assert (dark[segmentation == 2] >= 127).all()
    scores = evaluate(tmp_path, tmp_path)
    assert list(scores.mean) == ["both", "dark"]
    assert load_model(folder).labels == {"background": 0, "both": (1, 2), "dark": 2}
    with pytest.raises(UsageError, match="no label 'background'; choose from both, dark, or 'all'"):
        predict(folders.raw / "imagesTs", tmp_path, model=folder, probabilities="background", device="cpu")


@pytest.mark.slow
def test_places_of_regions_are_stored(regions: Path) -> None:
    """Patches are centred on each region as often."""
    folders = folders_of(regions)
    stored = StoredCase.open(folders.cases(NAME), "case_1")
    label = stored.load()[1]
    assert stored.content.foreground == ((label > 0).sum(), (label == 2).sum())


@pytest.mark.slow
def test_other_regions_make_prepared_cases_stale(regions: Path) -> None:
    """The order of the regions is that of the outputs."""
    folders = folders_of(regions)
    before = (folders.raw / "dataset.json").read_text()
    describe(folders, labels={"background": 0, "all": [1, 2], "bright": 1}, regions_class_order=[2, 1])
    with pytest.raises(UsageError, match=f"has changed since Dataset001_Tiny was preprocessed for {NAME}"):
        train(NUMBER, NAME, 1, workspace=regions, device="cpu")
    (folders.raw / "dataset.json").write_text(before)


def test_regions_with_sides_are_never_mirrored_sideways(tmp_path: Path) -> None:
    """Their numbers cannot be exchanged, so the plan leaves that axis out and says why."""
    folders = write_volumes(tmp_path)
    describe(folders, labels={"background": 0, "lung left": [1, 2], "lung right": 2}, regions_class_order=[1, 2])
    plan = plan_and_preprocess(NUMBER, configurations=[NAME], preset="small", workspace=tmp_path)
    assert plan.configurations[NAME].augmentation.mirror_axes == (0, 1)
    assert any("lung left has a side in its name and may overlap other regions" in reason for reason in plan.why)


def test_a_cascade_gets_a_channel_for_each_region(tmp_path: Path) -> None:
    """The coarse segmentation of each, beside the image."""
    folders = write_volumes(tmp_path, shape=(60, 70, 70), cases=2)
    describe(folders, labels=REGIONS, regions_class_order=[1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.preprocessing.dataset.prepare_cases", lambda *_: None)
        patch.setattr("autoseg.pipeline.datasets.prepare_cases", lambda *_: None)
        plan = plan_and_preprocess(NUMBER, memory="0.7GB", workspace=tmp_path)
    for name, one in plan.configurations.items():
        assert one.image_channels == 1, name
        assert one.previous_channels == (2 if one.previous else 0), name


@pytest.mark.slow
def test_what_nobody_labelled_is_learned_and_judged_by_the_rest(tmp_path: Path) -> None:
    """Every second plane has the number of "ignore": no mask has it, and the scores are those of the other planes."""
    folders = write_volumes(tmp_path)
    leave_planes_out(folders, 3)
    describe(folders, labels={"background": 0, "bright": 1, "dark": 2, "ignore": 3})
    summary = learn(tmp_path)
    facts = Fingerprint.load(folders.fingerprint)
    assert {label.label for case in facts.cases for label in case.labels} == {1, 2}
    stored = StoredCase.open(folders.cases(NAME), "case_1")
    assert stored.content.labelled == (stored.load()[1] != 3).sum()
    assert list(summary.mean) == ["bright", "dark"]
    assert summary.foreground_mean.dice > 0.7
    [case] = summary.cases
    prediction = read_label_map(folders.model(NAME).validation(0) / case.prediction_file).array
    ground_truth = read_label_map(folders.raw / "labelsTr" / case.reference_file).array
    assert set(np.unique(prediction)) <= {0, 1, 2}
    assert dice(prediction[::2], ground_truth[::2], 1) == pytest.approx(case.scores["bright"].dice)
    assert prediction[1::2].any()


def forget(folders: DatasetFolders, case: str, number: int) -> None:
    """Removes a label from a label map, as if nobody had looked for it."""
    path = folders.raw / "labelsTr" / f"{case}.nii.gz"
    label = read_label_map(path)
    write_label_map(path, Volume(array=np.where(label.array == number, 0, label.array), geometry=label.geometry))


@pytest.mark.slow
@pytest.mark.parametrize("regions", [False, True])
def test_what_nobody_looked_for_is_learned_from_other_cases(tmp_path: Path, regions: bool) -> None:
    """Only one of four training cases has the dark box drawn; in the others its voxels are no background."""
    folders = write_volumes(tmp_path, cases=5)
    labels: dict[str, object] = {"background": 0, "bright": 1, "dark": 2}
    regions_too = {"regions_class_order": [1, 2]} if regions else {}
    incomplete = ["case_1", "case_2", "case_4"]
    describe(folders, labels=labels, annotated={case: ["bright"] for case in incomplete}, **regions_too)
    for case in incomplete:
        forget(folders, case, 2)
    splits = [([*incomplete, "case_5"], ["case_3"]), (["case_2", "case_3"], ["case_1", "case_4", "case_5"])]
    write_splits(tmp_path, splits)
    seen, usual = [], Loss.__call__

    def listen(loss, outputs, labels, unknown=None, *others):
        seen.append(unknown)
        return usual(loss, outputs, labels, unknown, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loss, "__call__", listen)
        summary = learn(tmp_path, steps=90)
    rows = torch.cat(seen)
    assert not rows[:, 0].any()
    assert 0.4 < rows[:, 1].float().mean() < 0.95  # most of the training patches, and none of those held out
    assert summary.mean["dark"].dice > 0.5
    checkpoint = load_checkpoint(folders.model(NAME).checkpoint(0))
    assert checkpoint.info.annotated is None
    both = train(NUMBER, NAME, 1, workspace=tmp_path, device="cpu")
    assert both is not None
    first = next(case for case in both.cases if case.name == "case_1")
    assert np.isnan(first.scores["dark"].dice)
    assert first.scores["bright"].dice > 0.5


def test_labels_that_were_not_looked_for_must_not_be_there(tmp_path: Path) -> None:
    """dataset.json and the label map contradict each other; so do names that are no labels."""
    folders = write_volumes(tmp_path)
    describe(folders, annotated={"case_1": ["bright"]})
    with pytest.raises(
        ProblemsError, match=r"its label map holds 'dark', which 'annotated' in dataset\.json leaves out"
    ):
        plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)
    describe(folders, annotated={"case_1": ["brihgt"]})
    with pytest.raises(DatasetError, match="'annotated' names 'brihgt' for case 'case_1', which is no label"):
        plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)


def test_regions_are_imported(tmp_path: Path) -> None:
    """A folder of nnU-Net is imported with all that its dataset.json says of regions."""
    folders = write_volumes(tmp_path / "theirs")
    describe(folders, labels=REGIONS, regions_class_order=[1, 2])
    workspace = Workspace(root=tmp_path / "ours")
    dataset = import_source(folders.raw, workspace=workspace, number=2, reporter=Listener())
    assert dataset.info.targets.structures == {"both": (1, 2), "dark": (2,)}
    assert dataset.info.targets.region_class_order == (1, 2)


def test_values_beyond_the_regions_are_problems(tmp_path: Path) -> None:
    """They are reported as for labels; a region of which no case holds a voxel is reported too."""
    folders = write_volumes(tmp_path)
    describe(folders, labels={"background": 0, "first": 1}, regions_class_order=[1])
    with pytest.raises(ProblemsError, match=r"its label map holds 2, but dataset\.json names 0 to 1"):
        plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)
    describe(folders, labels={"background": 0, "all": [1, 2, 3], "third": 3}, regions_class_order=[1, 3])
    with pytest.raises(ProblemsError, match="no label map holds 'third'"):
        plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)


# --- Structures that are masks each -----------------------------------------------------------------------------------


def write_structures(source: Path, *, cases: int = 3, incomplete: bool = False) -> None:
    """Turns the tiny dataset into a folder per case: the bright box, both boxes, and their border, which overlap."""
    folders = write_volumes(source / "plain", cases=cases)
    for number in range(1, cases + 1):
        label = read_label_map(folders.raw / "labelsTr" / f"case_{number}.nii.gz")
        target = source / "cases" / f"s{number}"
        (target / "segmentations").mkdir(parents=True)
        shutil.copy(folders.raw / "imagesTr" / f"case_{number}_0000.nii.gz", target / "scan.nii.gz")
        for name, values in {"bright": [1], "either": [1, 2], "dark spot": [2]}.items():
            mask = Volume(array=np.isin(label.array, values).astype(np.uint8), geometry=label.geometry)
            if not (incomplete and number == 1 and name == "dark spot"):
                write_label_map(target / "segmentations" / f"{name}.nii.gz", mask)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a trained fold of three structures that overlap."""
    root = tmp_path_factory.mktemp("masks")
    write_structures(root)
    import_source(root / "cases", workspace=Workspace(root=root), number=NUMBER, name="Tiny")
    learn(root, steps=160)
    return root


@pytest.mark.slow
def test_structures_that_overlap_are_learned_and_written_as_masks(masks: Path) -> None:
    """A file for each, in a folder per scan; the scores are those of the masks."""
    folders = folders_of(masks)
    summary = Summary.load(folders.model(NAME).path / "summary.json")
    assert list(summary.mean) == ["bright", "dark spot", "either"]
    assert summary.foreground_mean.dice > 0.7
    [case] = summary.cases
    folder = folders.model(NAME).validation(0) / case.prediction_file
    assert {path.name for path in folder.iterdir()} == {"bright.nii.gz", "dark_spot.nii.gz", "either.nii.gz"}
    either = read_label_map(folder / "either.nii.gz").array
    ground_truth = read_label_map(folders.raw / "labelsTr" / case.reference_file).array
    assert dice(either, ground_truth > 0, True) == pytest.approx(case.scores["either"].dice)
    assert set(np.unique(either)) == {0, 1}
    pictures = {path.name for path in folders.model(NAME).validation(0).glob("*.png")}
    assert pictures == {"overlay_worst.png", "overlay_median.png"}


@pytest.mark.slow
def test_masks_are_predicted_and_evaluated(masks: Path, tmp_path: Path) -> None:
    """Against label maps of the dataset, and against folders of masks; equal ones agree."""
    folders = folders_of(masks)
    model = folders.model(NAME).path
    scans = [predict(folders.raw / "imagesTr", tmp_path / name, model=model, device="cpu") for name in ("a", "b")]
    assert [path.name for path in scans[0]] == ["s1", "s2", "s3"]
    scores = evaluate(folders.raw / "labelsTr", tmp_path / "a")
    assert scores.foreground_mean.dice > 0.7
    assert evaluate(tmp_path / "b", tmp_path / "a").foreground_mean.dice == 1
    loaded = load_model(model, device="cpu")
    image = folders.raw / "imagesTr" / "s1_0000.nii.gz"
    by_path = sitk.GetArrayFromImage(loaded.predict(image))
    for channel, name in enumerate(("bright", "dark_spot", "either")):
        np.testing.assert_array_equal(by_path[..., channel], read_label_map(scans[0][0] / f"{name}.nii.gz").array)
    # Each gets combinations that no case has, in another order: dark spots that are bright, and "either" elsewhere.
    shutil.copy(tmp_path / "a" / "s1" / "bright.nii.gz", tmp_path / "a" / "s1" / "dark_spot.nii.gz")
    mask = read_label_map(tmp_path / "b" / "s1" / "either.nii.gz")
    moved = Volume(array=np.roll(mask.array, 3, axis=1), geometry=mask.geometry)
    write_label_map(tmp_path / "b" / "s1" / "either.nii.gz", moved)
    scores = evaluate(tmp_path / "b", tmp_path / "a")
    [odd] = [case for case in scores.cases if case.name == "s1"]
    for name in ("bright", "dark_spot", "either"):
        one, other = (read_label_map(tmp_path / folder / "s1" / f"{name}.nii.gz").array for folder in ("a", "b"))
        assert odd.scores[name.replace("_", " ")].dice == pytest.approx(dice(one, other, 1))
    (tmp_path / "a" / "s1" / "either.nii.gz").unlink()
    with pytest.raises(ProblemsError, match=r"s1 holds no mask of 'either'; give segmentations of this dataset"):
        evaluate(folders.raw / "labelsTr", tmp_path / "a")


@pytest.mark.slow
def test_postprocessing_of_a_mask_takes_nothing_from_others(masks: Path, tmp_path: Path) -> None:
    """The largest component of one structure."""
    folders = folders_of(masks)
    model = folders.model(NAME)
    numbers = Dataset.open(folders.raw).info.targets.structures["dark spot"]
    before = model.postprocessing.read_text()
    PostprocessingRules(keep_largest=(numbers,)).save(model.postprocessing)
    [scan, *_] = predict(folders.raw / "imagesTr", tmp_path / "rules", model=model.path, device="cpu")
    model.postprocessing.write_text(before)
    NO_RULES.save(model.postprocessing)
    [plain, *_] = predict(folders.raw / "imagesTr", tmp_path / "plain", model=model.path, device="cpu")
    model.postprocessing.write_text(before)
    for name in ("bright", "either", "dark_spot"):
        one, other = (read_label_map(folder / f"{name}.nii.gz").array for folder in (scan, plain))
        np.testing.assert_array_equal(one > 0, largest_component(other > 0) if name == "dark_spot" else other > 0)


@pytest.mark.slow
def test_masks_of_two_configurations_are_averaged_and_judged(masks: Path, tmp_path: Path) -> None:
    """A pair leaves a folder of masks for each held-out case, and predicts such folders."""
    root = shutil.copytree(masks, tmp_path / "copy")
    folders = folders_of(root)
    edit_training(root, epochs=1, steps_per_epoch=2)
    preprocess(NUMBER, configurations=["2d"], workspace=root)
    train(NUMBER, "2d", "cv", workspace=root, device="cpu")
    train(NUMBER, NAME, [1, 2], workspace=root, device="cpu")
    choice = find_best(NUMBER, workspace=root, device="cpu")
    assert [one.name for one in choice.candidates] == ["2d", NAME, f"2d+{NAME}"]
    pair = folders.ensemble(f"2d+{NAME}")
    assert {path.name for path in (pair / "s1").iterdir()} == {"bright.nii.gz", "dark_spot.nii.gz", "either.nii.gz"}
    scores = evaluate(folders.raw / "labelsTr", pair)
    assert scores.foreground_mean.dice == pytest.approx(choice.candidates[2].mean_dice)
    [scan, *_] = predict(folders.raw / "imagesTr", tmp_path / "out", number=NUMBER, workspace=root, device="cpu")
    assert scan.is_dir()
