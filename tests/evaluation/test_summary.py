"""Scores of cases, and their means, tables, files and order."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ArtifactError, DatasetError
from autoseg.evaluation.scores import METRICS, UNDEFINED, Measures
from autoseg.evaluation.summary import CaseResult, SegmentedCase, Summary, score_case, summarize
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.targets import Targets

LABELS = Targets.of_labels({"liver": 1, "tumour": 2})


def volume(values, spacing_mm=(2.0, 1.0, 0.5), dimensions=3):
    """Makes a label map of one row."""
    array = np.asarray(values, dtype=np.uint8).reshape(1, 1, -1)
    return Volume(array=array, geometry=Geometry(shape=array.shape, spacing_mm=spacing_mm, dimensions=dimensions))


def pair(reference, prediction, name="a", **details):
    """Pairs a reference and a segmentation."""
    return SegmentedCase(name=name, reference=reference, prediction=prediction, targets=LABELS, **details)


def result(name, reference, prediction, **details):
    """Scores a case of one row."""
    return score_case(pair(volume(reference), volume(prediction), name, **details))


@pytest.fixture
def summary():
    """Summarizes three cases: one half right, one right, one without any label."""
    return summarize(
        [
            result("b_half", [1, 1, 2, 0], [1, 0, 0, 0]),
            result("a_right", [1, 1, 0, 0], [1, 1, 0, 0]),
            result("c_empty", [0, 0, 0, 0], [0, 0, 0, 0]),
        ],
        LABELS.names,
    )


def test_a_case_has_all_scores_of_each_label():
    """Counts are in voxels, volumes in mm3, scores as defined."""
    files = {"reference_file": "r.nii.gz", "prediction_file": "p.nii.gz"}
    scores = result("a", [1, 1, 2, 0], [1, 2, 0, 1], **files)
    liver = scores.scores["liver"]
    assert (liver.true_positive, liver.false_positive, liver.false_negative) == (1, 1, 1)
    assert (liver.dice, liver.iou) == (0.5, pytest.approx(1 / 3))
    assert (liver.reference_volume_mm3, liver.predicted_volume_mm3) == (2.0, 2.0)
    assert scores.scores["tumour"].dice == 0
    assert (scores.reference_file, scores.prediction_file) == ("r.nii.gz", "p.nii.gz")


def test_a_plane_has_no_volume():
    """The thickness of a plane is unknown, so its volumes are undefined."""
    plane = volume([1, 1], dimensions=2)
    assert math.isnan(score_case(pair(plane, plane)).scores["liver"].reference_volume_mm3)


def test_different_grids_are_refused_by_name():
    """The error names the case and the difference."""
    with pytest.raises(DatasetError, match=r"case 'x7': .*spacing 0\.5 x 1 x 2 differs from 0\.5 x 1 x 3 mm"):
        score_case(pair(volume([1]), volume([1], spacing_mm=(3.0, 1.0, 0.5)), "x7"))


def test_means_leave_out_what_is_undefined(summary):
    """The mean of a label is over the cases that have it, the foreground mean over the labels."""
    assert summary.mean["liver"].dice == pytest.approx((2 / 3 + 1) / 2)
    assert summary.mean["tumour"].dice == 0
    assert summary.foreground_mean.dice == pytest.approx((5 / 6 + 0) / 2)


def test_a_label_that_is_nowhere_does_not_spoil_the_foreground_mean():
    """The other labels still define the foreground mean."""
    summary = summarize([result("a", [1, 1], [1, 1])], LABELS.names)
    assert math.isnan(summary.mean["tumour"].dice)
    assert summary.foreground_mean.dice == 1


@pytest.mark.parametrize("cases", [[], [result("a", [0, 0], [0, 0])]])
def test_without_any_score_the_means_are_undefined(cases, tmp_path):
    """No cases, or only empty ones, make a summary without numbers and without warnings."""
    summary = summarize(cases, LABELS.names)
    assert math.isnan(summary.foreground_mean.dice)
    assert len(summary.table()) == len(cases) * len(LABELS.names)
    summary.save(tmp_path / "summary.json")
    assert Summary.load(tmp_path / "summary.json") == summary


def test_undefined_scores_are_null_in_the_file(summary, tmp_path):
    """The file is strict JSON, and reading it gives the same summary."""
    path = tmp_path / "summary.json"
    summary.save(path)

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["cases"][2]["scores"]["liver"]["dice"] is None
    assert content["foreground_mean"]["dice"] == pytest.approx(5 / 12)
    loaded = Summary.load(path)
    assert loaded == summary
    assert math.isnan(loaded.cases[2].scores["liver"].dice)


def test_the_table_has_one_row_per_case_and_label(summary, tmp_path):
    """The table survives a CSV file, undefined scores included."""
    table = summary.table()
    assert list(zip(table["case"], table["label"], strict=True)) == [
        (case, label) for case in ("b_half", "a_right", "c_empty") for label in LABELS.names
    ]
    summary.save_csv(tmp_path / "summary.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "summary.csv"), table, check_dtype=False)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_cases_rank_from_worst_to_best_with_empty_ones_last(summary):
    """The first case is the worst one."""
    assert summary.ranked() == ["b_half", "a_right", "c_empty"]


def test_means_of_every_metric_have_intervals(summary):
    """With two livers the mean lies between the ends; with a single tumour the interval is undefined."""
    liver = summary.mean["liver"]
    assert set(liver.intervals) == set(METRICS)
    assert liver.intervals["dice"] == pytest.approx((2 / 3, 1))
    assert liver.intervals["hd95_mm"][0] < liver.hd95_mm < liver.intervals["hd95_mm"][1]
    assert all(math.isnan(end) for end in summary.mean["tumour"].intervals["dice"])
    low, high = summary.foreground_mean.intervals["dice"]
    assert low < summary.foreground_mean.dice < high
    assert summarize(summary.cases, LABELS.names) == summary  # the same cases, the same intervals


def test_the_tolerance_is_recorded_and_obeyed():
    """A border that is 0.5 mm off is right at 1 mm and wrong at 0.2 mm."""
    for tolerance_mm, nsd in ((1.0, 1.0), (0.2, 0.5)):
        maps = volume([1, 1, 0, 0, 0]), volume([0, 1, 1, 0, 0])
        case = score_case(pair(*maps), Measures(tolerance_mm=tolerance_mm))
        summary = summarize([case], LABELS.names, tolerance_mm=tolerance_mm)
        assert (summary.tolerance_mm, summary.mean["liver"].nsd) == (tolerance_mm, nsd)


def test_structures_that_were_not_annotated_have_no_scores():
    """Their scores are undefined whatever was predicted."""
    case = result("a", [1, 0, 0], [1, 2, 2], unannotated=["tumour"])
    assert all(math.isnan(getattr(case.scores["tumour"], metric)) for metric in METRICS)
    assert case.mean_dice == case.scores["liver"].dice == 1


def test_files_of_earlier_versions_are_read():
    """They have Dice and IoU alone; other scores are undefined, and they can be pooled with new files."""
    label = '"dice": 0.5, "iou": 0.4, "true_positive": 1, "false_positive": 0, "false_negative": 2'
    old = Summary.parse(
        '{"format_version": 1, "foreground_mean": {"dice": 0.5, "iou": 0.4}, "mean": {"liver": {"dice": 0.5, "iou": '
        '0.4}}, "cases": [{"name": "a", "scores": {"liver": {' + label + ', "reference_volume_mm3": 3.0, '
        '"predicted_volume_mm3": 1.0}}, "reference_file": "a.nii", "prediction_file": "a.nii"}]}',
        source="old",
    )
    assert math.isnan(old.tolerance_mm)
    assert math.isnan(old.mean["liver"].nsd)
    assert old.cases[0].scores["liver"].lesions_found is None
    pooled = summarize([*old.cases, result("b", [1, 1, 0], [1, 1, 0])], ["liver"])
    assert (pooled.mean["liver"].dice, pooled.mean["liver"].nsd) == (0.75, 1.0)
    assert len(pooled.table()) == 3


MAPS = st.lists(st.integers(0, 2), min_size=6, max_size=6)


@given(st.lists(st.tuples(MAPS, MAPS), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_means_are_those_of_the_table(pairs):
    """Pandas, which skips undefined values, finds the same means; ranking sorts all cases."""
    summary = summarize([result(f"case{index}", *maps) for index, maps in enumerate(pairs)], LABELS.names)
    table = summary.table()
    for metric in METRICS:
        by_label = table.groupby("label")[metric].mean()
        for label, mean in summary.mean.items():
            assert getattr(mean, metric) == pytest.approx(by_label[label], nan_ok=True)
        assert getattr(summary.foreground_mean, metric) == pytest.approx(by_label.mean(), nan_ok=True)
    by_case = table.groupby("case")["dice"].mean()
    ranked = [by_case[name] for name in summary.ranked()]
    defined = [dice for dice in ranked if not math.isnan(dice)]
    assert len(ranked) == len(pairs)
    assert defined == sorted(defined)
    assert all(math.isnan(dice) for dice in ranked[len(defined) :])


def test_scores_that_lack_a_label_are_named() -> None:
    """They come from a file that somebody changed, or from a dataset whose labels were renamed since."""
    scores = {"liver": UNDEFINED}
    cases = [CaseResult(name="a", scores=scores), CaseResult(name="b", scores={"kidney": UNDEFINED})]
    with pytest.raises(ArtifactError, match="the scores of the case 'b' lack the label 'liver' of the dataset; remove"):
        summarize(cases, ["liver"])


def test_summary_whose_cases_lack_a_label_is_damaged(summary, tmp_path):
    """A file that was edited: it is said when it is read, not where the scores are needed."""
    content = json.loads(summary.to_json())
    del content["cases"][1]["scores"]["liver"]
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="case 'a_right' has no scores of 'liver', of which there is a mean"):
        Summary.load(tmp_path / "summary.json")
