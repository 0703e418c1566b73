"""What stands out among the cases, and what does not."""

from dataclasses import replace

import numpy as np
import pytest

from autoseg.datasets.fingerprint import CaseFacts
from autoseg.datasets.info import DatasetInfo
from autoseg.report.case_measures import CaseMeasures, StructureMeasure
from autoseg.report.outliers import find_outliers, robust_scores

INFO = DatasetInfo(
    channel_names={"0": "CT", "1": "PET"},
    labels={"background": 0, "liver": 1, "kidney_left": 2, "kidney_right": 3},
    file_ending=".nii.gz",
)


def make_case(number: int, **changes) -> CaseMeasures:
    """Returns a usual case, whose numbers differ a little from those of the others."""
    facts = CaseFacts(
        name=f"case_{number}",
        shape=(100 + number, 200, 200),
        shape_after_crop=(100 + number, 200, 200),
        spacing_mm=(2.0, 0.8 + 0.01 * number, 0.8 + 0.01 * number),
        orientation="SPL",
        intensities=((-1000.0, 1500.0 + 10 * number), (0.0, 10.0 ** (number % 5))),
    )
    structures = {
        "liver": StructureMeasure(volume_ml=1500.0 + 20 * number, leftness=0.3 + 0.005 * number),
        "kidney_left": StructureMeasure(volume_ml=150.0 + number, leftness=0.65),
        "kidney_right": StructureMeasure(volume_ml=155.0 - number, leftness=0.35),
    }
    return replace(CaseMeasures(name=facts.name, facts=facts, structures=structures), **changes)


def with_facts(case: CaseMeasures, **changes) -> CaseMeasures:
    """Returns a case with other facts."""
    return replace(case, facts=case.facts.model_copy(update=changes))


def with_structure(case: CaseMeasures, name: str, **changes) -> CaseMeasures:
    """Returns a case with another measure of a structure; without it if nothing is given."""
    structures = dict(case.structures)
    if changes:
        structures[name] = replace(structures[name], **changes)
    else:
        del structures[name]
    return replace(case, structures=structures)


USUAL = [make_case(number) for number in range(20)]


def reasons_of(odd: CaseMeasures) -> list[str]:
    """Returns what is said of a case that replaces the last of the usual ones; of the others nothing may be said."""
    outliers = find_outliers([*USUAL[:-1], odd], INFO)
    assert set(outliers) <= {odd.name}
    return outliers.get(odd.name, [])


def test_usual_cases_do_not_stand_out():
    """Nor do intensities without a unit, which differ by orders of magnitude."""
    assert find_outliers(USUAL, INFO) == {}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (with_facts(USUAL[-1], spacing_mm=(2.0, 0.1, 0.1)), "smallest voxel side is small: 0.1 mm, usually 0.885 mm"),
        (with_facts(USUAL[-1], spacing_mm=(20.0, 0.9, 0.9)), "largest voxel side is large: 20 mm, usually 2 mm"),
        (
            with_facts(USUAL[-1], shape=(1000, 200, 200)),
            "number of voxels is large: 4e+07, usually 4.38e+06",
        ),
        (
            with_facts(USUAL[-1], intensities=((0.0, 255.0), (0.0, 1.0))),
            "range of intensities of CT is small: 255 HU, usually 2585 HU",
        ),
        (with_structure(USUAL[-1], "liver", volume_ml=20.0), "volume of liver is small: 20 ml, usually 1670 ml"),
        (with_structure(USUAL[-1], "liver"), "has no liver, which 19 of 20 cases have"),
        (with_structure(USUAL[-1], "liver", leftness=0.7), "liver lies on the left, usually on the right"),
    ],
)
def test_odd_case_stands_out_with_its_reason(odd, reason):
    """In each measure, with the number and what is usual."""
    assert reasons_of(odd) == [reason]


def test_exchanged_kidneys_are_said():
    """By their names, which needs no other case."""
    swapped = with_structure(with_structure(USUAL[0], "kidney_left", leftness=0.3), "kidney_right", leftness=0.6)
    said = "kidney_left lies right of kidney_right: exchanged, or the orientation of the file is wrong"
    assert find_outliers([swapped, USUAL[1]], INFO) == {swapped.name: [said]}


def test_second_machine_is_no_outlier():
    """A quarter of the scans with another spacing is a group."""
    cases = [with_facts(case, spacing_mm=(2.0, 3.0, 3.0)) if index < 5 else case for index, case in enumerate(USUAL)]
    assert find_outliers(cases, INFO) == {}


def test_case_that_was_not_annotated_for_a_structure_does_not_lack_it():
    """'annotated' in dataset.json says so."""
    info = INFO.model_copy(update={"annotated": {USUAL[-1].name: ("kidney_left", "kidney_right")}})
    cases = [*USUAL[:-1], with_structure(USUAL[-1], "liver")]
    assert find_outliers(cases, info) == {}
    assert find_outliers(cases, INFO) != {}


def test_bad_cases_and_small_datasets_are_not_judged():
    """Of seven cases the usual cannot be told; a case with problems has no measures."""
    assert find_outliers([*USUAL[:6], with_structure(USUAL[-1], "liver", volume_ml=20.0)], INFO) == {}
    assert find_outliers([CaseMeasures(name="broken", structures={}), *USUAL], INFO) == {}


def test_robust_scores_are_those_of_the_definition():
    """For values of which half are equal too; equal values have none."""
    values = [1.0, 2.0, 4.0, 7.0, 100.0, 3.0]
    deviation = np.median(np.abs(np.array(values) - np.median(values))) / 0.6745
    np.testing.assert_allclose(robust_scores(values), (np.array(values) - np.median(values)) / deviation, rtol=1e-3)
    assert robust_scores([5.0, 5.0, 5.0, 5.0, 15.0])[-1] == pytest.approx(10 / (1.2533 * 2))
    assert robust_scores([5.0, 5.0]) == [0.0, 0.0]
