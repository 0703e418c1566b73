"""Folds begin with the weights of a trained model, from the command to the checkpoint."""

import shutil

import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.pipeline.training import train
from autoseg.training import loop
from autoseg.training.initial_weights import FROZEN

pytestmark = pytest.mark.slow  # each test trains folds

CONFIGURATION = "3d_fullres"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Returns a model folder, trained on bright and dark boxes."""
    root = tmp_path_factory.mktemp("source")
    write_volumes(root)
    plan_tiny(root, epochs=1, steps_per_epoch=6)
    train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root)
    return folders_of(root).model(CONFIGURATION)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace whose scans have a new second channel, and a structure with another name."""
    root = tmp_path_factory.mktemp("prepared")
    folders = write_volumes(root, channels=2)
    info = DatasetInfo.load(folders.raw / "dataset.json")
    names = {"0": "channel_1", "1": "channel_0"}
    labels = {"background": 0, "shade": 1, "dark": 2}
    info.model_copy(update={"labels": labels, "channel_names": names}).save(folders.raw / "dataset.json")
    plan_tiny(root, epochs=2, steps_per_epoch=3, average_decay=0.5)
    return root


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


def run_train(root, folds=(0,), **options):
    """Trains, and returns a listener with the lines that were reported."""
    listener = Listener()
    train(NUMBER, CONFIGURATION, list(folds), device="cpu", workspace=root, reporter=listener, **options)
    return listener


def checkpoint_of(root, fold=0):
    """Loads the checkpoint of a fold."""
    return load_checkpoint(folders_of(root).model(CONFIGURATION).checkpoint(fold))


def test_fold_begins_with_another_model(fresh, source):
    """Frozen weights stay those of the model; weights that do not fit are named; the digest is saved."""
    command = f"train -d 1 -c {CONFIGURATION} -f 0 -w {fresh} --device cpu --init {source.path} --freeze encoder"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    for line in (
        f"begins with {source.checkpoint(0)}",
        "taken: ",
        "fitted: ",
        "structures that start fresh: shade",
        "channels that start as the mean of the old ones: channel_1",
        "frozen (encoder): ",
    ):
        assert line in result.output.replace("\n", " ")
    old, learned = load_checkpoint(source.checkpoint(0)), checkpoint_of(fresh)
    assert learned.training["origin"] == {"digest": digest_weights(old.weights), "freeze": "encoder"}
    for name, value in learned.weights.items():
        if name.startswith(FROZEN["encoder"]) and name != "encoder.0.blocks.0.conv.weight":
            assert torch.equal(value, old.weights[name]), name
    first = learned.weights["encoder.0.blocks.0.conv.weight"]
    torch.testing.assert_close(first, old.weights["encoder.0.blocks.0.conv.weight"].repeat(1, 2, 1, 1, 1) / 2)
    assert not torch.equal(learned.weights["heads.0.weight"][2], old.weights["heads.0.weight"][2])


def test_begun_fold_goes_on_to_the_same_end(fresh, source, tmp_path, monkeypatch):
    """It goes on with --init and --freeze or without; the first lines are reported once."""
    straight = shutil.copytree(fresh, tmp_path / "straight")
    run_train(straight, init=source.path, freeze="decoder")
    original = loop.train_step

    def step_or_stop(state, *rest):
        if state.step == 4:
            raise KeyboardInterrupt
        return original(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run_train(fresh, init=source.path, freeze="decoder")
    other = shutil.copytree(fresh, tmp_path / "other")
    assert "begins with" not in run_train(fresh).text
    assert "begins with" not in run_train(other, init=source.fold(0), freeze="decoder").text
    for root in (fresh, other):
        for name, value in checkpoint_of(straight).weights.items():
            assert torch.equal(value, checkpoint_of(root).weights[name]), name


def test_begun_fold_refuses_other_weights(fresh, source):
    """They are refused before any fold is trained, and --restart begins with them."""
    run_train(fresh, epochs=1)
    with pytest.raises(UsageError, match="fold 0 was begun with random weights, not those of"):
        run_train(fresh, [1, 0], init=source.path)
    assert not folders_of(fresh).model(CONFIGURATION).checkpoint(1).exists()
    run_train(fresh, init=source.path, restart=True, epochs=1)
    assert checkpoint_of(fresh).training["origin"]["digest"]


def test_next_fold_may_begin_with_the_one_before(source, tmp_path):
    """The weights are of the same model folder, and a warning says that they know the held-out cases."""
    root = shutil.copytree(source.path.parents[2], tmp_path / "copy")
    own = folders_of(root).model(CONFIGURATION)
    listener = run_train(root, [1], init=own.path, epochs=1)
    assert f"begins with {own.checkpoint(0)}" in listener.text
    assert "may know the cases that fold 1 holds out" in listener.text
    assert "trained to its end" in run_train(root, [1], init=own.path, epochs=1).text
    with pytest.raises(UsageError, match="cannot begin with its own weights"):
        run_train(root, [1], init=own.fold(1), restart=True)
    assert own.checkpoint(1).is_file()
