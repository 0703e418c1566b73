"""The report of a folder of segmented scans: volumes, remarks, agreement, and what deserves a look first."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from autoseg.datasets.info import DatasetInfo
from autoseg.evaluation.overlay import label_colour
from autoseg.inference.continuation import PROVENANCE_FILE, PredictionProvenance
from autoseg.report.data_report import PICTURE_BYTES, limit_pictures
from autoseg.report.histograms import Histogram, make_histogram
from autoseg.report.page import render_page
from autoseg.report.predictions import PredictedScan
from autoseg.report.scan_measures import measure_scan, view_scan
from autoseg.report.scan_ranking import RankedScan, Urgency, rank_scans
from autoseg.report.segmented_scan import ScanMeasures
from autoseg.report.viewer import ViewedCase, Viewer, make_viewer
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

MOST_FIRST = 60
"""Scans that are shown in large at the top. Decision: nobody looks at more before he sorts the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What a report says about a folder.

    Attributes:
        scans: Every scan, those that deserve a look first; pictures that would make the page too large are empty.
        unplaced: Number of scans whose image files were not found.
        viewed: The scans that the viewer can show.
        provenance: The model that made the latest masks; None if it is not recorded.
    """

    scans: tuple[RankedScan, ...]
    unplaced: int
    viewed: tuple[ViewedCase, ...]
    provenance: PredictionProvenance | None


def examine_scans(folder: Path, scans: Sequence[PredictedScan], info: DatasetInfo, reporter: Reporter) -> ScanReport:
    """Reads every scan with its mask once, and ranks them; what cannot be read is listed and ends nothing.

    Args:
        folder: The folder of the masks.
        scans: See `find_predictions`.
        info: The structures and channels of the model.
        reporter: Shows progress.

    Raises:
        ArtifactError: prediction.json is damaged.
    """

    def work(scan: PredictedScan) -> ScanMeasures:
        return measure_scan(scan, info.targets)

    measures = results_or_raise(map_in_threads(work, scans, title="reading scans", reporter=reporter))
    ranked = rank_scans(measures, info.targets.names)
    reasons = {entry.scan.name: entry.reasons for entry in ranked if entry.reasons}
    limited = limit_pictures([entry.scan for entry in ranked], first=reasons, most_bytes=PICTURE_BYTES)
    shown = {scan.name for scan in measures if scan.picture}
    channels = tuple(info.channel_names.values())
    path = folder / PROVENANCE_FILE
    return ScanReport(
        scans=tuple(
            RankedScan(scan=scan, rank=entry.rank, urgency=entry.urgency, reasons=entry.reasons)
            for entry, scan in zip(ranked, limited, strict=True)
        ),
        unplaced=sum(scan.case is None and scan.mask is not None for scan in scans),
        viewed=tuple(view_scan(scan, channels, info.targets) for scan in scans if scan.name in shown),
        provenance=PredictionProvenance.load(path) if path.is_file() else None,
    )


def make_scan_viewer(report: ScanReport, info: DatasetInfo, reporter: Reporter) -> Viewer | None:
    """Makes the viewer of a report; scans get room in the page in the order in which they deserve a look."""
    return make_viewer(
        report.viewed,
        info.targets.structures,
        first=[entry.scan.name for entry in report.scans],
        other_bytes=sum(len(entry.scan.picture) for entry in report.scans),
        reporter=reporter,
    )


def render_scan_report(name: str, info: DatasetInfo, report: ScanReport, viewer: Viewer | None, served_by: str) -> str:
    """Returns the page of a report.

    Args:
        name: Name of the folder.
        info: The structures and channels of the model.
        report: What was found.
        viewer: Shows the volumes of a scan; None if there are none.
        served_by: The command that serves the page with all volumes.
    """
    remarkable = [entry for entry in report.scans if entry.reasons]
    values: dict[str, Any] = {
        "title": name,
        "report": report,
        "structures": [
            (structure, label_colour(number)) for number, structure in enumerate(info.targets.names, start=1)
        ],
        "unusable": sum(entry.urgency == Urgency.UNUSABLE for entry in report.scans),
        "remarkable": remarkable,
        "first": remarkable[:MOST_FIRST],
        "agreements": [entry.scan.agreement for entry in report.scans if not isnan(entry.scan.agreement)],
        "histograms": list_histograms([entry.scan for entry in report.scans], info),
        "pictures": sum(bool(entry.scan.picture) for entry in report.scans),
        "viewer": viewer,
        "served_by": served_by,
    }
    return render_page("scans.html", values)


def list_histograms(scans: Sequence[ScanMeasures], info: DatasetInfo) -> list[Histogram]:
    """Counts agreement and the volumes of the structures; scans without a structure do not count for it."""
    rows = [("agreement of folds and mirror images", [scan.agreement for scan in scans], "")]
    for structure in info.targets.names:
        volumes = [scan.volumes_ml.get(structure, 0.0) for scan in scans]
        rows.append((f"volume of {structure}", [volume for volume in volumes if volume > 0], "ml"))
    histograms = [make_histogram(title, numbers, unit) for title, numbers, unit in rows]
    return [histogram for histogram in histograms if histogram is not None]
