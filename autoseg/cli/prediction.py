"""The command that segments scans."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import Device, PlanName, WorkspacePath, parse_folds


def predict(
    source: Annotated[Path, typer.Option("-i", "--input", help="Folder of scans, or one scan.", metavar="PATH")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for the segmentations; or for one scan a file.", metavar="PATH"),
    ],
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
    from autoseg.datasets.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER
    from autoseg.pipeline import predict

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
    count = "1 segmentation" if len(written) == 1 else f"{len(written)} segmentations"
    console.print(f"{count}: {output}")
    if probabilities:
        console.print(f"probabilities, 0 to 255: {output / PROBABILITIES_FOLDER}")
    if disagreement:
        console.print(f"disagreement, 0 to 255: {output / DISAGREEMENT_FOLDER}")
