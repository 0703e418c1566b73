"""Images and logits that are resampled on a pretended GPU, and on the CPU where its memory is full."""

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda
from phantoms import place
from small_models import small_configuration

from autoseg.imaging.geometry import Box, Geometry
from autoseg.preprocessing import device_resampling
from autoseg.preprocessing.case import PreprocessRecord, preprocess_case, restore_case, restore_masks
from autoseg.preprocessing.device_resampling import resample_and_choose_on_device, resample_image_on

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

GRIDS = [
    ((6, 10, 10), (9, 15, 12), (1.0, 1.0, 1.0)),
    ((6, 10, 10), (9, 15, 12), (5.0, 1.0, 1.0)),
    ((6, 10, 10), (6, 15, 12), (1.0, 1.0, 5.0)),
]
COPIES = {"copy from cpu to cuda", "copy from cuda to cpu"}
TARGET_MM = (1.0, 1.0, 1.0)
RECORD = PreprocessRecord(
    geometry=Geometry(shape=(26, 28, 30), spacing_mm=(1.0, 1.0, 1.0)),
    axis_order=(1, 0, 2),
    box=Box(start=(2, 3, 4), stop=(22, 26, 27)),
    shape=(10, 14, 15),
    spacing_mm=(2.0, 1.5, 1.5),
)


@pytest.mark.parametrize(("old", "new", "spacing_mm"), GRIDS)
def test_images_are_resampled_on_the_gpu(old, new, spacing_mm):
    """Each channel is copied there and back, and nothing else is waited for."""
    image = np.zeros((2, *old), np.float32)
    with pretended_cuda() as counts:
        assert resample_image_on(CUDA, image, spacing_mm, new, TARGET_MM).shape == (2, *new)
    assert {kind for _, kind, _ in counts.waits} <= COPIES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize(("old", "new", "spacing_mm"), GRIDS)
def test_outputs_are_chosen_on_the_gpu(old, new, spacing_mm, exclusive, dtype):
    """Only the chosen numbers are copied, a byte for each voxel."""
    with pretended_cuda() as counts:
        logits = torch.zeros(3, *old, device=CUDA, dtype=dtype)
        chosen = resample_and_choose_on_device(logits, spacing_mm, new, TARGET_MM, exclusive=exclusive)
    assert (chosen.shape, chosen.dtype) == (new, np.uint8)
    assert {kind for _, kind, _ in counts.waits} <= COPIES
    assert counts.copied["other", "cuda to cpu"] == np.prod(new)


@pytest.mark.parametrize("reason", ["little memory", "full memory"])
def test_full_gpu_leaves_the_work_to_the_cpu(reason, monkeypatch):
    """Whether torch knows before that it will not fit, or finds out."""

    def fail(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    if reason == "full memory":
        for name in ("resample_and_choose_on_device", "resample_image_on"):
            monkeypatch.setattr(device_resampling, name, fail)
    image = place(np.zeros((1, 6, 7, 8), np.float32), spacing_mm=(2.0, 1.0, 1.0))
    with pretended_cuda(free_bytes=0 if reason == "little memory" else 2**40):
        logits = torch.zeros(3, *RECORD.shape, device=CUDA)
        assert restore_case(logits, RECORD).geometry == RECORD.geometry
        assert len(list(restore_masks(logits, RECORD))) == 3
        case = preprocess_case(image, None, axis_order=(0, 1, 2), configuration=small_configuration(), device=CUDA)
    assert case.image.shape == (1, *case.record.shape)
