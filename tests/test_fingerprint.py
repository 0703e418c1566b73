"""Facts of cases and of datasets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg import fingerprint as module
from autoseg.errors import ArtifactError
from autoseg.fingerprint import CaseFacts, CaseSample, Fingerprint, fingerprint_case, fingerprint_dataset
from autoseg.geometry import Geometry, Volume

SPACING = (3.0, 1.0, 0.5)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch):
    """Draws thousands of voxels rather than millions."""
    monkeypatch.setattr(module, "FOREGROUND_SAMPLES", 20_000)


def volumes(image, label):
    """The arrays as volumes on one grid."""
    geometry = Geometry(shape=label.shape, spacing_mm=SPACING)
    return Volume(array=image.astype(np.float32), geometry=geometry), Volume(array=label, geometry=geometry)


def sample_of(name, intensities):
    """A sample of foreground without a scan behind it; shape (c, n)."""
    facts = CaseFacts(name=name, shape=(4, 4, 4), shape_after_crop=(4, 4, 4), spacing_mm=SPACING)
    return CaseSample(facts=facts, intensities=np.asarray(intensities, dtype=np.float32))


def test_a_case_keeps_its_grid_and_the_shape_of_its_nonzero_box():
    """Shape and spacing are the file's; the cropped shape is that of the smallest box around non-zero voxels."""
    image = np.zeros((2, 6, 8, 10))
    image[0, 1:4, 2:7, 5] = 1
    image[1, 2, 3, 5:9] = -1
    facts = fingerprint_case("a", *volumes(image, np.zeros((6, 8, 10), np.uint8)), number_of_cases=1).facts
    assert (facts.name, facts.shape, facts.shape_after_crop, facts.spacing_mm) == ("a", (6, 8, 10), (3, 5, 4), SPACING)


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_samples_are_foreground_and_equally_many(cases, channels, seed):
    """Every case gives the same number of voxels, all of its foreground, with the channels of a voxel together."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, size=(4, 5, 6), dtype=np.uint8)
    label[0, 0, 0] = 2
    number = np.arange(label.size).reshape(label.shape)
    image = np.stack([number + 1000 * channel for channel in range(channels)])
    sample = fingerprint_case("a", *volumes(image, label), number_of_cases=cases).intensities
    assert sample.shape == (channels, 20_000 // cases)
    assert set(np.unique(sample[0])) <= set(number[label > 0])
    for channel in range(channels):
        np.testing.assert_array_equal(sample[channel], sample[0] + 1000 * channel)


def test_sampling_repeats_itself():
    """The same case gives the same sample."""
    random = np.random.default_rng(0)
    scan = volumes(random.normal(size=(1, 9, 9, 9)), random.integers(0, 2, size=(9, 9, 9)))
    first, second = (fingerprint_case("a", *scan, number_of_cases=3).intensities for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_statistics_are_close_to_those_of_all_foreground():
    """The drawn voxels have the mean, deviation and median of the foreground, whatever the background holds."""
    random = np.random.default_rng(0)
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = 1
    image = random.normal(50, 10, size=(1, 20, 20, 20))
    foreground = image[0][label > 0]
    image[0][label == 0] = 1e6
    channel = fingerprint_dataset([fingerprint_case("a", *volumes(image, label), number_of_cases=1)]).channels[0]
    assert channel.mean == pytest.approx(foreground.mean(), abs=0.3)
    assert channel.std == pytest.approx(foreground.std(), abs=0.3)
    assert channel.median == pytest.approx(np.median(foreground), abs=0.5)
    assert channel.minimum >= np.float32(foreground.min())
    assert channel.maximum <= np.float32(foreground.max())


def test_a_dataset_pools_its_cases():
    """Statistics are of all samples together, per channel, and the cases are sorted by name."""
    fingerprint = fingerprint_dataset([sample_of("b", [[1, 2, 3], [0, 0, 0]]), sample_of("a", [[4, 5], [7, 7]])])
    assert [case.name for case in fingerprint.cases] == ["a", "b"]
    first, second = fingerprint.channels
    assert (first.mean, first.median, first.minimum, first.maximum) == (3, 3, 1, 5)
    assert first.std == pytest.approx(np.sqrt(2))
    assert first.percentile_00_5 == pytest.approx(np.percentile([1, 2, 3, 4, 5], 0.5))
    assert first.percentile_99_5 == pytest.approx(np.percentile([1, 2, 3, 4, 5], 99.5))
    assert (second.mean, second.maximum) == (pytest.approx(14 / 5), 7)


def test_a_case_without_foreground_weighs_nothing():
    """An empty label map adds its grid, but no intensities."""
    image = np.ones((1, 4, 4, 4))
    empty = fingerprint_case("empty", *volumes(image, np.zeros((4, 4, 4), np.uint8)), number_of_cases=2)
    assert empty.intensities.shape == (1, 0)
    fingerprint = fingerprint_dataset([empty, sample_of("full", [[5, 5, 5]])])
    assert len(fingerprint.cases) == 2
    assert fingerprint.channels[0].mean == 5


def test_a_dataset_without_any_foreground_counts_as_zero():
    """Without a single foreground voxel, every channel is constant zero rather than not a number."""
    fingerprint = fingerprint_dataset([sample_of("a", np.zeros((2, 0)))])
    assert len(fingerprint.channels) == 2
    for channel in fingerprint.channels:
        assert set(channel.model_dump().values()) == {0.0}


def test_the_relative_size_is_the_median_over_cases():
    """Cropping to 1/2, 1/8 and all of the voxels keeps half of the typical case."""
    cases = tuple(
        CaseFacts(name=str(number), shape=(8, 8, 8), shape_after_crop=cropped, spacing_mm=SPACING)
        for number, cropped in enumerate([(4, 8, 8), (4, 4, 4), (8, 8, 8)])
    )
    assert Fingerprint(cases=cases, channels=()).median_relative_size_after_crop == 0.5


def test_a_fingerprint_reads_back_as_it_was_saved(tmp_path):
    """Saving and loading changes nothing."""
    fingerprint = fingerprint_dataset([sample_of("a", np.random.default_rng(0).normal(size=(2, 50)))])
    fingerprint.save(tmp_path / "fingerprint.json")
    assert Fingerprint.load(tmp_path / "fingerprint.json") == fingerprint


def test_a_damaged_fingerprint_is_refused(tmp_path):
    """The error names the file and the field."""
    path = tmp_path / "fingerprint.json"
    fingerprint = fingerprint_dataset([sample_of("a", [[1, 2]])])
    path.write_text(fingerprint.model_dump_json().replace('"spacing_mm"', '"spacing"'))
    with pytest.raises(ArtifactError, match=r"fingerprint\.json: cases\.0\.spacing"):
        Fingerprint.load(path)
