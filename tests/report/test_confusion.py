"""The table of what was taken for what, against a count voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.summary import SegmentedCase
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.targets import Targets
from autoseg.report.confusion import MOST_NAMED, NOTHING, count_confusion, summarize_confusion

LABELS = Targets.of_labels({"liver": 1, "tumour": 2, "vessel": 3}, ignore=4)
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))


def case_of(reference, prediction, targets, **options) -> SegmentedCase:
    """A case of voxels of 2 mm³."""
    geometry = Geometry(shape=(1, 1, len(reference)), spacing_mm=(1.0, 1.0, 2.0))
    maps = [Volume(array=np.array([[row]], dtype=np.uint8), geometry=geometry) for row in (reference, prediction)]
    return SegmentedCase(name="a", reference=maps[0], prediction=maps[1], targets=targets, **options)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_labels_that_exclude_each_other_make_the_usual_matrix(pairs):
    """Rows are the truth, columns what was found; background as itself and ignored voxels do not count."""
    reference, prediction = zip(*pairs, strict=True)
    expected = np.zeros((4, 4))
    for truth, guess in pairs:
        if truth != 4 and (truth or guess):
            expected[truth - 1, guess - 1] += 2.0
    assert (count_confusion(case_of(reference, prediction, LABELS)) == expected).all()


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        (1, 1, {("whole", "whole"): 2.0}),
        (2, 1, {("whole", "whole"): 2.0, ("core", NOTHING): 2.0}),
        (1, 2, {("whole", "whole"): 2.0, (NOTHING, "core"): 2.0}),
        (0, 2, {(NOTHING, "whole"): 2.0, (NOTHING, "core"): 2.0}),
        (2, 0, {("whole", NOTHING): 2.0, ("core", NOTHING): 2.0}),
    ],
)
def test_regions_count_what_is_missed_and_what_is_extra(truth, found, expected):
    """A core that is missed inside the whole is not confused with the whole, which is right there."""
    matrix = count_confusion(case_of([truth], [found], REGIONS))
    names = [*REGIONS.names, NOTHING]
    counted = {(names[row], names[column]): matrix[row, column] for row, column in zip(*matrix.nonzero(), strict=True)}
    assert counted == expected


def test_what_was_not_annotated_does_not_count():
    """Neither as missed nor as found."""
    case = case_of([1, 0, 2], [1, 2, 2], LABELS, unannotated=("tumour",))
    assert count_confusion(case)[1].sum() == 0
    assert count_confusion(case)[:, 1].sum() == 0


def test_shares_are_of_the_row_and_of_the_column_for_nothing():
    """The largest share of a label comes first, what was found in nothing last."""
    matrix = count_confusion(case_of([1, 1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 1, 1], LABELS))
    table = summarize_confusion([matrix, matrix], LABELS, planes=False)
    assert [(pair.reference, pair.prediction, pair.volume, round(pair.share, 3)) for pair in table.largest] == [
        ("tumour", "liver", 4.0, 0.5),
        ("liver", "tumour", 4.0, 0.25),
        (NOTHING, "liver", 4.0, 0.2),
    ]
    assert np.isnan(table.rows[2][0].share)
    assert table.rows[0][0].right


def test_many_structures_have_a_list_alone():
    """And no case has no table."""
    targets = Targets.of_labels({f"label_{number}": number for number in range(1, MOST_NAMED + 2)})
    table = summarize_confusion([count_confusion(case_of([1, 2], [2, 2], targets))], targets, planes=True)
    assert table.rows == ()
    assert [(pair.reference, pair.prediction) for pair in table.largest] == [("label_1", "label_2")]
    assert table.unit == "pixels"
    assert summarize_confusion([], targets, planes=False) is None
