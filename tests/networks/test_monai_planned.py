"""Networks of MONAI from a plan to a bundle: patches that they take, and a training that can be stopped."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch
from monai_settings import NARROW
from phantoms import Listener
from small_models import small_configuration
from tiny_workspaces import NUMBER, TRAINING, edit_training, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.errors import ArtifactError, Stopped
from autoseg.imaging.image_files import read_image
from autoseg.models.build import check_network, make_network
from autoseg.models.bundle_format import CARD
from autoseg.models.checkpoint import load_checkpoint
from autoseg.networks.monai import MonaiSpec, complete
from autoseg.networks.monai_table import TABLE
from autoseg.pipeline.datasets import plan_configurations
from autoseg.pipeline.training import stop
from autoseg.planning.memory import BYTES_PER_WEIGHT, ELEMENT_BYTES, saved_bytes, weight_bytes
from autoseg.planning.plan import Configuration, Plan
from autoseg.training import loop, stopping

SMALL = "monai:SegResNet:init_filters=8,blocks_down=[1,1,1],blocks_up=[1,1]"


# --- Planning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_training_keeps_is_at_most_what_is_guessed(name, dimensions):
    """Memory and weights are at most as estimated, and at least a fifth, with the settings of the table."""
    spec, size = MonaiSpec(f"monai:{name}"), (256,) * 2 if dimensions == 2 else (64,) * 3
    size = (128, 128, 64) if name == "AHNet" and dimensions == 3 else size
    known = small_configuration(dimensions).model_dump()
    known |= {"patch_size": size, "network": {"name": spec.name, "settings": {}}}
    configuration = Configuration.model_validate(known)
    network, image = make_network(configuration, 0), torch.randn(1, 1, *size)
    own = {one.untyped_storage().data_ptr() for one in [image, *network.parameters(), *network.buffers()]}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage, tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network(image)
    assert outputs[0].shape[2:] == size
    found = sum(storage.nbytes() for storage, _ in kept.values()) * ELEMENT_BYTES / 4
    guessed = TABLE[name].saved_factor * saved_bytes(configuration.architecture, size)
    assert 0.2 * guessed < found <= guessed
    weights = sum(one.numel() for one in network.parameters())
    guessed = weight_bytes(configuration.architecture, configuration.network) / BYTES_PER_WEIGHT
    assert 0.7 * guessed < weights <= guessed


def run(command, code=0):
    """Runs a command and returns what it printed."""
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == code, result.output
    return f"{result.output} {result.exception or ''}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace with preprocessed cases and the default plan."""
    root = tmp_path_factory.mktemp("monai")
    write_volumes(root)
    plan_tiny(root, momentum=0.9)
    return root


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    """Returns a copy to work in, and a console that breaks no line."""
    monkeypatch.setattr(console, "_width", 400)
    return shutil.copytree(prepared, tmp_path / "work")


def test_command_plans_patches_that_the_network_takes(workspace):
    """The plan shows all settings, and a sentence says that memory is a guess."""
    told = run(f"plan -d {NUMBER} -w {shlex.quote(str(workspace))} --preset small --network monai:SwinUNETR --explain")
    assert "Network monai:SwinUNETR: SwinUNETR of MONAI" in told
    assert "What it takes is a guess: 3.9 times what a plain U-Net" in told
    plan = Plan.load(folders_of(workspace).plan)
    assert plan.configurations.keys() >= {"2d", "3d_fullres"}
    for one in plan.configurations.values():
        assert one.network.name == "monai:SwinUNETR"
        assert one.network.settings["window_size"] == 7
        assert one.architecture.divisor == (32,) * one.architecture.dimensions
        assert all(size % 32 == 0 for size in one.patch_size)
        assert one.is_foreign
    check_network(plan.configurations["2d"].network)


def test_command_takes_settings_behind_the_name(workspace):
    """Settings may also change the divisor of the patches, as an edit of the plan does."""
    run(f"plan_and_preprocess -d {NUMBER} -w {shlex.quote(str(workspace))} --preset small --network '{SMALL}'")
    path = folders_of(workspace).plan
    one = Plan.load(path).configurations["3d_fullres"]
    assert one.network.settings["blocks_down"] == [1, 1, 1]
    assert one.network.settings["upsample_mode"] == "nontrainable"
    assert one.architecture.divisor == (4, 4, 4)
    assert [stage.features for stage in one.architecture.stages] == [8, 16, 32]
    content = json.loads(path.read_text())
    content["configurations"]["3d_fullres"]["network"]["settings"]["blocks_down"] = [1] * 7
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"must be divisible by \(64, 64, 64\)"):
        Plan.load(path)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("monai:Nothing", "MONAI has no network 'Nothing' here; did you mean monai:"),
        ("monai:UNet:width=3", "monai:UNet has no settings.width; choose from"),
        ("monai:UNet:strides=[2]", "5 resolutions have features, 2 a size"),
        ("monai:UNet --rules nnunet", "the rules 'nnunet' plan for nnU-Net's own networks"),
    ],
)
def test_network_that_cannot_be_planned_is_one_line(workspace, option, text):
    """The error says what to do."""
    assert text in run(f"plan -d {NUMBER} -w {shlex.quote(str(workspace))} --network {option}", code=2)


def test_networks_of_monai_are_mentioned():
    """MONAI is listed in one line, below the networks of the literature."""
    assert "monai:NAME takes a network of MONAI, such as UNet, AttentionUnet, " in run("networks")
    assert complete("monai:New", {"depth": 3}) == {"depth": 3}  # one that is not in the table is planned too
    assert MonaiSpec("monai:New").smallest_patch({}, 3) == (32, 32, 32)


# --- All the way ------------------------------------------------------------------------------------------------------


def train_until(root, step, monkeypatch):
    """Trains fold 0 until it is stopped in a step, and returns what is left."""
    original = loop.train_step

    def stop_in(state, *rest):
        if state.step == step:
            stop(NUMBER, "3d_fullres", workspace=root)
        return original(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop_in)
        patch.setattr(stopping, "LOOK_SECONDS", 0.0)
        with pytest.raises(Stopped):
            autoseg.train(NUMBER, "3d_fullres", [0], device="cpu", workspace=root)
    return load_checkpoint(folders_of(root).model("3d_fullres").checkpoint(0))


@pytest.mark.parametrize("network", [SMALL, pytest.param("monai:DynUNet", marks=pytest.mark.slow)])
def test_network_goes_all_the_way(prepared, tmp_path, monkeypatch, network):
    """A stopped and resumed training equals an uninterrupted one, and a bundle predicts the same elsewhere."""
    monkeypatch.setattr(
        "autoseg.training.monitoring.log_files.draw_progress", lambda *_, **__: None
    )  # takes half of the time
    root = shutil.copytree(prepared, tmp_path / "work")
    plan_configurations(NUMBER, preset="small", network=network, workspace=root)
    if network != SMALL:
        path = folders_of(root).plan
        content = json.loads(path.read_text())
        for one in content["configurations"].values():
            one["network"]["settings"].update(NARROW["DynUNet"])
        path.write_text(json.dumps(content))
    edit_training(root, **{**TRAINING, "momentum": 0.9})
    at_once = train_until(shutil.copytree(root, tmp_path / "straight"), 3, monkeypatch)
    assert at_once.training["step"] == 4  # all steps; the last epoch is not measured yet
    assert not train_until(root, 2, monkeypatch).finished
    listener = Listener()
    autoseg.train(NUMBER, "3d_fullres", [0], device="cpu", workspace=root, reporter=listener)
    assert "no estimate of memory in plan.json applies to it" in listener.text
    model = folders_of(root).model("3d_fullres")
    checkpoint = load_checkpoint(model.checkpoint(0))
    assert checkpoint.finished
    assert all(torch.equal(value, at_once.weights[key]) for key, value in checkpoint.weights.items())
    assert (model.validation(0) / "summary.json").is_file()

    scans = folders_of(root).raw / "imagesTs"
    [here] = autoseg.predict(scans, tmp_path / "here", model=model.path, device="cpu")
    bundle = autoseg.export_model(NUMBER, tmp_path / "small.zip", configuration="3d_fullres", workspace=root)
    installed = autoseg.install_model(bundle, tmp_path / "elsewhere")
    assert "for which MONAI must be installed" in (installed / CARD).read_text(encoding="utf-8")
    [there] = autoseg.predict(scans, tmp_path / "there", model="small", workspace=tmp_path / "elsewhere", device="cpu")
    assert np.array_equal(read_image((here,)).array, read_image((there,)).array)
