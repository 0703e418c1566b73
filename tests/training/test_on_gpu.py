"""What only a GPU can show: training, resuming and predicting there gives what the CPU gives."""

from dataclasses import replace

import pytest
import torch
from small_models import small_run

from autoseg.device import needs_scaling, resolve_device
from autoseg.inference.predictor import NetworkPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.reporting import SILENT
from autoseg.training.loop import train_fold
from autoseg.training.state import pack_state, start_training, unpack_state

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")]


def start(run):
    """A state on the device of the run."""
    architecture = run.training.configuration.architecture
    return start_training(architecture, run.settings, run.device, 0, scaled=needs_scaling(run.device))


@pytest.fixture
def run():
    """A run on the GPU that learns in a second."""
    settings = {"epochs": 4, "steps_per_epoch": 25, "learning_rate": 0.05}
    return replace(small_run(**settings), device=resolve_device("cuda"))


def test_training_learns_on_the_gpu(run):
    """Bright and dark cubes are told apart, in the GPU's own precision."""
    state = start(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert state.reports[-1].mean_pseudo_dice > 0.8


def test_run_goes_from_cpu_to_gpu_and_back(run):
    """A checkpoint does not care where it was made."""
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


def test_prediction_equals_that_of_the_cpu(run):
    """The same weights give nearly the same logits on both."""
    network = start(replace(run, device=torch.device("cpu"))).network
    image = torch.randn(1, 11, 13, 9, generator=torch.Generator().manual_seed(0))
    logits = []
    for name in ("cpu", "cuda"):
        device = resolve_device(name)
        predictor = NetworkPredictor(network.to(device), device)
        logits.append(predict_volume(image, predictor, patch_size=(8, 8, 8), batch_size=2, device=device))
    difference = (logits[0] - logits[1]).norm() / logits[0].norm()
    assert difference < 0.03
