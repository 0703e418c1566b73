"""Training on a pretended Apple GPU: without float64, and without what torch lacks there."""

from dataclasses import replace

import pytest
import torch
from device_counts import DeviceCounts
from fake_cuda import MPS, pretended_mps, requires_pretended_cuda
from fake_gpu_runs import fake_architecture, fake_batch, fake_run, fake_state, prepared_before, pretended_gradients

from autoseg.dataloading.augmentation_place import augments_on_device
from autoseg.errors import UsageError
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.runtime.device import copy_to, precision
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import measure, train_step
from autoseg.training.losses import Loss
from autoseg.training.ranks import check_device
from autoseg.training.state import pack_state, unpack_state

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

MISSING = {
    "aten::grid_sampler_3d",
    "aten::max_pool3d_with_indices",
    "aten::avg_pool3d",
    "aten::upsample_trilinear3d",
}
"""Operations that torch lacks, or lacked in a version that is allowed. Source: pytorch issues 141287 and 154615."""


def operations(counts: DeviceCounts) -> set[str]:
    """Returns the names of all operations on the device."""
    return {name for names in counts.operations.values() for name in names}


def test_float64_is_refused():
    """As torch does, so that the tests here find it."""
    with pretended_mps(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device=MPS, dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "dimensions", "settings"),
    [
        ("plain", 3, {}),
        ("24gb", 3, {"average_decay": 0.99, "micro_batch_size": 1}),
        ("resenc_l", 3, {"recompute_activations": True}),
        ("small", 2, {"optimizer": "adamw", "learning_rate": 1e-3}),
    ],
)
def test_steps_are_taken_measured_and_saved(preset, dimensions, settings):
    """In float32, without transposed convolutions of volumes; a checkpoint goes there and back."""
    architecture = fake_architecture(preset, dimensions)
    run = replace(fake_run(architecture, (16,) * dimensions, validation_steps=1, **settings), device=MPS)
    transposed = []
    with prepared_before(run.validation, range(1)), pretended_mps() as counts:
        convolve = torch.nn.functional.conv_transpose3d
        state = fake_state(run)
        with pytest.MonkeyPatch.context() as patches, pretended_gradients(state.network):
            patches.setattr(torch.nn.functional, "conv_transpose3d", lambda *_: transposed.append(1) or convolve(*_))
            for _ in range(2):
                loss = train_step(state, fake_batch(run), run, SILENT)
            measure(state.average, run)
        packed, weights = pack_state(state), state.weights
        unpack_state(fresh := fake_state(run), packed, weights)
        assert all(value.device == MPS for value in fresh.network.parameters())
    assert (loss.device, loss.dtype, precision(MPS)) == (MPS, torch.float32, torch.float32)
    assert transposed == []
    assert operations(counts) & MISSING == set()


@pytest.mark.parametrize("voxelwise", ["cross_entropy", "focal", "top_k"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_losses_need_no_float64(voxelwise, exclusive):
    """With voxels that do not count, unknown structures and class weights."""
    targets = Targets(structures={"one": (1,), "two": (2,)}, exclusive=exclusive, ignore=3)
    settings = LossSettings(voxelwise=voxelwise, class_weights=(1.0,) * targets.outputs)
    loss = Loss(targets=targets, settings=settings, batch_dice=True)
    with pretended_mps():
        outputs = [torch.zeros(2, targets.outputs, *(size,) * 3, device=MPS) for size in (8, 4, 2)]
        unknown = torch.zeros(2, 2, device=MPS, dtype=torch.bool)
        value = loss(outputs, torch.zeros(2, 8, 8, 8, device=MPS, dtype=torch.int64), unknown)
    assert (value.device, value.dtype) == (MPS, torch.float32)


def test_copies_are_waited_for():
    """Memory that is not pinned could be freed before it is read."""
    with pretended_mps() as counts:
        copy_to(torch.zeros(3), MPS)
    assert counts.pins == 0
    assert [kind for _, kind, _ in counts.waits] == ["copy from cpu to mps"]


def test_what_an_apple_gpu_does_not_do_is_refused_before():
    """Several processes cannot share one, and patches are changed on the CPU."""
    with pytest.raises(UsageError, match="cannot share mps"):
        check_device(torch.device("mps"), 2)
    with pytest.raises(UsageError, match="Apple GPU"):
        augments_on_device("device", torch.device("mps"), voxels=10**6, cores=2)
    assert not augments_on_device("auto", torch.device("mps"), voxels=10**6, cores=2)
