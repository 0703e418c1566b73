"""Normalization of intensities."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.planning.settings import Normalization, NormalizationScheme
from autoseg.preprocessing.normalization import normalize

SHAPE = (1, 3, 5, 4)
EVERYWHERE = np.ones(SHAPE[1:], dtype=np.bool_)
CT = Normalization(scheme="ct", lower=-100, upper=300, mean=50, std=20)


def setting(scheme: NormalizationScheme) -> Normalization:
    """Settings of a scheme."""
    return CT if scheme == "ct" else Normalization(scheme=scheme)


def random_image(seed: int = 0, low: float = 1, high: float = 255) -> NDArray[np.float32]:
    """An image without zeros."""
    return np.random.default_rng(seed).uniform(low, high, SHAPE).astype(np.float32)


def test_ct_is_clipped_and_scaled_by_the_dataset() -> None:
    """The numbers come from the plan, not from the image."""
    image = np.array([-1000, -100, 50, 70, 300, 3000], dtype=np.float32).reshape(1, 1, 2, 3)
    result = normalize(image, (CT,), np.ones((1, 2, 3), dtype=np.bool_))
    np.testing.assert_allclose(result.ravel(), [-7.5, -7.5, 0, 1, 12.5, 12.5])


def test_window_of_hounsfield_units_spans_0_to_1() -> None:
    """The network form for many structures of a CT expects this, see `networks.unet`."""
    window = Normalization(scheme="ct", lower=-200, upper=300, mean=-200, std=500)
    image = np.array([-1000, -200, 50, 299, 300, 3000], dtype=np.float32).reshape(1, 1, 2, 3)
    result = normalize(image, (window,), np.ones((1, 2, 3), dtype=np.bool_))
    np.testing.assert_allclose(result.ravel(), [0, 0, 0.5, 0.998, 1, 1], rtol=1e-6)


def test_ct_of_one_intensity_is_zero() -> None:
    """A dataset whose foreground has one intensity has no deviation to divide by."""
    flat = Normalization(scheme="ct", lower=7, upper=7, mean=7, std=0)
    assert not normalize(random_image(), (flat,), EVERYWHERE).any()


def test_zscore_has_mean_zero_and_deviation_one() -> None:
    """The image's own mean and deviation are used."""
    result = normalize(random_image() * 1000 + 1e5, (setting("zscore"),), EVERYWHERE)
    assert abs(result.mean(dtype=np.float64)) < 1e-4
    assert abs(result.std(dtype=np.float64) - 1) < 1e-4


def test_zscore_of_the_nonzero_region_leaves_the_rest_at_zero() -> None:
    """Only the region counts for mean and deviation."""
    mask = np.zeros(SHAPE[1:], dtype=np.bool_)
    mask[1:] = True
    image = random_image() * mask
    result = normalize(image, (Normalization(scheme="zscore", only_nonzero=True),), mask)[0]
    assert not result[~mask].any()
    np.testing.assert_allclose(result[mask], (image[0][mask] - image[0][mask].mean()) / image[0][mask].std(), atol=1e-5)


def test_zscore_of_an_empty_region_changes_nothing() -> None:
    """An image of zeros only stays so."""
    only_nonzero = Normalization(scheme="zscore", only_nonzero=True)
    assert not normalize(np.zeros(SHAPE, dtype=np.float32), (only_nonzero,), ~EVERYWHERE).any()


def test_rescaling_spans_0_to_1() -> None:
    """The image's own range is mapped."""
    result = normalize(random_image(low=-3, high=9), (setting("rescale_to_0_1"),), EVERYWHERE)
    assert (result.min(), result.max()) == (0, 1)


def test_colours_are_divided_by_255() -> None:
    """Whatever the range of the image itself."""
    image = random_image()
    np.testing.assert_allclose(normalize(image, (setting("rgb_to_0_1"),), EVERYWHERE), image / 255, rtol=1e-6)


@pytest.mark.parametrize("value", [-1.0, 256.0])
def test_values_that_are_no_colours_are_refused(value: float) -> None:
    """A scan that was declared to hold colours gives a clear error."""
    image = random_image()
    image[0, 0, 0, 0] = value
    with pytest.raises(ImageError, match=r"outside 0 to 255"):
        normalize(image, (setting("rgb_to_0_1"),), EVERYWHERE)


def test_each_channel_has_its_own_scheme() -> None:
    """Channels do not mix, and the input is left as it is."""
    image = np.concatenate([random_image(1), random_image(2)])
    before = image.copy()
    result = normalize(image, (setting("none"), setting("rgb_to_0_1")), EVERYWHERE)
    np.testing.assert_array_equal(result[0], before[0])
    np.testing.assert_allclose(result[1], before[1] / 255, rtol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_another_number_of_channels_is_refused() -> None:
    """Two schemes for one channel are an error of the data, not a crash."""
    with pytest.raises(ImageError, match=r"1 channels, the plan expects 2"):
        normalize(random_image(), (CT, CT), EVERYWHERE)


@settings(max_examples=60, deadline=None)
@given(
    scheme=st.sampled_from(get_args(NormalizationScheme)),
    value=st.floats(0, 255, width=32),
    only_nonzero=st.booleans(),
)
def test_constant_images_never_give_nan(scheme: NormalizationScheme, value: float, only_nonzero: bool) -> None:
    """Every scheme copes with an image of one intensity; the two that measure the image make it zero."""
    chosen = setting(scheme).model_copy(update={"only_nonzero": only_nonzero})
    image = np.full(SHAPE, value, dtype=np.float32)
    result = normalize(image, (chosen,), image[0] != 0)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    if scheme in ("zscore", "rescale_to_0_1"):
        assert not result.any()
