"""Watching: the report of trained configurations in a browser of this machine, while they are being trained."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoseg.datasets.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import check_configuration_names
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import DatasetFolders, find_workspace

FilePath = str | os.PathLike[str]


def watch(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan: str | None = None,
    port: int = 0,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> None:
    """Serves the page of `report_model` on this machine until Ctrl-C is pressed, and keeps it up to date.

    The page shows the state of each fold and job, and changes with each epoch, each fold that is validated, and the
    choice of the best. Folds may be trained anywhere, on this machine or on others that share the workspace: only files
    are read. Nothing is calculated unless a browser has the page open.

    Args:
        number: Number of the dataset.
        configurations: Configurations to show; by default all.
        plan: Name of a plan beside the usual one, of which alone the configurations are shown.
        port: Where to listen on 127.0.0.1; 0 for any port that is free.
        workspace: See `import_dataset`.
        reporter: Is given the address for the browser.

    Raises:
        DatasetError: There is no such dataset, or its dataset.json is wrong.
        UsageError: There is no such configuration, or the port cannot be used.

    Example:
        While folds are trained elsewhere::

            autoseg.watch(4, reporter=Terminal())
    """
    from autoseg.report.held_out import CaseKey, ExaminedCase
    from autoseg.report.live import LivePage, serve_live
    from autoseg.report.model_report import examine_model, render_model_report
    from autoseg.report.model_runs import find_runs, load_best

    check_configuration_names(configurations)
    folders = find_workspace(workspace).dataset(number, plan)
    dataset = Dataset.open(folders.raw)
    known: dict[CaseKey, ExaminedCase] = {}

    def make_page() -> str | None:
        try:
            runs = find_runs(folders, dataset.info, configurations, number=number)
        except UsageError:
            return None
        report = examine_model(dataset, runs, load_best(folders), SILENT, known)
        return render_model_report(dataset.name, dataset.info, report)

    def list_states() -> list[tuple[str, str, str, str]]:
        from autoseg.pipeline import status

        states = status(number, plan_name=plan, workspace=workspace)
        return [(state.name, state.state, state.where, state.detail) for state in states]

    page = LivePage(f"{dataset.name}: model", make_page, list_states, lambda: _list_files(folders))

    def announce(address: str) -> None:
        reporter.say(f"open {address} in a browser on this machine; Ctrl-C ends it")

    serve_live(page, port=port, announce=announce)


def _list_files(folders: DatasetFolders) -> Iterator[Path]:
    """Yields the files whose changes the page shows, of all plans."""
    yield from folders.results.glob("**/fold_*/progress.jsonl")
    yield from folders.results.glob("**/fold_*/validation/summary.json")
    yield from folders.results.glob("**/best.json")
