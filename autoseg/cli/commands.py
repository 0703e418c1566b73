"""The commands, as functions of their options. Each imports what it needs when it runs, so that help answers at once.

The name, the help and the options of a command are those of its function; `app` lists them.
"""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.command import EXIT_ERROR
from autoseg.cli.options import DatasetNumber, Device, PlanName, Skip, WorkspacePath, parse_folds


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
    from autoseg.dataset import Dataset
    from autoseg.integrity import check_dataset
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

    Without --epochs and --budget it trains as long as plan.json says. Run it again to go on after a stop: Ctrl-C, which
    costs the epoch that was running, 'autoseg stop' or SIGTERM, which cost nothing.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import train
    from autoseg.training.ranks import speaks_for_all
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
    if not speaks_for_all():
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

    The run ends within seconds, after the step that it is at, and saves all that it did; the same 'autoseg train' goes
    on from there.
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


def predict(
    source: Annotated[Path, typer.Option("-i", "--input", help="Folder of scans, or one scan.", metavar="PATH")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the segmentations.", metavar="FOLDER")],
    number: Annotated[
        int | None,
        typer.Option(
            "-d", "--dataset", min=1, max=999, help="Number of the dataset that was trained.", metavar="NUMBER"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            help="Instead of -d: a model folder, one that holds fold_0; a bundle, model.zip; or an installed model.",
            metavar="MODEL",
        ),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option(
            "-c",
            "--configuration",
            help="Which one. [default: what find_best chose, else the trained one, or 3d_fullres]",
            metavar="NAME",
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--fold", help="Which to average. [default: all that are trained]", metavar="FOLD..."),
    ] = None,
    probabilities: Annotated[
        list[str] | None,
        typer.Option(
            "--probabilities",
            help="Labels whose probabilities are written as well, before postprocessing; all leaves out background.",
            metavar="LABEL...",
        ),
    ] = None,
    disagreement: Annotated[
        bool,
        typer.Option(
            "--disagreement", help="Write where folds and mirror images disagree as well, as a map for each scan."
        ),
    ] = False,
    no_mirroring: Annotated[
        bool,
        typer.Option("--no-mirroring", help="Several times as fast, a little less accurate: no mirror images."),
    ] = False,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Slower, in float32: the same label maps as on other machines, and in nnU-Net."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--continue", help="Leave out scans whose results are there, as after a stop.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            help="For several machines: 2/4 segments the second of four parts of the scans.",
            metavar="NUMBER/COUNT",
        ),
    ] = None,
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Segments every scan of a folder.

    Give a trained dataset with -d, or any model with -m. Scans are named as for training, CASE_0000.nii.gz; each
    result has the name, grid, geometry and file type of its scan, or is a folder with a mask per structure if these may
    overlap. So have the probabilities of a label, if they are asked for: 0 to 255, for 0 to 1, in
    probabilities/CASE_LABEL.nii.gz of the folder. report.csv lists the volumes in every scan, how far folds and mirror
    images agree, and what looks unlike training.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import predict
    from autoseg.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER

    written = predict(
        source,
        output,
        model=model,
        number=number,
        configuration=cast("Any", configuration),
        folds=parse_folds(folds) if folds else None,
        probabilities=probabilities or (),
        disagreement=disagreement,
        mirroring=not no_mirroring,
        exact=exact,
        resume=resume,
        part=part,
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    console.print(f"{len(written)} segmentations: {output}")
    if probabilities:
        console.print(f"probabilities, 0 to 255: {output / PROBABILITIES_FOLDER}")
    if disagreement:
        console.print(f"disagreement, 0 to 255: {output / DISAGREEMENT_FOLDER}")


def doctor(workspace: WorkspacePath = None) -> None:
    """Looks for what could go wrong on this machine.

    Shows versions, devices, memory and folders, and tries a convolution.
    """
    from autoseg.cli.terminal import print_table
    from autoseg.doctor import examine
    from autoseg.workspace import find_workspace

    findings = examine(find_workspace(workspace))
    rows = [(finding.state, finding.title, finding.value, finding.advice) for finding in findings]
    print_table("", ("", "what", "found", "advice"), rows)
    if any(finding.state == "failure" for finding in findings):
        raise typer.Exit(EXIT_ERROR)
