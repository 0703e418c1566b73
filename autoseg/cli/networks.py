"""The command that lists the networks of the literature."""

from typing import Annotated

import typer

from autoseg.cli.options import WorkspacePath

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
    from autoseg.networks.monai import INSTALL
    from autoseg.networks.monai_table import TABLE
    from autoseg.pipeline import list_networks
    from autoseg.workspace import find_workspace

    listed = list_networks(number, workspace=workspace)
    counted_for = "1 channel and 2 classes" if number is None else find_workspace(workspace).dataset(number).raw.name
    rows = [
        [network.name, f"{axes}D", "too many channels" if count is None else f"{count:,}", network.patches]
        for network in listed
        for axes, count in network.weights.items()
    ]
    columns = ["network", "images", "weights", "patches"]
    print_table(f"networks of the literature; weights for {counted_for}", columns, rows)
    for network in listed:
        line = f"{network.name}: {network.title}, {network.summary}. {network.source}; {network.licence}."
        console.print(line, highlight=False)
    monai = f"monai:NAME takes a network of MONAI, such as {', '.join(TABLE)} ({INSTALL})"
    console.print(monai, highlight=False, markup=False)
    console.print("choose one: autoseg plan_and_preprocess -d NUMBER --network NAME")
