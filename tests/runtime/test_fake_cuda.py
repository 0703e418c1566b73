"""The pretended GPU finds what it is there to find, and leaves nothing behind."""

import copy

import fake_cuda
import pytest
import torch
from device_counts import DeviceCounts
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda, why_no_pretended_cuda
from fake_gpu_runs import fake_architecture, fake_batch, fake_run, fake_state, pretended_gradients
from torch import nn

from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss

pytestmark = requires_pretended_cuda


def test_tensor_on_another_device_is_refused():
    """As torch does before it starts a kernel."""
    with pretended_cuda(), pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=CUDA) + torch.ones(3)


def test_convolution_of_two_types_is_refused():
    """A network that forgets the type of its input fails on a GPU only."""
    with pretended_cuda(), pytest.raises(RuntimeError, match=r"BFloat16|bfloat16"):
        nn.Conv2d(1, 1, 3, bias=False, device=CUDA)(torch.ones(1, 1, 8, 8, device=CUDA, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("kind", "ask"),
    [
        ("item", lambda values: values.sum().item()),
        ("item", lambda values: bool((values > 0).all())),
        ("item", lambda values: float(values[0])),
        ("tolist", lambda values: values.tolist()),
        ("nonzero", lambda values: (values > 0).nonzero()),
        ("index by a mask", lambda values: values[values > 0]),
        ("bincount", lambda values: values.long().bincount(minlength=3)),
        ("copy from cuda to cpu", lambda values: values.cpu()),
        ("copy from cpu to cuda", lambda values: torch.tensor([1.0, 2.0], device=values.device)),
        ("copy from cpu to cuda", lambda values: values.new_tensor([1.0, 2.0])),
        ("index on the CPU", lambda values: values[torch.arange(2)]),
        ("synchronize", lambda values: torch.cuda.synchronize(values.device)),
    ],
)
def test_waits_are_counted(kind, ask):
    """Each way to ask a GPU for a value is one, with the place that asks."""
    with pretended_cuda() as counts:
        values = torch.zeros(4, device=CUDA)
        counts.reset()
        ask(values)
    assert kind in {name for _, name, _ in counts.waits}
    assert all(place.startswith("runtime/test_fake_cuda.py:") for _, _, place in counts.waits)


def test_what_does_not_wait_is_not_counted():
    """Copies that the program does not wait for, and all that stays on the GPU."""
    with pretended_cuda() as counts:
        values = torch.zeros(4).pin_memory().to(CUDA, non_blocking=True)
        values.mul_(2).topk(2, sorted=False)
        torch.where(values > 0, values, 0.0).cumsum(0)
        torch.cuda.Event().record(torch.cuda.current_stream())
    assert counts.list_waits() == []
    assert counts.copied["other", "cpu to cuda"] == counts.pinned_bytes == 16


def test_planted_wait_in_the_loss_is_found(monkeypatch):
    """An `.item()` in the middle of a step is what the tests on the pretended GPU are there to find."""
    original = Loss.at_one_resolution

    def with_item(self, logits, labels, unknown=None, *rest):
        loss = original(self, logits, labels, unknown, *rest)
        return loss * (2.0 if loss.item() > 0 else 1.0)

    monkeypatch.setattr(Loss, "at_one_resolution", with_item)
    assert any("item at runtime/test_fake_cuda.py" in line for line in _step_waits())


def test_planted_device_is_found(monkeypatch):
    """A tensor that the loss makes on the CPU does not go through."""
    original = Loss.at_one_resolution

    def with_cpu_weights(self, logits, labels, unknown=None, *rest):
        return (original(self, logits, labels, unknown, *rest) * torch.ones(2)).sum()

    monkeypatch.setattr(Loss, "at_one_resolution", with_cpu_weights)
    with pytest.raises(RuntimeError, match="device"):
        _step_waits()


def _step_waits():
    run = fake_run(fake_architecture(), (16, 16, 16))
    with pretended_cuda() as counts:
        state = fake_state(run)
        with pretended_gradients(state.network):
            train_step(state, fake_batch(run), run, SILENT)
    return counts.list_waits()


def test_nothing_is_left_behind():
    """Afterwards torch has no CUDA again, and tensors have values."""
    with pretended_cuda():
        torch.zeros(2, device=CUDA)
    assert why_no_pretended_cuda() is None
    assert fake_cuda._guards()[fake_cuda.CUDA_ENTRY] is None
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|cuda"):
        torch.zeros(2, device=CUDA)
    assert torch.ones(2).tolist() == [1.0, 1.0]
    assert torch.ones(2, requires_grad=True).sum().requires_grad
    assert copy.deepcopy(nn.Linear(1, 1)).weight.numel() == 1
    assert "numpy" not in torch.Tensor.__dict__
    assert torch.cuda.Stream is not fake_cuda.PretendedStream


def test_products_of_a_convolution_are_counted():
    """Two floating-point operations for each weight and each voxel that it makes."""
    with pretended_cuda() as counts:
        nn.Conv3d(2, 4, 3, padding=1, device=CUDA)(torch.zeros(1, 2, 8, 8, 8, device=CUDA))
    assert counts.flops["other"] == 2 * (2 * 4 * 27) * 8**3
    assert isinstance(counts, DeviceCounts)
