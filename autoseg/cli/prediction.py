"""The command that segments scans."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.jobs import Part, Parts, PrintFor, Where, refuse_with_jobs, start_jobs, wants_jobs
from autoseg.cli.options import (
    ChannelsOption,
    CropBy,
    CropMargin,
    Device,
    Mirroring,
    ModelPath,
    PlanName,
    Quality,
    ResampleTilt,
    Runtime,
    SeriesOption,
    TrainedConfiguration,
    TrainedDataset,
    TrainedFolds,
    WorkspacePath,
    parse_folds,
)


def predict(
    source: Annotated[Path, typer.Option("-i", "--input", help="Folder of scans, or one scan.", metavar="PATH")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for the segmentations; or for one scan a file.", metavar="PATH"),
    ],
    number: TrainedDataset = None,
    model: ModelPath = None,
    configuration: TrainedConfiguration = None,
    folds: TrainedFolds = None,
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
    quality: Quality = "best",
    mirroring: Mirroring = None,
    crop_by: CropBy = None,
    crop_margin: CropMargin = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Slower, in float32: the same label maps as on other machines, and in nnU-Net."),
    ] = False,
    no_postprocessing: Annotated[
        bool,
        typer.Option("--no-postprocessing", help="Remove no components, even if find_best chose rules that do."),
    ] = False,
    missing_channels: Annotated[
        bool,
        typer.Option("--missing-channels", help="Scans may lack channels, although those of training could not."),
    ] = False,
    runtime: Runtime = "auto",
    resume: Annotated[
        bool, typer.Option("--continue", help="Leave out scans whose results are there, as after a stop.")
    ] = False,
    part: Part = None,
    parts: Parts = None,
    where: Where = None,
    print_for: PrintFor = None,
    series: SeriesOption = None,
    channels: ChannelsOption = None,
    resample_tilt: ResampleTilt = False,
    dicom: Annotated[
        list[str] | None,
        typer.Option(
            "--dicom",
            help="For scans in DICOM: write objects as well: seg, labelmap, rtstruct. Maps become some too.",
            metavar="KIND...",
        ),
    ] = None,
    meshes: Annotated[
        list[str] | None,
        typer.Option(
            "--meshes",
            help="Write the surfaces of structures as well: stl, a file for each; glb, all in one.",
            metavar="KIND...",
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
    probabilities/CASE_LABEL.nii.gz of the folder. A file of several volumes holds all channels; for a model of one
    channel they are points in time, whose results are CASE_t00, CASE_t01, and so on. report.csv lists the volumes in
    every scan, how far folds and mirror images agree, and what looks unlike training. PATH may
    hold series of DICOM files, or be a zip file of them or a DICOMDIR.

    With --on, an array of jobs shares the work on thousands of scans; see 'autoseg guide clusters'.
    """
    from autoseg.cli.series_table import show_series
    from autoseg.cli.terminal import Terminal, console, suggest_report
    from autoseg.datasets.scans import DICOM_FOLDER, DISAGREEMENT_FOLDER, MESHES_FOLDER, PROBABILITIES_FOLDER
    from autoseg.pipeline import predict

    options: dict[str, Any] = {
        "model": model,
        "number": number,
        "configuration": cast("Any", configuration),
        "folds": parse_folds(folds) if folds else None,
        "probabilities": probabilities or (),
        "disagreement": disagreement,
        "quality": quality,
        "mirroring": mirroring,
        "crop_by": crop_by,
        "crop_margin_mm": crop_margin,
        "exact": exact,
        "postprocessing": not no_postprocessing,
        "missing_channels": missing_channels,
        "runtime": runtime,
        "series": series,
        "channels": channels or (),
        "resample_tilt": resample_tilt,
        "dicom": dicom or (),
        "meshes": meshes or (),
        "device": device,
        "plan_name": plan_name,
        "workspace": workspace,
    }
    if wants_jobs(where, print_for, {"--parts": parts}):
        from autoseg.pipeline import make_prediction_jobs

        refuse_with_jobs({"--part": part})
        with show_series():
            graph = make_prediction_jobs(source, output, parts, **options)
        hint = "autoseg status" if number is None else f"autoseg status -d {number}"
        start_jobs(graph, where, print_for, device=device, workspace=workspace, hint=hint)
        return
    with show_series():
        written = predict(source, output, resume=resume, part=part, reporter=Terminal(), **options)
    count = "1 segmentation" if len(written) == 1 else f"{len(written)} segmentations"
    console.print(f"{count}: {output}")
    if probabilities:
        console.print(f"probabilities, 0 to 255: {output / PROBABILITIES_FOLDER}")
    if dicom:
        console.print(f"DICOM objects: {output / DICOM_FOLDER}")
    if meshes:
        console.print(f"meshes, in mm: {output / MESHES_FOLDER}")
    if disagreement:
        console.print(f"disagreement, 0 to 255: {output / DISAGREEMENT_FOLDER}")
    if len(written) > 1:  # a single scan may be written as a file, which is no folder for a report
        suggest_report("scans", output)
