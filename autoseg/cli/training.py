"""The commands that train, and stop a training."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.jobs import PrintFor, Where, make_remarks, refuse_with_jobs, start_jobs, wants_jobs
from autoseg.cli.options import Budget, DatasetNumber, Device, Epochs, Gpus, PlanName, WorkspacePath, parse_folds
from autoseg.errors import UsageError


def train(
    number: DatasetNumber,
    configurations: Annotated[
        list[str],
        typer.Option(
            "-c",
            "--configuration",
            help="2d, 3d_fullres, 3d_lowres or 3d_cascade_fullres; with --on or --print also several.",
            metavar="NAME",
        ),
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
    epochs: Epochs = None,
    budget: Budget = None,
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
            help="Begin with the weights of a trained model: a model folder, one of its folds, a checkpoint.pt, or a "
            "file of another program, such as nnssl's.",
            metavar="MODEL",
        ),
    ] = None,
    init_names: Annotated[
        Path | None,
        typer.Option(
            "--init-names",
            help="With --init, a JSON file that says how another program's weights are called here; see 'autoseg guide "
            "fine_tuning'.",
            metavar="FILE",
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
    gpus: Gpus = None,
    augment_on: Annotated[
        str,
        typer.Option(
            "--augment-on",
            help="Where patches are changed at random: cpu, device (the network's), or auto: device on a CUDA GPU.",
            metavar="PLACE",
        ),
    ] = "auto",
    where: Where = None,
    print_for: PrintFor = None,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Trains folds and judges each on unseen cases.

    Without --epochs and --budget it trains as long as plan.json says; how long that takes here is said first. Ctrl-C,
    SIGTERM and 'autoseg stop' end it within ten seconds and cost nothing but a step that takes longer; a second Ctrl-C
    costs the epoch. Run it again to go on.

    With --on, each fold is a job of its own, a cascade begins after its 3d_lowres, and find_best and the report of the
    models follow if all folds are trained. See 'autoseg guide clusters'.
    """
    if wants_jobs(where, print_for, {}):
        from autoseg.pipeline import make_training_jobs

        refuse_with_jobs({"--restart": restart, "--extend": extend})
        graph = make_training_jobs(
            number,
            cast("Any", configurations),
            parse_folds(folds),
            epochs=epochs,
            budget=budget,
            init=init,
            init_names=init_names,
            freeze=freeze,
            log=log or (),
            device=device,
            gpus=gpus,
            augment_on=augment_on,
            plan_name=plan_name,
            workspace=workspace,
            reporter=make_remarks(print_for),
        )
        start_jobs(graph, where, print_for, device=device, workspace=workspace, hint=f"autoseg status -d {number}")
        return
    if len(set(configurations)) > 1:
        what = "one training is of one configuration"
        raise UsageError(what, "name one with -c, or add --on local to train several one after the other")
    configuration = configurations[0]
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console, suggest_report
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
        init_names=init_names,
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
    if summary is not None:
        suggest_report("model", "-d", number, "-c", configuration, **{"--plan": plan_name, "-w": workspace})


def stop(
    number: DatasetNumber,
    configuration: Annotated[
        str | None,
        typer.Option(
            "-c",
            "--configuration",
            help="Which is being trained. [default: all, and 'autoseg run' at whatever step]",
            metavar="NAME",
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--fold", help="Which to stop. [default: all that are being trained]", metavar="FOLD..."),
    ] = None,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Ends a training, or 'autoseg run', cleanly, from another terminal.

    A training ends within ten seconds, after its present step, or before it if the step takes longer, and saves all
    that it did; the same command goes on from there. Jobs that wait, in Slurm or in 'train --on local', are cancelled.
    Without -c, all work on the dataset is ended.
    """
    from autoseg.cli.terminal import console
    from autoseg.pipeline import stop, stop_run

    if configuration is None:
        if folds or plan_name is not None:
            raise UsageError(f"{'-f' if folds else '--plan'} is for one configuration", "name it with -c")
        for work in stop_run(number, workspace=workspace):
            console.print(f"asked {work} to stop")
        return

    asked = stop(
        number,
        cast("Any", configuration),
        parse_folds(folds) if folds else None,
        plan_name=plan_name,
        workspace=workspace,
    )
    for fold in asked:
        console.print(f"asked fold {fold} of {configuration} to stop")
