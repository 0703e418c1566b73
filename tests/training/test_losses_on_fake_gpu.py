"""Every setting of the loss on a pretended GPU: nothing is left on the CPU, and nothing waits."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda

from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.losses import Loss

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

LABELS = Targets(structures={"one": (1,), "two": (2,), "three": (3,)})
REGIONS = Targets(structures={"one": (1,), "two": (1, 2), "three": (3,)}, exclusive=False)
ALL_TARGETS = [LABELS, replace(LABELS, ignore=4), REGIONS, replace(REGIONS, ignore=4)]
NO_YES = (False, True)


def evaluate(loss, sizes, *, unknown):
    """Calculates a loss of outputs of some sizes, and returns it with the waits."""
    structures = len(loss.targets.names)
    with pretended_cuda() as counts:
        outputs = [torch.zeros(2, loss.targets.outputs, *size, device=CUDA, dtype=torch.bfloat16) for size in sizes]
        labels = torch.zeros(2, *sizes[0], device=CUDA, dtype=torch.int64)
        missing = torch.zeros(2, structures, device=CUDA, dtype=torch.bool) if unknown else None
        value = loss(outputs, labels, missing)
    assert (value.device, value.dtype, value.ndim) == (CUDA, torch.float32, 0)
    return counts.list_waits()


@pytest.mark.parametrize("voxelwise", ["cross_entropy", "focal", "top_k", "none"])
@pytest.mark.parametrize("overlap", ["dice", "squared_dice", "tversky", "none"])
def test_terms_wait_for_nothing(overlap, voxelwise):
    """With and without voxels that do not count, unknown structures and class weights; half with batch Dice."""
    if overlap == voxelwise == "none":
        pytest.skip("there is no such loss")
    for targets, unknown, weighted in product(ALL_TARGETS, NO_YES, NO_YES):
        if weighted and voxelwise == "none":
            continue
        weights = (1.0,) * targets.outputs if weighted else None
        settings = LossSettings(overlap=overlap, voxelwise=voxelwise, class_weights=weights)
        loss = Loss(targets=targets, settings=settings, batch_dice=unknown != weighted)
        assert evaluate(loss, [(8, 8, 8), (4, 4, 4), (2, 2, 2)], unknown=unknown) == []


@pytest.mark.parametrize(
    "auxiliary",
    [
        AuxiliaryOutput(target="changes"),
        AuxiliaryOutput(target="changes", balanced=True),
        AuxiliaryOutput(target="presence", weight=0.5),
        AuxiliaryOutput(target="absence", balanced=True),
    ],
)
def test_auxiliary_outputs_wait_for_nothing(auxiliary):
    """Their targets follow from the labels on the GPU."""
    last = (1, 1, 1) if auxiliary.is_per_patch else (8, 8, 8)
    for targets, unknown in product(ALL_TARGETS, NO_YES):
        loss = Loss(targets=targets, settings=LossSettings(), batch_dice=False, auxiliary_outputs=(auxiliary,))
        assert evaluate(loss, [(8, 8, 8), (4, 4, 4), last], unknown=unknown) == []
