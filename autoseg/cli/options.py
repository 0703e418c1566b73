"""Options that several commands share, each with one meaning and one help text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.workspace import Fold

DatasetNumber = Annotated[
    int,
    typer.Option(
        "-d", "--dataset", min=1, max=999, help="Number of the dataset: 4 for Dataset004_Name.", metavar="NUMBER"
    ),
]
TrainedDataset = Annotated[
    int | None,
    typer.Option("-d", "--dataset", min=1, max=999, help="Number of the dataset that was trained.", metavar="NUMBER"),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        help="A model folder, one that holds fold_0; a bundle, model.zip; or an installed model. [default: that of -d]",
        metavar="MODEL",
    ),
]
TrainedConfiguration = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--configuration",
        help="Which one. [default: the choice of find_best, else the one that is trained]",
        metavar="NAME",
    ),
]
TrainedFolds = Annotated[
    list[str] | None,
    typer.Option("-f", "--fold", help="Which of its folds. [default: all that are trained]", metavar="FOLD..."),
]
WorkspacePath = Annotated[
    Path | None,
    typer.Option(
        "-w",
        "--workspace",
        help="Folder with raw/, preprocessed/ and results/. [default: $AUTOSEG_WORKSPACE, or the current folder]",
        metavar="FOLDER",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", help="auto (the fastest there is), cpu, cuda, cuda:1 or mps.", metavar="DEVICE"),
]
Quality = Annotated[
    str,
    typer.Option(
        "--quality",
        help="What accuracy may cost: best; balanced, two mirror images in place of eight; fast, none, fewer tiles and "
        "linear resampling.",
        metavar="fast|balanced|best",
    ),
]
Mirroring = Annotated[
    bool | None,
    typer.Option(
        "--mirroring/--no-mirroring", help="Average over all mirror images, or none. [default: as --quality says]"
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="What calculates the networks of an exported model. [auto: the fastest that is installed]",
        metavar="auto|torch|onnx|openvino",
    ),
]
CropBy = Annotated[
    str | None,
    typer.Option(
        "--crop-by",
        help="Segment only around what a coarse model finds: 3d_lowres, or another model, such as body.zip.",
        metavar="MODEL",
    ),
]
CropMargin = Annotated[
    float | None,
    typer.Option("--crop-margin", help="Margin around that. [default: 8 voxels of the coarse model]", metavar="MM"),
]
Configurations = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--configuration",
        help="Which to prepare: 2d, 3d_fullres, 3d_lowres. [default: all of the plan]",
        metavar="NAME...",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory of the GPU that training may use, here or elsewhere: 8GB, 11.5GiB. [default: that of the GPU, up "
        "to 24GB; without a GPU, --preset small]",
        metavar="SIZE",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="small for CPUs and laptops; 4gb, 8gb, 11gb, 16gb, 24gb, 40gb, 80gb. [default: by memory; without a GPU "
        "small, and smaller still on a slow machine]",
        metavar="NAME",
    ),
]
Rules = Annotated[
    str,
    typer.Option(
        "--rules",
        help="autoseg, or nnunet for nnU-Net's plans; its presets: plain, resenc_m, resenc_l, resenc_xl.",
        metavar="NAME",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="A network of the literature, such as vnet or, with other settings than its paper's, unet:padded=false; "
        "'autoseg networks' lists them. Or one of MONAI, such as monai:SwinUNETR. [default: by preset]",
        metavar="NAME",
    ),
]
Patches = Annotated[
    str | None,
    typer.Option(
        "--patches",
        help="growing: training begins with small patches, which teach more for their cost; fixed: one size from first "
        "to last. [default: growing with --preset small, unless a label consists of many small parts; else fixed]",
        metavar="NAME",
    ),
]
PlanName = Annotated[
    str | None,
    typer.Option("--plan", help="Name of a plan beside the usual one. [default: the usual one]", metavar="NAME"),
]
Explain = Annotated[bool, typer.Option("--explain", help="Give the reason for every decision.")]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Regular expression for case names, whose first bracket is the patient: scans of one stay together.",
        metavar="PATTERN",
    ),
]
SplitsFile = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        help="Folds to train by: a splits.json, or nnU-Net's splits_final.json or its folder.",
        metavar="FILE",
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(
        "--repeats",
        min=1,
        help="Assign all cases to folds so many times, each time otherwise; of use for few cases. [default: 1]",
        metavar="NUMBER",
    ),
]
LeaveOneOut = Annotated[
    bool, typer.Option("--leave-one-out", help="Each case, or each group, is a fold of its own; for very few cases.")
]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="Names of cases to leave out.", metavar="CASE...")]

SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series",
        help="Which series of DICOM files: its number in the table, a description such as 't2*', or UID.",
        metavar="SERIES",
    ),
]
ChannelsOption = Annotated[
    list[str] | None,
    typer.Option("--channels", help="Which series of DICOM files, for each channel.", metavar="SERIES..."),
]
MasksFolder = Annotated[
    Path | None, typer.Option("--labels", help="Folder of masks, if SOURCE holds images only.", metavar="FOLDER")
]
NewName = Annotated[
    str | None, typer.Option("--name", help="Name for the dataset. [default: as SOURCE says]", metavar="NAME")
]
Link = Annotated[
    bool,
    typer.Option("--link", help="Copy only what must be converted: dataset.json says where the files are."),
]
MaskGeometry = Annotated[
    str,
    typer.Option("--geometry", help="Masks lie where their header says: own; or on their image: image."),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, help="How many, instead of the plan's.", metavar="NUMBER")
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Instead of epochs: quick, a tenth of the plan's; standard, the plan's; full, as many steps as nnU-Net; "
        "or a time per fold: 90s, 5m, 2h.",
        metavar="BUDGET",
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=1, help="Train each fold on so many CUDA GPUs of this machine together.", metavar="NUMBER"
    ),
]
ResampleTilt = Annotated[
    bool, typer.Option("--resample-tilt", help="Straighten DICOM slices of a tilted gantry, which are refused else.")
]


def parse_folds(values: list[str]) -> "list[Fold]":
    """Parses the folds that the user typed: numbers, "all", or "cv", which stands for each number of splits.json.

    Raises:
        UsageError: A value is none of these.

    Example:
        >>> parse_folds(["0", "2", "all"])
        [0, 2, 'all']
    """
    folds: list[Fold] = []
    for value in values:
        if value in ("all", "cv"):
            folds.append(value)
        elif value.isdecimal():
            folds.append(int(value))
        else:
            raise UsageError(f"{value!r} is no fold", "take numbers from 0 to 4, 'cv' for each of them, or 'all'")
    return list(dict.fromkeys(folds))
