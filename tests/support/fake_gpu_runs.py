"""Networks, runs and batches without values on the pretended GPU of `fake_cuda`, of any size at no cost."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from device_counts import DeviceCounts
from fake_cuda import CUDA
from small_models import small_configuration, small_run
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.dataloading.device_augmentation import UnaugmentedBatch
from autoseg.dataloading.loader import Batches
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Architecture, Axes
from autoseg.networks.default_unet import UNet
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.presets import PRESETS, PresetName
from autoseg.planning.topology import design_network
from autoseg.runtime.device import needs_scaling
from autoseg.training import loop, memory_trial, step
from autoseg.training.losses import Loss
from autoseg.training.state import Run, TrainState, start_training


def fake_architecture(
    preset: PresetName = "plain", dimensions: int = 3, *, classes: int = 3, channels: int = 1, stages: int = 3
) -> Architecture:
    """Returns the network of a preset, which halves all axes from stage to stage."""
    strides = ((1,) * dimensions, *((2,) * dimensions,) * (stages - 1))
    kernels = ((3,) * dimensions,) * stages
    return design_network(strides, kernels, PRESETS[preset], in_channels=channels, out_channels=classes)


def fake_run(
    architecture: Architecture,
    patch_size: Axes,
    *,
    batch_size: int = 2,
    loss: LossSettings | None = None,
    targets: Targets | None = None,
    batch_dice: bool = False,
    **training,
) -> Run:
    """Returns a run on the pretended GPU; make it before `pretended_cuda`, because it has cases with values.

    Args:
        architecture: The network.
        patch_size: Size of its patches.
        batch_size: Number of patches of a step.
        loss: Loss settings; by default those of a plan.
        targets: What the outputs stand for; by default exclusive labels.
        batch_dice: Whether Dice sums over the batch.
        training: Settings of the training that differ from those of `small_run`.
    """
    run = small_run(workers=0, **{"compile": "off", "average_decay": 0.0, **training})
    if targets is None:
        targets = Targets.of_labels({str(number): number for number in range(1, architecture.out_channels)})
    changes = {"architecture": architecture, "patch_size": patch_size, "batch_size": batch_size}
    configuration = small_configuration(len(patch_size)).model_copy(update=changes)
    training_batches = replace(run.training, configuration=configuration)
    settings = run.settings if loss is None else run.settings.model_copy(update={"loss": loss})
    return replace(
        run,
        settings=settings,
        training=training_batches,
        validation=replace(training_batches, augmented=False),
        loss=Loss(targets=targets, settings=settings.loss, batch_dice=batch_dice),
        device=CUDA,
    )


def fake_batch(run: Run, *, unknown: bool = False, device: str | torch.device = "cpu") -> Batch:
    """Returns patches without values; call it within `pretended_cuda`."""
    configuration = run.training.configuration
    count, patch_size = configuration.batch_size, configuration.patch_size
    structures = len(run.loss.targets.names)
    return Batch(
        images=torch.zeros(count, configuration.architecture.in_channels, *patch_size, device=device),
        labels=torch.zeros(count, *patch_size, dtype=torch.int16, device=device),
        unknown=torch.zeros(count, structures, dtype=torch.bool, device=device) if unknown else None,
    )


def fake_state(run: Run) -> TrainState:
    """Returns the state of a run before its first step; call it within `pretended_cuda`."""
    network = UNet(run.training.configuration.architecture)
    return start_training(network, run.settings, run.device, scaled=needs_scaling(run.device))


@contextmanager
def prepared_before(batches: Batches, numbers: Iterable[int]) -> Iterator[None]:
    """Prepares batches as loader threads do; those with these numbers are not prepared again within the context.

    Enter it before `pretended_cuda`, because preparing needs values.
    """
    prepared = {number: batches._prepare(number) for number in numbers}
    with patch.object(Batches, "_prepare", lambda _, number: prepared[number]):
        yield


@contextmanager
def pretended_gradients(network: nn.Module) -> Iterator[None]:
    """Replaces the backward pass, which needs more than `pretended_cuda`: every weight gets a gradient at once."""

    def backward(*_: object, **__: object) -> None:
        for weights in network.parameters():
            if weights.requires_grad:
                weights.grad = torch.empty_like(weights)

    with patch.object(torch.Tensor, "backward", backward):
        yield


@contextmanager
def watched_phases(counts: DeviceCounts) -> Iterator[None]:
    """Counts the parts of a training step, the augmentation and the forward pass of a U-Net apart from each other."""
    phases = [
        (UnaugmentedBatch, "augment", "augmentation"),
        (step, "move_batch", "move"),
        (loop, "move_batch", "move"),
        (UNet, "forward", "forward"),
        (Loss, "__call__", "loss"),
        (torch.Tensor, "backward", "backward"),
        (nn.utils, "clip_grad_norm_", "clip"),
        (torch.optim.SGD, "step", "optimizer"),
        (torch.optim.Adam, "step", "optimizer"),
        (torch.optim.AdamW, "step", "optimizer"),
        (loop, "update_average", "average"),
        (memory_trial, "random_state", "random state"),
    ]
    with ExitStack() as stack:
        for owner, name, phase in phases:
            stack.enter_context(patch.object(owner, name, _counted(getattr(owner, name), counts, phase)))
        yield


def _counted(function, counts: DeviceCounts, phase: str):
    def call(*args, **kwargs):
        with counts.during(phase):
            return function(*args, **kwargs)

    return call
