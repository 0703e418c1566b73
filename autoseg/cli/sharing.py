"""The commands that pass models on, and take models from and to nnU-Net."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.options import (
    Device,
    PlanName,
    SplitsFile,
    TrainedConfiguration,
    TrainedDataset,
    TrainedFolds,
    WorkspacePath,
    parse_folds,
)
from autoseg.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The bundle, named .zip; for nnU-Net a new folder.", metavar="PATH")
    ],
    model: Annotated[
        Path | None, typer.Argument(help="A model folder, or an installed model, instead of -d.", metavar="MODEL")
    ] = None,
    number: TrainedDataset = None,
    configuration: TrainedConfiguration = None,
    folds: TrainedFolds = None,
    licence: Annotated[
        str, typer.Option("--licence", help="For the card: under which others may use it.", metavar="TEXT")
    ] = "",
    about: Annotated[
        str, typer.Option("--about", help="For the card: authors, paper, what it is for.", metavar="TEXT")
    ] = "",
    form: Annotated[
        str,
        typer.Option(
            "--format", help="autoseg, or nnunet: a folder that nnU-Net v2 predicts with.", metavar="autoseg|nnunet"
        ),
    ] = "autoseg",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="What predicts with it: torch; or onnx, for ONNX Runtime and OpenVINO, without torch.",
            metavar="torch|onnx",
        ),
    ] = "torch",
    measure_quality: Annotated[
        bool,
        typer.Option(
            "--measure-quality",
            help="First measure on held-out cases what 'predict --quality' fast and balanced cost, for the card.",
        ),
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="For --measure-quality: auto, cpu, cuda or mps.", metavar="DEVICE")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="With --runtime onnx: float32, or int8: faster and smaller, judged on held-out cases.",
            metavar="float32|int8",
        ),
    ] = "float32",
    largest_dice_loss: Annotated[
        float | None,
        typer.Option(
            "--largest-dice-loss",
            help="What int8 may cost a label on the held-out cases of a fold. [default: 0.002]",
            metavar="DICE",
        ),
    ] = None,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Packs a trained model into one file for others.

    It holds weights, plan, labels, postprocessing, mean scores and a card, MODEL_CARD.md, that explains it; no names of
    cases, no pictures, and nothing that training would need to go on.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.models.bundle import describe_bundle
    from autoseg.pipeline import export_model
    from autoseg.runtime.units import describe_memory

    if (model is None) == (number is None):
        raise UsageError("a model is named by its folder or by its dataset", "give either a folder or -d NUMBER")
    source = cast("Any", number if model is None else model)
    selection: dict[str, Any] = {
        "configuration": configuration,
        "folds": parse_folds(folds) if folds else None,
        "plan_name": plan_name,
        "workspace": workspace,
    }
    if device != "auto" and not measure_quality:
        raise UsageError("--device says where --measure-quality calculates", "add that, or leave it out")
    if form == "nnunet":
        unused = {
            "--licence": licence,
            "--about": about,
            "--measure-quality": measure_quality,
            "--precision": precision != "float32",
            "--largest-dice-loss": largest_dice_loss is not None,
        }
        _export_nnunet(source, output, selection, unused=unused, runtime=runtime)
        return
    if form != "autoseg":
        raise UsageError(f"--format {form!r} is unknown", "choose autoseg or nnunet")
    if measure_quality:
        _measure_quality(source, output, selection, device)
    file = export_model(
        source,
        output,
        licence=licence,
        about=about,
        runtime=runtime,
        precision=precision,
        largest_dice_loss=largest_dice_loss,
        reporter=Terminal(),
        **selection,
    )
    _print_description(describe_bundle(file))
    console.print(f"{describe_memory(file.stat().st_size)}, with its card, MODEL_CARD.md, inside: {file}")


def _measure_quality(source: Any, output: Path, selection: "Mapping[str, Any]", device: str) -> None:
    """Measures the qualities of a model, and prints a row for each."""
    from autoseg.cli.terminal import Terminal, print_table
    from autoseg.models.bundle import check_bundle_name
    from autoseg.pipeline import measure_quality

    check_bundle_name(output)
    columns = ("configuration", "quality", "mean Dice", "lost by a label, at most", "work", "s per case")
    rows = []
    for name, costs in measure_quality(source, device=device, reporter=Terminal(), **selection).items():
        for quality, scores in costs.qualities.items():
            label, loss = costs.find_largest_loss(quality)
            dice, share = f"{scores.foreground_mean_dice:.4f}", f"{costs.share_of_work(quality):.2g}"
            rows.append((name, quality, dice, f"{label} {loss:.4f}", share, f"{scores.seconds:.2g}"))
    print_table("held-out cases, before postprocessing", columns, rows)


def _export_nnunet(
    source: Any, output: Path, selection: "Mapping[str, Any]", unused: "Mapping[str, object]", runtime: str
) -> None:
    from autoseg.cli.terminal import Terminal, console
    from autoseg.nnunet.model_folders import NnunetFolder
    from autoseg.pipeline import export_nnunet

    if runtime != "torch":
        raise UsageError(f"nnU-Net predicts with torch, not with {runtime}", "leave out --runtime, or --format nnunet")
    for option, value in unused.items():
        if value:
            raise UsageError(f"{option} is for bundles, which nnU-Net does not read", "leave it out")
    for folder in export_nnunet(source, output, reporter=Terminal(), **selection):
        folds = " ".join(map(str, NnunetFolder(path=folder).checkpoints))
        console.print(f"use it: nnUNetv2_predict_from_modelfolder -i scans/ -o masks/ -m {folder} -f {folds}")


def install(
    file: Annotated[Path, typer.Argument(help="A bundle, as 'autoseg export' makes it.", metavar="FILE")],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it here. [default: its own name]", metavar="NAME")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the model of that name.")] = False,
    workspace: WorkspacePath = None,
) -> None:
    """Puts somebody's model into the workspace.

    Every file of it is checked first, and none can run anything. Then 'autoseg predict -m NAME' finds it.
    """
    from autoseg.cli.terminal import console
    from autoseg.models.bundle import describe_installed
    from autoseg.models.bundle_format import CARD
    from autoseg.pipeline import install_model

    folder = install_model(file, workspace, name=name, replace=replace)
    _print_description(describe_installed(folder))
    console.print(f"what its authors say: {folder / CARD}")
    console.print(f"use it: autoseg predict -m {folder.name} -i scans/ -o masks/")


def install_nnunet(
    source: Annotated[
        Path,
        typer.Argument(
            help="A model folder of nnU-Net v2, the results of a dataset with several of them, or a zip of either.",
            metavar="PATH",
        ),
    ],
    number: Annotated[
        int | None,
        typer.Option(
            "-d", "--dataset", min=1, max=999, help="Number of the dataset that it was trained on.", metavar="NUMBER"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Without -d: what to call it here. [default: as its dataset]", metavar="NAME"),
    ] = None,
    plan_name: Annotated[
        str | None, typer.Option("--plan", help="With -d: what to call its plan. [default: nnunet]", metavar="NAME")
    ] = None,
    splits: SplitsFile = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the model of that name, or trained folds of that plan.")
    ] = False,
    device: Device = "auto",
    workspace: WorkspacePath = None,
) -> None:
    """Puts a model that nnU-Net v2 trained into the workspace.

    It becomes an ordinary model, which predicts as it did there. Nothing in its files can run. Then 'autoseg predict -m
    NAME' finds it, and 'autoseg train --init' begins with its weights. With -d it goes among the trained models of its
    dataset instead, with the segmentations of its held-out cases: 'autoseg find_best -d' compares it with them.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.models.bundle import describe_installed
    from autoseg.pipeline import install_nnunet

    folder = install_nnunet(
        source,
        workspace,
        number=number,
        name=name,
        plan_name=plan_name,
        splits=splits,
        replace=replace,
        device=device,
        reporter=Terminal(),
    )
    if number is None:
        _print_description(describe_installed(folder))
        console.print(f"use it: autoseg predict -m {folder.name} -i scans/ -o masks/")
        return
    console.print(f"compare it with what was trained here: autoseg find_best -d {number}")
    console.print(f"use it: autoseg predict -d {number} --plan {folder.name} -i scans/ -o masks/")


def _print_description(rows: "Sequence[tuple[str, str]]") -> None:
    from autoseg.cli.terminal import print_table

    print_table("", ("", ""), rows)
