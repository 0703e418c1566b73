"""The random parameters of augmentation are distributed as the settings say."""

import numpy as np
import pytest
from changed_patches import OFF, only
from scipy import stats

from autoseg.dataloading.augmentation_parameters import AugmentationParameters, draw_parameters
from autoseg.planning.settings import AugmentationSettings

SIZE = (8, 8, 8)


def draw_many(settings, count=400, channels=2, others=(1, 2), seed=0, size=SIZE):
    """Draws the parameters of many patches."""
    random = np.random.default_rng(seed)
    return [draw_parameters(settings, size, channels=channels, others=others, random=random) for _ in range(count)]


def test_nothing_is_drawn_when_all_is_off():
    """Only the seed of the noise is drawn, and no noise."""
    [draw] = draw_many(only(), count=1)
    assert draw == AugmentationParameters(noise_seed=draw.noise_seed)
    assert not draw.is_warped


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("rotation", "affine"),
        ("scaling", "affine"),
        ("deformation", "displacements"),
        ("histogram_matching", "partner"),
        ("noise", "noise_std"),
        ("blur", "blur_sigmas"),
        ("brightness", "brightness"),
        ("contrast", "contrast"),
        ("low_resolution", "resolution"),
        ("gamma_inverted", "gamma_inverted"),
        ("gamma", "gamma"),
    ],
)
def test_each_row_is_drawn_as_often_as_its_probability_says(name, field):
    """A probability of 0.3 sets its field in about 120 of 400 patches, and sets no other field."""
    draws = draw_many(only(**{f"{name}_probability": 0.3}))
    assert stats.binomtest(sum(getattr(draw, field) is not None for draw in draws), 400, 0.3).pvalue > 0.001
    others = {
        entry
        for entry in AugmentationParameters.__dataclass_fields__
        if entry not in (field, "noise_seed", "mirrored", "custom", "missing")
    }
    assert all(getattr(draw, other) is None for draw in draws for other in others)
    assert f"{name}_probability" in OFF


def test_rows_of_the_usual_table_do_not_depend_on_each_other():
    """A patch that is blurred is not more likely to be darkened."""
    draws = draw_many(AugmentationSettings(), count=3000)
    both = np.array([[draw.gamma is not None, draw.resolution is not None] for draw in draws])
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.06


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "gamma_inverted"])
def test_factors_are_below_one_in_half_of_the_channels(name):
    """Each channel has a factor of its own, uniform on both sides of one."""
    field = "gamma_exponent" if "gamma" in name else f"{name}_factor"
    draws = draw_many(only(**{f"{name}_probability": 1.0, field: (0.5, 3.0)}))
    factors = np.array([getattr(draw, name) for draw in draws])
    assert factors.shape == (400, 2)
    for channel in factors.T:
        below, above = channel[channel < 1], channel[channel >= 1]
        assert stats.binomtest(len(below), 400, 0.5).pvalue > 0.001
        assert stats.kstest(below, stats.uniform(0.5, 0.5).cdf).pvalue > 0.001
        assert stats.kstest(above, stats.uniform(1, 2).cdf).pvalue > 0.001
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.15
    one_sided = draw_many(only(**{f"{name}_probability": 1.0, field: (1.5, 3.0)}))
    values = np.array([getattr(draw, name)[0] for draw in one_sided])
    assert stats.kstest(values, stats.uniform(1.5, 1.5).cdf).pvalue > 0.001


def test_noise_deviation_is_even_up_to_its_largest():
    """The standard deviation is uniform from zero to the stated one, and the seeds differ."""
    draws = draw_many(only(noise_probability=1.0))
    assert stats.kstest([draw.noise_std for draw in draws], stats.uniform(0, 0.1).cdf).pvalue > 0.001
    assert len({draw.noise_seed for draw in draws}) == 400


def test_blur_differs_between_axes_and_spares_half_of_the_channels():
    """A channel is blurred along all its axes, or along none."""
    sigmas = np.array([draw.blur_sigmas for draw in draw_many(only(blur_probability=1.0))])
    assert sigmas.shape == (400, 2, 3)
    hit = sigmas.any(axis=2)
    assert (sigmas.all(axis=2) == hit).all()
    assert stats.binomtest(int(hit.sum()), 800, 0.5).pvalue > 0.001
    chosen = sigmas[hit]
    assert stats.kstest(chosen.ravel(), stats.uniform(0.5, 0.5).cdf).pvalue > 0.001
    assert abs(np.corrcoef(chosen.T)[0, 1]) < 0.15


def test_resolution_spares_half_of_the_channels():
    """A channel has one factor for all its axes."""
    factors = np.array([draw.resolution for draw in draw_many(only(low_resolution_probability=1.0))])
    assert factors.shape == (400, 2)
    assert stats.binomtest(int((factors < 1).sum()), 800, 0.5).pvalue > 0.001
    assert stats.kstest(factors[factors < 1], stats.uniform(0.5, 0.5).cdf).pvalue > 0.001


def test_partners_are_others():
    """All other patches are partners equally often; without other patches there is no partner."""
    draws = draw_many(only(histogram_matching_probability=1.0))
    assert stats.binomtest(sum(draw.partner == 1 for draw in draws), 400, 0.5).pvalue > 0.001
    assert {draw.partner for draw in draws} == {1, 2}
    assert {draw.partner for draw in draw_many(only(histogram_matching_probability=1.0), others=())} == {None}


def test_displacements_are_those_of_the_papers():
    """V-Net has 2 x 2 x 2 points displaced by 15 voxels; 3D U-Net has points 32 voxels apart, displaced by 4."""
    volume = (128, 128, 64)
    vnet = only(deformation_probability=1.0, deformation_spacing_voxels=127.0, deformation_std_voxels=15.0)
    moves = np.array([draw.displacements for draw in draw_many(vnet, size=volume, count=100)])
    assert moves.shape == (100, 3, 2, 2, 2)
    assert stats.kstest(moves.ravel(), stats.norm(0, 15).cdf).pvalue > 0.001
    [draw] = draw_many(only(deformation_probability=1.0), size=volume, count=1)
    assert draw.displacements.shape == (3, 5, 5, 3)
    assert draw.is_warped


def test_thick_slices_are_not_deformed_across():
    """The slices of a patch are deformed within their planes and all alike, as a plane is."""
    settings = only(deformation_probability=1.0, rotation_axes=(0,))
    assert draw_many(settings, size=(8, 40, 64), count=1)[0].displacements.shape == (2, 3, 3)
    assert draw_many(settings, size=(40, 64), count=1)[0].displacements.shape == (2, 3, 3)


def test_sides_cost_no_random_number():
    """A plan with swapped labels draws the same numbers as one without, so that only the labels differ."""
    sided = AugmentationSettings(swap_axis=1, swapped_labels=((1, 2),))
    for one, other in zip(draw_many(AugmentationSettings(), 50), draw_many(sided, 50), strict=True):
        assert one.noise_seed == other.noise_seed
        assert one.mirrored == other.mirrored


def test_as_many_patches_lack_channels_as_the_probability_says():
    """With three channels one or two are missing, each as often, and never all."""
    draws = draw_many(only(missing_channels_probability=0.4), count=3000, channels=3)
    lacking = [draw.missing for draw in draws if draw.missing]
    assert stats.binomtest(len(lacking), 3000, 0.4).pvalue > 0.001
    assert stats.binomtest(sum(len(missing) == 1 for missing in lacking), len(lacking), 0.5).pvalue > 0.001
    assert {len(missing) for missing in lacking} == {1, 2}
    counts = np.bincount([channel for missing in lacking for channel in missing], minlength=3)
    assert stats.chisquare(counts).pvalue > 0.001


def test_channels_that_a_case_lacks_stay_missing():
    """One of the others stays, and nothing else is drawn for a case with a single channel."""
    random, settings = np.random.default_rng(0), only(missing_channels_probability=1.0)

    def draw(channels, missing):
        return draw_parameters(settings, SIZE, channels=channels, others=(), random=random, missing=missing).missing

    assert {draw(3, (1,)) for _ in range(50)} == {(0, 1), (1, 2)}
    assert draw(2, (0,)) == (0,)
    assert draw(1, ()) == ()


def test_rare_changes_leave_the_others_as_they_were():
    """Channels are drawn last, so a plan without them gives the patches that it always gave."""
    usual, lacking = (
        draw_many(AugmentationSettings(missing_channels_probability=share), count=1)[0] for share in (0.0, 1.0)
    )
    np.testing.assert_equal({**vars_of(usual), "missing": None}, {**vars_of(lacking), "missing": None})
    assert lacking.missing


def vars_of(draw):
    """The changes of a patch by name."""
    return {name: getattr(draw, name) for name in AugmentationParameters.__dataclass_fields__}


def test_windows_of_a_scan_change_alike_and_are_missing_together():
    """Each amount stands for all channels that the windows of a scan make, in their order."""
    settings = AugmentationSettings(
        **{name: 1.0 for name in AugmentationSettings.model_fields if name.endswith("_probability")}
    )
    drawn = draw_parameters(settings, (16, 16, 16), channels=3, others=(1,), random=np.random.default_rng(3))
    repeated = drawn.repeat_channels((1, 3, 2))
    order = [0, 1, 1, 1, 2, 2]
    for name in ("blur_sigmas", "brightness", "contrast", "resolution", "gamma_inverted", "gamma"):
        np.testing.assert_array_equal(getattr(repeated, name), getattr(drawn, name)[order])
    assert repeated.missing == tuple(number for number, channel in enumerate(order) if channel in drawn.missing)
    assert 0 < len(drawn.missing) < 3
    assert repeated.affine is drawn.affine
    assert repeated.noise_seed == drawn.noise_seed
