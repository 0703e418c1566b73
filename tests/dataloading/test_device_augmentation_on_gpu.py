"""Batches are augmented on a GPU as on the CPU, and the program does not wait for the GPU."""

from dataclasses import replace

import pytest
import torch
from augmented_batches import PATCH, make_batches
from changed_patches import CPU
from small_models import small_run
from test_device_augmentation import OFF

from autoseg.models.build import make_network
from autoseg.runtime.device import needs_scaling, resolve_device
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_fold
from autoseg.training.state import start_training

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("dimensions", "changes"),
    [(2, {}), (3, {}), (3, {"rotation_axes": (0,), "rotation_degrees": 180.0}), (3, dict.fromkeys(OFF, 1.0))],
)
def test_batches_are_those_of_the_cpu(dimensions, changes):
    """The same parameters give the same patches, up to rounding."""
    on_cpu = replace(make_batches(dimensions, **changes), augmentation_device=CPU)
    on_gpu = replace(on_cpu, augmentation_device=torch.device("cuda"))
    for number in range(8):
        one, other = on_cpu.make(number), on_gpu.make(number)
        assert other.images.device.type == other.labels.device.type == "cuda"
        assert other.images.shape == (5, 2, *PATCH[-dimensions:])
        assert torch.allclose(one.images, other.images.cpu(), atol=3e-3)
        assert (one.labels != other.labels.cpu()).float().mean() < 1e-3


def test_nothing_waits_for_the_gpu():
    """No change waits for an answer of the device."""
    batches = replace(make_batches(3, **dict.fromkeys(OFF, 1.0)), augmentation_device=torch.device("cuda"))
    batches.make(0)  # loads what is loaded once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches.make(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_takes_batches_that_are_there_already():
    """Micro-batches, which split a batch on the GPU, work too."""
    device = resolve_device("cuda")
    run = replace(small_run(epochs=4, steps_per_epoch=25, learning_rate=0.05, micro_batch_size=1), device=device)
    run = replace(run, training=replace(run.training, augmentation_device=device))
    network = make_network(run.training.configuration, seed=0)
    state = start_training(network, run.settings, device, scaled=needs_scaling(device))
    train_fold(state, run, SILENT, lambda _: None)
    assert state.reports[-1].mean_pseudo_dice > 0.8
