"""What the benchmarks for GPUs measure is what they say, as far as a CPU can tell."""

from argparse import Namespace
from types import SimpleNamespace

import gpu_step
import gpu_training
import memory_cases
import pytest
import torch
from memory_cases import CASES
from small_models import small_plan
from torch import nn

from autoseg.planning.plan import Plan
from autoseg.runtime import device

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("plain", "2D, V-Net stages, RGB")])
def test_steps_of_the_memory_cases_have_their_classes_and_the_first_does_not_count(case, monkeypatch):
    """The loss fits the network, and the peak is forgotten once, after the first step."""
    order = []
    train_step, forget_peak = memory_cases.train_step, memory_cases.forget_peak
    monkeypatch.setattr(memory_cases, "train_step", lambda *args: order.append("step") or train_step(*args))
    monkeypatch.setattr(memory_cases, "forget_peak", lambda device: order.append("forget") or forget_peak(device))
    assert memory_cases.peak_bytes(case, CPU, features=2, patch_size=case.small_patch) == 0
    assert order == ["step", "forget", "step", "step"]


def test_convolutions_alone_get_maps_in_the_precision_of_the_device(monkeypatch):
    """As from the layer before; a copy in another precision would be timed too."""
    monkeypatch.setattr(device, "precision", lambda _: torch.bfloat16)
    monkeypatch.setattr(gpu_step, "precision", lambda _: torch.bfloat16)
    monkeypatch.setattr(gpu_step, "clock", lambda work, _: work())
    kinds = []
    module = nn.Conv3d(4, 4, 3, padding=1)
    module.register_forward_pre_hook(lambda _module, inputs: kinds.append(inputs[0].dtype))
    module.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    gpu_step.time_convolution(SimpleNamespace(module=module, shape=(4, 8, 8, 8)), CPU, 2)
    assert kinds == [torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize(("chosen", "expected"), [("auto", "on"), ("cuda:1", "on"), ("cpu", "auto")])
def test_short_trainings_are_compiled_like_long_ones(tmp_path, chosen, expected):
    """A plan that is prepared on a machine without a GPU says so too."""
    path = tmp_path / "plan.json"
    small_plan().save(path)
    gpu_training.set_training(path, small_plan(epochs=5).training, Namespace(device=chosen, steps=7))
    training = Plan.load(path).training
    assert (training.compile, training.epochs, training.steps_per_epoch) == (expected, 5, 7)
