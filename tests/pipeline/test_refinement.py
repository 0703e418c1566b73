"""Corrected masks go back into a dataset, and its folds learn from them: from predictions to better predictions."""

import shutil

import numpy as np
import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, boxes, dice, files_in, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.revisions import digest_file, list_revisions, revision_folder
from autoseg.datasets.splits import Splits
from autoseg.errors import DatasetError, ModelError, ProblemsError, UsageError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.importing import corrections
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.pipeline import predict, refine, train
from autoseg.preprocessing.store import StoredCase
from autoseg.training import loop
from autoseg.workspace import ModelFolder

pytestmark = pytest.mark.slow  # each test trains folds

CONFIGURATION = "3d_fullres"
SHAPE = (16, 16, 18)
EPOCHS, STEPS = 3, 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a workspace of four cases, two of whose folds are trained, with the masks of a scan that is no case."""
    root = tmp_path_factory.mktemp("trained")
    write_volumes(root, cases=4, shape=SHAPE)
    plan_tiny(root, patches="fixed", epochs=EPOCHS, steps_per_epoch=STEPS)
    train(NUMBER, CONFIGURATION, [0, 1], device="cpu", workspace=root)
    scans = folders_of(root).raw / "imagesTs"
    predict(scans, root / "machine", model=folders_of(root).model(CONFIGURATION).path, device="cpu")
    return root


@pytest.fixture
def workspace(trained, tmp_path):
    """Returns a copy of it."""
    return shutil.copytree(trained, tmp_path / "work")


def truth(number):
    """Returns the label map of the phantom of a number, with a voxel in the corner that no model finds."""
    label = boxes(SHAPE, shift=number % 2)
    label[-1, -1, -1] = 1
    return label


def write_corrected(root, name, array=None, *, like=None):
    """Writes a corrected mask, on the grid of a mask of the machine or of the dataset."""
    template = read_label_map(like or root / "machine" / f"{name}.nii.gz")
    array = truth(int(name.removeprefix("case_"))) if array is None else array
    write_label_map(root / "corrected" / f"{name}.nii.gz", Volume(array=array, geometry=template.geometry))


def run_refine(root, **options):
    """Refines, and returns the result and what was said."""
    listener = Listener()
    options = {"device": "cpu", "workspace": root, "reporter": listener, **options}
    return refine(NUMBER, **options), listener.text


def checkpoint_of(root, fold=0):
    """Loads the checkpoint of a fold."""
    return load_checkpoint(folders_of(root).model(CONFIGURATION).checkpoint(fold))


def test_corrections_of_new_and_old_cases_are_learned(workspace):
    """The loop from the command: predicted, corrected, brought back, trained on, judged on what was held out."""
    folders = folders_of(workspace)
    before, splits = checkpoint_of(workspace), Splits.load(folders.splits)
    old_label = folders.raw / "labelsTr" / "case_1.nii.gz"
    old_bytes, prepared = old_label.read_bytes(), folders.cases(CONFIGURATION)
    untouched = (prepared / "case_2.zip").stat().st_mtime_ns
    write_corrected(workspace, "case_5")
    changed = read_label_map(old_label)
    changed.array[0, :3, :3] = 2
    write_corrected(workspace, "case_1", changed.array, like=old_label)
    command = (
        f"refine -d 1 -i {workspace}/corrected --machine {workspace}/machine --extend 2 -w {workspace} --device cpu"
    )
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    [revision] = list_revisions(folders.raw)
    assert revision.applied
    new, old = revision.cases["case_5"], revision.cases["case_1"]
    assert (new.origin, new.is_new, old.origin, old.is_new) == ("corrected", True, "corrected", False)
    assert old.changed_voxels == 9
    machine = read_label_map(workspace / "machine" / "case_5.nii.gz").array
    assert new.changed_voxels == np.count_nonzero(machine != truth(5))
    assert new.dice["bright"] == pytest.approx(dice(machine, truth(5), 1))
    assert new.machine_model
    assert old.machine_model is None
    folder = revision_folder(folders.raw, 1)
    assert files_in(folder) == {
        "revision.json", "before/case_1.nii.gz", "machine/case_5.nii.gz", "after/case_1.nii.gz", "after/case_5.nii.gz",
    }  # fmt: skip
    assert (folder / "before" / "case_1.nii.gz").read_bytes() == old_bytes
    assert digest_file(old_label) == old.after == digest_file(folder / "after" / "case_1.nii.gz")
    assert [case.name for case in Dataset.open(folders.raw).cases] == [f"case_{number}" for number in range(1, 6)]
    now = Splits.load(folders.splits)
    for fold, grown in zip(splits.folds, now.folds, strict=True):
        assert set(fold.validation) <= set(grown.validation)
        assert set(fold.training) <= set(grown.training)
    assert sum("case_5" in fold.validation for fold in now.folds) == 1
    assert (prepared / "case_2.zip").stat().st_mtime_ns == untouched
    assert (StoredCase.open(prepared, "case_1").load_label() == 2)[0, :3, :3].any()
    after = checkpoint_of(workspace)
    assert after.cases == now.fold(0).digest
    assert after.training["step"] == before.training["step"] + 2 * STEPS
    kept = ModelFolder(path=folders.model(CONFIGURATION).path / "before_revision_1")
    assert kept.trained_folds() == [0, 1]
    assert digest_weights(load_checkpoint(kept.checkpoint(0)).weights) == digest_weights(before.weights)
    assert (kept.validation(0) / "summary.json").is_file()
    assert "held-out cases before the revision" in result.output.replace("\n", " ")
    predict(folders.raw / "imagesTs", workspace / "again", model=kept.path, device="cpu")
    assert np.array_equal(read_label_map(workspace / "again" / "case_5.nii.gz").array, machine)


def test_a_stopped_run_goes_on(workspace, monkeypatch):
    """It is ended while the files are replaced, then in a step; each time the same command goes on."""
    write_corrected(workspace, "case_5")
    original_copy, original_step = corrections.copy_whole, loop.train_step
    source = workspace / "corrected"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "copy_whole", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_refine(workspace, source=source, folds=0, extend="2")
    assert corrections.copy_whole is original_copy
    assert [revision.applied for revision in list_revisions(folders_of(workspace).raw)] == [False]

    def step_or_stop(state, *rest):
        if state.step == EPOCHS * STEPS + 4:
            raise KeyboardInterrupt
        return original_step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run_refine(workspace, source=source, folds=0, extend="2")
    [revision] = list_revisions(folders_of(workspace).raw)
    assert revision.applied
    write_corrected(workspace, "case_1", truth(2), like=folders_of(workspace).raw / "labelsTr" / "case_1.nii.gz")
    with pytest.raises(
        UsageError, match=r"fold 0 of 3d_fullres is not trained to its end|was trained with other cases"
    ):
        run_refine(workspace, source=source, folds=0)
    (source / "case_1.nii.gz").unlink()
    refinement, text = run_refine(workspace, folds=0)
    assert checkpoint_of(workspace).training["step"] == (EPOCHS + 2) * STEPS
    assert refinement.dice_after is not None
    assert "fold 0 has learned from revision 1 already" in run_refine(workspace, source=source, folds=0)[1]
    assert "revision 1: 1 label map corrected" in text or "1 drawn" in text
    with pytest.raises(ModelError, match=r"begun with other cases .*'autoseg refine -d 1 -c 3d_fullres -f 1'"):
        train(NUMBER, CONFIGURATION, [1], device="cpu", workspace=workspace)
    run_refine(workspace, configuration=CONFIGURATION, folds=1, extend="1")
    assert checkpoint_of(workspace, 1).training["step"] == (EPOCHS + 1) * STEPS


def test_masks_may_be_brought_back_without_training(workspace):
    """A mask that was left as it was is accepted; folds are extended later."""
    shutil.copytree(workspace / "machine", workspace / "corrected", ignore=shutil.ignore_patterns("*.csv", ".report"))
    steps = checkpoint_of(workspace).training["step"]
    refinement, text = run_refine(
        workspace, source=workspace / "corrected", machine=workspace / "machine", training=False
    )
    assert refinement.revision.cases["case_5"].origin == "accepted"
    assert refinement.revision.cases["case_5"].changed_voxels == 0
    assert "1 accepted as they were" in text
    assert "to train the folds on: autoseg refine -d 1" in text
    assert checkpoint_of(workspace).training["step"] == steps
    train(NUMBER, CONFIGURATION, [0], extend="1", device="cpu", workspace=workspace)
    assert checkpoint_of(workspace).training["step"] == steps + STEPS


def test_bad_corrections_change_nothing(workspace):
    """Each bad file has its line, and good ones beside them are not taken either."""
    folders = folders_of(workspace)
    before = {path: path.read_bytes() for path in folders.raw.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="nothing was corrected, so there is nothing to learn from; give corrected"):
        run_refine(workspace)
    with pytest.raises(DatasetError, match="does not exist; give a folder of label maps"):
        run_refine(workspace, source=workspace / "nowhere")
    write_corrected(workspace, "case_5")
    like = workspace / "machine" / "case_5.nii.gz"
    write_corrected(workspace, "case_9", truth(1), like=like)
    write_corrected(workspace, "case_1", truth(1) * 3, like=folders.raw / "labelsTr" / "case_1.nii.gz")
    (workspace / "corrected" / "case_2.nii.gz").write_bytes(b"no image")
    write_corrected(workspace, "case_3", truth(3), like=folders.raw / "labelsTr" / "case_2.nii.gz")
    with pytest.raises(ProblemsError) as refused:
        run_refine(workspace, source=workspace / "corrected")
    text = str(refused.value)
    assert len(text.splitlines()) == 4
    assert "case_9.nii.gz has no scan; give the folder of the scans with --scans" in text
    for name in ("case_1", "case_2", "case_3"):
        assert name in text
    for path in (workspace / "corrected").glob("case_[1-39]*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"fold 7 of .* is not trained; train it first"):
        run_refine(workspace, source=workspace / "corrected", folds=[7])
    assert before == {path: path.read_bytes() for path in folders.raw.rglob("*") if path.is_file()}
