"""Remarks on a case, and means with intervals."""

import json
import math

import pytest

from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult, summarize
from autoseg.report.held_out import ExaminedCase
from autoseg.report.score_rows import MOST_COLUMNS, list_remarks, make_case_row, make_label_rows


def case(name: str, **labels) -> CaseResult:
    """A case with some scores of each label."""
    scores = {label: UNDEFINED.model_copy(update=values) for label, values in labels.items()}
    return CaseResult(name=name, scores=scores)


@pytest.mark.parametrize(
    ("counts", "remark"),
    [
        ((0, 0, 9), "nothing of liver was found"),
        ((0, 9, 0), "liver was found where there is none"),
        ((10, 6, 0), "volume of liver is too large by 60 %"),
        ((4, 0, 6), "volume of liver is too small by 60 %"),
        ((10, 4, 0), ""),
        ((0, 0, 0), ""),
    ],
)
def test_remarks_name_what_is_striking(counts, remark):
    """Of voxels found rightly, too much and missed."""
    names = ("true_positive", "false_positive", "false_negative")
    assert list(list_remarks(case("a", liver=dict(zip(names, counts, strict=True))))) == [remark] * bool(remark)


def test_means_have_intervals_and_the_worst_case():
    """The mean of the labels comes first if there are several."""
    results = [case(f"case_{n}", liver={"dice": n / 10, "hd95_mm": 3.0}, spleen={"dice": 0.5}) for n in range(1, 9)]
    summary = summarize(results, ["liver", "spleen"])
    examined = [ExaminedCase(member="2d", fold=0, result=result) for result in results]
    rows = make_label_rows(summary, examined)
    assert [row.label for row in rows] == ["mean of the labels", "liver", "spleen"]
    assert (rows[1].lowest, rows[1].lowest_case, rows[1].lowest_key) == ("0.100", "case_1", "2d 0 case_1")
    dice, nsd, distance = rows[1].cells
    low, high = summary.mean["liver"].intervals["dice"]
    assert (dice.text, dice.interval) == ("0.450", f"{low:.3f} to {high:.3f}")
    assert dice.left == low
    assert dice.width == pytest.approx(high - low)
    assert nsd.text == "–"  # noqa: RUF001
    assert distance.left is None


def test_undefined_scores_sort_behind_the_best():
    """For every metric."""
    row = make_case_row(ExaminedCase(member="2d", fold=0, result=case("a", liver={})))
    assert [value for value, _ in row.means] == [2.0, 2.0, -1.0]
    assert row.lowest == "–"  # noqa: RUF001


def test_many_labels_have_the_lowest_one():
    """And all of them in the details."""
    labels = {f"label_{number}": {"dice": 1 - number / 100} for number in range(MOST_COLUMNS + 1)}
    row = make_case_row(ExaminedCase(member="2d", fold=0, result=case("a", **labels), problem="gone"))
    assert row.labels == ()
    assert row.lowest == "label_6 0.940"
    assert row.remarks == ("gone",)
    details = json.loads(row.details)
    assert len(details["rows"]) == MOST_COLUMNS + 1
    assert len(details["titles"]) == len(details["rows"][0])
    assert not math.isnan(float(details["rows"][0][1]))
