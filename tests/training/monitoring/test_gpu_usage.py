"""What a GPU tells about itself; other devices tell nothing."""

import pytest
import torch

from autoseg.training.monitoring.gpu_usage import Gauge


def test_cpu_tells_nothing():
    """Neither memory nor load, however often one looks."""
    gauge = Gauge(torch.device("cpu"))
    gauge.look()
    assert (gauge.memory_bytes, gauge.utilization) == (None, None)


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA GPU of which torch knows the memory."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 123)
    return torch.device("cuda")


def test_load_is_the_mean_of_what_was_seen(cuda, monkeypatch):
    """As a share."""
    shown = iter([100, 50, 0])
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: next(shown))
    gauge = Gauge(cuda)
    for _ in range(3):
        gauge.look()
    assert gauge.utilization == 0.5
    assert gauge.memory_bytes == 123


def test_load_is_left_out_without_the_package_for_it(cuda, monkeypatch):
    """Torch is asked once."""
    asked = []

    def refuse(_):
        asked.append(True)
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    gauge = Gauge(cuda)
    gauge.look()
    gauge.look()
    assert gauge.utilization is None
    assert asked == [True]
    assert gauge.memory_bytes == 123


@pytest.mark.gpu
def test_gpu_tells_its_memory():
    """What torch held since the gauge was made, at least what was asked for."""
    gauge = Gauge(torch.device("cuda"))
    held = torch.zeros(10**7, device="cuda")
    gauge.look()
    assert gauge.memory_bytes >= held.nbytes
    assert gauge.utilization is None or 0 <= gauge.utilization <= 1
