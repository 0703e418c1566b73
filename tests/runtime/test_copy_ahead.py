"""Batches are copied to a GPU on a stream of their own, and the GPU waits for them before it uses them."""

from contextlib import contextmanager

import pytest
import torch

from autoseg.runtime import copy_ahead as module
from autoseg.runtime.copy_ahead import copy_ahead

CUDA = torch.device("cuda", 1)


class Gpu:
    """Notes what would happen on a GPU, on which stream, in order."""

    def __init__(self):
        self.calls, self.current = [], "calculations"

    def note(self, text):
        """Notes a call."""
        self.calls.append(text)

    @contextmanager
    def stream(self, stream):
        """The stream that operations inside the context run on."""
        before, self.current = self.current, stream.name
        yield
        self.current = before


class Stream:
    """A stream that notes its calls."""

    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def record_event(self):
        """Notes that an event was recorded."""
        self.gpu.note(f"record on {self.name}")
        return "the end of the copy"

    def wait_event(self, event):
        """Notes for what the stream waits."""
        self.gpu.note(f"{self.name} wait for {event}")


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU."""
    gpu, to = Gpu(), torch.Tensor.to
    pinned = set()

    def pin(self):
        gpu.note("pin")
        copied = self.clone()
        pinned.add(copied.data_ptr())
        return copied

    def move(self, device, *, non_blocking=False):
        assert device == CUDA
        assert non_blocking
        assert self.data_ptr() in pinned
        gpu.note(f"copy on {gpu.current}")
        return to(self, "cpu", copy=True)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", move)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: gpu.note(f"kept for {stream.name}"))
    monkeypatch.setattr(torch.cuda, "stream", gpu.stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: gpu.note(f"stream on {device}") or Stream(gpu, "copies"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(gpu, "calculations"))
    module._copy_stream.cache_clear()
    yield gpu
    module._copy_stream.cache_clear()


def test_copy_runs_beside_calculations(gpu):
    """Copied once from pinned memory, and waited for by the GPU, not by the program, before the batch is used."""
    batch = (torch.arange(3.0), None, torch.tensor([[1, -1]], dtype=torch.int16))
    copy = copy_ahead(batch, CUDA)
    assert gpu.calls == ["pin"]
    copy.start()
    assert gpu.calls[1:] == ["stream on cuda:1", "copy on copies", "record on copies"]
    copied = copy.finish()
    assert gpu.calls[4:] == ["calculations wait for the end of the copy", "kept for calculations"]
    assert torch.equal(copied[0], batch[0])
    assert torch.equal(copied[2], batch[2])


def test_all_copies_run_on_one_stream(gpu):
    """Else memory that was freed would stay with the streams that nobody uses any more."""
    for _ in range(2):
        copy_ahead((torch.zeros(2),), CUDA).start()
    assert sum(call.startswith("stream on") for call in gpu.calls) == 1


def test_copy_that_was_not_started_starts_when_it_is_needed(gpu):
    """So a single batch needs no more than its end."""
    copy_ahead((torch.zeros(2),), CUDA).finish()
    assert [call for call in gpu.calls if "wait" in call or "copy on" in call] == [
        "copy on copies",
        "calculations wait for the end of the copy",
    ]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_get_the_batch_itself(device):
    """Nothing is packed, pinned or copied."""
    batch = (torch.zeros(2),)
    assert copy_ahead(batch, torch.device(device)).start().finish() is batch
