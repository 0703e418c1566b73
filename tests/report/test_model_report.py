"""The page of trained folds holds every held-out case with its scores, and shows names as text."""

import json
import re
import shutil

import pytest
from html_pages import read_page
from tiny_workspaces import NUMBER, folders_of, write_volumes

import autoseg
from autoseg.datasets.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary
from autoseg.pipeline.reports import report_model
from autoseg.report.held_out import examine_cases
from autoseg.report.model_runs import find_runs
from autoseg.runtime.reporting import SILENT


@pytest.fixture(scope="module")
def page(trained_volumes, tmp_path_factory):
    """The page of the tiny workspace, of which folds 0, 1 and "all" are trained."""
    return report_model(NUMBER, tmp_path_factory.mktemp("page") / "model.html", workspace=trained_volumes)


@pytest.fixture(scope="module")
def texts(page):
    """Its texts."""
    return read_page(page.read_text(encoding="utf-8"))


def held_out(root) -> dict[str, float]:
    """Held-out cases of the tiny workspace with their mean Dice."""
    model = folders_of(root).model("3d_fullres")
    summaries = [Summary.load(model.validation(fold) / "summary.json") for fold in (0, 1)]
    return {case.name: case.mean_dice for summary in summaries for case in summary.cases}


def test_every_held_out_case_has_a_row_from_the_worst(trained_volumes, texts):
    """With its Dice."""
    dice = held_out(trained_volumes)
    assert texts.names_of("cases") == sorted(dice, key=lambda name: (dice[name], name))
    assert [row[2] for row in texts.rows_of("cases")] == [f"{dice[name]:.3f}" for name in texts.names_of("cases")]


def test_page_shows_scores_curves_confusion_plan_and_card(trained_volumes, texts):
    """Each in its section."""
    assert texts.title == f"{folders_of(trained_volumes).raw.name}: model"
    assert texts.names_of("scores") == ["mean of the labels", "bright", "dark"]
    assert "held-out loss" in texts.section("curves")
    assert "fold all: 2 of 2 epochs trained" in texts.section("curves")
    assert texts.names_of("confusion") == ["bright", "dark", "nothing"]
    assert "not a medical device" in texts.all
    assert "Spearman not known, 2 cases" in texts.section("trust")
    assert "calibration error" in texts.section("calibration")
    assert "share of voxels that are right over probability" in str(texts.root.find("calibration").find_all("svg"))
    assert "find_best compares" in texts.all
    assert "median spacing" in texts.all


def test_every_case_has_a_picture_inside_the_page(page):
    """And nothing lies outside."""
    html = page.read_text(encoding="utf-8")
    assert html.count('class="strip"') == 2
    assert 'src="data:image/webp;base64' in html
    assert all(address.startswith(("data:", "#")) for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", html))


def test_page_lies_in_the_results(trained_volumes, tmp_path):
    """Unless another place is given."""
    shutil.copytree(trained_volumes, tmp_path / "copy")
    assert report_model(NUMBER, workspace=tmp_path / "copy") == folders_of(tmp_path / "copy").results / "model.html"


def test_scan_that_is_gone_is_said_and_ends_nothing(trained_volumes, tmp_path):
    """Its scores stay."""
    root = tmp_path / "copy"
    shutil.copytree(trained_volumes, root)
    [worst, other] = read_page(report_model(NUMBER, workspace=root).read_text()).names_of("cases")
    (folders_of(root).raw / "imagesTr" / f"{worst}_0000.nii.gz").unlink()
    (folders_of(root).raw / "labelsTr" / f"{other}.nii.gz").write_bytes(b"no image")
    rows = {row[0]: row for row in read_page(report_model(NUMBER, workspace=root).read_text()).rows_of("cases")}
    assert f"the dataset has no case {worst!r} any more" in rows[worst][-1]
    assert f"{other}.nii.gz" in rows[other][-1]
    assert float(rows[other][2]) > 0


def test_cases_that_are_known_are_not_read_again(trained_volumes, monkeypatch):
    """Until their fold is validated anew."""
    folders = folders_of(trained_volumes)
    dataset = Dataset.open(folders.raw)
    runs = find_runs(folders, dataset.info, None, number=NUMBER)
    known = {}
    first = examine_cases(dataset, runs, SILENT, known)
    assert len(known) == 2
    monkeypatch.setattr("autoseg.report.held_out.load_result", None)
    assert examine_cases(dataset, runs, SILENT, known) == first


def test_names_show_as_text(trained_volumes, tmp_path):
    """A label that is a tag."""
    root = tmp_path / "copy"
    shutil.copytree(trained_volumes, root)
    hostile = "<img src=x onerror=alert(1)>"
    for path in (folders_of(root).raw / "dataset.json", *folders_of(root).results.rglob("summary.json")):
        content = json.dumps(json.loads(path.read_text())).replace('"bright"', json.dumps(hostile))
        path.write_text(content)
    html = report_model(NUMBER, workspace=root).read_text()
    assert hostile not in html
    assert hostile in read_page(html).all


def test_what_is_not_trained_is_said(tmp_path, trained_volumes):
    """With the command that trains it."""
    write_volumes(tmp_path)
    with pytest.raises(
        UsageError, match=r"nothing is trained in .*; run 'autoseg train -d 1 -c 3d_fullres -f cv' first"
    ):
        report_model(NUMBER, workspace=tmp_path)
    with pytest.raises(UsageError, match="nothing is trained of '2d'; there is 3d_fullres; run 'autoseg train -d 1"):
        report_model(NUMBER, configurations=["2d"], workspace=trained_volumes)
    with pytest.raises(UsageError, match="there is no configuration '4d'"):
        report_model(NUMBER, configurations=["4d"], workspace=trained_volumes)
    with pytest.raises(UsageError, match="is no page"):
        autoseg.report_model(NUMBER, tmp_path / "page.pdf", workspace=trained_volumes)
