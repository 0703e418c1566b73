"""Batches are augmented where the user says, or where the table of decisions says it is faster."""

import pytest
import torch

from autoseg.dataloading.augmentation_place import augments_on_device
from autoseg.errors import UsageError
from autoseg.planning.plugin_settings import CustomTransform

SIZE = {"voxels": 2 * 128**3, "cores": 16}
"""Size of a batch, and number of cores beside the device."""


@pytest.mark.usefixtures("gpu_beliefs")
@pytest.mark.parametrize(
    ("choice", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("auto", "cuda:1", True),
        ("auto", "mps", False),
        ("cpu", "cuda", False),
        ("device", "cpu", True),
        ("device", "cuda", True),
    ],
)
def test_choice_of_the_device(choice, device, expected):
    """By default the device is chosen if it is a CUDA GPU."""
    assert augments_on_device(choice, torch.device(device), **SIZE) is expected


@pytest.mark.usefixtures("gpu_beliefs")
def test_own_transforms_change_patches_on_a_cpu():
    """They do so also if the network is on a GPU; choosing the device is refused in one line."""
    own = (CustomTransform(name="haze"),)
    assert not augments_on_device("auto", torch.device("cuda"), own, **SIZE)
    assert not augments_on_device("cpu", torch.device("cuda"), own, **SIZE)
    with pytest.raises(UsageError, match="the transform 'haze' changes patches on a CPU only; choose --augment-on cpu"):
        augments_on_device("device", torch.device("cuda"), own, **SIZE)


@pytest.mark.usefixtures("gpu_beliefs")
def test_shapes_for_the_loss_need_a_cpu():
    """Patches whose components or skeletons the loss needs change on the CPU; choosing the device is refused."""
    assert not augments_on_device("auto", torch.device("cuda"), shapes=True, **SIZE)
    assert not augments_on_device("cpu", torch.device("cuda"), shapes=True, **SIZE)
    with pytest.raises(
        UsageError, match=r"component_weight, skeleton_weight and border_weight .* choose --augment-on cpu"
    ):
        augments_on_device("device", torch.device("cuda"), shapes=True, **SIZE)


@pytest.mark.parametrize(("choice", "device"), [("gpu", "cpu"), ("device", "mps")])
def test_impossible_choice_is_said(choice, device):
    """The error says what to choose instead."""
    with pytest.raises(UsageError, match="choose --augment-on"):
        augments_on_device(choice, torch.device(device), **SIZE)


def test_batches_and_cores_decide_on_a_gpu(monkeypatch):
    """The number of voxels of the batch and of cores reach the table."""
    asked = []
    monkeypatch.setattr(
        "autoseg.dataloading.augmentation_place.augments_faster", lambda *arguments: asked.append(arguments) or False
    )
    assert not augments_on_device("auto", torch.device("cuda"), voxels=1000, cores=4)
    assert augments_on_device("device", torch.device("cuda"), voxels=1000, cores=4)
    assert asked == [(torch.device("cuda"), 1000, 4)]
