"""A repeated cross-validation from the option to the choice of the best: each case is judged in every repeat."""

import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

from autoseg.datasets.splits import Splits
from autoseg.model_selection.candidates import open_model_selection
from autoseg.pipeline import compare, evaluate, find_best, preprocess, report_model, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """A workspace of three cases whose folds of two repeats are trained, in two configurations."""
    root = tmp_path_factory.mktemp("repeated")
    write_volumes(root)
    plan_tiny(root)
    preprocess(NUMBER, repeats=2, workspace=root)
    for configuration in ("2d", "3d_fullres"):
        train(NUMBER, configuration, "cv", workspace=root)
    return root


def test_each_case_is_judged_twice_and_counts_once(repeated):
    """The summary has the results of both repeats, and the mean of each."""
    assert len(Splits.load(folders_of(repeated).splits).folds) == 6
    summary = train(NUMBER, "2d", "cv", workspace=repeated)
    assert sorted(case.name for case in summary.cases) == [f"case_{number}" for number in (1, 1, 2, 2, 3, 3)]
    assert len(summary.repeats) == 2
    assert summary.foreground_mean.dice == pytest.approx(sum(summary.repeats) / 2)


def test_pairs_are_judged_in_each_repeat(repeated):
    """Their segmentations of the second repeat have a folder, and a second search finds them there."""
    best = find_best(NUMBER, workspace=repeated)
    assert [len(candidate.repeats) for candidate in best.candidates] == [2, 2, 2]
    assert {candidate.cases for candidate in best.candidates} == {3}
    pair = folders_of(repeated).ensemble("2d+3d_fullres")
    again = evaluate(folders_of(repeated).raw / "labelsTr", pair / "repeat_2", save=False)
    selection = open_model_selection(NUMBER, folders_of(repeated), None)
    assert {case.name for case in again.cases} == {case.name for case in selection.held_out if case.repeat == 1}
    listener = Listener()
    assert find_best(NUMBER, workspace=repeated, reporter=listener) == best
    assert "6 of 6 segmentations by pairs were made by an earlier run" in listener.text


def test_runs_with_repeats_are_compared_and_shown(repeated):
    """Three cases differ, not six; the page says the spread."""
    models = [folders_of(repeated).model(name).path for name in ("2d", "3d_fullres")]
    assert compare(*models).rows[0].cases == 3
    page = report_model(NUMBER, workspace=repeated)
    assert "Mean Dice of 2 repeats: 0." in page.read_text(encoding="utf-8")
