"""The command that lists the networks of the literature."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.options import WorkspacePath

if TYPE_CHECKING:
    from autoseg.networks.page import Page

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
    from autoseg.info import DatasetInfo
    from autoseg.networks.monai import INSTALL
    from autoseg.networks.monai_table import TABLE
    from autoseg.networks.table import NETWORKS
    from autoseg.workspace import find_workspace

    channels, outputs, what = USUAL_CHANNELS, USUAL_OUTPUTS, "1 channel and 2 classes"
    if number is not None:
        raw = find_workspace(workspace).dataset(number).raw
        info = DatasetInfo.load(raw / "dataset.json")
        channels, outputs, what = info.channels, info.targets.outputs, raw.name
    rows = [
        [name, *row, page.describe_constraints(page.complete({}))]
        for name, page in NETWORKS.items()
        for row in _count(page, channels, outputs)
    ]
    columns = ["network", "images", "weights", "patches"]
    print_table(f"networks of the literature; weights for {what}", columns, rows)
    for name, page in NETWORKS.items():
        console.print(f"{name}: {page.title}, {page.summary}. {page.source}; {page.licence}.", highlight=False)
    monai = f"monai:NAME takes a network of MONAI, such as {', '.join(TABLE)} ({INSTALL})"
    console.print(monai, highlight=False, markup=False)
    console.print("choose one: autoseg plan_and_preprocess -d NUMBER --network NAME")


def _count(page: "Page", channels: int, outputs: int) -> Iterator[tuple[str, str]]:
    """The trainable numbers, in 2D and in 3D, or that it cannot look at such images."""
    given = page.complete({})
    for dimensions in page.dimensions:
        try:
            architecture = page.outline(given, dimensions, in_channels=channels, out_channels=outputs)
        except ValueError:
            yield f"{dimensions}D", "too many channels"
            continue
        weights = page.count(given, architecture, page.smallest_patch(given, dimensions)).weights
        yield f"{dimensions}D", f"{weights:,}"
