"""The page of segmented scans: what predict recorded, what deserves a look first, and scans that are not there."""

import re
import shutil
from math import nan
from pathlib import Path

import pytest
from html_pages import read_page
from scan_folders import write_predictions
from tiny_workspaces import folders_of, write_volumes

import autoseg
from autoseg.errors import DatasetError, UsageError
from autoseg.report.scan_ranking import Urgency, rank_scans
from autoseg.report.segmented_scan import ScanMeasures


@pytest.fixture
def root(tmp_path):
    """A workspace of nine cases."""
    write_volumes(tmp_path / "workspace", cases=9)
    return tmp_path / "workspace"


def names_first(html: str) -> list[str]:
    """Returns the names in the gallery of scans to look at first, in order."""
    return re.findall(r"<b>\d+\. ([^<]*)</b>", html)


def test_page_has_what_predict_recorded(root, tmp_path):
    """Volumes, agreement and remarks of each scan, and which model it was."""
    masks = write_predictions(root, tmp_path / "masks", agreements={"case_2": 0.6125}, remarks={"case_3": ("odd",)})
    page = autoseg.report_scans(masks)
    assert page == masks / "report.html"
    html = page.read_text(encoding="utf-8")
    texts = read_page(html)
    assert texts.title == "masks"
    assert sorted(texts.names_of("cases")) == [f"case_{number}" for number in range(1, 10)]
    rows = {row[0].split()[-1]: row for row in texts.rows_of("cases")}
    assert rows["case_2"][2] == "0.613"
    assert rows["case_3"][-1] == "odd"
    recorded = {row.split(",")[0]: row.split(",")[2] for row in (masks / "report.csv").read_text().splitlines()[1:]}
    assert float(rows["case_5"][3]) == pytest.approx(float(recorded["case_5"]), rel=0.01)
    assert "keeps everything" in texts.all
    assert folders_of(root).raw.name in texts.all


def test_many_scans_are_shown_in_turns(root, tmp_path, monkeypatch):
    """All of them are in the table; a button shows the others."""
    masks = write_predictions(root, tmp_path / "masks")
    assert 'id="more"' not in autoseg.report_scans(masks).read_text(encoding="utf-8")
    monkeypatch.setattr("autoseg.report.page.ROWS_SHOWN", 4)
    html = autoseg.report_scans(masks).read_text(encoding="utf-8")
    assert len(read_page(html).names_of("cases")) == 9
    assert len(re.findall(r"<tr class=\"[a-z]*\" hidden>", html)) == 5
    assert "4 of 9 shown" in html
    assert 'id="more" data-rows="4"' in html


def test_worst_scans_come_first(tmp_path):
    """Those without a mask, then remarks by agreement, then those unlike the others."""
    root = tmp_path / "workspace"
    write_volumes(root, cases=11)
    masks = write_predictions(
        root,
        tmp_path / "masks",
        agreements={"case_1": 0.93, "case_2": 0.9, "case_3": 0.6},
        remarks={"case_1": ("nothing was found",), "case_2": ("odd",)},
        failures={"case_9": "it is no image; replace it"},
        on_mask=lambda name, path: path.unlink() if name == "case_8" else None,
    )
    html = autoseg.report_scans(masks).read_text(encoding="utf-8")
    assert names_first(html) == ["case_8", "case_9", "case_2", "case_1", "case_3"]
    rows = {row[0].split()[-1]: row[-1] for row in read_page(html).rows_of("cases")}
    assert rows["case_9"] == "not segmented: it is no image; replace it"
    assert rows["case_8"] == "its mask is not in the folder any more"
    assert rows["case_3"] == "folds and mirror images agree less than elsewhere: 0.60, usually 0.95"
    assert rows["case_7"] == ""


@pytest.mark.parametrize("is_named", [False, True])
def test_scans_that_moved_are_said_and_found_with_images(root, tmp_path, is_named):
    """Without a picture, or found in the folder that is named; the volumes are there in both cases."""
    masks = write_predictions(root, tmp_path / "masks")
    moved = shutil.move(folders_of(root).raw / "imagesTr", tmp_path / "elsewhere")
    html = autoseg.report_scans(masks, images=moved if is_named else None).read_text(encoding="utf-8")
    assert ("image files of 9 scans are not where" in html) == (not is_named)
    assert len(set(re.findall('data:image/webp[^"]*', html))) == (9 if is_named else 0)
    assert ('id="viewer-cases"' in html) == is_named
    assert names_first(html) == []


def test_scan_that_changed_is_remarked(root, tmp_path):
    """Its mask belongs to the file as it was."""
    masks = write_predictions(root, tmp_path / "masks")
    images = folders_of(root).raw / "imagesTr"
    shutil.copy(images / "case_4_0000.nii.gz", images / "case_2_0000.nii.gz")
    html = autoseg.report_scans(masks).read_text(encoding="utf-8")
    assert names_first(html) == ["case_2"]
    assert "its image files have changed since it was segmented" in html or "lies on another grid" in html


def test_masks_and_scans_that_cannot_be_read_are_problems(root, tmp_path):
    """Each of its scan alone."""
    masks = write_predictions(
        root,
        tmp_path / "masks",
        on_mask=lambda name, path: path.write_bytes(b"none") if name == "case_6" else None,
    )
    (folders_of(root).raw / "imagesTr" / "case_5_0000.nii.gz").write_bytes(b"none")
    html = autoseg.report_scans(masks).read_text(encoding="utf-8")
    assert names_first(html) == ["case_5", "case_6"]
    assert len(set(re.findall('data:image/webp[^"]*', html))) == 7


def test_names_show_as_text(root, tmp_path):
    """A remark and a structure that are tags."""
    hostile = "<img src=x onerror=alert(1)>"
    masks = write_predictions(root, tmp_path / "masks", remarks={"case_1": (hostile,)})
    html = autoseg.report_scans(masks).read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert hostile in read_page(html).all


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.exists, "is no folder"),
        (Path.mkdir, "was not written by 'autoseg predict'"),
    ],
)
def test_folders_that_predict_did_not_write_are_refused(tmp_path, make, message):
    """With what to give instead."""
    make(tmp_path / "masks")
    with pytest.raises(DatasetError, match=message):
        autoseg.report_scans(tmp_path / "masks")


def test_folder_without_records_is_refused(root, tmp_path):
    """Even if it has a dataset.json."""
    with pytest.raises(DatasetError, match="holds no records of 'autoseg predict'"):
        autoseg.report_scans(folders_of(root).raw)
    with pytest.raises(UsageError, match="is no page"):
        autoseg.report_scans(folders_of(root).raw, "page.pdf")


def test_rows_of_a_table_alone_are_shown(root, tmp_path):
    """As of versions that kept no records."""
    masks = write_predictions(root, tmp_path / "masks", agreements={"case_2": nan})
    shutil.rmtree(masks / ".report")
    html = autoseg.report_scans(masks, images=folders_of(root).raw / "imagesTr").read_text(encoding="utf-8")
    rows = {row[0].split()[-1]: row for row in read_page(html).rows_of("cases")}
    assert rows["case_2"][2] == "\N{EN DASH}"
    assert rows["case_1"][2] == "0.950"


def test_rank_goes_by_urgency_then_agreement():
    """Unknown agreement comes last of its group; ties go by name."""
    scans = [
        ScanMeasures(name="unknown", volumes_ml={}),
        ScanMeasures(name="low", volumes_ml={}, agreement=0.5),
        ScanMeasures(name="remarked", volumes_ml={}, agreement=0.99, remarks=("odd",)),
        ScanMeasures(name="lost", volumes_ml={}, problems=("no mask",)),
        ScanMeasures(name="b", volumes_ml={}, agreement=0.9),
        ScanMeasures(name="a", volumes_ml={}, agreement=0.9),
    ]
    ranked = rank_scans(scans, [])
    assert [entry.scan.name for entry in ranked] == ["lost", "remarked", "low", "a", "b", "unknown"]
    assert [entry.urgency for entry in ranked[:3]] == [Urgency.UNUSABLE, Urgency.REMARKED, Urgency.USUAL]
    assert [entry.rank for entry in ranked] == [1, 2, 3, 4, 5, 6]


def test_volumes_and_missing_structures_stand_out():
    """Compared with the other scans of the folder, if there are eight."""
    scans = [ScanMeasures(name=str(number), volumes_ml={"liver": 1500.0 + number}) for number in range(9)]
    small, absent = (ScanMeasures(name=name, volumes_ml={"liver": size}) for name, size in (("s", 40.0), ("n", 0.0)))
    reasons = {entry.scan.name: entry.reasons for entry in rank_scans([*scans, small, absent], ["liver"])}
    assert reasons["s"] == ("volume of liver is small: 40 ml, usually 1504 ml",)
    assert reasons["n"] == ("has no liver, which 10 of 11 scans have",)
    assert not any(reasons[str(number)] for number in range(9))
    assert not any(entry.reasons for entry in rank_scans([*scans[:5], small, absent], ["liver"]))
