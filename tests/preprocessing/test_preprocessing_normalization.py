"""Normalization of intensities."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.planning.channel_settings import Normalization, NormalizationScheme
from autoseg.preprocessing.normalization import find_missing, normalize

SHAPE = (1, 3, 5, 4)
EVERYWHERE = np.ones(SHAPE[1:], dtype=np.bool_)
CT = Normalization(scheme="ct", lower=-100, upper=300, mean=50, std=20)


def setting(scheme: NormalizationScheme) -> Normalization:
    """Settings of a scheme."""
    if scheme == "window":
        return Normalization(scheme="window", window_hu=((-100, 300),))
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


def test_each_window_becomes_a_channel_from_minus_1_to_1() -> None:
    """Channels keep their order; each voxel is what the definition of the window says, and the scan stays as it is."""
    windows = ((-200, 300), (-1000, 400), (0.5, 80.5))
    schemes = (setting("none"), Normalization.model_validate({"window_hu": windows}), setting("none"))
    image = np.random.default_rng(0).uniform(-1500, 1500, (3, 3, 5, 4)).astype(np.float32)
    before = image.copy()
    result = normalize(image, schemes, EVERYWHERE)
    expected = [[2 * (min(max(x, a), b) - a) / (b - a) - 1 for x in image[1].ravel().tolist()] for a, b in windows]
    assert result.shape == (5, 3, 5, 4)
    np.testing.assert_array_equal(result[[0, 4]], image[[0, 2]])
    np.testing.assert_allclose(result[1:4].reshape(3, -1), expected, atol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_all_windows_of_a_missing_scan_are_0() -> None:
    """A scan that lacks its CT has zeros in each of the channels that the windows make."""
    image = np.concatenate([np.full(SHAPE, -1000, np.float32), random_image()])
    schemes = (Normalization.model_validate({"window_hu": [[-200, 300], [-1000, 400]]}), setting("zscore"))
    result = normalize(image, schemes, EVERYWHERE)
    assert not result[:2].any()
    assert result[2].any()


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


@pytest.mark.parametrize("value", [0.0, -1000.0, 7.0])
def test_a_constant_channel_among_others_is_missing(value):
    """It becomes 0, the mean of other channels, also in CT, whose other constant images keep their value."""
    random = np.random.default_rng(0)
    image = np.stack([random.normal(0, 1, (3, 4, 5)), np.full((3, 4, 5), value)]).astype(np.float32)
    ct = Normalization(scheme="ct", lower=-900.0, upper=900.0, mean=100.0, std=50.0)
    schemes, mask = (ct, ct), np.ones((3, 4, 5), bool)
    assert find_missing(image, schemes) == (1,)
    assert not normalize(image, schemes, mask)[1].any()
    alone = normalize(image[1:], schemes[1:], mask)
    assert alone == pytest.approx((max(value, -900.0) - 100.0) / 50.0)


def test_a_colour_is_never_missing():
    """A picture without blue is a picture."""
    image = np.stack([np.arange(8.0).reshape(1, 2, 4), np.full((1, 2, 4), 255.0)]).astype(np.float32)
    schemes = (Normalization(scheme="rgb_to_0_1"),) * 2
    assert find_missing(image, schemes) == ()
    assert (normalize(image, schemes, np.ones((1, 2, 4), bool))[1] == 1).all()
