"""Pages to look at in a browser."""

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from autoseg.datasets.dataset import Dataset
from autoseg.dicom.search import unpacked
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import check_configuration_names
from autoseg.report.data_report import examine_dataset, make_data_viewer, render_data_report
from autoseg.report.page import check_page, write_page
from autoseg.report.predictions import find_predictions, open_predictions
from autoseg.report.scan_report import examine_scans, make_scan_viewer, render_scan_report
from autoseg.report.served import serve_page
from autoseg.report.viewed_cases import view_dataset
from autoseg.report.viewer import ViewedCase
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

FilePath = str | os.PathLike[str]

SCANS_PAGE = "report.html"
"""Name of the page in a folder of masks."""


def report_data(
    number: int,
    output: FilePath | None = None,
    *,
    plan: str | None = None,
    skip: Sequence[str] = (),
    serve: bool = False,
    port: int = 0,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Writes a page that shows a dataset: every case, what stands out, what occurs twice, and the reasons of the plan.

    Bad cases are listed with what to do, and end nothing. Each case is read once, and those whose volumes are copied
    into the page for the viewer once more.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        output: The page, which ends in ".html"; by default data.html in the preprocessed folder of the dataset.
        plan: Name of the plan whose reasons are shown, if it has one.
        skip: Names of cases to leave out.
        serve: Whether to serve the page on this machine with all volumes at full resolution, until Ctrl-C is pressed.
        port: Where to serve it, on 127.0.0.1; 0 for any port that is free.
        workspace: See `import_dataset`.
        reporter: Shows progress, and is told the address.

    Returns:
        The page. It is a single file that needs no network.

    Raises:
        DatasetError: There is no such dataset, its dataset.json is wrong, or there is no such case to skip.
        UsageError: `output` is a folder, or does not end in ".html"; or the port cannot be used.
        ArtifactError: The page cannot be written, or plan.json is damaged.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> autoseg.report_data(1, workspace="work").name
        'data.html'
    """
    _check_port(port, serve=serve)
    folders = find_workspace(workspace).dataset(number, plan)
    page = folders.data_report if output is None else check_page(as_path(output, "output"))
    dataset = Dataset.open(folders.raw).without(skip)
    saved_plan = Plan.load(folders.plan) if folders.plan.is_file() else None
    if plan is not None and saved_plan is None:
        raise UsageError(f"there is no plan {plan!r}", "leave it out, or make it with 'autoseg plan'")
    report = examine_dataset(dataset, reporter)
    viewed = view_dataset(dataset, {case.name for case in report.cases if case.facts is not None})
    viewer = make_data_viewer(viewed, dataset.info, report, reporter)
    command = f"autoseg report data -d {number} --serve"
    write_page(page, render_data_report(dataset, report, saved_plan, viewer, command))
    if serve:
        _serve(page, viewed, port, reporter)
    return page


def report_model(
    number: int,
    output: FilePath | None = None,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan: str | None = None,
    serve: bool = False,
    port: int = 0,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Writes a page that shows how trained configurations learned, how good they are, and where they fail.

    It may be written at any time: of a fold that is being trained it has the curves so far, and of folds that are
    validated each held-out case. Scans that cannot be read are listed, and end nothing.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        output: The page, which ends in ".html"; by default model.html in the results of the dataset.
        configurations: Configurations to show; by default all of which a fold was begun, of all plans.
        plan: Name of a plan beside the usual one, of which alone the configurations are shown.
        serve: Whether to serve the page on this machine with all volumes at full resolution, until Ctrl-C is pressed.
        port: Where to serve it, on 127.0.0.1; 0 for any port that is free.
        workspace: See `import_dataset`.
        reporter: Shows progress, and is told the address.

    Returns:
        The page. It is a single file that needs no network.

    Raises:
        DatasetError: There is no such dataset, or its dataset.json is wrong.
        UsageError: Nothing is trained yet of what is meant; `output` is a folder, or does not end in ".html"; or the
            port cannot be used.
        ArtifactError: The page cannot be written, or a file of the results is damaged.

    Example:
        After a fold was trained::

            page = autoseg.report_model(4)
    """
    from autoseg.report.model_report import examine_model, make_model_viewer, render_model_report
    from autoseg.report.model_runs import find_runs, load_best
    from autoseg.report.viewed_held_out import view_held_out

    check_configuration_names(configurations)
    _check_port(port, serve=serve)
    folders = find_workspace(workspace).dataset(number, plan)
    page = folders.model_report if output is None else check_page(as_path(output, "output"))
    dataset = Dataset.open(folders.raw)
    runs = find_runs(folders, dataset.info, configurations, number=number)
    report = examine_model(dataset, runs, load_best(folders), reporter)
    viewed = view_held_out(dataset, runs, report.cases)
    viewer = make_model_viewer(viewed, dataset.info, report, reporter)
    command = f"autoseg report model -d {number} --serve"
    write_page(page, render_model_report(dataset.name, dataset.info, report, viewer, command))
    if serve:
        _serve(page, viewed, port, reporter)
    return page


def report_scans(
    masks: FilePath,
    output: FilePath | None = None,
    *,
    images: FilePath | None = None,
    serve: bool = False,
    port: int = 0,
    reporter: Reporter = SILENT,
) -> Path:
    """Writes a page that shows what `predict` made of a folder of scans, those that deserve a look first at the top.

    It has the volumes, remarks and agreement of report.csv, and a picture of each scan with its mask. Scans without a
    usable mask come first, then those with a remark, then those unlike the other scans; each from the lowest agreement
    on. What cannot be read is listed, and ends nothing.

    Args:
        masks: Folder that `predict` wrote.
        output: The page, which ends in ".html"; by default report.html in `masks`.
        images: Folder of the scans, or a zip file of DICOM files; by default they are where `predict` found them.
        serve: Whether to serve the page on this machine with all volumes at full resolution, until Ctrl-C is pressed.
        port: Where to serve it, on 127.0.0.1; 0 for any port that is free.
        reporter: Shows progress, and is told the address.

    Returns:
        The page. It is a single file that needs no network.

    Raises:
        DatasetError: `masks` is missing or was not written by `predict`, or `images` holds no scans.
        UsageError: `output` is a folder, or does not end in ".html"; or the port cannot be used.
        ArtifactError: The page cannot be written, or prediction.json is damaged.

    Example:
        After ``autoseg.predict("scans", "masks", number=4)``::

            autoseg.report_scans("masks")
    """
    _check_port(port, serve=serve)
    folder = as_path(masks, "masks")
    page = folder / SCANS_PAGE if output is None else check_page(as_path(output, "output"))
    info = open_predictions(folder)
    source = None if images is None else as_path(images, "images")
    with nullcontext() if source is None else unpacked(source) as opened:
        report = examine_scans(folder, find_predictions(folder, info, opened), info, reporter)
        viewer = make_scan_viewer(report, info, reporter)
        command = f"autoseg report scans {shlex.quote(str(folder))} --serve"
        write_page(page, render_scan_report(folder.resolve().name, info, report, viewer, command))
        if serve:
            _serve(page, report.viewed, port, reporter)
    return page


def _check_port(port: int, *, serve: bool) -> None:
    if port and not serve:
        raise UsageError(f"port {port} is where the page would be served", "add --serve, or leave --port out")


def _serve(page: Path, viewed: Sequence[ViewedCase], port: int, reporter: Reporter) -> None:
    def announce(address: str) -> None:
        reporter.say(f"open {address} in a browser on this machine; Ctrl-C ends it")

    serve_page(page, viewed, port=port, announce=announce)
