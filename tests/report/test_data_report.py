"""The page of a dataset holds every case, what is odd, what is wrong, and shows names as text."""

import base64
import json
import re
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import SimpleITK as sitk
from html_pages import read_page
from PIL import Image
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

import autoseg
from autoseg.errors import ArtifactError, UsageError
from autoseg.planning.plan import Plan
from autoseg.report import data_report
from autoseg.report.case_measures import CaseMeasures
from autoseg.report.data_report import limit_pictures
from autoseg.report.histograms import make_histogram


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace of nine cases that are planned; the fourth is broken, the sixth is the fifth, the eighth is empty."""
    root = tmp_path_factory.mktemp("workspace")
    raw = write_volumes(root, cases=9).raw
    plan_tiny(root, epochs=1)
    images = sorted((raw / "imagesTr").iterdir())
    labels = sorted((raw / "labelsTr").iterdir())
    images[3].write_bytes(b"no image")
    shutil.copy(images[4], images[5])
    shutil.copy(labels[4], labels[5])
    empty = sitk.ReadImage(str(labels[7]))
    sitk.WriteImage(empty * 0, str(labels[7]))
    return root


@pytest.fixture(scope="module")
def page(root):
    """The page of that workspace."""
    return autoseg.report_data(NUMBER, workspace=root)


def test_page_lies_beside_the_plan_and_is_whole(root, page):
    """It names every case in the table, and the reasons of the plan."""
    assert page == folders_of(root).preprocessed / "data.html"
    texts = read_page(page.read_text(encoding="utf-8"))
    assert texts.title == folders_of(root).raw.name
    assert texts.names_of("cases") == [f"case_{number}" for number in range(1, 10)]
    for sentence in Plan.load(folders_of(root).plan).why:
        assert sentence in texts.all


def test_page_says_what_is_wrong_odd_and_twice(page):
    """The broken case with what to do, the case without a label, and the copies."""
    texts = read_page(page.read_text(encoding="utf-8"))
    [problem] = [row for row in texts.rows_of("problems") if row[0] == "case_4"]
    assert "leave the case out" in problem[2]
    assert "case_5, case_6" in texts.all
    assert "equal in every voxel" in texts.all
    assert "case_8" in "".join(texts.section("odd"))
    assert "has no " in "".join(texts.section("odd"))


def test_of_many_cases_those_that_stand_out_are_drawn(root, monkeypatch, tmp_path):
    """They are read once more; the pictures are the same, and the page says how many there are."""
    whole = autoseg.report_data(NUMBER, tmp_path / "whole.html", workspace=root).read_text(encoding="utf-8")
    monkeypatch.setattr(data_report, "MOST_PICTURES", 2)
    page = autoseg.report_data(NUMBER, tmp_path / "few.html", workspace=root).read_text(encoding="utf-8")
    pictures = set(re.findall(r"data:image/webp[^\"]*", page))
    assert len(pictures) == 1  # the broken case, which has none, comes first
    assert pictures <= set(re.findall(r"data:image/webp[^\"]*", whole))
    assert "1 of 9 cases have a picture here: those with problems" in page
    assert page.count(pictures.pop()) == 2  # among those unlike the others, and in the table


def test_page_needs_nothing_else(page):
    """No address but pictures inside the page; each is a picture."""
    html = page.read_text(encoding="utf-8")
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", html)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in html
    pictures = [address for address in addresses if address.startswith("data:image/webp")]
    assert len(pictures) >= 9
    for picture in pictures:
        drawn = Image.open(BytesIO(base64.b64decode(picture.split(",")[1])))
        assert drawn.height <= 176
        assert np.asarray(drawn.convert("RGB")).std() > 5


def test_names_show_as_text(tmp_path):
    """A label that is a tag, and a channel that is a script."""
    raw = write_volumes(tmp_path, cases=2).raw
    text = (raw / "dataset.json").read_text()
    info = json.loads(text)
    info["labels"] = {
        "background" if number == 0 else f"<img src=x onerror=alert({number})>": number
        for number in info["labels"].values()
    }
    info["channel_names"] = dict.fromkeys(info["channel_names"], "</script><script>alert(1)</script>")
    (raw / "dataset.json").write_text(json.dumps(info))
    html = autoseg.report_data(NUMBER, tmp_path / "page.html", workspace=tmp_path).read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "<script>alert" not in html
    assert html.count("<script") == html.count("</script>") == 3  # what the page does, the viewer, and its cases
    assert "<img src=x onerror=alert(1)>, ml" in read_page(html).headers_of("cases")


@pytest.mark.parametrize(
    ("output", "message"), [("folder", "is a folder; give a file"), ("page.pdf", "is no page; give a name")]
)
def test_impossible_outputs_are_refused_before_the_work(root, tmp_path, output, message, monkeypatch):
    """Nothing is read first."""
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("autoseg.pipeline.reports.examine_dataset", None)
    with pytest.raises(UsageError, match=message):
        autoseg.report_data(NUMBER, tmp_path / output, workspace=root)


def test_plan_that_does_not_exist_is_said(root):
    """By its name."""
    with pytest.raises(UsageError, match="there is no plan 'other'"):
        autoseg.report_data(NUMBER, plan="other", workspace=root)


def test_pictures_of_what_deserves_a_look_come_first():
    """Whatever the order of the cases, which stays."""
    cases = [CaseMeasures(name=name, structures={}, picture=b"12345") for name in "abcd"]
    kept = limit_pictures(cases, first={"c": ["odd"]}, most_bytes=10)
    assert [(case.name, bool(case.picture)) for case in kept] == [("a", True), ("b", False), ("c", True), ("d", False)]
    assert limit_pictures(cases, first={}, most_bytes=100) == cases
    assert replace(cases[0], picture=b"") == limit_pictures(cases, first={}, most_bytes=4)[0]


def test_histogram_counts_every_finite_value():
    """In bins from the smallest to the largest."""
    values = [1.0, 2.0, 2.5, 9.0, float("nan"), float("inf")]
    histogram = make_histogram("size", values, "mm")
    assert sum(int(re.match(r"\d+", bar.text)[0]) for bar in histogram.bars) == 4
    assert (histogram.first, histogram.middle, histogram.last) == ("1 mm", "2.25 mm", "9 mm")
    assert max(bar.height for bar in histogram.bars) == 1
    assert make_histogram("none", []) is None
    assert [bar.text for bar in make_histogram("equal", [3.0, 3.0]).bars] == ["2 cases of 3"]


def test_tags_of_dicom_are_shown(tmp_path):
    """Of all series, and for each case what differs; a value that is a tag of HTML shows as text."""
    raw = write_volumes(tmp_path, cases=3).raw
    hostile = "<img src=x onerror=alert(1)>"
    tags = {
        f"case_{number}": [{"Modality": "MR", "Manufacturer": hostile, "EchoTime": str(80 + number // 3)}]
        for number in (1, 2, 3)
    }
    (raw / "dicom_tags.json").write_text(json.dumps(tags))
    html = autoseg.report_data(NUMBER, workspace=tmp_path).read_text()
    texts = read_page(html)
    assert hostile not in html
    assert texts.rows_of("acquisition") == [
        ["Modality", "MR (3)"],
        ["Manufacturer", f"{hostile} (3)"],
        ["EchoTime", "80 (2), 81 (1)"],
    ]
    column = texts.headers_of("cases").index("acquisition")
    assert [row[column] for row in texts.rows_of("cases")] == ["EchoTime 80", "EchoTime 80", "EchoTime 81"]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"case_1": [{"EchoTime": 90}]}'])
def test_damaged_tags_are_said(tmp_path, content):
    """With what to do."""
    raw = write_volumes(tmp_path, cases=1).raw
    (raw / "dicom_tags.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"dicom_tags\.json is damaged; remove it"):
        autoseg.report_data(NUMBER, workspace=tmp_path)
