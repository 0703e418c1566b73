"""Facts of cases and of datasets."""

import json
import math
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from autoseg.datasets import fingerprint as module
from autoseg.datasets import label_facts
from autoseg.datasets.fingerprint import (
    CaseFacts,
    CaseSummary,
    Fingerprint,
    draws_per_case,
    fingerprint_case,
    fingerprint_dataset,
)
from autoseg.errors import ArtifactError
from autoseg.imaging.cropping import nonzero_region
from autoseg.imaging.geometry import Geometry, Volume

SPACING = (3.0, 1.0, 0.5)
DRAWS = 1024

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))


def volumes(image, label):
    """The arrays as volumes on one grid."""
    geometry = Geometry(shape=label.shape, spacing_mm=SPACING)
    return Volume(array=image.astype(np.float32), geometry=geometry), Volume(array=label, geometry=geometry)


def look(image, label, draws=DRAWS):
    """Facts of a case, and what was drawn from it."""
    return fingerprint_case("a", *volumes(image, label), draws=draws)


def random_case(seed, shape, channels=1, labels=4):
    """A case whose values and labels are noise, with empty borders."""
    random = np.random.default_rng(seed)
    image = random.normal(100, 30, size=(channels, *shape)).round()
    image *= np.any(random.random((3, *shape)) < 0.2, axis=0)
    return image, random.integers(0, labels, size=shape, dtype=np.uint8)


def summary_of(name, drawn, *, shape_after_crop=(4, 4, 4)):
    """What would be known of a case that has these foreground voxels, shape (c, n)."""
    drawn = np.asarray(drawn, dtype=np.float32)
    foreground = [(row.mean(), row.std(), row.min(), row.max()) for row in drawn if row.size]
    facts = CaseFacts(
        name=name,
        shape=(4, 4, 4),
        shape_after_crop=shape_after_crop,
        spacing_mm=SPACING,
        intensities=((0, 1),) * len(drawn),
    )
    return CaseSummary(facts=facts, foreground=foreground)


def gather(samples):
    """The facts of a dataset of cases with these foreground voxels, shape (c, n); as many draws as the largest has."""
    draws = max(1, *(np.shape(drawn)[1] for drawn in samples.values()))
    summaries = [summary_of(name, drawn) for name, drawn in samples.items()]
    return fingerprint_dataset(
        summaries, draws=draws, read_draws=lambda name, channel: np.float32(samples[name][channel])
    )


# --- One case ---------------------------------------------------------------------------------------------------------


def test_a_case_keeps_its_grid_and_the_shape_of_its_nonzero_box():
    """Shape and spacing are the file's; the cropped shape is that of the smallest box around non-zero voxels."""
    image = np.zeros((2, 6, 8, 10))
    image[0, 1:4, 2:7, 5] = 7
    image[1, 2, 3, 5:9] = -1
    summary, _ = look(image, np.zeros((6, 8, 10), np.uint8))
    facts = summary.facts
    assert (facts.name, facts.shape, facts.shape_after_crop, facts.spacing_mm) == ("a", (6, 8, 10), (3, 5, 4), SPACING)
    assert (facts.orientation, facts.intensities, facts.labels) == ("SPL", ((0, 7), (-1, 0)), ())


@given(seeds, shapes, st.integers(1, 2), st.floats(0, 0.3), st.sampled_from([1, 9, 2**18]))
@settings(max_examples=40, deadline=None)
def test_the_box_is_that_of_cropping(seed, shape, channels, share, block_voxels):
    """What the fingerprint counts as cropped is what preprocessing crops, images of zeros included."""
    random = np.random.default_rng(seed)
    image = (random.random((channels, *shape)) < share) * random.normal(size=(channels, *shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_facts, "BLOCK_VOXELS", block_voxels)
        summary, _ = look(image, np.zeros(shape, np.uint8))
    box, _ = nonzero_region(image)
    assert summary.facts.shape_after_crop == box.shape


@given(seeds, shapes, st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_label_facts_equal_those_of_each_label_alone(seed, shape, highest):
    """Voxels, centre and parts of each label are those of its mask, counted within the cropped box."""
    image, label = random_case(seed, shape, labels=highest + 1)
    summary, _ = look(image, label)
    box, _ = nonzero_region(image)
    cropped = label[box.slices]
    expected = {number: np.argwhere(cropped == number) for number in range(1, highest + 1)}
    found = {facts.label: facts for facts in summary.facts.labels}
    assert list(found) == [number for number, places in expected.items() if len(places)]
    for number, facts in found.items():
        assert facts.voxels == len(expected[number])
        centre = ((expected[number] + 0.5) / cropped.shape).mean(axis=0)
        np.testing.assert_allclose(facts.center, centre, rtol=0, atol=1e-12)
        parts, count = ndimage.label(cropped == number)
        assert (facts.parts, facts.largest_part) == (count, np.bincount(parts.ravel())[1:].max())


def test_the_centre_of_a_corner_voxel():
    """Voxel 0 of 4 counts as 1/8, voxel 9 of 10 as 19/20; what lies outside the box does not count."""
    image, label = np.ones((1, 6, 2, 10)), np.zeros((6, 2, 10), np.uint8)
    image[:, :2] = 0
    label[2, 0, 9] = 5
    label[0, 0, 0] = 3
    [facts] = look(image, label)[0].facts.labels
    assert (facts.label, facts.voxels, facts.center) == (5, 1, (1 / 8, 1 / 4, 19 / 20))


@given(seeds, shapes, st.sampled_from([1, 2, 5, 17, 60]))
@settings(max_examples=30, deadline=None)
def test_blocks_change_nothing(seed, shape, block_voxels):
    """A case looked at in small blocks gives the facts and the very voxels that it gives when looked at in one."""
    scan = random_case(seed, shape, channels=2)
    whole, drawn = look(*scan, draws=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_facts, "BLOCK_VOXELS", block_voxels)
        in_blocks, drawn_in_blocks = look(*scan, draws=64)
    np.testing.assert_array_equal(drawn_in_blocks, drawn)
    assert in_blocks.facts == whole.facts
    np.testing.assert_allclose(in_blocks.foreground, whole.foreground, rtol=1e-12, atol=1e-12)


@given(seeds, st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_facts_of_the_foreground_are_exact(seed, channels):
    """Mean, deviation and extremes are those of all foreground voxels inside the box, drawn or not."""
    image, label = random_case(seed, (6, 7, 5), channels)
    summary, _ = look(image, label, draws=1)
    box, _ = nonzero_region(image)
    values = image[(..., *box.slices)][:, label[box.slices] > 0]
    expected = np.stack([values.mean(1), values.std(1), values.min(1), values.max(1)], axis=1)
    np.testing.assert_allclose(summary.foreground, expected, rtol=1e-12)


@given(st.integers(1, 150), st.integers(1, 3), seeds)
@settings(max_examples=25, deadline=None)
def test_draws_are_foreground_and_as_many_as_asked(draws, channels, seed):
    """They are of the foreground, with the channels of a voxel together; where there is no more, each comes once."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, size=(4, 5, 6), dtype=np.uint8)
    label[0, 0, 0] = 2
    number = np.arange(1, label.size + 1).reshape(label.shape)
    image = np.stack([number + 1000 * channel for channel in range(channels)])
    _, drawn = look(image, label, draws)
    foreground = number[label > 0]
    assert drawn.shape == (channels, min(draws, len(foreground)))
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn[0])) <= set(foreground)
    if draws >= len(foreground):
        np.testing.assert_array_equal(drawn[0], foreground)
    for channel in range(channels):
        np.testing.assert_array_equal(drawn[channel], drawn[0] + 1000 * channel)


def test_each_part_of_the_foreground_is_drawn_equally_often():
    """Of twenty slices of foreground, each gives about a twentieth of the draws."""
    label = np.zeros((24, 40, 40), np.uint8)
    label[2:22, 5:] = 1
    slices = np.arange(1.0, 25).reshape(1, 24, 1, 1) * np.ones((40, 40))
    _, drawn = look(slices, label, draws=20_000)
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(3, 23))
    assert 0 < np.abs(counts - 1000).max() < 5 * math.sqrt(1000)


def test_drawing_repeats_itself():
    """The same case gives the same voxels."""
    scan = random_case(0, (9, 9, 9))
    np.testing.assert_array_equal(look(*scan)[1], look(*scan)[1])


def test_background_does_not_count():
    """Whatever it holds, the foreground's mean, deviation and percentiles stay."""
    random = np.random.default_rng(0)
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = 1
    image = random.normal(50, 10, size=(1, 20, 20, 20))
    foreground = np.float32(image[0][label > 0])
    image[0][label == 0] = 1e6
    summary, drawn = look(image, label, draws=2**15)
    channel = fingerprint_dataset([summary], draws=2**15, read_draws=lambda _, number: drawn[number]).channels[0]
    assert channel.mean == pytest.approx(foreground.mean(), rel=1e-6)
    assert channel.std == pytest.approx(foreground.std(), rel=1e-5)
    assert (channel.minimum, channel.maximum) == (foreground.min(), foreground.max())
    assert channel.median == pytest.approx(np.median(foreground), abs=0.5)
    assert channel.percentile_99_5 == pytest.approx(np.percentile(foreground, 99.5), abs=2)
    assert summary.facts.intensities[0][1] == 1e6


# --- Orientation ------------------------------------------------------------------------------------------------------


def oriented(direction):
    """The code of a grid whose axes run along the columns of a matrix."""
    rows = tuple(tuple(map(float, row)) for row in direction)
    return Geometry(shape=(2, 3, 4), spacing_mm=SPACING, direction=rows).orientation


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("signs", list(product([1, -1], repeat=3)))
def test_straight_grids_state_where_their_axes_lead(axes, signs):
    """A grid that is turned by right angles and flipped, in each of the 48 ways."""
    direction = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(axes, signs, strict=True)):
        direction[row, column] = sign
    assert oriented(direction) == "".join("SPL"[r] if s > 0 else "IAR"[r] for r, s in zip(axes, signs, strict=True))


@given(st.lists(st.floats(-25, 25), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_tilted_grids_keep_their_code(angles):
    """Scanners tilt their slices; a code stays what it is as long as each axis leans nearest to its own way."""
    tilt = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    flipped_sagittal = np.array([[0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    assert oriented(tilt) == "SPL"
    assert oriented(tilt @ flipped_sagittal) == "RSP"


@given(st.lists(st.floats(-180, 180), min_size=3, max_size=3), st.sampled_from([1, -1]))
@settings(max_examples=60, deadline=None)
def test_each_axis_of_the_patient_occurs_once(angles, sign):
    """However a grid is turned, its code names three ways along three axes, and a flip of an axis turns its letter."""
    direction = Rotation.from_euler("zyz", angles, degrees=True).as_matrix()
    direction[:, 1] *= sign
    code = oriented(direction)
    assert sorted({"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}[letter] for letter in code) == [0, 1, 2]
    opposite = dict(zip("SIPALR", "ISAPRL", strict=True))
    assert oriented(direction * [-1, 1, 1]) == opposite[code[0]] + code[1:]


def test_pictures_have_no_orientation():
    """A plane does not know where in a patient it lies."""
    assert Geometry(shape=(1, 3, 4), spacing_mm=SPACING, dimensions=2).orientation is None


# --- The dataset ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20_000))
@settings(max_examples=50, deadline=None)
def test_draws_fill_the_budget_but_never_exceed_it(cases):
    """Half of the voxels at least, all of them at most; a case more or less seldom changes the number."""
    draws = draws_per_case(cases)
    assert module.FOREGROUND_SAMPLES / 2 < cases * draws <= module.FOREGROUND_SAMPLES or draws == 1
    assert draws & (draws - 1) == 0
    assert draws_per_case(cases + 1) in (draws, draws // 2)


def test_cases_weigh_the_same():
    """A dataset is a mixture in which each case has the same share, whatever the size of its foreground."""
    samples = {"b": [[1, 2, 3, 6], [0, 0, 0, 0]], "a": [[5, 5, 7, 7], [7, 7, 7, 7]]}
    fingerprint = gather(samples)
    assert [case.name for case in fingerprint.cases] == ["a", "b"]
    first, second = fingerprint.channels
    together = np.concatenate([samples["a"][0], samples["b"][0]])
    assert (first.mean, first.median, first.minimum, first.maximum) == (4.5, 5, 1, 7)
    assert first.std == pytest.approx(together.std())
    assert first.percentile_00_5 == pytest.approx(np.percentile(together, 0.5))
    assert first.percentile_99_5 == pytest.approx(np.percentile(together, 99.5))
    assert (second.mean, second.std, second.maximum) == (3.5, 3.5, 7)


def test_statistics_are_those_of_the_references_draws():
    """They equal those of the voxels that the reference draws, as many from a small case as from a large one."""
    random = np.random.default_rng(0)
    masks = [np.zeros((12, 12, 12), np.uint8) for _ in range(3)]
    masks[0][5, 5, 3:9] = masks[1][:3] = masks[2][:] = 1
    scans = [(random.normal(mean, 5, (1, 12, 12, 12)), mask) for mean, mask in zip((90, 7, 110), masks, strict=True)]
    looks = [fingerprint_case(str(number), *volumes(*scan), draws=256) for number, scan in enumerate(scans)]
    channel = fingerprint_dataset(
        [summary for summary, _ in looks], draws=256, read_draws=lambda name, channel: looks[int(name)][1][channel]
    ).channels[0]
    pooled = np.concatenate([random.choice(image[0][mask > 0], 200_000) for image, mask in scans])
    assert channel.mean == pytest.approx(pooled.mean(), abs=0.15)
    assert channel.std == pytest.approx(pooled.std(), abs=0.15)
    assert channel.median == pytest.approx(np.median(pooled), abs=1)
    assert (channel.minimum, channel.maximum) == (np.float32(pooled.min()), np.float32(pooled.max()))


def test_few_voxels_stand_for_their_case_evenly():
    """Three voxels and eight weigh the same: the three are repeated, spread over the foreground."""
    channel = gather({"a": [[1, 2, 3]], "b": [[10, 10, 10, 10, 10, 20, 20, 20]]}).channels[0]
    pooled = [1, 1, 1, 2, 2, 2, 3, 3, 10, 10, 10, 10, 10, 20, 20, 20]
    assert channel.median == np.median(pooled) == 6.5
    assert channel.percentile_99_5 == pytest.approx(np.percentile(pooled, 99.5))
    assert channel.mean == pytest.approx((2 + 13.75) / 2)


@given(st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_cases_changes_nothing(order):
    """Threads finish in any order; the fingerprint is the same to the last bit."""
    random = np.random.default_rng(0)
    samples = {f"case_{number}": random.normal(number, 3, size=(2, 50)) for number in range(6)}
    assert gather({f"case_{number}": samples[f"case_{number}"] for number in order}) == gather(samples)


def test_a_case_without_foreground_weighs_nothing():
    """An empty label map adds its grid, but no intensities."""
    empty, drawn = look(np.ones((1, 4, 4, 4)), np.zeros((4, 4, 4), np.uint8))
    assert (empty.foreground, empty.facts.labels, drawn.shape) == ((), (), (1, 0))
    fingerprint = gather({"empty": np.zeros((1, 0)), "full": [[5, 5, 5]]})
    assert len(fingerprint.cases) == 2
    assert (fingerprint.channels[0].mean, fingerprint.channels[0].median) == (5, 5)


def test_a_dataset_without_any_foreground_counts_as_zero():
    """Without a single foreground voxel, every channel is constant zero rather than not a number."""
    fingerprint = gather({"a": np.zeros((2, 0))})
    assert len(fingerprint.channels) == 2
    for channel in fingerprint.channels:
        assert set(channel.model_dump().values()) == {0.0}


def test_the_relative_size_is_the_median_over_cases():
    """Cropping to 1/2, 1/8 and all of the voxels keeps half of the typical case."""
    cropped = [(2, 4, 4), (2, 2, 2), (4, 4, 4)]
    summaries = [summary_of(str(number), [[]], shape_after_crop=shape) for number, shape in enumerate(cropped)]
    fingerprint = fingerprint_dataset(summaries, draws=1, read_draws=lambda *_: np.zeros(1, np.float32))
    assert fingerprint.median_relative_size_after_crop == 0.5


def peak_of_pooling(cases):
    """Bytes that gathering a number of cases of three channels takes beside the cases' own facts."""
    summaries = [summary_of(f"case_{number:04d}", np.eye(3)) for number in range(cases)]
    draws = draws_per_case(cases)
    tracemalloc.start()
    fingerprint_dataset(summaries, draws=draws, read_draws=lambda *_: np.ones(draws, np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_cases():
    """The draws of one channel are held in one array, whether they come from four cases or from two thousand."""
    few, many = peak_of_pooling(4), peak_of_pooling(2000)
    one_array = 4 * module.FOREGROUND_SAMPLES
    assert few < 2 * one_array
    assert many < few + 500 * 2000


# --- The file ---------------------------------------------------------------------------------------------------------


def test_a_fingerprint_reads_back_as_it_was_saved(tmp_path):
    """Saving and loading changes nothing."""
    summary, drawn = look(*random_case(3, (8, 9, 7), channels=2))
    fingerprint = fingerprint_dataset([summary], draws=DRAWS, read_draws=lambda _, channel: drawn[channel])
    fingerprint.save(tmp_path / "fingerprint.json")
    assert Fingerprint.load(tmp_path / "fingerprint.json") == fingerprint
    assert len(fingerprint.cases[0].labels) == 3


def test_a_damaged_fingerprint_is_refused(tmp_path):
    """The error names the file and the field."""
    path = tmp_path / "fingerprint.json"
    path.write_text(gather({"a": [[1, 2]]}).model_dump_json().replace('"spacing_mm"', '"spacing"'))
    with pytest.raises(ArtifactError, match=r"fingerprint\.json: cases\.0\.spacing"):
        Fingerprint.load(path)


def test_a_fingerprint_of_an_earlier_program_is_refused(tmp_path):
    """Its cases lack what planning asks for now."""
    path = tmp_path / "fingerprint.json"
    content = gather({"a": [[1, 2]]}).model_dump(mode="json")
    path.write_text(json.dumps({**content, "format_version": 1}))
    with pytest.raises(ArtifactError, match="format_version is 1, this program reads 2"):
        Fingerprint.load(path)
