"""The table of a folder of scans, and the lines about those that deserve a look."""

import csv
import math
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener
from small_models import SMALL_INFO, small_checkpoint
from tiny_workspaces import NUMBER, folders_of

from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import pair_label_maps
from autoseg.errors import UsageError
from autoseg.imaging.image_files import read_image, read_label_map, write_image
from autoseg.inference.continuation import find_waiting
from autoseg.inference.folder import ask_for_disagreement
from autoseg.inference.report import ReportWriter, describe_remarkable, make_record
from autoseg.inference.scan_pipeline import ScanReport
from autoseg.inference.scan_records import ScanRecords
from autoseg.models.checkpoint import save_checkpoint
from autoseg.pipeline.prediction import predict
from autoseg.runtime import lock
from autoseg.workspace import ModelFolder

DONE = ScanReport(
    name="b", seconds=1.234, result=Path("b.nii.gz"), volumes_ml={"liver": 1520.25, "tumor": 0.0}, agreement=0.91234
)
ODD = replace(DONE, name="a", agreement=math.nan, remarks=('no "liver", really', "nothing was found"))
FAILED = ScanReport(name="c", seconds=0.1, problem="it is empty; replace it")


def rows_of(path: Path) -> list[dict[str, str]]:
    """As any program reads them."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(table: ReportWriter, *reports: ScanReport, model: str = "m") -> None:
    """Adds scans to a table, and ends its run."""
    for report in reports:
        table.add(make_record(report, Case(name=report.name, images=(Path("a.nii.gz"),)), model, ()))
    table.write()


def test_each_scan_has_a_row(tmp_path):
    """By name, whatever their order was, and complete after each; what is not known is empty."""
    table = ReportWriter(tmp_path, ("liver", "tumor"))
    add(table, FAILED)
    assert not list(tmp_path.iterdir())  # nothing was segmented yet
    add(table, DONE)
    assert [row["case"] for row in rows_of(tmp_path / "report.csv")] == ["b", "c"]
    add(table, ODD)
    odd, done, failed = rows_of(tmp_path / "report.csv")
    assert done == {
        "case": "b", "seconds": "1.23", "liver_ml": "1520.25", "tumor_ml": "0", "agreement": "0.9123", "remarks": ""
    }  # fmt: skip
    assert (odd["agreement"], odd["remarks"]) == ("", 'no "liver", really; nothing was found')
    assert (failed["liver_ml"], failed["remarks"]) == ("", "not segmented: it is empty; replace it")


def test_rows_of_all_runs_stay(tmp_path):
    """A scan that is done again replaces its row; structures of other models have columns of their own."""
    path = tmp_path / "report.csv"
    add(ReportWriter(tmp_path, ("liver", "tumor")), DONE)
    add(ReportWriter(tmp_path, ("liver", "tumor")), ODD, replace(DONE, seconds=9.0))
    assert [(row["case"], row["seconds"]) for row in rows_of(path)] == [("a", "1.23"), ("b", "9.00")]
    add(ReportWriter(tmp_path, ("spleen",)), replace(DONE, name="d", volumes_ml={"spleen": 7.0}), model="other")
    rows = rows_of(path)
    assert list(rows[0]) == ["case", "seconds", "spleen_ml", "liver_ml", "tumor_ml", "agreement", "remarks", "model"]
    assert [(row["case"], row["liver_ml"], row["spleen_ml"], row["model"]) for row in rows] == [
        ("a", "1520.25", "", "m"), ("b", "1520.25", "", "m"), ("d", "", "7", "other")
    ]  # fmt: skip


@pytest.mark.parametrize("lost", ["the table", "a row", "the table is no table"])
def test_a_table_is_made_anew_from_the_records(tmp_path, lost):
    """After a kill between a record and its row, or whatever happened to the table: the next run mends it."""
    path = tmp_path / "report.csv"
    add(ReportWriter(tmp_path, ("liver",)), DONE, ODD)
    if lost == "the table":
        path.unlink()
    elif lost == "a row":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    else:
        path.write_bytes(b"\xff\x00 no table")
    add(ReportWriter(tmp_path, ("liver",)))
    assert [row["case"] for row in rows_of(path)] == ["a", "b"]


def test_rows_of_tables_without_records_stay(tmp_path):
    """Those of earlier versions, which wrote a table for each part as well, and columns that somebody added."""
    (tmp_path / "report.csv").write_text("case,seconds,liver_ml,agreement,remarks,seen by\nx,1.00,5,,,Dr. No\n")
    (tmp_path / "report_2_of_4.csv").write_text("case,seconds,liver_ml,agreement,remarks\ny,1.00,6,,\n")
    add(ReportWriter(tmp_path, ("liver",)), DONE)
    rows = rows_of(tmp_path / "report.csv")
    assert [(row["case"], row["liver_ml"], row["seen by"]) for row in rows] == [
        ("b", "1520.25", ""), ("x", "5", "Dr. No"), ("y", "6", "")
    ]  # fmt: skip


def test_runs_at_the_same_time_lose_no_row(tmp_path):
    """Four writers, each with its scans, whose tables are written in between each other."""
    names = [f"{number:03d}" for number in range(80)]

    def work(part: int) -> None:
        table = ReportWriter(tmp_path, ("liver",))
        add(table, *(replace(DONE, name=name) for name in names[part::4]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert [row["case"] for row in rows_of(tmp_path / "report.csv")] == names


def test_no_run_writes_an_older_table_over_a_newer_one(tmp_path, monkeypatch):
    """While a run writes its last table, others finish scan after scan and write their last ones too."""
    first, write_rows = ReportWriter(tmp_path, ("liver",)), ReportWriter._write_rows
    later = []

    def write_slowly(table: ReportWriter) -> None:
        if table is first:
            other = replace(DONE, name=f"other_{len(later)}")
            later.append(pool.submit(add, ReportWriter(tmp_path, ("liver",)), other))
            wait(later, timeout=0.5)
        write_rows(table)

    with ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(ReportWriter, "_write_rows", write_slowly)
        add(first, DONE)
    for future in later:
        future.result()
    assert [row["case"] for row in rows_of(tmp_path / "report.csv")] == [
        "b",
        *(f"other_{i}" for i in range(len(later))),
    ]


@pytest.mark.parametrize("changed", [False, True])
def test_a_halted_run_keeps_no_other_from_its_table(tmp_path, monkeypatch, changed):
    """The table is then written as often as records were changed meanwhile."""
    monkeypatch.setattr(lock, "CHANGE_SECONDS", 0.1)
    table, write_rows, other = ReportWriter(tmp_path, ("liver",)), ReportWriter._write_rows, replace(DONE, name="other")
    add(table, DONE)
    record = make_record(other, Case(name="other", images=(Path("a.nii.gz"),)), "m", ())

    def write_late(table: ReportWriter) -> None:
        write_rows(table)
        if changed and ScanRecords(tmp_path).load("other") is None:
            ScanRecords(tmp_path).save(record)

    (tmp_path / "report.csv").unlink()
    monkeypatch.setattr(ReportWriter, "_write_rows", write_late)
    with ScanRecords(tmp_path).written_alone():
        table.write()
    assert [row["case"] for row in rows_of(tmp_path / "report.csv")] == ["b", "other"][: 1 + changed]
    assert not [path for path in (tmp_path / ".report").iterdir() if path.suffix != ".json"]


def test_lines_name_what_deserves_a_look():
    """One for each, twenty at most; none if there is none, and failures have their own."""
    assert describe_remarkable([DONE, FAILED]) == []
    lines = describe_remarkable([ODD, DONE, FAILED])
    assert lines == ["1 of 2 scans deserves a look:", '  a: no "liver", really; nothing was found']
    lines = describe_remarkable([replace(ODD, name=str(number)) for number in range(52)])
    assert lines[0] == "52 of 52 scans deserve a look:"
    assert len(lines) == 22
    assert lines[-1] == "  and 32 more, which report.csv names"


def test_a_folder_of_scans_gets_its_table(trained_volumes, tmp_path):
    """A usual scan, and one that lies in another way and is a thousand times as bright: segmented, and named."""
    [path] = (folders_of(trained_volumes).raw / "imagesTs").iterdir()
    image = read_image((path,))
    write_image(tmp_path / "scans" / "usual_0000.nii.gz", image)
    turned = image.reoriented("LAS")
    write_image(tmp_path / "scans" / "odd_0000.nii.gz", replace(turned, array=1000 * turned.array))
    listener = Listener()
    options = {"number": NUMBER, "workspace": trained_volumes, "device": "cpu", "reporter": listener}
    written = predict(tmp_path / "scans", tmp_path / "masks", disagreement=True, **options)
    assert len(written) == 2
    assert listener.lines[-2] == "1 of 2 scans deserves a look:"
    assert "its axes lead LAS, those of training SPL" in listener.lines[-1]
    assert "width of the intensities" in listener.lines[-1]

    odd, usual = rows_of(tmp_path / "masks" / "report.csv")
    label = read_label_map(tmp_path / "masks" / "usual.nii.gz")
    voxel_ml = float(np.prod(label.geometry.spacing_mm)) / 1000
    assert float(usual["bright_ml"]) == pytest.approx(int((label.array == 1).sum()) * voxel_ml, rel=1e-4)
    assert usual["bright_ml"] == odd["bright_ml"]
    assert 0.3 < float(usual["agreement"]) <= 1
    assert usual["remarks"] == ""

    maps = [read_label_map(tmp_path / "masks" / "disagreement" / f"{name}.nii.gz") for name in ("usual", "odd")]
    assert 0 < maps[0].array.max() <= 255
    assert maps[1].geometry.difference(turned.geometry) is None
    np.testing.assert_allclose(maps[1].reoriented("SPL").array, maps[0].array, atol=20)  # scaled, rounded otherwise
    assert set(pair_label_maps(tmp_path / "masks", tmp_path / "masks").pairs) == {"odd", "usual"}

    listener.lines.clear()
    assert predict(tmp_path / "scans", tmp_path / "masks", disagreement=True, resume=True, **options) == []
    (tmp_path / "masks" / "disagreement" / "odd.nii.gz").unlink()
    assert len(predict(tmp_path / "scans", tmp_path / "masks", disagreement=True, resume=True, **options)) == 1
    assert len(rows_of(tmp_path / "masks" / "report.csv")) == 2
    assert len(predict(tmp_path / "scans", tmp_path / "other", **options)) == 2
    assert not (tmp_path / "other" / "disagreement").exists()


def test_one_opinion_cannot_disagree(tmp_path):
    """One fold without mirroring: refused before anything is read, with what to do."""
    from autoseg.inference.model import load_model

    save_checkpoint(small_checkpoint(), ModelFolder(path=tmp_path).checkpoint(0))
    segmenter = load_model(tmp_path, device="cpu").segmenter
    assert segmenter.info == SMALL_INFO
    asked = ask_for_disagreement(segmenter)
    assert asked.maps_disagreement
    assert find_waiting(asked, [Case(name="a", images=(tmp_path / "a.nii.gz",))], tmp_path, {"a": {}}).scans
    alone = replace(segmenter, predictor=segmenter.predictor.predictor)
    with pytest.raises(UsageError, match="one fold without mirroring has nothing to disagree with; predict with sev"):
        ask_for_disagreement(alone)
