"""The command that does everything: from scans and masks to a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.jobs import Where
from autoseg.cli.options import (
    Budget,
    ChannelsOption,
    DatasetNumber,
    Device,
    Epochs,
    Gpus,
    Groups,
    Link,
    MaskGeometry,
    MasksFolder,
    Memory,
    NewName,
    Preset,
    ResampleTilt,
    SeriesOption,
    Skip,
    SplitsFile,
    WorkspacePath,
)

if TYPE_CHECKING:
    from autoseg.pipeline.run_context import RunOutcome


def run(
    number: DatasetNumber,
    source: Annotated[
        Path | None,
        typer.Argument(help="What to import. [default: what was imported with this number before]", metavar="[SOURCE]"),
    ] = None,
    labels: MasksFolder = None,
    name: NewName = None,
    link: Link = False,
    geometry: MaskGeometry = "own",
    series: SeriesOption = None,
    channels: ChannelsOption = None,
    resample_tilt: ResampleTilt = False,
    skip: Skip = None,
    configurations: Annotated[
        list[str] | None,
        typer.Option(
            "-c",
            "--configuration",
            help="Which to train in all folds. [default: those that are worth it on this machine]",
            metavar="NAME...",
        ),
    ] = None,
    memory: Memory = None,
    preset: Preset = None,
    groups: Groups = None,
    splits: SplitsFile = None,
    epochs: Epochs = None,
    budget: Budget = None,
    device: Device = "auto",
    gpus: Gpus = None,
    where: Where = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes, and do nothing.")
    ] = False,
    workspace: WorkspacePath = None,
) -> None:
    """Does everything: from a folder of scans and masks to a model and its report.

    Imports SOURCE, checks every case, plans, preprocesses, trains all folds and finds the best configuration. What is
    done is not done again, so after Ctrl-C, SIGTERM, a power cut or 'autoseg stop -d NUMBER', the same command goes on,
    or 'autoseg run -d NUMBER' alone: SOURCE and options are remembered. If SOURCE has changed, it says so.

    With --on, the folds are trained as jobs. See 'autoseg guide clusters'. For all other options, use the commands one
    by one; run leaves out what they have done.
    """
    from autoseg.cli.series_table import show_series
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import run

    with show_series():
        outcome = run(
            source,
            number,
            labels=labels,
            name=name,
            link=link,
            geometry=geometry,
            series=series,
            channels=channels or (),
            resample_tilt=resample_tilt,
            skip=skip or (),
            configurations=cast("Any", configurations),
            memory=memory,
            preset=cast("Any", preset),
            groups=groups,
            splits=splits,
            epochs=epochs,
            budget=budget,
            device=device,
            gpus=gpus,
            where=where,
            dry_run=dry_run,
            workspace=workspace,
            reporter=Terminal(),
        )
    _print_outcome(outcome, number, workspace, dry_run=dry_run)


def _print_outcome(outcome: "RunOutcome", number: int, workspace: Path | None, *, dry_run: bool) -> None:
    """Prints what would be done; or where the model and its reports are, and what comes next."""
    from autoseg.cli.terminal import console

    place = "" if workspace is None else f" -w {workspace}"
    if dry_run:
        for name, text in outcome.steps:
            console.print(f"{name}: {text}")
        return
    for job in outcome.submitted:
        console.print(f"job {job.job_id}: {job.name}")
    if outcome.submitted:
        console.print(f"{len(outcome.submitted)} submitted; autoseg status -d {number}{place} shows them")
        return
    for page in outcome.reports:
        console.print(f"report: {page}")
    console.print(f"model: {outcome.model}")
    console.print(f"segment new scans: autoseg predict -d {number} -i SCANS -o MASKS{place}")
