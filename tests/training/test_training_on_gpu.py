"""On a GPU, training, resuming and predicting give what a CPU gives."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from custom_parts import own_run
from phantoms import Listener
from rank_work import STEPS, one_step, save_shares
from small_models import small_run

from autoseg.dataloading.batch import Batch
from autoseg.inference.network_predictor import NetworkPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.models.build import make_network
from autoseg.runtime import device
from autoseg.runtime.device import autocast, needs_scaling, resolve_device
from autoseg.runtime.reporting import SILENT
from autoseg.training.launch import launch
from autoseg.training.loop import train_fold, train_step
from autoseg.training.plugin_checks import seed_layers
from autoseg.training.state import pack_state, start_training, unpack_state

pytestmark = pytest.mark.gpu


def start(run):
    """Returns a state on the device of the run."""
    network = make_network(run.training.configuration, seed=0)
    return start_training(network, run.settings, run.device, scaled=needs_scaling(run.device))


@pytest.fixture
def run():
    """Returns a run on the GPU that learns in a second."""
    settings = {"epochs": 4, "steps_per_epoch": 25, "learning_rate": 0.05}
    return replace(small_run(**settings), device=resolve_device("cuda"))


def test_training_learns_on_the_gpu(run):
    """Bright and dark cubes are told apart, in the precision of the GPU."""
    state = start(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert state.reports[-1].mean_pseudo_dice > 0.8


def test_training_learns_compiled_and_recomputed(run):
    """No line reports that it fell back to the uncompiled network."""
    settings = run.settings.model_copy(update={"compile": "on", "recompute_activations": True})
    run, listener = replace(run, settings=settings), Listener()
    state = start(run)
    train_fold(state, run, listener, lambda _: None)
    assert state.reports[-1].mean_pseudo_dice > 0.8
    assert not any("uncompiled" in line for line in listener.lines)


def test_step_that_does_not_fit_is_split(run):
    """After a real full memory, the steps are those of micro-batches from the start."""
    size, patches = 64, 8
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (patches, size, size, size), generator=generator)
    batch = Batch(images=torch.randn(patches, 1, size, size, size, generator=generator), labels=labels)
    settings = run.settings.model_copy(update={"compile": "off"})
    peaks = []
    for number in (1, 2, 4):
        state = start(run)
        torch.cuda.reset_peak_memory_stats()
        train_step(
            state, batch, replace(run, settings=settings.model_copy(update={"micro_batch_size": number})), SILENT
        )
        peaks.append(torch.cuda.max_memory_reserved())
        del state
        torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    listener, state = Listener(), start(run)
    torch.cuda.set_per_process_memory_fraction((peaks[1] + peaks[2]) / 2 / total)
    try:
        train_step(state, batch, replace(run, settings=settings), listener)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert state.micro_batch_size in (1, 2)
    assert "could be had" in listener.text
    measured = state.measured_bytes
    assert measured.keys() == {state.micro_batch_size, 2 * state.micro_batch_size}
    assert 0 < measured[state.micro_batch_size] < (peaks[1] + peaks[2]) / 2


def test_feature_maps_keep_the_channels_last_on_a_gpu(run):
    """No layer of a 3D network undoes the order, with as few patches as a batch has."""
    network, disordered = start(run).network, []

    def look(_module, _inputs, output):
        for value in output if isinstance(output, list) else [output]:
            if not value.is_contiguous(memory_format=torch.channels_last_3d):
                disordered.append(type(_module).__name__)

    for module in network.modules():
        module.register_forward_hook(look)
    with autocast(run.device):
        network(torch.zeros(2, 1, 8, 8, 8, device=run.device))
    assert disordered == []


def test_run_goes_from_cpu_to_gpu_and_back(run):
    """A checkpoint does not depend on its device."""
    on_cpu = replace(run, device=torch.device("cpu"), settings=run.settings.model_copy(update={"epochs": 1}))
    first = start(on_cpu)
    train_fold(first, on_cpu, SILENT, lambda _: None)
    second = start(run)
    unpack_state(second, pack_state(first), first.weights)
    train_fold(second, run, SILENT, lambda _: None)
    assert second.reports[-1].mean_pseudo_dice > 0.8
    third = start(on_cpu)
    unpack_state(third, pack_state(second), second.weights)
    assert third.step == 100


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA GPU")
def test_two_gpus_take_the_step_of_one_cpu(tmp_path, monkeypatch):
    """Gradients go by NCCL, counts and clocks by the CPUs."""
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)
    assert launch(partial(save_shares, tmp_path, "cuda"), 2, "cuda", SILENT) == 2
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["pace"] == 10.0
        for name in STEPS:
            loss, gradients = one_step(name)
            value, share = found["steps"][name]
            assert value.item() == pytest.approx(loss.item(), abs=0.01)
            assert (share - gradients).norm() < 0.02 * gradients.norm()


def test_prediction_equals_that_of_the_cpu(run):
    """The same weights give nearly the same logits on both devices."""
    network = start(replace(run, device=torch.device("cpu"))).network
    image = torch.randn(1, 11, 13, 9, generator=torch.Generator().manual_seed(0))
    logits = []
    for name in ("cpu", "cuda"):
        device = resolve_device(name)
        predictor = NetworkPredictor(network.to(device), device)
        logits.append(predict_volume(image, predictor, patch_size=(8, 8, 8), batch_size=2, device=device))
    difference = (logits[0] - logits[1]).norm() / logits[0].norm()
    assert difference < 0.03


@pytest.mark.usefixtures("empty_registry")
def test_own_parts_learn_on_the_gpu():
    """A custom network, loss and transform train, and dropout follows from the step here too."""
    transforms, given = [("brighten", {"most": 0.2})], {"norm": True, "dropout": 0.1, "levels": 2}
    settings = {"epochs": 4, "steps_per_epoch": 25, "learning_rate": 0.2, "momentum": 0.9}
    run = replace(
        own_run("pyramid", "squared_error", transforms, given=given, **settings), device=resolve_device("cuda")
    )
    state = start(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert state.reports[-1].mean_pseudo_dice > 0.8
    draws = []
    for _ in range(2):
        seed_layers(state, run)
        draws.append(torch.rand(4, device=run.device))
    assert torch.equal(*draws)
