"""A training step on a pretended GPU: every tensor is where it belongs, and the program waits for nothing."""

from dataclasses import replace

import pytest
import torch
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda
from fake_gpu_runs import (
    fake_architecture,
    fake_batch,
    fake_run,
    fake_state,
    prepared_before,
    pretended_gradients,
    watched_phases,
)

from autoseg.imaging.targets import Targets
from autoseg.runtime.device import autocast
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import check_numbers, measure, train_step
from autoseg.training.monitoring.health import check_losses

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
LABELS = Targets.of_labels({"bright": 1, "dark": 2})

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def take_steps(run, *, bfloat16=True, unknown=False):
    """Takes two steps, of which the second has momentum; returns what the second takes, and the state."""
    with pretended_cuda(bfloat16=bfloat16) as counts:
        state = fake_state(run)
        with pretended_gradients(state.network), watched_phases(counts):
            for _ in range(2):
                counts.reset()
                loss = train_step(state, fake_batch(run, unknown=unknown), run, SILENT)
    assert (loss.device, loss.dtype) == (CUDA, torch.float32)
    return counts, state


@pytest.mark.parametrize(
    ("preset", "dimensions", "settings"),
    [
        ("plain", 3, {}),
        ("small", 3, {"micro_batch_size": 1}),
        ("resenc_l", 3, {}),
        ("24gb", 3, {"average_decay": 0.99}),
        ("plain", 2, {"recompute_activations": True}),
        ("resenc_l", 2, {"optimizer": "adamw", "learning_rate": 1e-3}),
        ("24gb", 2, {"schedule": "plateau"}),
    ],
)
def test_step_waits_for_nothing(preset, dimensions, settings):
    """All kinds of networks and settings, with annotated and unknown structures."""
    run = fake_run(fake_architecture(preset, dimensions), (16,) * dimensions, **settings)
    for unknown in (False, True):
        counts, _ = take_steps(run, unknown=unknown)
        assert counts.list_waits() == []
        assert counts.copied["move", "cpu to cuda"] == counts.pinned_bytes


def test_step_in_float16_waits_only_for_the_scaler():
    """The scaler asks whether a gradient overflowed before the weights are changed, as torch has it."""
    counts, _ = take_steps(fake_run(fake_architecture(), (16, 16, 16)), bfloat16=False)
    assert [(kind, number) for (_, kind, _), number in counts.waits.items()] in ([], [("item", 1)])


def test_weights_are_ordered_with_the_channels_last():
    """So are the momentum and the average, because they are changed together."""
    run = fake_run(fake_architecture("resenc_l"), (16, 16, 16), average_decay=0.99)
    _, state = take_steps(run)
    for network in (state.network, state.average):
        for weights in network.parameters():
            assert weights.device == CUDA
            assert weights.ndim < 5 or weights.is_contiguous(memory_format=torch.channels_last_3d)
    buffers = [group["momentum_buffer"] for group in state.optimizer.state.values()]
    for momentum in buffers:
        assert momentum.device == CUDA
        assert momentum.ndim < 5 or momentum.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("dimensions", "patches"), [(3, 2), (2, 4)])
@pytest.mark.parametrize("preset", ["plain", "24gb", "resenc_l"])
def test_feature_maps_keep_the_channels_last(preset, dimensions, patches):
    """No layer undoes the order on the way, which would copy each map."""
    run = fake_run(fake_architecture(preset, dimensions), (16,) * dimensions, batch_size=patches)
    order, disordered = (torch.channels_last_3d if dimensions == 3 else torch.channels_last), set()

    def look(module, _inputs, output):
        for value in output if isinstance(output, list) else [output]:
            if not value.is_contiguous(memory_format=order):
                disordered.add(type(module).__name__)

    with pretended_cuda(), autocast(CUDA):
        network = fake_state(run).network
        for module in network.modules():
            module.register_forward_hook(look)
        network(fake_batch(run, device=CUDA).images)
    assert disordered == set()


@pytest.mark.parametrize("unknown", [(), ((True, False),) * 3], ids=["annotated", "unknown"])
@pytest.mark.parametrize("targets", [LABELS, replace(LABELS, ignore=3), REGIONS, replace(REGIONS, ignore=3)])
def test_held_out_patches_are_measured(targets, unknown):
    """The loss and the counts of voxels come from the GPU, for all kinds of structures."""
    run = fake_run(fake_architecture("small", classes=targets.outputs), (8, 8, 8), targets=targets, validation_steps=2)
    run = replace(run, validation=replace(run.validation, unknown=unknown))
    with prepared_before(run.validation, range(2)), pretended_cuda() as counts:
        state = fake_state(run)
        counts.reset()
        loss, dice = measure(state.average, run)
    assert isinstance(loss, float)
    assert len(dice) == len(targets.names)
    assert counts.total_waits <= MOST_WAITS_PER_BATCH * 2 + 1


MOST_WAITS_PER_BATCH = 10
"""Three for each count of classes by torch, and the copy of the counts."""


def test_losses_and_weights_are_checked():
    """Each check waits a few times, between many steps."""
    run = fake_run(fake_architecture("small"), (8, 8, 8))
    with pretended_cuda() as counts:
        state = fake_state(run)
        state.epoch.losses = [torch.zeros((), device=CUDA)] * 3
        counts.reset()
        check_numbers(state)
        check_losses(state.epoch.losses, 0)
    assert counts.total_waits == 3  # the losses twice, the weights once


def test_step_that_does_not_fit_is_taken_in_parts():
    """Batches on the GPU are split there; the memory that is left is asked of torch."""
    run = fake_run(fake_architecture("small"), (8, 8, 8), batch_size=4)

    def fail(_module, inputs):
        if len(inputs[0]) > 1:
            raise FULL

    with pretended_cuda():
        state = fake_state(run)
        state.network.register_forward_pre_hook(fail)
        with pretended_gradients(state.network):
            train_step(state, fake_batch(run, device=CUDA), run, SILENT)
    assert state.micro_batch_size == 1
    assert state.measured_bytes.keys() == {1, 2}
