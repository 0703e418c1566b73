"""A cascade: coarse segmentations of held-out cases, and the finer configuration that uses them."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, edit_training, folders_of, write_volumes

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ModelError, UsageError
from autoseg.evaluation.summary import Summary
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_encoding import code_base, decode_labels, decode_previous
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.cascade_channels import show_previous
from autoseg.inference.ensemble import EnsemblePrediction, EnsembleSegmenter
from autoseg.inference.model import load_model
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.held_out_cases import load_preprocessed
from autoseg.models.best_model import BestModelFold
from autoseg.models.bundle_reading import opened_bundle
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.fold_files import load_exports
from autoseg.models.weight_digest import digest_weights
from autoseg.pipeline.datasets import plan_and_preprocess, preprocess
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import find_best
from autoseg.pipeline.sharing import export_model
from autoseg.pipeline.training import train
from autoseg.planning.plan_file import load_plan_and_splits
from autoseg.preprocessing.cascade import write_cascade_labels
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.lock import run_alone
from autoseg.workspace import ModelFolder

pytestmark = pytest.mark.slow

COARSE, CASCADE = "3d_lowres", "3d_cascade_fullres"


def add_cascade(root: Path, *, steps: int) -> None:
    """Writes a coarse configuration and a cascade after it into plan.json; such small images would get neither."""
    path = folders_of(root).plan
    plan = json.loads(path.read_text())
    full = plan["configurations"]["3d_fullres"]
    plan["configurations"][COARSE] = {**full, "spacing_mm": [1.5, 1.5, 1.5]}
    network = {**full["architecture"], "in_channels": full["architecture"]["in_channels"] + 2}
    plan["configurations"][CASCADE] = {**full, "architecture": network, "previous": COARSE}
    plan["training"] |= {"epochs": 1, "steps_per_epoch": steps, "validation_steps": 1}
    path.write_text(json.dumps(plan))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose cascade is trained for one fold, after all folds of the coarse configuration."""
    root = tmp_path_factory.mktemp("cascade")
    write_volumes(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
        plan_and_preprocess(NUMBER, configurations=["3d_fullres"], preset="small", workspace=root)
    add_cascade(root, steps=60)
    preprocess(NUMBER, configurations=[COARSE, CASCADE], workspace=root)
    train(NUMBER, COARSE, "cv", workspace=root, device="cpu")
    train(NUMBER, CASCADE, 0, workspace=root, device="cpu")
    return root


def test_each_case_gets_the_segmentation_made_without_it(trained: Path) -> None:
    """The one of the fold that held it out, on the grid of the case, beside its label."""
    folders = folders_of(trained)
    targets = Dataset.open(folders.raw).info.targets
    seen = set()
    for fold in range(3):
        folder = folders.model(COARSE).validation(fold)
        for case in Summary.load(folder / "summary.json").cases:
            seen.add(case.name)
            codes = StoredCase.open(folders.cases(CASCADE), case.name)
            stored = StoredCase.open(folders.cases("3d_fullres"), case.name)
            assert codes.content.channels == 0
            np.testing.assert_array_equal(decode_labels(codes.load_label(), code_base(targets)), stored.load_label())
            previous = decode_previous(codes.load_label(), code_base(targets))
            segmentation = read_label_map(folder / case.prediction_file).array
            if stored.record.geometry.shape == stored.shape:
                np.testing.assert_array_equal(previous, np.where(stored.load_label() == -1, 0, segmentation))
            assert abs((previous > 0).mean() - (segmentation > 0).mean()) < 0.02
    assert seen == {"case_1", "case_2", "case_3"}


def test_a_cascade_learns_and_predicts_in_one_command(trained: Path, tmp_path: Path) -> None:
    """The coarse model beside it segments first; scores are those of a network that knows where to look."""
    folders = folders_of(trained)
    summary = Summary.load(folders.model(CASCADE).path / "summary.json")
    assert summary.foreground_mean.dice > 0.7
    checkpoint = load_checkpoint(folders.model(CASCADE).checkpoint(0))
    assert checkpoint.weights["encoder.0.blocks.0.conv.weight"].shape[1] == 3
    [mask] = predict(
        folders.raw / "imagesTs", tmp_path, number=NUMBER, configuration=CASCADE, workspace=trained, device="cpu"
    )
    assert set(np.unique(read_label_map(mask).array)) == {0, 1, 2}


def test_both_stages_are_exported_in_int8(trained: Path, tmp_path: Path) -> None:
    """Each fold of either is judged on the cases that it held out, and together they predict."""
    bundle = export_model(
        NUMBER,
        tmp_path / "cascade.zip",
        configuration=CASCADE,
        runtime="onnx",
        precision="int8",
        largest_dice_loss=1,
        workspace=trained,
    )
    with opened_bundle(bundle) as folder:
        exported = {
            name: load_exports(member, member.trained_folds())
            for name, member in ((name, ModelFolder(path=folder / name)) for name in (COARSE, CASCADE))
        }
    assert {name: len(folds) for name, folds in exported.items()} == {COARSE: 3, CASCADE: 1}
    assert all(fold.int8.cases == 1 for folds in exported.values() for fold in folds)
    scan = folders_of(trained).raw / "imagesTs" / "case_4_0000.nii.gz"
    expected = sitk.GetArrayFromImage(load_model(folders_of(trained).model(CASCADE).path).predict(scan))
    mask = sitk.GetArrayFromImage(load_model(bundle, runtime="openvino").predict(scan))
    assert (mask == expected).mean() > 0.98


def test_a_cascade_needs_the_coarse_model_beside_it(trained: Path, tmp_path: Path) -> None:
    """A copied model folder is not enough, and the line says what is missing."""
    folders = folders_of(trained)
    copy = shutil.copytree(folders.model(CASCADE).path, tmp_path / "models" / CASCADE)
    with pytest.raises(ModelError, match=r"is a cascade, which needs the model of 3d_lowres beside it; copy or train"):
        predict(folders.raw / "imagesTs", tmp_path / "masks", model=copy, device="cpu")
    shutil.copytree(folders.model(COARSE).path, tmp_path / "models" / COARSE)
    assert len(predict(folders.raw / "imagesTs", tmp_path / "masks", model=copy, device="cpu")) == 1


def test_what_the_coarse_model_says_matters(trained: Path) -> None:
    """A cascade that is shown nothing sees other things than one that is shown a segmentation."""
    folders = folders_of(trained)
    checkpoint = load_checkpoint(folders.model(CASCADE).checkpoint(0))
    segmenter = make_segmenter([checkpoint], NO_RULES, device=torch.device("cpu"))
    stored = StoredCase.open(folders.cases("3d_fullres"), "case_1")
    image = stored.load()[0]
    codes = StoredCase.open(folders.cases(CASCADE), "case_1").load_label()
    targets = Dataset.open(folders.raw).info.targets
    case = PreprocessedCase(image=image, label=None, record=stored.record)
    former = decode_previous(codes, code_base(targets))
    shown, blind = (
        segmenter.predict_preprocessed(show_previous(case, one, targets)).logits for one in (former, 0 * former)
    )
    assert (shown - blind).abs().max() > 0.1


def test_coarse_segmentations_are_asked_for(trained: Path, tmp_path: Path) -> None:
    """Those of all cases, since each is trained on or held out."""
    root = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(folders_of(root).model(COARSE).fold(1))
    with pytest.raises(
        UsageError,
        match=r"3d_cascade_fullres needs the segmentations of held-out cases by 3d_lowres, which 1 of 3 cases lack "
        r"\(case_\d\); run 'autoseg train -d 1 -c 3d_lowres -f cv' first",
    ):
        train(NUMBER, CASCADE, 1, workspace=root, device="cpu")


def test_segmentations_are_resampled_once(trained: Path, tmp_path: Path) -> None:
    """They are written again only when they change."""
    root = shutil.copytree(trained, tmp_path / "copy")
    folders = folders_of(root)
    before = {path.name: path.stat().st_mtime_ns for path in folders.cases(CASCADE).iterdir()}
    listener = Listener()
    train(NUMBER, CASCADE, 0, workspace=root, device="cpu", reporter=listener)
    assert {path.name: path.stat().st_mtime_ns for path in folders.cases(CASCADE).iterdir()} == before
    folder = folders.model(COARSE).validation(0)
    [case] = Summary.load(folder / "summary.json").cases
    (folder / case.prediction_file).touch()
    train(NUMBER, CASCADE, 0, workspace=root, device="cpu", reporter=listener)
    after = {path.name: path.stat().st_mtime_ns for path in folders.cases(CASCADE).iterdir()}
    assert {name for name in after if after[name] != before[name]} == {f"{case.name}.zip"}


def test_a_cascade_and_what_it_follows_are_a_pair(trained: Path, tmp_path: Path) -> None:
    """Held-out cases are shown what was made of them when they were held out; new ones what the other member says."""
    root = shutil.copytree(trained, tmp_path / "copy")
    folders = folders_of(root)
    edit_training(root, steps_per_epoch=2)
    train(NUMBER, CASCADE, [1, 2], workspace=root, device="cpu")
    choice = find_best(NUMBER, workspace=root, device="cpu")
    assert [one.name for one in choice.candidates] == [COARSE, CASCADE, f"{COARSE}+{CASCADE}"]
    assert choice.left_out[-1] == (
        "3d_fullres: folds 0 1 2 are not trained; run 'autoseg train -d 1 -c 3d_fullres -f cv'"
    )
    folds = {
        name: tuple(
            BestModelFold(
                fold=fold, weights=digest_weights(load_checkpoint(folders.model(name).checkpoint(fold)).weights)
            )
            for fold in range(3)
        )
        for name in (COARSE, CASCADE)
    }
    choice.model_copy(update={"configurations": (COARSE, CASCADE), "folds": folds}).save(folders.best_model)
    segmenter = load_model(folders.models, device="cpu").segmenter
    assert isinstance(segmenter, EnsembleSegmenter)
    coarse, cascade = segmenter.members
    assert cascade.previous is coarse

    summary = Summary.load(folders.ensemble(f"{COARSE}+{CASCADE}") / "summary.json")
    targets = Dataset.open(folders.raw).info.targets
    fold, split = next(iter(enumerate(Splits.load(folders.splits).folds)))
    [case] = [case for case in summary.cases if case.name in split.validation]
    said = []
    for name, codes in ((COARSE, None), (CASCADE, folders.cases(CASCADE))):
        prepared = load_preprocessed(
            case.name, targets, folders.cases(COARSE if codes is None else "3d_fullres"), codes
        )
        one = make_segmenter([load_checkpoint(folders.model(name).checkpoint(fold))], NO_RULES, torch.device("cpu"))
        said.append(one.predict_preprocessed(prepared))
    expected = EnsemblePrediction(members=tuple(said), rules=NO_RULES).segmentation().array
    written = folders.ensemble(f"{COARSE}+{CASCADE}") / case.prediction_file
    np.testing.assert_array_equal(read_label_map(written).array, expected)


def test_folds_that_begin_at_once_prepare_the_cascade_in_turns(trained: Path, tmp_path: Path) -> None:
    """The second waits for the first instead of being refused, and finds all done."""
    root = tmp_path / "work"
    shutil.copytree(trained, root)
    folders, held, told = folders_of(root), threading.Event(), threading.Event()
    plan, splits = load_plan_and_splits(NUMBER, folders)
    lines: list[str] = []

    def prepare_elsewhere() -> None:
        with run_alone(folders.preprocessed):
            held.set()
            assert told.wait(60)

    class Told(Listener):
        """Lets the other run end as soon as this one waits."""

        def say(self, line: str) -> None:
            lines.append(line)
            told.set()

    other = threading.Thread(target=prepare_elsewhere)
    other.start()
    assert held.wait(60)
    write_cascade_labels(Dataset.open(folders.raw).only(splits.names), plan, CASCADE, folders, NUMBER, Told())
    other.join()
    assert [line.split("; ")[-1] for line in lines] == ["waiting until it has ended"]
