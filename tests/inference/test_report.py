"""The table of a folder of scans, and the lines about those that deserve a look."""

import csv
import math
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
from autoseg.inference.folder import ask_for_disagreement, leave_out_finished
from autoseg.inference.report import ReportWriter, describe_remarkable, name_table
from autoseg.inference.scan_pipeline import ScanReport
from autoseg.models.checkpoint import save_checkpoint
from autoseg.pipeline.prediction import predict
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


def test_each_scan_has_a_row(tmp_path):
    """By name, whatever their order was, and complete after each; what is not known is empty."""
    table = ReportWriter(tmp_path / "report.csv", ("liver", "tumor"), keep=True)
    table.add(FAILED)
    assert not list(tmp_path.iterdir())  # nothing was segmented yet
    table.add(DONE)
    assert [row["case"] for row in rows_of(tmp_path / "report.csv")] == ["b", "c"]
    table.add(ODD)
    odd, done, failed = rows_of(tmp_path / "report.csv")
    assert done == {
        "case": "b", "seconds": "1.23", "liver_ml": "1520.25", "tumor_ml": "0", "agreement": "0.9123", "remarks": ""
    }  # fmt: skip
    assert (odd["agreement"], odd["remarks"]) == ("", 'no "liver", really; nothing was found')
    assert (failed["liver_ml"], failed["remarks"]) == ("", "not segmented: it is empty; replace it")


def test_rows_of_a_former_run_stay_if_they_are_of_this_model(tmp_path):
    """A scan that is done again replaces its row; a table of other structures, or none, is begun anew."""
    path = tmp_path / "report.csv"
    ReportWriter(path, ("liver", "tumor"), keep=False).add(DONE)
    again = ReportWriter(path, ("liver", "tumor"), keep=True)
    again.add(ODD)
    again.add(replace(DONE, seconds=9.0))
    assert [(row["case"], row["seconds"]) for row in rows_of(path)] == [("a", "1.23"), ("b", "9.00")]
    ReportWriter(path, ("liver", "tumor"), keep=False).add(ODD)
    assert [row["case"] for row in rows_of(path)] == ["a"]
    ReportWriter(path, ("spleen",), keep=True).add(DONE)
    assert [row["case"] for row in rows_of(path)] == ["b"]
    path.write_bytes(b"\xff\x00 no table")
    ReportWriter(path, ("spleen",), keep=True).add(ODD)
    assert [row["case"] for row in rows_of(path)] == ["a"]


def test_lines_name_what_deserves_a_look():
    """One for each, twenty at most; none if there is none, and failures have their own."""
    assert describe_remarkable([DONE, FAILED], "report.csv") == []
    lines = describe_remarkable([ODD, DONE, FAILED], "report.csv")
    assert lines == ["1 of 2 scans deserves a look:", '  a: no "liver", really; nothing was found']
    lines = describe_remarkable([replace(ODD, name=str(number)) for number in range(52)], "report.csv")
    assert lines[0] == "52 of 52 scans deserve a look:"
    assert len(lines) == 22
    assert lines[-1] == "  and 32 more, which report.csv names"


def test_machines_that_share_a_folder_have_a_table_each():
    """They would write over each other's."""
    assert [name_table(part) for part in (None, "2/4")] == ["report.csv", "report_2_of_4.csv"]


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
    assert leave_out_finished(asked, [Case(name="a", images=(tmp_path / "a.nii.gz",))], tmp_path, {})
    alone = replace(segmenter, predictor=segmenter.predictor.predictor)
    with pytest.raises(UsageError, match="one fold without mirroring has nothing to disagree with; predict with sev"):
        ask_for_disagreement(alone)
