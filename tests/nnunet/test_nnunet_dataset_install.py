"""Models of nnU-Net are installed among those of a dataset, as if they had been trained here, or refused."""

import json
import shlex
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener
from small_nnunet import GOLDEN, change_json, plain_configuration, save_model, write_held_out
from tiny_workspaces import NUMBER, files_in, folders_of, plan_tiny, write_splits, write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import Splits
from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.evaluation.summary import Summary
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.model_selection.validation import is_validated
from autoseg.models.best_model import BestModel
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.nnunet.dataset_install import install_nnunet
from autoseg.nnunet.export import export_nnunet
from autoseg.nnunet.trainers import is_known
from autoseg.pipeline.datasets import extract_fingerprint, preprocess
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import evaluate, find_best
from autoseg.pipeline.training import train
from autoseg.planning.plan import Plan
from autoseg.workspace import DatasetFolders, ModelFolder

CASES = ("case_1", "case_2", "case_3", "case_4")
SPLITS = [(CASES[2:], CASES[:2]), (CASES[:2], CASES[2:])]
FULL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
PAIR = "2d+nnunet/3d_fullres"


@pytest.fixture(autouse=True)
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the pictures of cases, which take longer than everything else here, by empty files."""
    monkeypatch.setattr("autoseg.model_selection.validation.draw_overlay", lambda path, *_, **__: path.touch())


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a raw dataset and hand-made folds."""
    root = tmp_path_factory.mktemp("bare")
    write_volumes(root, cases=4)
    write_splits(root, SPLITS)
    return root


@pytest.fixture(scope="module")
def theirs(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of nnU-Net on that dataset: two folds of a configuration, with their held-out segmentations."""
    return save_theirs(tmp_path_factory.mktemp("theirs"), bare, {"3d_fullres": plain_configuration(info=info_of(bare))})


@pytest.fixture
def work(bare: Path, tmp_path: Path) -> Path:
    """A copy of the workspace that a test may change."""
    return shutil.copytree(bare, tmp_path / "work")


@pytest.fixture
def own(theirs: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may change."""
    return shutil.copytree(theirs, tmp_path / "own")


def info_of(root: Path) -> DatasetInfo:
    """Loads the description of the dataset of a workspace."""
    return DatasetInfo.load(folders_of(root).raw / "dataset.json")


def save_theirs(folder: Path, root: Path, configurations: dict, folds: tuple = (0, 1)) -> Path:
    """Writes configurations as nnU-Net writes them."""
    model = save_model(folder / "ours", configurations, info_of(root), folds=folds)
    for name, one in configurations.items():
        alone = model.path.with_name(name)
        if one.previous is None:
            export_nnunet(alone, folder / "results" / f"nnUNetTrainer__nnUNetPlans__{name}")
        else:
            export_nnunet(alone, folder / "both")
            shutil.copytree(folder / "both" / f"nnUNetTrainer__nnUNetPlans__{name}",
                            folder / "results" / f"nnUNetTrainer__nnUNetPlans__{name}")  # fmt: skip
        for fold, (_, held_out) in enumerate(SPLITS):
            if fold in folds:
                masks = {case: spoilt(root, case, fold) for case in held_out}
                write_held_out(folder / "results" / f"nnUNetTrainer__nnUNetPlans__{name}", fold, masks)
    return folder / "results"


def spoilt(root: Path, case: str, margin: int) -> Volume:
    """Writes the label map of a case without its first slices, as a segmentation."""
    label = read_label_map(folders_of(root).raw / "labelsTr" / f"{case}.nii.gz")
    array = label.array.copy()
    array[: 4 + margin] = 0
    return replace(label, array=array)


def named(root: Path) -> DatasetFolders:
    """Returns the folders of the dataset as the plan "nnunet" sees them."""
    return folders_of(root).with_plan("nnunet")


def take(source: Path, root: Path, **options) -> tuple[ModelFolder, list[str]]:
    """Installs a model; returns the folder of its first configuration, and the messages."""
    listener = Listener()
    folder = install_nnunet(source, root, number=NUMBER, device="cpu", reporter=listener, **options)
    return ModelFolder(path=next(path for path in sorted(folder.glob("*d*")) if path.is_dir())), listener.lines


# --- What is taken over -----------------------------------------------------------------------------------------------


def test_folds_lie_as_if_they_had_been_trained_here(work: Path, theirs: Path) -> None:
    """Checkpoints, plan, splits and held-out segmentations are installed; the latter are scored here."""
    model, lines = take(theirs, work)
    folders = named(work)
    assert model.path == folders.model("3d_fullres").path
    assert files_in(folders.results) == {
        *(f"nnunet/3d_fullres/{name}" for name in ("postprocessing.json", "summary.json", "summary.csv")),
        *(f"nnunet/3d_fullres/fold_{fold}/checkpoint.pt" for fold in (0, 1)),
        *(f"nnunet/3d_fullres/fold_{fold}/validation/{name}" for fold in (0, 1)
          for name in ("summary.json", "summary.csv", "overlay_worst.png", "overlay_median.png")),
        *(f"nnunet/3d_fullres/fold_{fold}/validation/{case}.nii.gz"
          for fold, (_, held_out) in enumerate(SPLITS) for case in held_out),
    }  # fmt: skip
    plan, splits = Plan.load(folders.plan), Splits.load(folders.splits)
    assert (plan.dataset, plan.rules, list(plan.configurations)) == ("Dataset001_Tiny", "nnunet", ["3d_fullres"])
    for fold in (0, 1):
        checkpoint = load_checkpoint(model.checkpoint(fold))
        assert (checkpoint.plan, checkpoint.fold, checkpoint.finished) == (plan, fold, True)
        assert checkpoint.cases == splits.folds[fold].digest
        assert checkpoint.info.targets == info_of(work).targets
        for case in SPLITS[fold][1]:
            found = read_label_map(model.validation(fold) / f"{case}.nii.gz")
            np.testing.assert_array_equal(found.array, spoilt(work, case, fold).array)
        again = evaluate(folders.raw / "labelsTr", model.validation(fold))
        assert again.foreground_mean == Summary.load(model.validation(fold) / "summary.json").foreground_mean
        assert f"held-out cases {again.foreground_mean.dice:.4f}" in lines[fold]
    assert not folders_of(work).plan.exists()
    with pytest.raises(UsageError, match="the usual plan of Dataset001_Tiny, but by nnunet; add --plan nnunet, or let"):
        predict(folders.raw / "imagesTs", work / "out", number=NUMBER, workspace=work, device="cpu")


@pytest.mark.slow
def test_it_competes_with_what_was_trained_here(work: Path, theirs: Path, tmp_path: Path) -> None:
    """It is compared alone and in a pair; `predict`, `export` and bundles follow the choice."""
    plan_tiny(work, patches="fixed", epochs=1)
    train(NUMBER, "2d", "cv", workspace=work, device="cpu")
    take(theirs, work)
    preprocess(NUMBER, plan_name="nnunet", workspace=work)
    listener = Listener()
    choice = find_best(NUMBER, workspace=work, device="cpu", reporter=listener)
    assert [one.name for one in choice.candidates] == ["2d", "nnunet/3d_fullres", PAIR]
    assert choice.left_out == ("3d_fullres: folds 0 1 are not trained; run 'autoseg train -d 1 -c 3d_fullres -f cv'",)
    assert choice.name == "nnunet/3d_fullres"  # labels that lack some slices, against two steps of training
    folders = folders_of(work)
    assert files_in(folders.results / "ensembles") >= {f"2d+nnunet.3d_fullres/{case}.nii.gz" for case in CASES}
    change_json(folders.best_model, configurations=PAIR.split("+"), folds={
        name: [{"fold": fold, "weights": ""} for fold in (0, 1)] for name in PAIR.split("+")})  # fmt: skip
    chosen = BestModel.load(folders.best_model)
    pair = find_best(NUMBER, workspace=work, device="cpu").candidates[2]
    by_hand = choice.model_copy(update={"configurations": pair.configurations, "folds": {
        name: tuple(one.model_copy(update={"weights": weights_of(folders, name, one.fold)}) for one in folds)
        for name, folds in chosen.folds.items()}})  # fmt: skip
    by_hand.save(folders.best_model)
    [mask] = predict(folders.raw / "imagesTs", tmp_path / "out", number=NUMBER, workspace=work, device="cpu")
    bundle = autoseg.export_model(NUMBER, tmp_path / "both.zip", workspace=work)
    with zipfile.ZipFile(bundle) as archive:
        assert {"2d/fold_0/checkpoint.pt", "nnunet/3d_fullres/fold_1/checkpoint.pt"} <= set(archive.namelist())
        assert "- nnunet/3d_fullres (folds 0, 1): " in archive.read("MODEL_CARD.md").decode()
    installed = autoseg.install_model(bundle, tmp_path / "elsewhere")
    for model in (bundle, installed):
        [again] = predict(folders.raw / "imagesTs", tmp_path / "again", model=model, device="cpu")
        np.testing.assert_array_equal(read_label_map(again).array, read_label_map(mask).array)
    with pytest.raises(ModelError, match="has residual stages as V-Net has, and nnU-Net knows none"):
        export_nnunet(NUMBER, tmp_path / "theirs", workspace=work)
    alone = find_best(NUMBER, plan_name="nnunet", workspace=work, device="cpu")
    assert alone.name == "3d_fullres"
    [there] = export_nnunet(NUMBER, tmp_path / "theirs", plan_name="nnunet", workspace=work)
    before = torch.load(theirs / FULL / "fold_1/checkpoint_final.pth", weights_only=False)["network_weights"]
    after = torch.load(there / "fold_1/checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def weights_of(folders: DatasetFolders, member: str, fold: int) -> str:
    """Returns a number that tells one fold from another."""
    from autoseg.models.weight_digest import digest_weights

    return digest_weights(load_checkpoint(ModelFolder(path=folders.models / member).checkpoint(fold)).weights)


@pytest.mark.slow
def test_pair_of_two_plans_goes_to_nnunet_as_two_models(work: Path, theirs: Path, tmp_path: Path) -> None:
    """Each has its plan in the workspace; both are called 3d_fullres."""
    take(theirs, work)
    other = save_theirs(tmp_path / "other", work, {"3d_fullres": plain_configuration(spacing_mm=(2.0, 1.0, 1.0))})
    take(other, work, plan_name="coarse")
    for plan_name in ("nnunet", "coarse"):
        preprocess(NUMBER, plan_name=plan_name, workspace=work)
    choice = find_best(NUMBER, workspace=work, device="cpu")
    together = "coarse/3d_fullres+nnunet/3d_fullres"
    assert [one.name for one in choice.candidates] == ["coarse/3d_fullres", "nnunet/3d_fullres", together]
    folders = folders_of(work)
    names = tuple(together.split("+"))
    folds = dict.fromkeys(names, choice.folds[choice.configurations[0]])
    folds = {name: tuple(one.model_copy(update={"weights": weights_of(folders, name, one.fold)}) for one in several)
             for name, several in folds.items()}  # fmt: skip
    choice.model_copy(update={"configurations": names, "folds": folds}).save(folders.best_model)
    written = export_nnunet(NUMBER, tmp_path / "back", workspace=work)
    assert [path.name for path in written] == [f"nnUNetTrainer__{name}__3d_fullres" for name in ("coarse", "nnunet")]
    spacings = [json.loads((path / "plans.json").read_text())["configurations"]["3d_fullres"]["spacing"]
                for path in written]  # fmt: skip
    assert spacings == [[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_other_folds_are_trained_here_and_begin_with_its_weights(work: Path, own: Path) -> None:
    """Its own plan is used; an installed fold is not trained again, but validated again if its scores are gone."""
    shutil.rmtree(own / FULL / "fold_1")
    model, _ = take(own, work)
    preprocess(NUMBER, plan_name="nnunet", workspace=work)
    plan = Plan.load(named(work).plan)
    short = plan.training.model_copy(update={"steps_per_epoch": 1, "validation_steps": 1})
    with pytest.raises(AutosegError, match="fold 1 is not trained; run 'autoseg train -d 1 -c 3d_fullres -f 1 --plan"):
        find_best(NUMBER, workspace=work, device="cpu")
    plan.model_copy(update={"training": short}).save(named(work).plan)
    listener = Listener()
    options = {"plan_name": "nnunet", "workspace": work, "device": "cpu", "reporter": listener}
    train(NUMBER, "3d_fullres", 1, epochs=1, init=model.fold(0), **options)
    assert any("mind that these weights were learned from another fold" in line for line in listener.lines)
    plan.save(named(work).plan)
    shutil.rmtree(model.validation(0))
    train(NUMBER, "3d_fullres", 0, **options)
    assert "fold 0 was trained elsewhere, to its end; --restart would train it anew" in listener.lines
    assert is_validated(model, 0)
    with pytest.raises(ModelError, match="was passed on without what training needs to go on"):
        train(NUMBER, "3d_fullres", 0, extend="1", **options)
    assert [one.name for one in find_best(NUMBER, workspace=work, device="cpu").candidates] == ["nnunet/3d_fullres"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda fold: shutil.rmtree(fold / "validation"), "nothing tells which cases it held out"),
        (lambda fold: (fold / "validation/case_2.nii.gz").unlink(), "segmentations are not all there"),
        (
            lambda fold: shutil.copy(fold / "validation/case_1.nii.gz", fold / "validation/case_2.nii.gz"),
            "segmentations do not suit its labels (case 'case_2': reference and prediction lie on different grids",
        ),
    ],
)
def test_missing_segmentations_are_made_here(work: Path, own: Path, spoil: Callable[[Path], object], said: str) -> None:
    """They are made as after training, by the fold that held the case out; those of the other fold are copied."""
    spoil(own / FULL / "fold_0")
    model, lines = take(own, work)
    assert said in lines[0]
    assert "mean Dice of nnU-Net's segmentations" in lines[1]
    dice = Summary.load(model.validation(0) / "summary.json").foreground_mean.dice
    assert f"fold 0: mean Dice of whole held-out cases {dice:.4f}" in lines
    segmenter = load_segmenter(model.path, PredictionOptions(folds=0, device="cpu"))
    image = read_image((folders_of(work).raw / "imagesTr/case_2_0000.nii.gz",))
    found = read_label_map(model.validation(0) / "case_2.nii.gz").array
    assert (found != segmenter.segment(image).array).mean() < 0.05  # prepared cases are of less precision
    assert len(Summary.load(model.path / "summary.json").cases) == 4


def test_model_of_nnunets_own_trainer_is_judged_here(tmp_path: Path) -> None:
    """The recorded model has two channels and an ignore label, and its folds are those that are assigned by default."""
    folders = write_volumes(tmp_path, channels=2)
    labels = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
    change_json(folders.raw / "dataset.json", channel_names={"0": "CT", "1": "MR"}, labels=labels)
    model, lines = take(GOLDEN / "plain.zip", tmp_path)
    assert lines[1].startswith("3d_fullres, fold 0: nothing tells which cases it held out; taken to be those of splits")
    assert [case.name for case in Summary.load(model.validation(0) / "summary.json").cases] == list(
        Splits.load(folders.splits).folds[0].validation
    )
    assert load_checkpoint(model.checkpoint(0)).plan.dataset == "Dataset001_Tiny"
    with pytest.raises(
        AutosegError, match="nnunet/3d_fullres: folds 1 2 are not trained; run 'autoseg train -d 1 -c 3d"
    ):
        find_best(NUMBER, workspace=tmp_path, device="cpu")


def test_a_stopped_run_goes_on(work: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed folds stay; held-out cases without scores are validated; a third run finds nothing to do."""
    shutil.rmtree(own / FULL / "fold_1/validation")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autoseg.nnunet.dataset_install.validate_fold", stop)
        with pytest.raises(KeyboardInterrupt):
            take(own, work)
    model = named(work).model("3d_fullres")
    assert [is_validated(model, fold) for fold in (0, 1)] == [True, False]
    before = model.checkpoint(0).stat().st_mtime_ns
    _, lines = take(own, work)
    assert lines[0] == f"3d_fullres was taken over already: {model.path}"
    assert is_validated(model, 1)
    assert take(own, work)[1] == [lines[0]]
    assert model.checkpoint(0).stat().st_mtime_ns == before


def test_zip_tells_which_cases_were_held_out(work: Path, own: Path, tmp_path: Path) -> None:
    """A zip holds the scores without the segmentations, which are made here."""
    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(own.rglob("*.json")) + sorted(own.rglob("*.pth")):
            archive.write(path, f"Dataset001_Tiny/{path.relative_to(own)}")
    _, lines = take(file, work)
    assert (
        lines[0]
        == "3d_fullres, fold 0: nnU-Net's segmentations are not all there; its held-out cases are segmented here"
    )
    write_splits(work, SPLITS[::-1])
    with pytest.raises(UsageError, match=r"fold 0 of .*model\.zip/\S+ held out other cases than .*, such as 'case_1'"):
        take(file, work, plan_name="again")


def test_cascade_comes_with_its_first_part(work: Path, tmp_path: Path) -> None:
    """It uses the cases of 3d_fullres, which joins the plan untrained; both stages are validated here."""
    low = plain_configuration(spacing_mm=(2.0, 2.0, 2.0))
    seeing = low.architecture.model_copy(update={"in_channels": 3})
    cascade = plain_configuration(architecture=seeing, previous="3d_lowres")
    results = save_theirs(tmp_path, work, {"3d_lowres": low, "3d_cascade_fullres": cascade})
    for fold in results.glob("*/fold_1"):
        shutil.rmtree(fold / "validation")
    folder = install_nnunet(results, work, number=NUMBER, device="cpu")
    plan = Plan.load(named(work).plan)
    assert set(plan.configurations) == {"3d_lowres", "3d_cascade_fullres", "3d_fullres"}
    full = plan.configurations["3d_fullres"]
    assert (full.previous, full.architecture.in_channels, full.spacing_mm) == (None, 1, (1.0, 1.0, 1.0))
    for name in ("3d_lowres", "3d_cascade_fullres"):
        assert [is_validated(ModelFolder(path=folder / name), fold) for fold in (0, 1)] == [True, True]
    preprocess(NUMBER, plan_name="nnunet", workspace=work)
    choice = find_best(NUMBER, workspace=work, device="cpu")
    assert [one.name for one in choice.candidates][:2] == ["nnunet/3d_cascade_fullres", "nnunet/3d_lowres"]
    bundle = autoseg.export_model(NUMBER, tmp_path / "m.zip", workspace=work, plan_name=None)
    assert autoseg.install_model(bundle, tmp_path / "elsewhere").is_dir()
    shutil.rmtree(results / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    with pytest.raises(ModelError, match="is a cascade, which needs the model of 3d_lowres beside it"):
        take(results, work, plan_name="alone")


def test_configurations_are_added_one_by_one(work: Path, theirs: Path, tmp_path: Path) -> None:
    """Configurations are added to a plan; other weights need --replace, or another plan."""
    take(theirs / FULL, work)
    flat = save_theirs(tmp_path / "flat", work, {"2d": plain_configuration(2)})
    take(flat, work)
    assert list(Plan.load(named(work).plan).configurations) == ["3d_fullres", "2d"]
    names = [one.name for one in find_best(NUMBER, ensembles=False, workspace=work, device="cpu").candidates]
    assert names == ["nnunet/3d_fullres", "nnunet/2d"]
    longer = save_theirs(tmp_path / "longer", work, {"3d_fullres": plain_configuration()}, folds=(1, 0))
    before = files_in(work)
    with pytest.raises(UsageError, match=r"nnunet/3d_fullres holds other trained folds; choose another plan with --p"):
        take(longer, work)
    assert files_in(work) == before
    take(longer, work, replace=True)
    assert is_validated(named(work).model("3d_fullres"), 1)
    other, _ = take(longer, work, plan_name="longer")
    assert other.path == folders_of(work).with_plan("longer").model("3d_fullres").path
    change = Plan.load(named(work).plan).model_copy(update={"axis_order": (0, 1, 2)})
    change.save(folders_of(work).with_plan("longer").plan)
    with pytest.raises(
        UsageError, match=r"into the order \(0, 1, 2\), the model into \(1, 0, 2\); choose another plan"
    ):
        take(longer, work, plan_name="longer", replace=True)


def test_model_of_all_cases_keeps_the_rules_of_nnunet(work: Path, tmp_path: Path) -> None:
    """Fold "all" holds nothing out, so there is nothing to validate."""
    results = save_theirs(tmp_path, work, {"3d_fullres": plain_configuration()}, folds=("all",))
    rules = PostprocessingRules(keep_largest=((1,),))
    pooled = results / FULL / "crossval_results_folds_all"
    pooled.mkdir()
    function = "remove_all_but_largest_component_from_segmentation"
    (pooled / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": [function], "postprocessing_kwargs": [{"labels_or_regions": 1}]})
    )
    model, lines = take(results, work)
    assert model.trained_folds() == ["all"]
    assert lines == []
    assert PostprocessingRules.load(model.postprocessing) == rules


def test_folds_of_nnunet_are_found_given_or_dealt(bare: Path, theirs: Path, tmp_path: Path) -> None:
    """Folds come from splits_final.json beside the cases or from --splits; an existing splits.json must agree."""
    content = [{"train": list(one), "val": list(other)} for one, other in SPLITS]
    root = shutil.copytree(bare, tmp_path / "work")
    folders_of(root).splits.unlink()
    with pytest.raises(
        UsageError, match=r"found or dealt for Dataset001_Tiny, such as 'case_\d'; give nnU-Net's splits_"
    ):
        take(theirs, root)
    assert not (root / "results").exists()
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(content))
    _, lines = take(theirs, root, splits=file)
    assert lines[0] == f"took 2 folds from {file}"
    assert [split.validation for split in Splits.load(folders_of(root).splits).folds] == [CASES[:2], CASES[2:]]
    take(theirs, root, splits=file, plan_name="same")
    file.write_text(json.dumps(content[::-1]))
    with pytest.raises(
        UsageError, match=r"splits\.json holds other folds than .*splits_final\.json; leave --splits out"
    ):
        take(theirs, root, splits=file, plan_name="other")
    root = shutil.copytree(bare, tmp_path / "beside")
    folders_of(root).splits.unlink()
    (folders_of(root).raw / "splits_final.json").write_text(json.dumps(content))
    assert "took over 2 folds that nnU-Net left in" in take(theirs, root)[1][0]


# --- What is refused --------------------------------------------------------------------------------------------------


def relabel(path: Path, **changes: object) -> None:
    """Changes the dataset.json of a model."""
    change_json(path / FULL / "dataset.json", **changes)


def rename_fold(path: Path) -> None:
    """Swaps two folds."""
    (path / FULL / "fold_0").rename(path / FULL / "fold_x")
    (path / FULL / "fold_1").rename(path / FULL / "fold_0")
    (path / FULL / "fold_x").rename(path / FULL / "fold_1")
    for fold in (0, 1):
        shutil.rmtree(path / FULL / f"fold_{fold}/validation")


def stop_training(path: Path) -> None:
    """Leaves a fold as it is during training."""
    fold = path / FULL / "fold_1"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")


def add_fold(path: Path) -> None:
    """Makes a fold that nnU-Net held out at random."""
    shutil.copytree(path / FULL / "fold_1", path / FULL / "fold_7")
    file = path / FULL / "fold_7/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["init_args"]["fold"] = 7
    torch.save(content, file)


def hold_out_others(path: Path) -> None:
    """Makes a model whose folds were others."""
    scores = path / FULL / "fold_1/validation/summary.json"
    scores.write_text(scores.read_text().replace("case_3", "case_2"))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: relabel(path, labels={"background": 0, "dark": 1, "bright": 2}),
         "was trained on the labels dark 1, bright 2, and Dataset001_Tiny has bright 1, dark 2; install it without -d"),
        (lambda path: relabel(path, channel_names={"0": "T2"}),
         "was trained on the channels T2, and Dataset001_Tiny has channel_0"),
        (lambda path: change_json(path / FULL / "plans.json", image_reader_writer="NibabelIOWithReorient"),
         "turns scans before it sees them, as Dataset001_Tiny does not; write \"overwrite_image_reader_writer\""),
        (stop_training, "fold_1 is no fold that nnU-Net trained to its end (it lacks checkpoint_final.pth)"),
        (lambda path: (path / FULL / "fold_one").mkdir(), "fold_one is no fold that nnU-Net trained to its end"),
        (rename_fold, "fold_0/checkpoint_final.pth is of fold 1; put it where it belongs"),
        (add_fold, "has a fold 7, which is none of"),
        (hold_out_others, "held out other cases than in"),
        (lambda path: (path / FULL / "fold_0/validation/summary.json").write_text("{}"), "holds no scores of cases"),
        (lambda path: shutil.rmtree(path / FULL), "holds no model of nnU-Net"),
    ],
)  # fmt: skip
def test_what_does_not_belong_is_refused(work: Path, own: Path, spoil: Callable[[Path], object], text: str) -> None:
    """The refusal has one line, and nothing is left of the model."""
    spoil(own)
    before = sorted(work.rglob("*"))
    with pytest.raises(AutosegError) as caught:
        take(own, work)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(work.rglob("*")) == before


def test_scans_that_lie_as_they_are_turned_need_no_turning(bare: Path, own: Path, tmp_path: Path) -> None:
    """The fingerprint tells the orientations; without it nothing is known. Other scans are then reoriented."""
    change_json(own / FULL / "plans.json", image_reader_writer="NibabelIOWithReorient")
    lying = shutil.copytree(bare, tmp_path / "lying")
    for path in folders_of(lying).raw.rglob("*.nii.gz"):
        image = sitk.ReadImage(path)
        image.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))  # x to the right, y to the front
        sitk.WriteImage(image, path)
    for path in own.rglob("validation"):
        shutil.rmtree(path)
    with pytest.raises(UsageError, match="turns scans before it sees them"):
        take(own, lying)
    extract_fingerprint(NUMBER, workspace=lying)
    model, _ = take(own, lying)
    assert TrainingStatistics.load(model.training_statistics).orientation == "SAR"


def test_missing_cases_are_named(work: Path, theirs: Path) -> None:
    """Raw data and dataset must exist."""
    (folders_of(work).raw / "labelsTr/case_3.nii.gz").unlink()
    before = sorted(work.rglob("*"))
    with pytest.raises(
        AutosegError, match=r"case 'case_3' of Dataset001_Tiny: its label labelsTr/case_3\.nii\.gz is miss"
    ):
        take(theirs, work)
    assert sorted(work.rglob("*")) == before
    with pytest.raises(AutosegError, match="no dataset 9 in"):
        install_nnunet(theirs, work, number=9)


def test_full_disk_leaves_nothing(work: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither plan nor splits nor empty folders are left."""
    before = sorted(work.rglob("*"))

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.nnunet.dataset_install.save_plan", fill)
    with pytest.raises(AutosegError, match="No space left on device"):
        take(theirs, work)
    assert sorted(work.rglob("*")) == before


def test_options_that_do_not_go_together_are_refused(work: Path, theirs: Path) -> None:
    """A model belongs to a dataset and has a plan, or stands alone and has a name."""
    with pytest.raises(UsageError, match="name the dataset that it was trained on with -d, or leave --plan and --sp"):
        install_nnunet(theirs, work, plan_name="nnunet")
    with pytest.raises(UsageError, match="--name is for a model that belongs to no dataset; name the plan with --plan"):
        install_nnunet(theirs, work, number=NUMBER, name="mine")
    assert install_nnunet(theirs, work).parent == work / "models"


def test_commands_to_go_on_with_are_told(work: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors end with exit code 2."""
    from autoseg.cli.terminal import console

    monkeypatch.setattr(console, "_width", 200)
    command = f"install_nnunet {own} -d {NUMBER} -w {work} --device cpu"
    told = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "compare it with what was trained here: autoseg find_best -d 1" in told.output
    assert "use it: autoseg predict -d 1 --plan nnunet -i scans/ -o masks/" in told.output
    stop_training(own)
    refused = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert refused.exit_code == 2
    [line] = refused.output.splitlines()
    assert line.startswith("error: ")


# --- Trainers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainer", "known"),
    [
        ("nnUNetTrainer", True),
        ("nnUNetTrainer_250epochs", True),
        ("nnUNetTrainer_1epoch", True),
        ("nnUNetTrainer_2000epochs_NoMirroring", True),
        ("nnUNetTrainerDA5", True),
        ("nnUNetTrainer_onlyMirror01_1500ep", True),
        ("nnUNetTrainerMyLoss", False),
        ("nnUNetTrainer_250epochs_mine", False),
        ("nnUNetTrainerBN", False),
        ("DA5", False),
        ("MyTrainer", False),
    ],
)
def test_trainers_of_nnunet_are_known(trainer: str, known: bool) -> None:
    """Trainers are known by their whole names."""
    assert is_known(trainer) is known


def test_trainer_of_somebody_is_said(work: Path, own: Path) -> None:
    """One remark says that it may predict otherwise in nnU-Net."""
    for file in own.rglob("checkpoint_final.pth"):
        torch.save({**torch.load(file, weights_only=False), "trainer_name": "nnUNetTrainerMyLoss"}, file)
    [line] = [line for line in take(own, work)[1] if "mind" in line]
    assert line.startswith("mind that 'nnUNetTrainerMyLoss', which trained this model, is no trainer of nnU-Net's")
    assert line.endswith("and it may predict otherwise there")
