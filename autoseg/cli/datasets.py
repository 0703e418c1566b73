"""The command that lists the networks of the literature."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.command import EXIT_ERROR
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

if TYPE_CHECKING:
    from autoseg.networks.spec import NetworkSpec


def import_dataset(
    source: Annotated[
        Path, typer.Argument(help="A Decathlon or nnU-Net folder, or a folder of images.", metavar="SOURCE")
    ],
    number: DatasetNumber,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Folder of masks, if SOURCE holds images only.", metavar="FOLDER")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name for the dataset. [default: as SOURCE says]", metavar="NAME")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Copy nothing: the new dataset.json says where the files are.")
    ] = False,
    workspace: WorkspacePath = None,
) -> None:
    """Brings a dataset into the workspace.

    With -d 4 it becomes raw/Dataset004_Name: images as CASE_0000.nii.gz in imagesTr, masks as CASE.nii.gz in labelsTr.
    SOURCE is left as it is.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.importing.sources import import_dataset
    from autoseg.workspace import find_workspace

    origin = source if labels is None else (source, labels)
    dataset = import_dataset(
        origin, workspace=find_workspace(workspace), number=number, name=name, link=link, reporter=Terminal()
    )
    console.print(f"{dataset.folder}: {len(dataset.cases)} cases")
    for problem in dataset.problems:
        console.print(f"left out: {problem}")


def check(number: DatasetNumber, skip: Skip = None, workspace: WorkspacePath = None) -> None:
    """Lists all that is wrong with a dataset."""
    from autoseg.cli.terminal import Terminal, console, print_table
    from autoseg.datasets.dataset import Dataset
    from autoseg.datasets.integrity import check_dataset
    from autoseg.workspace import find_workspace

    dataset = Dataset.open(find_workspace(workspace).dataset(number).raw).without(skip or ())
    problems = check_dataset(dataset, Terminal())
    for remark in dataset.remarks:
        console.print(f"{dataset.name}: {remark}")
    if not problems:
        console.print(f"{dataset.name}: {len(dataset.cases)} cases, all sound")
        return
    rows = [(problem.case or "–", problem.what, problem.fix) for problem in problems]  # noqa: RUF001
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    print_table(f"{dataset.name}: {count}", ("case", "problem", "what to do"), rows)
    raise typer.Exit(EXIT_ERROR)


USUAL_CHANNELS, USUAL_OUTPUTS = 1, 2

OptionalDataset = Annotated[
    int | None,
    typer.Option(
        "-d",
        "--dataset",
        min=1,
        max=999,
        help="Count the weights for the channels and labels of this dataset. [default: 1 channel, 2 classes]",
        metavar="NUMBER",
    ),
]


def networks(number: OptionalDataset = None, workspace: WorkspacePath = None) -> None:
    """Lists the networks of the literature, for plan --network."""
    from autoseg.cli.terminal import console, print_table
    from autoseg.datasets.info import DatasetInfo
    from autoseg.networks.literature.table import NETWORKS
    from autoseg.networks.monai import INSTALL
    from autoseg.networks.monai_table import TABLE
    from autoseg.workspace import find_workspace

    channels, outputs, what = USUAL_CHANNELS, USUAL_OUTPUTS, "1 channel and 2 classes"
    if number is not None:
        raw = find_workspace(workspace).dataset(number).raw
        info = DatasetInfo.load(raw / "dataset.json")
        channels, outputs, what = info.channels, info.targets.outputs, raw.name
    rows = [
        [name, *row, spec.describe_constraints(spec.complete({}))]
        for name, spec in NETWORKS.items()
        for row in _count(spec, channels, outputs)
    ]
    columns = ["network", "images", "weights", "patches"]
    print_table(f"networks of the literature; weights for {what}", columns, rows)
    for name, spec in NETWORKS.items():
        console.print(f"{name}: {spec.title}, {spec.summary}. {spec.source}; {spec.licence}.", highlight=False)
    monai = f"monai:NAME takes a network of MONAI, such as {', '.join(TABLE)} ({INSTALL})"
    console.print(monai, highlight=False, markup=False)
    console.print("choose one: autoseg plan_and_preprocess -d NUMBER --network NAME")


def _count(spec: "NetworkSpec", channels: int, outputs: int) -> Iterator[tuple[str, str]]:
    """The trainable numbers, in 2D and in 3D, or that it cannot look at such images."""
    given = spec.complete({})
    for dimensions in spec.dimensions:
        try:
            architecture = spec.make_architecture(given, dimensions, in_channels=channels, out_channels=outputs)
        except ValueError:
            yield f"{dimensions}D", "too many channels"
            continue
        weights = spec.count(given, architecture, spec.smallest_patch(given, dimensions)).weights
        yield f"{dimensions}D", f"{weights:,}"


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
    from autoseg.pipeline.patch_pictures import draw_augmentations

    path = draw_augmentations(
        number, cast("Any", configuration), output, count=count, plan_name=plan_name, workspace=workspace
    )
    console.print(f"{count} changed patches: {path}")


def fingerprint(number: DatasetNumber, skip: Skip = None, workspace: WorkspacePath = None) -> None:
    """Looks at a dataset: checks every case and measures it.

    Writes fingerprint.json. Run it again after a stop and it goes on.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline.datasets import extract_fingerprint
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
    from autoseg.pipeline.datasets import plan_configurations
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
    from autoseg.pipeline.datasets import plan_and_preprocess

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
    from autoseg.pipeline.datasets import preprocess

    preprocess(
        number,
        configurations=cast("Any", configurations),
        plan_name=plan_name,
        groups=groups,
        splits=splits,
        workspace=workspace,
        reporter=Terminal(),
    )
