"""Tests of where logits are gathered, and of how tiles are added there."""

import numpy as np
import pytest
import torch

from autoseg.errors import AutosegError
from autoseg.inference import accumulation
from autoseg.inference.accumulation import allocate_logits, logits_bytes
from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.runtime.arrays import arrays_on

CPU = torch.device("cpu")
SHAPE = (3, 4, 5, 6)
VALUES = 3 * 4 * 5 * 6


def pretend_free(monkeypatch, free):
    """Lets the machine have so many bytes free."""
    monkeypatch.setattr(accumulation, "free_memory_bytes", lambda: free)


@pytest.mark.parametrize(
    ("free", "dtype", "on_disk"),
    [
        (None, torch.float32, False),
        (8 * VALUES, torch.float32, False),
        (8 * VALUES - 1, torch.float16, False),
        (4 * VALUES, torch.float16, False),
        (4 * VALUES - 1, torch.float16, True),
    ],
)
def test_half_of_the_free_memory_decides(monkeypatch, free, dtype, on_disk):
    """Full precision where it fits, then half, then a file; always zeros of the wanted shape."""
    pretend_free(monkeypatch, free)
    mapped = []
    monkeypatch.setattr(np, "memmap", lambda *_, **__: mapped.append(1) or np.zeros(SHAPE, np.float16))
    room = allocate_logits(SHAPE, CPU)
    assert (room.dtype, tuple(room.shape), bool(mapped)) == (dtype, SHAPE, on_disk)
    assert not room.any()
    assert logits_bytes(3, 120) == 4 * VALUES


@pytest.mark.parametrize(("held", "on_gpu"), [(0, False), (8 * VALUES, True)])
def test_memory_that_torch_keeps_counts_as_free(monkeypatch, held, on_gpu):
    """Logits go to the GPU if the driver and torch's allocator together have twice their memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (VALUES, 100 * VALUES))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: held)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    made = []

    def zeros(shape, *, device=CPU, **_):
        made.append(torch.device(device).type)
        return torch.empty(0)

    monkeypatch.setattr(torch, "zeros", zeros)
    allocate_logits(SHAPE, torch.device("cuda"))
    assert made == (["cuda"] if on_gpu else [])  # else numpy makes them


@pytest.mark.parametrize("reserve", ["posix_fallocate", "writing"])
def test_file_is_gone_with_the_tensor(monkeypatch, tmp_path, reserve):
    """It holds what is written, and no name of it is ever seen."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if reserve == "writing":
        monkeypatch.delattr("os.posix_fallocate")
    pretend_free(monkeypatch, 0)
    room = allocate_logits(SHAPE, CPU)
    room += 1.5
    assert (room == 1.5).all()
    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_too_small_is_said_before_the_work(monkeypatch):
    """One line with the size and what to do."""
    pretend_free(monkeypatch, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": VALUES})())
    with pytest.raises(AutosegError, match=r"neither memory nor .* has room; .*TMPDIR"):
        allocate_logits(SHAPE, CPU)


def test_disk_that_fills_up_while_it_is_reserved(monkeypatch):
    """The same line, though there seemed to be room."""

    def full(*_):
        raise OSError(28, "No space left on device")

    pretend_free(monkeypatch, 0)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(AutosegError, match=r"neither memory nor .* has room"):
        allocate_logits(SHAPE, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("of_tile", [torch.float32, torch.bfloat16])
def test_tiles_are_added_by_weight(dtype, of_tile):
    """Twice, with other weights; sums of half precision are rounded once each time."""
    target = torch.zeros(SHAPE, dtype=dtype)
    logits, weights = torch.randn(SHAPE).to(of_tile), torch.rand(SHAPE[1:])
    for _ in range(2):
        arrays_on(CPU).add_weighted(target, logits, weights)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(target.float(), 2 * logits.float() * weights, rtol=tolerance, atol=tolerance)


def test_half_precision_gives_nearly_the_same_volume(monkeypatch):
    """A whole image, gathered in a file, against the same in memory."""
    image = torch.randn(1, 9, 10, 11)
    options = {"patch_size": (4, 4, 4), "batch_size": 3, "device": CPU}
    both_signs = FunctionPredictor(lambda patches: torch.cat([patches, -patches], 1))
    exact = predict_volume(image, both_signs, **options)
    pretend_free(monkeypatch, 0)
    half = predict_volume(image, both_signs, **options)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=5e-3, atol=5e-3)
