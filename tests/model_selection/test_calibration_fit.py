"""Voxels drawn of held-out cases, and the calibration of a model that is fitted to them."""

import numpy as np
import pytest
import torch
from scipy import special

from autoseg.evaluation.reliability import calibrated_probabilities, fit_temperatures, measure_reliabilities
from autoseg.imaging.targets import Targets
from autoseg.model_selection.calibration_fit import fit_calibration, save_calibration
from autoseg.model_selection.calibration_voxels import (
    NUMBERS_PER_CASE,
    draw_voxels,
    load_voxels,
    save_voxels,
    voxels_file,
)
from autoseg.models.calibration import Calibration, load_calibration
from autoseg.workspace import ModelFolder

CLASSES = Targets.of_labels({"liver": 1, "spleen": 4})
REGIONS = Targets(structures={"liver": (1, 3), "vessels": (2, 3)}, exclusive=False, region_class_order=(1, 2))
SHAPE = (30, 40, 50)


def case_of(targets, *, seed=0, sureness=3.0, shape=SHAPE):
    """Logits of a network that is too sure by this factor, mostly of background, and a label map."""
    random = np.random.default_rng(seed)
    honest = random.normal(-1, 1.5, (targets.outputs, *shape))
    if targets.exclusive:
        honest[0] += 3
        shares = special.softmax(honest, axis=0).cumsum(axis=0)
        label = np.array([0, 1, 4])[(random.random(shape) > shares).sum(axis=0).clip(max=2)]
    else:
        liver, vessels = random.random((2, *shape)) < special.expit(honest)
        label = liver + 2 * vessels
    return torch.from_numpy((sureness * honest).astype(np.float32)), label.astype(np.int16)


@pytest.mark.parametrize("targets", [CLASSES, REGIONS])
def test_drawn_voxels_stand_for_all(targets):
    """As many as are kept at most, each logit with its own label, and fits and errors as of all voxels."""
    logits, label = case_of(targets)
    drawn = draw_voxels(logits, label, targets, (), "a")
    assert len(drawn.weights) <= NUMBERS_PER_CASE // targets.outputs < label.size
    assert drawn.weights.sum() == pytest.approx(label.size, rel=1e-4)
    rows = {
        tuple(row): code for row, code in zip(logits.reshape(len(logits), -1).T.tolist(), label.ravel(), strict=True)
    }
    for row, truth in zip(drawn.logits[::97].tolist(), drawn.truth[::97], strict=True):
        code = rows[tuple(row)]
        wanted = [code in numbers for numbers in targets.structures.values()]
        assert truth.tolist() == ([code == 0, *wanted] if targets.exclusive else wanted)
    again = draw_voxels(logits, label, targets, (), "a")
    np.testing.assert_array_equal(again.logits, drawn.logits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.model_selection.calibration_voxels.NUMBERS_PER_CASE", 10**9)
        every = draw_voxels(logits, label, targets, (), "a")
    assert len(every.weights) == label.size
    assert fit_temperatures(drawn) == pytest.approx(fit_temperatures(every), rel=0.1)
    ones = (1,) * targets.outputs
    for one, other in zip(
        *(
            measure_reliabilities(each, calibrated_probabilities(each.logits, ones, exclusive=each.exclusive))
            for each in (drawn, every)
        ),
        strict=True,
    ):
        assert one.error == pytest.approx(other.error, rel=0.1)


def test_a_large_case_is_thinned_first(monkeypatch):
    """Only so many logits are ever gathered, and the voxels still stand for all."""
    monkeypatch.setattr("autoseg.model_selection.calibration_voxels.NUMBERS_AT_FIRST", 3 * 5000)
    logits, label = case_of(CLASSES)
    drawn = draw_voxels(logits, label, CLASSES, (), "a")
    assert len(drawn.weights) == 5000
    assert drawn.weights.sum() == pytest.approx(label.size, rel=1e-4)


def test_what_was_not_annotated_is_left_out():
    """Voxels to ignore; regions that nobody looked for; and whole cases, where that may be hidden in the background."""
    logits, label = case_of(CLASSES)
    label[:15] = 9
    drawn = draw_voxels(logits, label, Targets.of_labels({"liver": 1, "spleen": 4}, ignore=9), (), "a")
    assert drawn.weights.sum() == pytest.approx(label.size / 2, rel=1e-4)
    assert draw_voxels(logits, label, CLASSES, ("spleen",), "a") is None
    label[:] = 9
    assert draw_voxels(logits, label, Targets.of_labels({"liver": 1, "spleen": 4}, ignore=9), (), "a") is None
    logits, label = case_of(REGIONS)
    truth = draw_voxels(logits, label, REGIONS, ("vessels",), "a").truth
    assert set(truth[:, 1].tolist()) == {-1}
    assert set(truth[:, 0].tolist()) == {0, 1}


def test_files_that_are_no_voxels_are_no_voxels(tmp_path):
    """Missing, damaged, of other labels: the case is left out, as if it had been segmented by another program."""
    logits, label = case_of(CLASSES, shape=(5, 6, 7))
    drawn = draw_voxels(logits, label, CLASSES, (), "a")
    path = voxels_file(tmp_path, "a")
    assert load_voxels(path, CLASSES) is None
    save_voxels(drawn, path)
    loaded = load_voxels(path, CLASSES)
    np.testing.assert_allclose(loaded.logits, drawn.logits, rtol=1e-3)
    np.testing.assert_array_equal(loaded.truth, drawn.truth)
    assert load_voxels(path, REGIONS) is None
    content = path.read_bytes()
    for damaged in (content[:100], b"", b"no zip at all", content[:-30] + bytes(30)):
        path.write_bytes(damaged)
        assert load_voxels(path, CLASSES) is None


def write_cases(folder, count, targets=CLASSES, sureness=3.0):
    """Writes the voxels of some cases; returns where they are."""
    for number in range(count):
        logits, label = case_of(targets, seed=number, sureness=sureness, shape=(12, 20, 20))
        save_voxels(draw_voxels(logits, label, targets, (), str(number)), voxels_file(folder, str(number)))
    return [(folder, str(number)) for number in range(count)]


@pytest.mark.parametrize(
    ("targets", "names"), [(CLASSES, ("background", "liver", "spleen")), (REGIONS, ("liver", "vessels"))]
)
def test_error_falls_on_cases_that_were_not_fitted_to(tmp_path, targets, names):
    """A network that is three times too sure; the file gives back what was written."""
    places = write_cases(tmp_path, 6, targets)
    calibration = fit_calibration([*places, (tmp_path, "without voxels")], targets)
    assert tuple(calibration.temperatures) == names
    assert list(calibration.temperatures.values()) == pytest.approx([3] * len(names), rel=0.15)
    assert calibration.adopted
    assert calibration.cases == 6
    assert calibration.error_after < 0.3 * calibration.error_before
    assert calibration.temperatures_of(targets) == tuple(calibration.temperatures.values())
    model = ModelFolder(path=tmp_path)
    save_calibration(places, targets, model)
    assert load_calibration(model) == calibration
    assert "->" in calibration.describe()
    save_calibration([], targets, model)
    assert load_calibration(model) is None


def test_temperatures_that_do_not_help_are_not_adopted(tmp_path):
    """One case alone cannot show that they do; neither can a network that was right about itself."""
    [*places] = write_cases(tmp_path, 1)
    alone = fit_calibration(places, CLASSES)
    assert not alone.adopted
    assert alone.after == {}
    assert np.isnan(alone.error_after)
    assert alone.temperatures_of(CLASSES) is None
    assert "single" in alone.describe()
    assert Calibration.parse(alone.to_json(), source="text") == alone


def test_temperatures_of_other_labels_are_not_used(tmp_path):
    """Such as after a label was renamed."""
    calibration = fit_calibration(write_cases(tmp_path, 2), CLASSES)
    assert calibration.adopted
    assert calibration.temperatures_of(Targets.of_labels({"liver": 1, "kidney": 4})) is None


def test_many_cases_give_fewer_voxels_each(tmp_path, monkeypatch):
    """So that memory stays bounded, while each case keeps its weight."""
    places = write_cases(tmp_path, 4)
    every = fit_calibration(places, CLASSES)
    monkeypatch.setattr("autoseg.model_selection.calibration_fit.NUMBERS_IN_ALL", 3 * 4 * 1000)
    fewer = fit_calibration(places, CLASSES)
    assert fewer.voxels <= 4000 < every.voxels
    assert fewer.temperatures == pytest.approx(every.temperatures, rel=0.2)
    assert sum(fewer.before["liver"].counts) == pytest.approx(sum(every.before["liver"].counts), rel=0.1)
