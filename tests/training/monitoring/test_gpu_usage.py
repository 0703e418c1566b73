"""The usage of a GPU during an epoch; other devices do not report it."""

import pytest
import torch

from autoseg.training.monitoring.gpu_usage import GpuUsage


def test_cpu_tells_nothing():
    """A CPU reports neither memory nor utilization, however often it is sampled."""
    gpu_usage = GpuUsage(torch.device("cpu"))
    gpu_usage.sample()
    assert (gpu_usage.memory_bytes, gpu_usage.utilization) == (None, None)


@pytest.fixture
def cuda(monkeypatch):
    """Pretends a CUDA GPU whose memory torch knows."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 123)
    return torch.device("cuda")


def test_load_is_the_mean_of_what_was_seen(cuda, monkeypatch):
    """Utilization is the mean of the samples, as a share from 0 to 1."""
    shown = iter([100, 50, 0])
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: next(shown))
    gpu_usage = GpuUsage(cuda)
    for _ in range(3):
        gpu_usage.sample()
    assert gpu_usage.utilization == 0.5
    assert gpu_usage.memory_bytes == 123


class NVMLError(Exception):
    """As NVIDIA's package has it: a plain exception."""


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("pynvml does not seem to be installed"),
        RuntimeError("no driver"),
        NVMLError("Not Supported"),
    ],
)
def test_load_is_left_out_where_it_is_unknown(cuda, monkeypatch, error):
    """Without the package for it, or on a GPU of which it does not know; torch is asked only once."""
    asked = []

    def refuse(_):
        asked.append(True)
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    gpu_usage = GpuUsage(cuda)
    gpu_usage.sample()
    gpu_usage.sample()
    assert gpu_usage.utilization is None
    assert asked == [True]
    assert gpu_usage.memory_bytes == 123


@pytest.mark.gpu
def test_gpu_tells_its_memory():
    """The memory is what torch reserved since the object was made, at least what was allocated."""
    gpu_usage = GpuUsage(torch.device("cuda"))
    held = torch.zeros(10**7, device="cuda")
    gpu_usage.sample()
    assert gpu_usage.memory_bytes >= held.nbytes
    assert gpu_usage.utilization is None or 0 <= gpu_usage.utilization <= 1
