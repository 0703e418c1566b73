"""The commands that measure a dataset, plan how to segment it, and prepare its cases."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.jobs import Part, Parts, PrintFor, Where, make_remarks, refuse_with_jobs, start_jobs, wants_jobs
from autoseg.cli.options import (
    Configurations,
    DatasetNumber,
    Explain,
    Groups,
    LeaveOneOut,
    Memory,
    Network,
    Patches,
    PlanName,
    Preset,
    Repeats,
    Rules,
    Skip,
    SplitsFile,
    WorkspacePath,
)


def augmentations(
    number: DatasetNumber,
    configuration: Annotated[
        str, typer.Option("-c", "--configuration", help="2d, 3d_fullres or 3d_lowres; prepared.", metavar="NAME")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, a PNG file.", metavar="FILE")],
    count: Annotated[int, typer.Option("--count", help="How many changed patches.", metavar="NUMBER")] = 24,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Draws patches as training sees them.

    A picture of up to four patches as they are, and beside each what random changes by plan.json may make of it, with
    outlines of the labels.
    """
    from autoseg.cli.terminal import console
    from autoseg.pipeline import draw_augmentations

    path = draw_augmentations(
        number, cast("Any", configuration), output, count=count, plan_name=plan_name, workspace=workspace
    )
    console.print(f"{count} changed patches: {path}")


def fingerprint(number: DatasetNumber, skip: Skip = None, workspace: WorkspacePath = None) -> None:
    """Looks at a dataset: checks every case and measures it.

    Writes fingerprint.json. Run it again after a stop and it goes on.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import extract_fingerprint
    from autoseg.workspace import find_workspace

    fingerprint = extract_fingerprint(number, skip=skip or (), workspace=workspace, reporter=Terminal())
    console.print(f"{len(fingerprint.cases)} cases measured: {find_workspace(workspace).dataset(number).fingerprint}")


def plan(
    number: DatasetNumber,
    memory: Memory = None,
    preset: Preset = None,
    rules: Rules = "autoseg",
    network: Network = None,
    patches: Patches = None,
    plan_name: PlanName = None,
    explain: Explain = False,
    workspace: WorkspacePath = None,
) -> None:
    """Decides how to segment a dataset.

    Needs dataset.json and a fingerprint, this program's or nnU-Net's, but no images. Writes plan.json, made to be read
    and edited.
    """
    from autoseg.cli.terminal import Terminal, console, print_plan
    from autoseg.pipeline import plan_configurations
    from autoseg.workspace import find_workspace

    plan = plan_configurations(
        number,
        memory=memory,
        preset=cast("Any", preset),
        rules=cast("Any", rules),
        network=network,
        patches=cast("Any", patches),
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    path = find_workspace(workspace).dataset(number, plan_name).plan
    print_plan(plan, explain=explain)
    console.print(f"plan: {path}")


def plan_and_preprocess(
    number: DatasetNumber,
    configurations: Configurations = None,
    memory: Memory = None,
    preset: Preset = None,
    rules: Rules = "autoseg",
    network: Network = None,
    patches: Patches = None,
    plan_name: PlanName = None,
    explain: Explain = False,
    groups: Groups = None,
    splits: SplitsFile = None,
    repeats: Repeats = None,
    leave_one_out: LeaveOneOut = False,
    skip: Skip = None,
    workspace: WorkspacePath = None,
) -> None:
    """Looks at a dataset, decides how to segment it, and prepares it.

    Writes fingerprint.json, plan.json (made to be read and edited), splits.json and the preprocessed cases.
    """
    from autoseg.cli.terminal import Terminal, console, print_plan
    from autoseg.pipeline import plan_and_preprocess

    plan = plan_and_preprocess(
        number,
        configurations=cast("Any", configurations),
        memory=memory,
        preset=cast("Any", preset),
        rules=cast("Any", rules),
        network=network,
        patches=cast("Any", patches),
        plan_name=plan_name,
        groups=groups,
        splits=splits,
        repeats=repeats,
        leave_one_out=leave_one_out,
        skip=skip or (),
        workspace=workspace,
        reporter=Terminal(),
    )
    print_plan(plan, explain=explain)
    names = " or ".join(dict.fromkeys(configurations or plan.trainable))
    plan_option = "" if plan_name is None else f" --plan {plan_name}"
    console.print(f"ready; next: autoseg train -d {number} -c CONFIGURATION -f 0{plan_option}   ({names})")


def preprocess(
    number: DatasetNumber,
    configurations: Configurations = None,
    plan_name: PlanName = None,
    groups: Groups = None,
    splits: SplitsFile = None,
    repeats: Repeats = None,
    leave_one_out: LeaveOneOut = False,
    part: Part = None,
    parts: Parts = None,
    where: Where = None,
    print_for: PrintFor = None,
    workspace: WorkspacePath = None,
) -> None:
    """Prepares the data by plan.json, after it was edited.

    With --on, an array of jobs shares the work on thousands of cases. See 'autoseg guide clusters'.
    """
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import preprocess

    if wants_jobs(where, print_for, {"--parts": parts}):
        from autoseg.pipeline import make_preprocessing_jobs

        refuse_with_jobs({"--part": part})
        graph = make_preprocessing_jobs(
            number,
            parts,
            configurations=cast("Any", configurations),
            plan_name=plan_name,
            groups=groups,
            splits=splits,
            repeats=repeats,
            leave_one_out=leave_one_out,
            workspace=workspace,
            reporter=make_remarks(print_for),
        )
        start_jobs(graph, where, print_for, device="cpu", workspace=workspace, hint=f"autoseg status -d {number}")
        return
    preprocess(
        number,
        configurations=cast("Any", configurations),
        plan_name=plan_name,
        groups=groups,
        splits=splits,
        repeats=repeats,
        leave_one_out=leave_one_out,
        part=part,
        workspace=workspace,
        reporter=Terminal(),
    )
