"""A run finds the weights to begin with, refuses weights that do not fit, and keeps frozen ones unchanged."""

import shutil
from dataclasses import replace
from hashlib import sha256
from typing import get_args

import pytest
import torch
from small_models import SMALL_INFO, small_checkpoint, small_configuration, small_plan, small_run

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split
from autoseg.errors import ModelError, UsageError
from autoseg.models.build import make_network
from autoseg.models.checkpoint import save_checkpoint
from autoseg.runtime.device import needs_scaling
from autoseg.runtime.reporting import SILENT
from autoseg.training.fold_job import FoldJob
from autoseg.training.initial_weights import (
    FROZEN,
    RANDOM,
    Freeze,
    InitialWeights,
    InitialWeightsRequest,
    list_frozen,
)
from autoseg.training.initialization import check_initial_weights, find_initial_weights
from autoseg.training.loop import train_fold
from autoseg.training.state import pack_state, start_training, unpack_state
from autoseg.workspace import DatasetFolders, ModelFolder

SPLIT = Split(training=("case_1",), validation=())


@pytest.fixture
def model(tmp_path):
    """Returns a model folder with the folds 0, which is not finished, 1 and 2."""
    folder = ModelFolder(path=tmp_path / "model")
    for fold in (0, 1, 2):
        checkpoint = replace(small_checkpoint(), fold=fold, finished=fold > 0)
        save_checkpoint(checkpoint, folder.checkpoint(fold))
    return folder


def job_of(tmp_path, *, dataset="Dataset002_Other", split=SPLIT, **request):
    """Returns the job of fold 2 of another dataset; `request` are the initial weights that are asked for."""
    configuration = request.pop("configuration", small_configuration())
    plan = small_plan().model_copy(update={"dataset": dataset, "configurations": {"3d_fullres": configuration}})
    return FoldJob(
        dataset=Dataset(folder=tmp_path / dataset, info=SMALL_INFO, cases=()),
        plan=plan,
        configuration_name="3d_fullres",
        fold=2,
        split=split,
        folders=DatasetFolders(raw=tmp_path, preprocessed=tmp_path, results=tmp_path / "own"),
        cases_folder=tmp_path,
        device=torch.device("cpu"),
        initial_weights=InitialWeightsRequest(**request),
    )


def start(origin, run, seed=7):
    """Returns a state before the first step."""
    network = make_network(run.training.configuration, seed)
    return start_training(network, run.settings, run.device, scaled=needs_scaling(run.device), initial_weights=origin)


@pytest.mark.parametrize(("fold", "found"), [(1, 1), (2, 2), (3, 1), (0, 1), ("all", 1)])
def test_model_folder_gives_the_same_fold_or_the_first_finished(model, tmp_path, fold, found):
    """A fold that is still being trained is not taken."""
    path, checkpoint = InitialWeightsRequest(path=model.path).find(fold, tmp_path / "own")
    assert (path, checkpoint.fold) == (model.checkpoint(found), found)


def test_fold_never_begins_with_itself(model):
    """From its own model folder another fold is taken; its own folder is refused."""
    path, _ = InitialWeightsRequest(path=model.path).find(1, model.checkpoint(1))
    assert path == model.checkpoint(2)
    with pytest.raises(UsageError, match="fold 1 cannot begin with its own weights; use --extend"):
        InitialWeightsRequest(path=model.fold(1)).find(1, model.checkpoint(1))


def test_fold_folder_and_checkpoint_are_taken_as_named(model, tmp_path):
    """They are taken even if their training is not finished."""
    for path in (model.fold(0), model.checkpoint(0)):
        assert InitialWeightsRequest(path=path).find(2, tmp_path)[1].fold == 0


def test_missing_and_damaged_models_are_one_line(model, tmp_path):
    """They are opened as safely as any other model."""
    with pytest.raises(ModelError, match="holds no fold that is trained to its end; check the path, or name"):
        InitialWeightsRequest(path=tmp_path / "nowhere").find(0, tmp_path)
    model.checkpoint(0).write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="is damaged"):
        InitialWeightsRequest(path=model.fold(0)).find(1, tmp_path)
    shutil.rmtree(model.fold(1))
    shutil.rmtree(model.fold(2))
    with pytest.raises(ModelError):
        InitialWeightsRequest(path=model.path).find(1, tmp_path)


def test_weights_of_another_network_are_refused(model, tmp_path):
    """The error describes both networks, and names the preset that fits."""
    usual = small_configuration()
    stages = [stage.model_copy(update={"features": 8 * stage.features}) for stage in usual.architecture.stages]
    architecture = usual.architecture.model_copy(update={"stages": tuple(stages)})
    larger = usual.model_copy(update={"architecture": architecture})
    with pytest.raises(UsageError) as refused:
        check_initial_weights(job_of(tmp_path, path=model.fold(1), configuration=larger), None)
    assert (
        "its network has 2 residual stages of 4, 8 features in 3D, the plan's has 2 residual stages of 32, 64"
        in str(refused.value)
    )
    assert "plan with --preset small as that model was" in refused.value.fix
    with pytest.raises(UsageError, match=r"in 3D, the plan's has .* in 2D"):
        check_initial_weights(
            job_of(tmp_path, path=model.fold(1), configuration=small_configuration(dimensions=2)), None
        )
    check_initial_weights(job_of(tmp_path, path=model.fold(1)), None)


def test_begun_fold_accepts_what_it_was_begun_with(model, tmp_path):
    """Weights are recognised by their digest in any folder; other weights or parts are refused."""
    job = job_of(tmp_path, path=model.fold(1), freeze="encoder")
    begun = find_initial_weights(job)
    moved = shutil.copytree(model.fold(1), tmp_path / "moved")
    check_initial_weights(job, begun)
    for request in ({}, {"freeze": "encoder"}, {"path": moved}):
        check_initial_weights(job_of(tmp_path, **request), begun)
    other = small_checkpoint()
    other = replace(other, weights={name: value + 1 for name, value in other.weights.items()})
    save_checkpoint(other, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"fold 2 was begun with other weights than those of .*other.pt; leave --init"):
        check_initial_weights(job_of(tmp_path, path=tmp_path / "other.pt"), begun)
    with pytest.raises(UsageError, match="fold 2 was begun with random weights"):
        check_initial_weights(job, RANDOM)
    with pytest.raises(UsageError, match="fold 2 was begun with --freeze encoder; leave --freeze out"):
        check_initial_weights(job_of(tmp_path, freeze="decoder"), begun)
    with pytest.raises(UsageError, match="fold 2 was begun without --freeze"):
        check_initial_weights(job_of(tmp_path, freeze="decoder"), RANDOM)


def test_fold_that_an_older_version_began_goes_on(model, tmp_path):
    """Its checkpoint holds the digest of all values of the weights that it began with."""
    weights = small_checkpoint().weights
    digest = sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode() + value.numpy().tobytes())
    begun = InitialWeights(digest=digest.hexdigest()[:16])
    check_initial_weights(job_of(tmp_path, path=model.fold(1)), begun)
    with pytest.raises(UsageError, match="fold 2 was begun with other weights"):
        check_initial_weights(job_of(tmp_path, path=model.fold(1)), replace(begun, digest="0" * 16))


def test_random_weights_are_not_frozen(tmp_path):
    """That would keep a part of the network random."""
    with pytest.raises(UsageError, match="--freeze would keep random weights as they are; add --init MODEL"):
        check_initial_weights(job_of(tmp_path, freeze="encoder"), None)


def test_unknown_part_is_refused():
    """The error names the parts that can be frozen."""
    with pytest.raises(UsageError, match="'head' is no part of the network; choose from encoder, decoder, all_but_he"):
        InitialWeightsRequest(freeze="head")


def test_leak_between_folds_is_said(model, tmp_path):
    """Weights of another fold of the same dataset know the held-out cases; other weights do not."""
    save_checkpoint(replace(small_checkpoint(), fold=1, cases=SPLIT.digest), model.checkpoint(1))
    other = Split(training=("case_2",), validation=())
    jobs = [
        job_of(tmp_path, path=model.fold(1), split=other),
        job_of(tmp_path, path=model.fold(1), split=other, dataset="Dataset001_Small"),
        job_of(tmp_path, path=model.fold(1), split=SPLIT, dataset="Dataset001_Small"),
    ]
    warned = ["may know the cases that fold 2 holds out" in "\n".join(find_initial_weights(job).lines) for job in jobs]
    assert warned == [False, True, False]


def test_what_was_taken_is_said(model, tmp_path):
    """The lines name the checkpoint, the share that was taken, and what is frozen."""
    lines = find_initial_weights(job_of(tmp_path, path=model.path, freeze="all_but_heads")).lines
    assert lines[0] == f"begins with {model.checkpoint(2)}: 3d_fullres, fold 2 of Dataset001_Small"
    assert lines[1].startswith("taken: ")
    assert lines[1].endswith("100.00% of the weights")
    assert lines[2].startswith("frozen (all_but_heads): ")


# --- Frozen weights ---------------------------------------------------------------------------------------------------


def test_every_part_has_weights():
    """Each part has weights, none of the heads, and together they have all others."""
    names = list(small_checkpoint().weights)
    assert set(FROZEN) == set(get_args(Freeze))
    heads = {name for name in names if name.startswith("heads.")}
    parts = {freeze: set(list_frozen(small_checkpoint().weights, freeze)) for freeze in FROZEN}
    assert all(parts.values())
    assert parts["encoder"] | parts["decoder"] == parts["all_but_heads"] == set(names) - heads
    assert not parts["encoder"] & parts["decoder"]
    assert list_frozen(small_checkpoint().weights, None) == []


@pytest.mark.parametrize("freeze", FROZEN)
def test_frozen_weights_stay_and_all_others_learn(model, tmp_path, freeze):
    """That holds with weight decay and momentum; the optimizer does not know frozen weights."""
    run = small_run(weight_decay=0.1, average_decay=0.5)
    origin = find_initial_weights(job_of(tmp_path, path=model.path, freeze=freeze))
    state = start(origin, run)
    train_fold(state, run, SILENT, lambda _: None)
    frozen = list_frozen(origin.weights, freeze)
    for name, value in state.weights.items():
        unchanged = torch.equal(value, origin.weights[name])
        assert unchanged == (name in frozen) or "conv.bias" in name, name  # which the norm after it undoes
    learning = len(state.optimizer.param_groups[0]["params"])
    assert learning == len(origin.weights) - len(frozen)


def test_frozen_run_goes_on_bit_for_bit(model, tmp_path):
    """The frozen part is known from the checkpoint alone."""
    run = small_run(epochs=2)
    origin = find_initial_weights(job_of(tmp_path, path=model.path, freeze="encoder"))
    straight = start(origin, run)

    def save(state):
        torch.save((pack_state(state), state.weights), tmp_path / f"{state.step}.pt")

    train_fold(straight, run, SILENT, save)
    training, weights = torch.load(tmp_path / f"{run.settings.steps_per_epoch}.pt", weights_only=True)
    checkpoint = replace(small_checkpoint(), training=training, plan=small_plan())
    resumed = start(InitialWeights.of(checkpoint), run, seed=8)
    unpack_state(resumed, training, weights)
    assert resumed.initial_weights == replace(origin, weights=None, lines=())
    train_fold(resumed, run, SILENT, lambda _: None)
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, straight.network.state_dict()[name]), name


def test_older_checkpoints_began_at_random():
    """They do not hold the digest of initial weights."""
    assert InitialWeights.of(small_checkpoint()) == RANDOM
