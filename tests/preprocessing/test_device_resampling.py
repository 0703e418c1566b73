"""Resampling with torch gives the same numbers as on the CPU, on every device."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.imaging.geometry import Box, Geometry, Shape, Vector
from autoseg.preprocessing import device_resampling
from autoseg.preprocessing.case import PreprocessRecord, restore_case, restore_masks
from autoseg.preprocessing.device_resampling import resample_and_choose_on_device, resample_image_on
from autoseg.preprocessing.label_resampling import choose_class, choose_region, resample_and_choose
from autoseg.preprocessing.probabilities import restore_probabilities
from autoseg.preprocessing.resampling import resample_image

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ISOTROPIC: Vector = (1.0, 1.0, 1.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
axes = st.sampled_from([None, 0, 1, 2])


def spacing_of(axis: int | None) -> Vector:
    """Returns the spacing of an image with thick slices along an axis."""
    z, y, x = (5.0 if other == axis else 1.0 for other in range(3))
    return z, y, x


def make_logits(outputs: int, shape: Shape, seed: int) -> np.ndarray:
    """Smooth random fields."""
    noise = np.random.default_rng(seed).normal(size=(outputs, *shape))
    return ndimage.gaussian_filter(noise, (0, 1, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 99), axis=axes)
def test_images_are_equal(device: str, old: Shape, new: Shape, seed: int, axis: int | None) -> None:
    """Images equal those of the CPU, within a tenth of the tolerance."""
    image = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    ours = resample_image(image, spacing_of(axis), new, ISOTROPIC)
    theirs = resample_image_on(torch.device(device), image, spacing_of(axis), new, ISOTROPIC)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert theirs.dtype == np.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exclusive", [True, False])
@settings(max_examples=30, deadline=None)
@given(sizes=st.tuples(shapes, shapes), outputs=st.integers(1, 4), seed=st.integers(0, 99), axis=axes)
def test_chosen_outputs_are_equal(
    device: str, exclusive: bool, sizes: tuple[Shape, Shape], outputs: int, seed: int, axis: int | None
) -> None:
    """Chosen outputs equal those of the CPU, except where rounding decides."""
    old, new = sizes
    logits = make_logits(outputs, old, seed)
    elect = choose_class if exclusive else choose_region
    ours = resample_and_choose(logits, elect, spacing_of(axis), new, ISOTROPIC)
    on_device = torch.from_numpy(logits).to(device)
    theirs = resample_and_choose_on_device(on_device, spacing_of(axis), new, ISOTROPIC, exclusive=exclusive)
    assert theirs.dtype == ours.dtype
    each = np.stack([resample_image(one[None], spacing_of(axis), new, ISOTROPIC, order=1)[0] for one in logits])
    if not exclusive:
        margin = np.abs(each).min(axis=0)
    else:
        margin = np.ptp(np.sort(each, axis=0)[-2:], axis=0) if outputs > 1 else np.ones(new)
    sure = margin > 1e-5
    np.testing.assert_array_equal(theirs[sure], ours[sure])


def test_many_outputs_are_told_apart() -> None:
    """Labels do not wrap around."""
    logits = torch.zeros(300, 1, 1, 2)
    logits[299, 0, 0, 0], logits[7, 0, 0, 1] = 9, 9
    chosen = resample_and_choose_on_device(logits, ISOTROPIC, (1, 1, 4), ISOTROPIC, exclusive=True)
    np.testing.assert_array_equal(chosen.ravel(), [299, 299, 7, 7])


@pytest.mark.gpu
@pytest.mark.parametrize("room", [True, False])
def test_logits_on_a_gpu_are_restored_there(monkeypatch: pytest.MonkeyPatch, room: bool) -> None:
    """If the memory of the GPU does not suffice they are restored on the CPU; results are the same either way."""
    record = PreprocessRecord(
        geometry=Geometry(shape=(20, 21, 22), spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(1, 0, 2),
        box=Box(start=(2, 3, 4), stop=(20, 18, 20)),
        shape=(9, 10, 11),
        spacing_mm=(2.0, 1.5, 1.5),
    )
    logits = make_logits(3, record.shape, seed=0)
    on_gpu = torch.from_numpy(logits).cuda()
    monkeypatch.setattr(device_resampling, "fits_in_memory", lambda *_: room)
    for region_class_order in ((), (1, 2, 3)):
        ours, theirs = (restore_case(one, record, region_class_order).array for one in (logits, on_gpu))
        assert (ours != theirs).mean() < 1e-3
    for ours_mask, theirs_mask in zip(restore_masks(logits, record), restore_masks(on_gpu, record), strict=True):
        assert (ours_mask.array != theirs_mask.array).mean() < 1e-3
    for one, other in zip(restore_probabilities(logits, record), restore_probabilities(on_gpu, record), strict=True):
        np.testing.assert_allclose(one.array, other.array, atol=1e-5)
