"""Outputs chosen at each voxel equal those of interpolating the logits of every output everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_interpolation import interpolate
from scipy import ndimage

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing import output_choice
from autoseg.preprocessing.output_choice import choose_class, choose_region, resample_and_choose

ISOTROPIC: Vector = (1.0, 1.0, 1.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=40, deadline=None)
@given(
    old=shapes,
    new=shapes,
    classes=st.integers(1, 5),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
    axis=st.sampled_from([None, 0, 1, 2]),
)
def test_winners_equal_those_of_all_logits_resampled(
    old: Shape, new: Shape, classes: int, seed: int, smooth: bool, axis: int | None
) -> None:
    """Looking only at mixed cells loses nothing; rounding may decide where two classes all but draw."""
    spacing_mm: Vector = tuple(5.0 if other == axis else 1.0 for other in range(3))  # type: ignore[assignment]
    logits = np.random.default_rng(seed).normal(size=(classes, *old))
    logits = (ndimage.gaussian_filter(logits, (0, 2, 2, 2)) if smooth else logits).astype(np.float32)
    everywhere = np.stack([interpolate(volume, new, axis) for volume in logits])
    result = resample_and_choose(logits, choose_class, spacing_mm, new, ISOTROPIC)
    chosen = np.take_along_axis(everywhere, result[np.newaxis].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(chosen, everywhere.max(axis=0), atol=1e-6)


def test_the_lowest_class_wins_a_draw() -> None:
    """Equal logits give background, at the old voxels and between them."""
    logits = np.zeros((3, 2, 2, 2), dtype=np.float32)
    assert not resample_and_choose(logits, choose_class, ISOTROPIC, (2, 2, 2), ISOTROPIC).any()
    logits[1, 0], logits[0, 1] = 1, 1
    middle = resample_and_choose(logits, choose_class, ISOTROPIC, (3, 2, 2), ISOTROPIC)[1]
    assert not middle.any()


def test_a_class_that_wins_at_no_corner_can_win_between_them() -> None:
    """The second best of both neighbours is the best in the middle."""
    logits = np.array([[5, -5], [-5, 5], [3, 3]], dtype=np.float32).reshape(3, 2, 1, 1)
    chosen = resample_and_choose(logits, choose_class, ISOTROPIC, (3, 1, 1), ISOTROPIC)
    np.testing.assert_array_equal(chosen.ravel(), [0, 2, 1])


def test_more_than_256_classes_are_told_apart() -> None:
    """Labels do not wrap around."""
    logits = np.zeros((300, 1, 1, 2), dtype=np.float16)
    logits[299, :, :, 0], logits[7, :, :, 1] = 9, 9
    chosen = resample_and_choose(logits, choose_class, ISOTROPIC, (1, 1, 4), ISOTROPIC)
    np.testing.assert_array_equal(chosen.ravel(), [299, 299, 7, 7])


@settings(max_examples=40, deadline=None)
@given(
    old=shapes,
    new=shapes,
    regions=st.integers(1, 4),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
    axis=st.sampled_from([None, 0, 1, 2]),
)
def test_regions_are_painted_as_if_all_logits_were_resampled(
    old: Shape, new: Shape, regions: int, seed: int, smooth: bool, axis: int | None
) -> None:
    """The last region that is likelier than not, wherever rounding does not decide."""
    spacing_mm: Vector = tuple(5.0 if other == axis else 1.0 for other in range(3))  # type: ignore[assignment]
    logits = np.random.default_rng(seed).normal(size=(regions, *old))
    logits = (ndimage.gaussian_filter(logits, (0, 2, 2, 2)) if smooth else logits).astype(np.float32)
    everywhere = np.stack([interpolate(volume, new, axis) for volume in logits])
    expected = np.zeros(new, dtype=int)
    for number, volume in enumerate(everywhere, start=1):
        expected[volume > 0] = number
    result = resample_and_choose(logits, choose_region, spacing_mm, new, ISOTROPIC)
    sure = (np.abs(everywhere) > 1e-6).all(axis=0)
    np.testing.assert_array_equal(result[sure], expected[sure])


def test_few_voxels_at_once_and_one_thread_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither how many voxels are interpolated together nor the number of threads decides a label."""
    logits = np.random.default_rng(3).normal(size=(4, 9, 8, 7)).astype(np.float32)
    whole = resample_and_choose(logits, choose_class, ISOTROPIC, (13, 12, 11), ISOTROPIC)
    monkeypatch.setattr(output_choice, "CHOSEN_AT_ONCE", 1)
    monkeypatch.setattr(output_choice, "MOST_THREADS", 1)
    np.testing.assert_array_equal(resample_and_choose(logits, choose_class, ISOTROPIC, (13, 12, 11), ISOTROPIC), whole)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    """It is raised as it is."""

    def fail(_logits: object) -> None:
        raise RuntimeError("no output")

    with pytest.raises(RuntimeError, match="no output"):
        resample_and_choose(np.zeros((2, 4, 4, 4), np.float32), fail, ISOTROPIC, (8, 8, 8), ISOTROPIC)  # type: ignore[arg-type]
