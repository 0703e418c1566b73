"""The page of two runs: which cases changed, in numbers and pictures."""

import shutil

import pytest
from html_pages import read_page
from tiny_workspaces import NUMBER, folders_of

import autoseg
from autoseg.errors import DatasetError, UsageError
from autoseg.evaluation.scores import UNDEFINED
from autoseg.evaluation.summary import CaseResult, summarize
from autoseg.report.comparison_report import RunScores, list_changes

NAN = float("nan")


def run_of(folder, **dice) -> RunScores:
    """A run in which each case has a Dice of two labels."""
    cases = [
        CaseResult(
            name=name, scores={f"label_{n}": UNDEFINED.model_copy(update={"dice": v}) for n, v in enumerate(both)}
        )
        for name, both in dice.items()
    ]
    return RunScores(folder=folder, summary=summarize(cases, ["label_0", "label_1"]))


def test_changes_are_ranked_over_labels_that_both_runs_have(tmp_path):
    """From the worst; cases that cannot be compared come last, and cases of one run are left out."""
    first = run_of(tmp_path, a=(0.5, 0.5), b=(0.5, NAN), c=(0.9, 0.9), d=(NAN, NAN), e=(1, 1))
    second = run_of(tmp_path, a=(0.7, 0.5), b=(0.4, 0.8), c=(0.9, 0.9), d=(0.5, 0.5))
    changes = list_changes((first, second), ["label_0", "label_1"])
    assert [change.name for change in changes] == ["b", "c", "a", "d"]
    assert [round(change.change, 3) for change in changes[:3]] == [-0.1, 0.0, 0.1]
    assert changes[0].dice == (0.5, 0.4)


@pytest.fixture(scope="module")
def runs(trained_volumes, tmp_path_factory):
    """The model of the tiny workspace, and its masks of one case, of which one is emptied."""
    model = folders_of(trained_volumes).model("3d_fullres")
    other = tmp_path_factory.mktemp("masks")
    labels = folders_of(trained_volumes).raw / "labelsTr"
    for fold in (0, 1):
        for mask in model.validation(fold).glob("*.nii.gz"):
            shutil.copy(labels / mask.name, other / mask.name)  # the truth itself
    autoseg.evaluate(labels, other)
    return model.path, other


@pytest.fixture(scope="module")
def texts(runs, tmp_path_factory):
    """The page of both."""
    page = tmp_path_factory.mktemp("page") / "compared.html"
    autoseg.compare(*runs, report=page)
    assert page.read_text(encoding="utf-8").count('class="strip"') == 2
    return read_page(page.read_text(encoding="utf-8"))


def test_page_shows_every_case_and_each_difference(runs, texts):
    """The second run is perfect, so all cases are better."""
    comparison = autoseg.compare(*runs)
    assert sorted(texts.names_of("cases")) == sorted(comparison.cases)
    assert all(row[2] == "1.000" and row[3].startswith("+") for row in texts.rows_of("cases"))
    assert "No case is worse in B" in texts.section("worse")
    assert len(texts.rows_of("scores")) == len(comparison.rows)
    assert str(runs[0]) in texts.all


def test_runs_of_no_dataset_have_no_pictures_unless_it_is_named(runs, trained_volumes, tmp_path):
    """The page says so."""
    copies = [tmp_path / "a", tmp_path / "b"]
    for copy in copies:
        shutil.copytree(runs[1], copy)
    page = tmp_path / "page.html"
    autoseg.compare(*copies, report=page)
    assert "There are no pictures" in read_page(page.read_text()).all
    next(copies[1].glob("case_*")).unlink()
    autoseg.compare(*copies, report=page, number=NUMBER, workspace=trained_volumes)
    html = page.read_text()
    assert html.count('class="strip"') == 1
    assert "is not in" in html
    with pytest.raises(DatasetError, match="no dataset 77"):
        autoseg.compare(*copies, report=page, number=77, workspace=trained_volumes)


def test_impossible_page_is_refused_before_the_work(tmp_path):
    """And before the runs are looked for."""
    with pytest.raises(UsageError, match=r"page\.pdf is no page"):
        autoseg.compare(tmp_path / "a", tmp_path / "b", report=tmp_path / "page.pdf")
