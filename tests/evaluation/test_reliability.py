"""Temperatures and reliabilities, against simulated networks whose error is known and against plain sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from autoseg.evaluation.reliability import (
    BINS,
    HIGHEST_TEMPERATURE,
    LEAST_PROBABILITY,
    LabelledVoxels,
    Reliability,
    calibrated_probabilities,
    find_winners,
    fit_temperatures,
    measure_reliabilities,
)


def simulate(temperatures, *, exclusive=True, count=60_000, seed=0) -> LabelledVoxels:
    """Voxels of a network that is as much too sure as these temperatures say."""
    random, outputs = np.random.default_rng(seed), len(temperatures)
    honest = random.normal(0, 2, (count, outputs))
    if exclusive:
        drawn = [random.choice(outputs, p=row) for row in special.softmax(honest, axis=1)]
        truth = np.eye(outputs, dtype=np.int8)[drawn]
        factors = np.asarray(temperatures)[honest.argmax(axis=1)][:, np.newaxis]
    else:
        truth = (random.random(honest.shape) < special.expit(honest)).astype(np.int8)
        factors = np.asarray(temperatures)
    logits = (honest * factors).astype(np.float32)
    return LabelledVoxels(logits=logits, truth=truth, weights=np.ones(count, np.float32), exclusive=exclusive)


@pytest.mark.parametrize("exclusive", [True, False])
def test_temperatures_are_those_of_the_simulated_network(exclusive):
    """Each label has its own, also one that is too unsure."""
    wanted = (1.0, 2.5, 0.6)
    voxels = simulate(wanted, exclusive=exclusive)
    assert fit_temperatures(voxels) == pytest.approx(wanted, rel=0.1)
    before = measure_reliabilities(voxels, calibrated_probabilities(voxels.logits, (1, 1, 1), exclusive=exclusive))
    after = measure_reliabilities(voxels, calibrated_probabilities(voxels.logits, wanted, exclusive=exclusive))
    assert sum(one.error for one in after) < 0.25 * sum(one.error for one in before)


def test_a_voxel_that_stands_for_many_counts_as_many():
    """Weights do what repeated voxels do."""
    voxels = simulate((1.0, 2.0), count=400)
    times = np.random.default_rng(1).integers(1, 4, 400)
    weighted = LabelledVoxels(
        logits=voxels.logits, truth=voxels.truth, weights=times.astype(np.float32), exclusive=True
    )
    repeated = LabelledVoxels(
        logits=voxels.logits.repeat(times, axis=0),
        truth=voxels.truth.repeat(times, axis=0),
        weights=np.ones(times.sum(), np.float32),
        exclusive=True,
    )
    temperatures = fit_temperatures(weighted)
    assert temperatures == pytest.approx(fit_temperatures(repeated), rel=1e-3)
    [one], [other] = (
        measure_reliabilities(each, calibrated_probabilities(each.logits, temperatures, exclusive=True))
        for each in (weighted, repeated)
    )
    assert one.error == pytest.approx(other.error, abs=1e-6)
    assert one.counts == pytest.approx(other.counts)


@pytest.mark.parametrize("exclusive", [True, False])
def test_nothing_to_go_by_leaves_the_probabilities(exclusive):
    """Labels that win nowhere, and labels that are right wherever they do."""
    truth = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.int8)
    logits = np.where(truth == 1, 5, -5).astype(np.float32)
    voxels = LabelledVoxels(logits=logits, truth=truth, weights=np.ones(2, np.float32), exclusive=exclusive)
    assert fit_temperatures(voxels) == (1.0, 1.0, 1.0)


def test_a_network_that_knows_nothing_gets_the_highest_temperature():
    """It is as often wrong as right, and sure."""
    truth = np.tile(np.eye(2, dtype=np.int8), (50, 1))
    logits = np.tile(np.array([[0, 30]], np.float32), (100, 1))
    voxels = LabelledVoxels(logits=logits, truth=truth, weights=np.ones(100, np.float32), exclusive=True)
    assert fit_temperatures(voxels)[1] == pytest.approx(HIGHEST_TEMPERATURE, rel=0.01)


def test_what_nobody_knows_does_not_count():
    """A region that was not annotated in some voxels has the temperature and the error of the others."""
    voxels = simulate((2.0, 2.0), exclusive=False, count=2000)
    truth = voxels.truth.copy()
    truth[:1000, 1] = -1
    some = LabelledVoxels(logits=voxels.logits, truth=truth, weights=voxels.weights, exclusive=False)
    known = LabelledVoxels(
        logits=voxels.logits[1000:], truth=voxels.truth[1000:], weights=voxels.weights[1000:], exclusive=False
    )
    assert fit_temperatures(some)[1] == pytest.approx(fit_temperatures(known)[1], rel=1e-3)
    raw = [calibrated_probabilities(each.logits, (1, 1), exclusive=False) for each in (some, known)]
    assert measure_reliabilities(some, raw[0])[1] == measure_reliabilities(known, raw[1])[1]


@settings(max_examples=60, deadline=None)
@given(
    outputs=st.integers(1, 5),
    temperatures=st.lists(st.floats(0.25, 10), min_size=5, max_size=5),
    scale=st.sampled_from([0.01, 3.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_the_winner_stays_the_winner(outputs, temperatures, scale, seed):
    """Whatever the temperatures: of classes the highest, of regions the side of one half."""
    logits = np.random.default_rng(seed).normal(0, scale, (200, outputs)).astype(np.float32)
    used = temperatures[:outputs]
    classes = calibrated_probabilities(logits, used, exclusive=True)
    chosen = np.take_along_axis(classes, find_winners(logits)[:, np.newaxis], axis=1)
    assert (chosen[:, 0] == classes.max(axis=1)).all()
    np.testing.assert_allclose(classes.sum(axis=1), 1, atol=1e-5)
    regions = calibrated_probabilities(logits, used, exclusive=False)
    assert ((regions > 0.5) <= (logits > 0)).all()
    assert ((regions < 0.5) <= (logits < 0)).all()
    np.testing.assert_allclose(regions, special.expit(logits / np.float32(used)), atol=1e-6)


def test_reliability_equals_sums_over_the_voxels():
    """Bin by bin."""
    random = np.random.default_rng(3)
    probabilities = random.random(500).astype(np.float32)
    probabilities[:2] = 0, 1
    present, weights = random.random(500) < probabilities**2, random.integers(1, 5, 500).astype(np.float32)
    measured, error = Reliability.measure(probabilities, present, weights), 0.0
    for number in range(BINS):
        upper = probabilities < (number + 1) / BINS if number < BINS - 1 else probabilities <= 1
        inside = (probabilities >= number / BINS) & upper
        total = weights[inside].sum()
        confidence = (probabilities * weights)[inside].sum() / total
        accuracy = (present * weights)[inside].sum() / total
        assert measured.counts[number] == pytest.approx(total)
        assert measured.confidences[number] == pytest.approx(confidence)
        assert measured.accuracies[number] == pytest.approx(accuracy)
        error += abs(confidence - accuracy) * total / weights.sum()
    assert measured.error == pytest.approx(error, abs=1e-6)


def test_empty_bins_and_no_voxels_are_undefined():
    """And not a zero that somebody would draw."""
    none = Reliability.measure(np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, np.float32))
    assert np.isnan([none.error, *none.confidences, *none.accuracies]).all()
    assert set(none.counts) == {0.0}
    one = Reliability.measure(np.array([0.95], np.float32), np.ones(1, bool), np.ones(1, np.float32))
    assert np.isnan(one.accuracies).sum() == BINS - 1
    assert Reliability.model_validate_json(one.model_dump_json()).counts == one.counts


def test_voxels_far_from_a_structure_do_not_count():
    """A thousand voxels of empty space leave the error as it is."""
    near = LabelledVoxels(
        logits=np.array([[0, 1], [0, 1]], np.float32),
        truth=np.array([[1, 0], [0, 1]], np.int8),
        weights=np.ones(2, np.float32),
        exclusive=True,
    )
    far = LabelledVoxels(
        logits=np.tile(np.float32([10, 0]), (1000, 1)),
        truth=np.tile(np.int8([1, 0]), (1000, 1)),
        weights=np.ones(1000, np.float32),
        exclusive=True,
    )
    every = LabelledVoxels.join([near, far])
    [one], [other] = (
        measure_reliabilities(each, calibrated_probabilities(each.logits, (1, 1), exclusive=True))
        for each in (near, every)
    )
    assert special.expit(-10) < LEAST_PROBABILITY
    assert one == other
