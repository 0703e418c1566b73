"""The commands that write pages to look at in a browser."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, PlanName, Skip, WorkspacePath

Serve = Annotated[
    bool,
    typer.Option("--serve", help="Serve the page on this machine with all volumes at full resolution, until Ctrl-C."),
]
Port = Annotated[
    int,
    typer.Option(
        "--port", min=0, max=65535, help="Where to serve it, on 127.0.0.1; 0 for any that is free.", metavar="PORT"
    ),
]


def report_data(
    number: DatasetNumber,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page. [default: preprocessed/DATASET/data.html]", metavar="FILE"),
    ] = None,
    plan: PlanName = None,
    skip: Skip = None,
    serve: Serve = False,
    port: Port = 0,
    workspace: WorkspacePath = None,
) -> None:
    """Shows a dataset in a page: every case, what stands out, what occurs twice, and what the planner made of it.

    The page is a single file that needs no network. Cases can be sorted, searched, and opened in a viewer. It says
    which cases are unlike the others and why, which scans occur twice, which labels lie on the wrong side of the body,
    and all that 'autoseg check' finds, with what to do.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import report_data

    page = report_data(
        number,
        output,
        plan=plan,
        skip=skip or (),
        serve=serve,
        port=port,
        workspace=workspace,
        reporter=Terminal(),
    )
    console.print(f"report: {page}")


def report_model(
    number: DatasetNumber,
    configurations: Annotated[
        list[str] | None,
        typer.Option("-c", "--configuration", help="Which to show. [default: all that are trained]", metavar="NAME..."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page. [default: results/DATASET/model.html]", metavar="FILE"),
    ] = None,
    plan: PlanName = None,
    serve: Serve = False,
    port: Port = 0,
    workspace: WorkspacePath = None,
) -> None:
    """Shows trained configurations in a page: how they learned, how good they are, and where they fail.

    The page is a single file that needs no network. It begins with pictures of the worst held-out cases; every case can
    be sorted, searched, and opened in a viewer. Scores come with intervals. It also shows the curves of all folds, what
    was taken for what, what 'autoseg find_best' compared, the reasons of the plan, and the model card.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import report_model

    page = report_model(
        number,
        output,
        configurations=cast("Any", configurations),
        plan=plan,
        serve=serve,
        port=port,
        workspace=workspace,
        reporter=Terminal(),
    )
    console.print(f"report: {page}")


def report_scans(
    masks: Annotated[Path, typer.Argument(help="Folder that 'autoseg predict' wrote.", metavar="MASKS")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page. [default: report.html in MASKS]", metavar="FILE"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of the scans. [default: where 'autoseg predict' found them]", metavar="FOLDER"
        ),
    ] = None,
    serve: Serve = False,
    port: Port = 0,
) -> None:
    """Shows segmented scans in a page, those that deserve a look first at the top.

    The page is a single file that needs no network. It has the volumes, remarks and agreement of report.csv, and a
    picture of each scan with its mask. Scans can be sorted, searched, and opened in a viewer. First come scans without
    a usable mask, then those with a remark, then those unlike the other scans, with the reasons.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import report_scans

    page = report_scans(masks, output, images=images, serve=serve, port=port, reporter=Terminal())
    console.print(f"report: {page}")
