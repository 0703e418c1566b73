"""Resampling with torch gives the same numbers as on the CPU, on every device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import place
from scipy import ndimage
from small_models import small_configuration

from autoseg.imaging.geometry import Box, Geometry, Shape, Vector
from autoseg.preprocessing import device_resampling
from autoseg.preprocessing.case import PreprocessRecord, preprocess_case, restore_case, restore_masks
from autoseg.preprocessing.device_resampling import (
    choose_if_it_fits,
    fits_in_memory,
    resample_and_choose_on_device,
    resample_image_if_it_fits,
    resample_image_on,
)
from autoseg.preprocessing.output_choice import choose_class, choose_region, resample_and_choose
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


def raise_full(*_: object, **__: object) -> None:
    """Fails as torch does where the memory of a GPU is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_image_that_does_not_fit_is_resampled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full GPU costs time, not the case."""
    image = place(np.random.default_rng(0).normal(size=(1, 6, 7, 8)).astype(np.float32), spacing_mm=(2.0, 1.0, 1.0))
    configuration = small_configuration()
    cases = []
    for device in (None, torch.device("cpu")):
        cases.append(
            preprocess_case(image, None, axis_order=(0, 1, 2), configuration=configuration, device=device).image
        )
        monkeypatch.setattr(device_resampling, "resample_image_on", raise_full)
    np.testing.assert_array_equal(*cases)


def test_other_errors_of_a_gpu_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only full memory is a reason to calculate elsewhere."""

    def fail(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(device_resampling, "resample_image_on", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        resample_image_if_it_fits(
            torch.device("cpu"), np.ones((1, 2, 2, 2), np.float32), ISOTROPIC, (3, 3, 3), ISOTROPIC
        )


def test_logits_that_do_not_fit_are_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs may have taken the memory that was free a moment ago."""
    grids = ISOTROPIC, (3, 3, 3), ISOTROPIC
    logits = torch.zeros(2, 2, 2, 2)
    assert choose_if_it_fits(logits, *grids, exclusive=True) is not None
    monkeypatch.setattr(device_resampling, "resample_and_choose_on_device", raise_full)
    assert choose_if_it_fits(logits, *grids, exclusive=True) is None


def test_memory_that_torch_keeps_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch's allocator holds for later tensors can be used."""
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 10**6))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 1000)
    for allocated, fits in ((0, True), (1000, False)):
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _, allocated=allocated: allocated)
        assert fits_in_memory(on_gpu, (3, 3, 3)) == fits


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
