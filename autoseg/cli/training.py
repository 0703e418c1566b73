"""The commands that train, and stop a training."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, Device, PlanName, WorkspacePath, parse_folds


def train(
    number: DatasetNumber,
    configuration: Annotated[
        str, typer.Option("-c", "--configuration", help="2d, 3d_fullres or 3d_lowres.", metavar="NAME")
    ],
    folds: Annotated[
        list[str],
        typer.Option(
            "-f",
            "--fold",
            help="0 to 4, several of them, cv for each, or all: one model of all cases.",
            metavar="FOLD...",
        ),
    ],
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="How many, instead of the plan's.", metavar="NUMBER")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Instead of epochs: quick, a tenth of the plan's; standard, the plan's; full, as many steps as "
            "nnU-Net; or a time per fold: 90s, 5m, 2h.",
            metavar="BUDGET",
        ),
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            "--extend", help="Train finished folds on, for 50 more epochs or a time: 50, 30m.", metavar="EPOCHS|TIME"
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was trained of these folds.")] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            help="Begin with the weights of a trained model: a model folder, one of its folds, or a checkpoint.pt.",
            metavar="MODEL",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze", help="With --init, keep weights as they are: encoder, decoder or all_but_heads.", metavar="PART"
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            help="Keep the curves in tensorboard, mlflow or both as well; see 'autoseg guide watching_training'.",
            metavar="NAME...",
        ),
    ] = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", min=1, help="Train each fold on so many CUDA GPUs of this machine together.", metavar="NUMBER"
        ),
    ] = None,
    augment_on: Annotated[
        str,
        typer.Option(
            "--augment-on",
            help="Where patches are changed at random: cpu, device (the network's), or auto: device on a CUDA GPU.",
            metavar="PLACE",
        ),
    ] = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Trains folds and judges each on unseen cases.

    Without --epochs and --budget it trains as long as plan.json says; how long that takes here is said first. Ctrl-C,
    SIGTERM and 'autoseg stop' end it within ten seconds and cost nothing but a step that takes longer; a second Ctrl-C
    costs the epoch. Run it again to go on.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import train
    from autoseg.training.ranks import is_main_process
    from autoseg.workspace import find_workspace

    summary = train(
        number,
        cast("Any", configuration),
        parse_folds(folds),
        epochs=epochs,
        budget=budget,
        extend=extend,
        device=device,
        gpus=gpus,
        augment_on=augment_on,
        restart=restart,
        init=init,
        freeze=freeze,
        log=log or (),
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    if not is_main_process():
        return
    folder = find_workspace(workspace).dataset(number, plan_name).model(configuration)
    if summary is not None:
        print_scores(summary, title="held-out cases of all trained folds")
    console.print(f"model, curves, scores and pictures: {folder.path}")


def stop(
    number: DatasetNumber,
    configuration: Annotated[
        str, typer.Option("-c", "--configuration", help="Which is being trained.", metavar="NAME")
    ],
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--fold", help="Which to stop. [default: all that are being trained]", metavar="FOLD..."),
    ] = None,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Ends a training cleanly, from another terminal.

    The run ends within ten seconds, after the step that it is at, or before it if the step takes longer, and saves all
    that it did; the same 'autoseg train' goes on from there.
    """
    from autoseg.cli.terminal import console
    from autoseg.pipeline import stop

    asked = stop(
        number,
        cast("Any", configuration),
        parse_folds(folds) if folds else None,
        plan_name=plan_name,
        workspace=workspace,
    )
    for fold in asked:
        console.print(f"asked fold {fold} of {configuration} to stop")
