"""The report of a dataset: every case with what stands out, in a page for the browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from autoseg.datasets.dataset import Case, Dataset, Problem
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import Inspection, find_problems, inspect_case
from autoseg.datasets.splitting import group_cases
from autoseg.evaluation.overlay import label_colour
from autoseg.importing.dicom_files import load_tags
from autoseg.planning.plan import Plan
from autoseg.report.acquisition import Tags, count_tags, describe_cases
from autoseg.report.case_measures import CaseMeasures, draw_case, measure_case
from autoseg.report.duplicates import MOST_ALIKE, Duplicate, find_duplicates
from autoseg.report.histograms import Histogram, make_histogram
from autoseg.report.outliers import find_outliers
from autoseg.report.page import render_page
from autoseg.report.segmented_scan import ScanMeasures
from autoseg.report.viewer import ViewedCase, Viewer, make_viewer
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

PICTURE_BYTES = 10 * 2**20
"""Bytes of all pictures of a page. Decision: a page of 15 MB still opens at once and fits into an e-mail."""

MOST_PICTURES = 2000
"""Cases of a page that are drawn. Decision: pictures of the smallest cases fill `PICTURE_BYTES` with about as many; of
20,000 cases the others need not be drawn, nor kept in memory."""

MOST_IN_GALLERY = 200
"""Cases unlike the others that are shown apart. Decision: more of them are looked for in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What a report says about a dataset.

    Attributes:
        cases: Every case, in the order of the dataset; pictures that would make the page too large are empty.
        problems: All that `check` says.
        reasons: What stands out, by the name of the case.
        duplicates: Scans that occur twice.
        tags: How each case was acquired; empty if the dataset did not come as DICOM.
    """

    cases: tuple[CaseMeasures, ...]
    problems: tuple[Problem, ...]
    reasons: Mapping[str, Sequence[str]]
    duplicates: tuple[Duplicate, ...]
    tags: Tags = field(default_factory=dict)


def examine_dataset(dataset: Dataset, reporter: Reporter) -> DataReport:
    """Reads every case once, and finds what deserves a look; bad cases are listed and end nothing.

    If there are more cases than `MOST_PICTURES`, so many are read once more to be drawn, those that stand out first.
    """
    all_drawn = len(dataset.cases) <= MOST_PICTURES

    def work(case: Case) -> tuple[Inspection, CaseMeasures]:
        inspection = inspect_case(case, dataset.info)
        return inspection.without_voxels(), measure_case(inspection, dataset.info, with_picture=all_drawn)

    pairs = results_or_raise(map_in_threads(work, dataset.cases, title="reading cases", reporter=reporter))
    cases = [measures for _, measures in pairs]
    reasons = find_outliers(cases, dataset.info)
    if not all_drawn:
        cases = _draw(dataset, cases, order_cases(cases, reasons)[:MOST_PICTURES], reporter)
    names = [case.name for case in dataset.cases]
    return DataReport(
        cases=tuple(limit_pictures(cases, first=reasons, most_bytes=PICTURE_BYTES)),
        problems=tuple(find_problems(dataset, [inspection for inspection, _ in pairs])),
        reasons=reasons,
        duplicates=tuple(find_duplicates(cases, group_cases(names, dataset.info))),
        tags=load_tags(dataset.folder),
    )


Pictured = TypeVar("Pictured", CaseMeasures, ScanMeasures)


def order_cases(cases: Sequence[Pictured], reasons: Mapping[str, Sequence[str]]) -> list[Pictured]:
    """Returns cases with problems first, then those that stand out, then the others, each in the order of the list."""
    return sorted(cases, key=lambda case: (not case.problems, case.name not in reasons))


def _draw(
    dataset: Dataset, cases: Sequence[CaseMeasures], chosen: Sequence[CaseMeasures], reporter: Reporter
) -> list[CaseMeasures]:
    """Returns all cases, of which some have a picture."""
    names = {case.name for case in chosen}
    drawn = [case for case in dataset.cases if case.name in names]
    pictures = results_or_raise(
        map_in_threads(
            lambda case: draw_case(inspect_case(case, dataset.info), dataset.info),
            drawn,
            title="drawing cases",
            reporter=reporter,
        )
    )
    picture_of = dict(zip((case.name for case in drawn), pictures, strict=True))
    return [replace(case, picture=picture_of.get(case.name, b"")) for case in cases]


def limit_pictures(cases: Sequence[Pictured], *, first: Mapping[str, Sequence[str]], most_bytes: int) -> list[Pictured]:
    """Removes the pictures that would make the page too large; cases with problems, and those in `first`, keep theirs.

    Returns:
        The cases in the same order.
    """
    kept, total = set(), 0
    for case in order_cases(cases, first):
        total += len(case.picture)
        if total > most_bytes:
            break
        kept.add(case.name)
    return [case if case.name in kept else replace(case, picture=b"") for case in cases]


def make_data_viewer(
    viewed: Sequence[ViewedCase], info: DatasetInfo, report: DataReport, reporter: Reporter
) -> Viewer | None:
    """Makes the viewer of a report; cases that stand out get room in the page first."""
    return make_viewer(
        viewed,
        info.targets.structures,
        first=list(report.reasons),
        other_bytes=sum(len(case.picture) for case in report.cases),
        reporter=reporter,
    )


def render_data_report(
    dataset: Dataset, report: DataReport, plan: Plan | None, viewer: Viewer | None, served_by: str
) -> str:
    """Returns the page of a report.

    Args:
        dataset: The dataset.
        report: What was found.
        plan: The plan of the dataset, if there is one: its reasons are shown.
        viewer: Shows the volumes of a case; None if there are none.
        served_by: The command that serves the page with all volumes.
    """
    info = dataset.info
    structures = list(info.targets.structures)
    values: dict[str, Any] = {
        "title": dataset.name,
        "info": info,
        "report": report,
        "structures": [(structure, label_colour(number)) for number, structure in enumerate(structures, start=1)],
        "channels": list(info.channel_names.values()),
        "histograms": list_histograms(report.cases, info),
        "reasons_of_plan": () if plan is None else plan.why,
        "gallery": MOST_IN_GALLERY,
        "most_alike": MOST_ALIKE,
        "tag_rows": count_tags(report.tags),
        "acquisition": describe_cases(report.tags),
        "pictures": sum(bool(case.picture) for case in report.cases),
        "viewer": viewer,
        "served_by": served_by,
    }
    return render_page("data.html", values)


def list_histograms(cases: Sequence[CaseMeasures], info: DatasetInfo) -> list[Histogram]:
    """Counts what the planner looks at: sizes of voxels and cases, intensities, volumes of the structures."""
    facts = [case.facts for case in cases if case.facts is not None]
    rows: list[tuple[str, list[float], str]] = [
        ("smallest voxel side", [min(case.spacing_mm) for case in facts], "mm"),
        ("largest voxel side", [max(case.spacing_mm) for case in facts], "mm"),
        ("voxels along the longest side", [max(case.shape or case.shape_after_crop) for case in facts], ""),
    ]
    for number, channel in enumerate(info.channel_names.values()):
        rows.append((f"largest intensity of {channel}", [case.intensities[number][1] for case in facts], ""))
    for structure in info.targets.structures:
        volumes = [case.structures[structure].volume_ml for case in cases if structure in case.structures]
        rows.append((f"volume of {structure}", volumes, "ml"))
    histograms = [make_histogram(title, values, unit) for title, values, unit in rows]
    return [histogram for histogram in histograms if histogram is not None]
