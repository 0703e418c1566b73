"""Every network of the literature by its name: planned, trained, stopped, resumed, validated, exported."""

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from literature_networks import narrow
from phantoms import Listener
from small_models import small_checkpoint, small_configuration, small_plan
from tiny_workspaces import NUMBER, TRAINING, edit_training, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.errors import ArtifactError, ModelError, Stopped
from autoseg.imaging.image_files import read_image
from autoseg.models.build import make_network
from autoseg.models.bundle_format import CARD
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.networks.literature.table import NETWORKS
from autoseg.pipeline.datasets import plan_configurations
from autoseg.pipeline.training import stop
from autoseg.planning.plan import Configuration, Plan
from autoseg.training import loop, stopping

BOTTLENECKS = {"resnet_unet": {"layers": 50}}
"""Settings for the other kind of blocks than the default."""


def configuration_for(name):
    """Returns a configuration that a network supports, in 3D if possible."""
    return "3d_fullres" if 3 in NETWORKS[name].dimensions else "2d"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace with preprocessed cases and the default plan."""
    root = tmp_path_factory.mktemp("literature")
    write_volumes(root)
    plan_tiny(root, momentum=0.9)
    return root


def plan_named(root, name, **given):
    """Plans for a network, then edits its settings and the length of training, as a user would."""
    plan_configurations(NUMBER, preset="small", network=name, workspace=root)
    path = folders_of(root).plan
    content = json.loads(path.read_text())
    for one in content["configurations"].values():
        planned = {key: value for key, value in one["network"]["settings"].items() if key == "patch"}
        one["network"]["settings"].update(narrow(name, **BOTTLENECKS.get(name, {}), **given) | planned)
    path.write_text(json.dumps(content))
    return edit_training(root, **{**TRAINING, "momentum": 0.9})


def train_until(root, configuration, step, monkeypatch):
    """Trains fold 0 until it is stopped in a step, and returns what is left."""
    original = loop.train_step

    def stop_in(state, *rest):
        if state.step == step:
            stop(NUMBER, configuration, workspace=root)
        return original(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop_in)
        patch.setattr(stopping, "LOOK_SECONDS", 0.0)
        with pytest.raises(Stopped):
            autoseg.train(NUMBER, configuration, [0], device="cpu", workspace=root)
    return load_checkpoint(folders_of(root).model(configuration).checkpoint(0))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("unet", "vnet") else pytest.mark.slow) for name in NETWORKS]
)
def test_network_goes_all_the_way(prepared, tmp_path, monkeypatch, name):
    """A stopped and resumed training equals an uninterrupted one, and a bundle predicts the same elsewhere."""
    monkeypatch.setattr(
        "autoseg.training.monitoring.log_files.draw_progress", lambda *_, **__: None
    )  # takes half of the time
    configuration = configuration_for(name)
    root = shutil.copytree(prepared, tmp_path / "work")
    plan = plan_named(root, name)
    one = plan.configurations[configuration]
    assert one.architecture.stages[0].features in (2, 4, 8)  # they follow the edit
    at_once = train_until(shutil.copytree(root, tmp_path / "straight"), configuration, 3, monkeypatch)
    assert at_once.training["step"] == 4  # all steps; the last epoch is not measured yet
    assert not train_until(root, configuration, 2, monkeypatch).finished
    listener = Listener()
    autoseg.train(NUMBER, configuration, [0], device="cpu", workspace=root, reporter=listener)
    assert "no estimate of memory" not in listener.text
    model = folders_of(root).model(configuration)
    checkpoint = load_checkpoint(model.checkpoint(0))
    assert checkpoint.finished
    assert all(torch.equal(value, at_once.weights[key]) for key, value in checkpoint.weights.items())
    assert all(np.isfinite(report["training_loss"]) for report in checkpoint.training["reports"])
    assert one.weights == sum(
        value.numel() for key, value in checkpoint.weights.items() if "running_" not in key and "num_" not in key
    )
    assert (model.validation(0) / "summary.json").is_file()

    scans = folders_of(root).raw / "imagesTs"
    [here] = autoseg.predict(scans, tmp_path / "here", model=model.path, device="cpu")
    bundle = autoseg.export_model(NUMBER, tmp_path / f"{name}.zip", configuration=configuration, workspace=root)
    installed = autoseg.install_model(bundle, tmp_path / "elsewhere")
    assert "installed package" not in (installed / CARD).read_text(encoding="utf-8")
    [there] = autoseg.predict(scans, tmp_path / "there", model=name, workspace=tmp_path / "elsewhere", device="cpu")
    assert np.array_equal(read_image((here,)).array, read_image((there,)).array)


# --- What a plan may say ----------------------------------------------------------------------------------------------


def run(command, code=0):
    """Runs a command and returns what it printed."""
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == code, result.output
    return f"{result.output} {result.exception or ''}"


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    """Returns a copy to plan in, and a console that breaks no line."""
    monkeypatch.setattr(console, "_width", 200)
    return shutil.copytree(prepared, tmp_path / "plans")


def test_command_writes_the_network_and_its_settings(workspace):
    """The plan shows all settings, to be edited; without the option the default network is planned again."""
    run(f"plan -d {NUMBER} -w {shlex.quote(str(workspace))} --preset small --network unet_plus_plus")
    content = json.loads(folders_of(workspace).plan.read_text())
    for name in ("2d", "3d_fullres"):
        network = content["configurations"][name]["network"]
        assert network["name"] == "unet_plus_plus"
        assert network["settings"] == {
            "features": 32,
            "batch_norm": False,
            "deep_supervision": True,
            "prediction_depth": 4,
            "averaged": False,
        }
    run(f"plan -d {NUMBER} -w {shlex.quote(str(workspace))} --preset small")
    assert Plan.load(folders_of(workspace).plan).configurations["2d"].network is None


def test_plan_and_preprocess_takes_it_too(workspace):
    """The network is used for the configurations that it supports."""
    run(f"plan_and_preprocess -d {NUMBER} -w {shlex.quote(str(workspace))} --preset small --network vnet")
    plan = Plan.load(folders_of(workspace).plan)
    assert plan.configurations.keys() == {"3d_fullres"}
    assert plan.configurations["3d_fullres"].network.name == "vnet"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--network nothing", "there is no network 'nothing'; choose from unet, unet_3d, vnet"),
        ("--network vnet --rules nnunet", "the rules 'nnunet' plan for nnU-Net's own networks"),
    ],
)
def test_network_that_cannot_be_planned_is_one_line(workspace, option, text):
    """The error says what to do."""
    assert text in run(f"plan -d {NUMBER} -w {shlex.quote(str(workspace))} {option}", code=2)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"width": 3}, r"settings.width of V-Net: Extra inputs are not permitted \(there are: features, "),
        ({"features": 0}, "settings.features of V-Net: Input should be greater than 0"),
        ({"convolutions": [1, 1]}, "decoder_convolutions must have one value less than convolutions"),
        ({"features": 1}, None),
        ({"convolutions": [1, 1, 1], "decoder_convolutions": [1, 1]}, None),
    ],
)
def test_settings_are_edited_in_the_plan(workspace, settings, text):
    """Impossible settings are named; possible ones change the network and its resolutions."""
    plan_configurations(NUMBER, preset="small", network="vnet", workspace=workspace)
    path = folders_of(workspace).plan
    content = json.loads(path.read_text())
    content["configurations"]["3d_fullres"]["network"]["settings"].update(settings)
    path.write_text(json.dumps(content))
    if text is not None:
        with pytest.raises(ArtifactError, match=text):
            Plan.load(path)
        return
    one = Plan.load(path).configurations["3d_fullres"]
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}.items() <= {
        key: tuple(value) if isinstance(value, list) else value for key, value in one.network.settings.items()
    }.items()
    assert one.architecture.stages[0].features == settings.get("features", 16)
    assert len(one.architecture.stages) == len(settings.get("convolutions", [1] * 5))


def test_settings_that_are_left_out_are_filled_in(workspace):
    """Defaults are filled in, as for a plan that was written by hand or before a setting existed."""
    plan_configurations(NUMBER, preset="small", network="vnet", workspace=workspace)
    path = folders_of(workspace).plan
    before, content = Plan.load(path), json.loads(path.read_text())
    del content["configurations"]["3d_fullres"]["network"]["settings"]
    path.write_text(json.dumps(content))
    assert Plan.load(path) == before


def test_networks_are_listed(workspace):
    """Each has its weights for a dataset, or for one channel and two classes, its constraints, source and licence."""
    shown = run("networks")
    for name, spec in NETWORKS.items():
        assert f"{name}: {spec.title}, {spec.summary}. {spec.source}; {spec.licence}." in shown
    assert "61,982,682" in shown
    assert "edges divisible by 16, at most 16 channels" in shown
    assert "61,986,690" in run(f"networks -d {NUMBER} -w {shlex.quote(str(workspace))}")


@pytest.mark.parametrize(("features", "sound"), [(2, True), (4096, False)])
def test_model_with_far_fewer_weights_than_its_network_is_refused(tmp_path, features, sound):
    """The error comes before a network of trillions of weights is built for someone else's file."""
    known = small_configuration().model_dump() | {
        "patch_size": (32, 16, 16),
        "network": {"name": "vnet", "settings": {"features": features}},
    }
    plan = small_plan().model_copy(update={"configurations": {"3d_fullres": Configuration.model_validate(known)}})
    weights = make_network(plan.configurations["3d_fullres"], 0).state_dict() if sound else small_checkpoint().weights
    save_checkpoint(replace(small_checkpoint(), plan=plan, weights=weights), tmp_path / "checkpoint.pt")
    if sound:
        assert load_checkpoint(tmp_path / "checkpoint.pt").plan == plan
        return
    with pytest.raises(ModelError, match="less than a part of the network that its plan describes"):
        load_checkpoint(tmp_path / "checkpoint.pt")
