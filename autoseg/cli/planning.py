"""The commands that look at a dataset, decide and prepare, as functions of their options; see `commands`."""

from typing import Any, cast

from autoseg.cli.options import (
    Configurations,
    DatasetNumber,
    Explain,
    Groups,
    Memory,
    Network,
    PlanName,
    Preset,
    Rules,
    Skip,
    SplitsFile,
    WorkspacePath,
)


def fingerprint(number: DatasetNumber, skip: Skip = None, workspace: WorkspacePath = None) -> None:
    """Looks at a dataset: checks every case and measures it.

    Writes fingerprint.json. Run it again after a stop and it goes on.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.inspection import extract_fingerprint
    from autoseg.workspace import find_workspace

    facts = extract_fingerprint(number, skip=skip or (), workspace=workspace, reporter=Terminal())
    console.print(f"{len(facts.cases)} cases measured: {find_workspace(workspace).dataset(number).fingerprint}")


def plan(
    number: DatasetNumber,
    memory: Memory = None,
    preset: Preset = None,
    rules: Rules = "autoseg",
    network: Network = None,
    plan_name: PlanName = None,
    explain: Explain = False,
    workspace: WorkspacePath = None,
) -> None:
    """Decides how to segment a dataset.

    Needs dataset.json and a fingerprint, this program's or nnU-Net's, but no images. Writes plan.json, made to be read
    and edited.
    """
    from autoseg.cli.terminal import Terminal, console, print_plan
    from autoseg.decisions import plan_configurations
    from autoseg.workspace import find_workspace

    made = plan_configurations(
        number,
        memory=memory,
        preset=cast("Any", preset),
        rules=cast("Any", rules),
        network=network,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    path = find_workspace(workspace).dataset(number, plan_name).plan
    print_plan(made, explain=explain)
    console.print(f"plan: {path}")


def plan_and_preprocess(
    number: DatasetNumber,
    configurations: Configurations = None,
    memory: Memory = None,
    preset: Preset = None,
    rules: Rules = "autoseg",
    network: Network = None,
    plan_name: PlanName = None,
    explain: Explain = False,
    groups: Groups = None,
    splits: SplitsFile = None,
    skip: Skip = None,
    workspace: WorkspacePath = None,
) -> None:
    """Looks at a dataset, decides how to segment it, and prepares it.

    Writes fingerprint.json, plan.json (made to be read and edited), splits.json and the preprocessed cases.
    """
    from autoseg.cli.terminal import Terminal, console, print_plan
    from autoseg.pipeline import plan_and_preprocess

    made = plan_and_preprocess(
        number,
        configurations=cast("Any", configurations),
        memory=memory,
        preset=cast("Any", preset),
        rules=cast("Any", rules),
        network=network,
        plan_name=plan_name,
        groups=groups,
        splits=splits,
        skip=skip or (),
        workspace=workspace,
        reporter=Terminal(),
    )
    print_plan(made, explain=explain)
    names = " or ".join(dict.fromkeys(configurations or made.trainable))
    named = "" if plan_name is None else f" --plan {plan_name}"
    console.print(f"ready; next: autoseg train -d {number} -c CONFIGURATION -f 0{named}   ({names})")


def preprocess(
    number: DatasetNumber,
    configurations: Configurations = None,
    plan_name: PlanName = None,
    groups: Groups = None,
    splits: SplitsFile = None,
    workspace: WorkspacePath = None,
) -> None:
    """Prepares the data by plan.json, after it was edited."""
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import preprocess

    preprocess(
        number,
        configurations=cast("Any", configurations),
        plan_name=plan_name,
        groups=groups,
        splits=splits,
        workspace=workspace,
        reporter=Terminal(),
    )
