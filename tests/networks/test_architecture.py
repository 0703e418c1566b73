"""The work of the default network is counted as torch counts it."""

import pytest
import torch
from memory_cases import CASES, Case
from torch.utils.flop_counter import FlopCounterMode

from autoseg.networks.architecture import count_multiply_adds
from autoseg.networks.default_unet import UNet


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_multiply_adds_are_those_of_torch(case: Case) -> None:
    """In 2D and 3D, for plain networks, V-Net's stages and residual encoders, to the last multiply-add."""
    architecture = case.architecture()
    with torch.device("meta"):
        network, image = UNet(architecture), torch.empty(1, architecture.in_channels, *case.small_patch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    assert count_multiply_adds(architecture, case.small_patch) == counter.get_total_flops() // 2


def test_work_grows_with_the_voxels() -> None:
    """Twice the voxels are twice the work, so the work of a training whose patches grow can be added up."""
    architecture = CASES[0].architecture()
    assert count_multiply_adds(architecture, (64, 64, 128)) == 2 * count_multiply_adds(architecture, (64, 64, 64))
