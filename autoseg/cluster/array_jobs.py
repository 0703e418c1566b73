"""The jobs that share the work on many cases or scans: arrays, each part of which does every so many-th of them."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.cluster.command_lines import PROGRAM, OptionValue, count_gpus, list_options
from autoseg.cluster.graph import Job, JobGraph
from autoseg.errors import UsageError
from autoseg.workspace import DatasetFolders, Workspace


def check_parts(parts: int | None) -> int:
    """Returns the number of parts of an array.

    Raises:
        UsageError: It was not said.
    """
    if parts is None:
        raise UsageError("nothing says into how many jobs the work is divided", "add --parts, such as --parts 20")
    return parts


def make_preprocessing_graph(
    number: int,
    folders: DatasetFolders,
    workspace: Path,
    options: Mapping[str, OptionValue],
    parts: int,
) -> JobGraph:
    """Returns the array that prepares the cases of a dataset.

    Args:
        number: Number of the dataset.
        folders: Folders of the dataset, as the plan sees them.
        workspace: Folder of the workspace.
        options: Further options of `preprocess`, as `list_options` takes them.
        parts: Number of parts.
    """
    arguments = list_options({**options, "--plan": folders.plan_name, "--workspace": workspace.absolute()})
    command = (*PROGRAM, "preprocess", "-d", str(number), *arguments)
    job = Job(name="preprocess", kind="preprocess", command=command, parts=parts)
    folder = Workspace(root=workspace.absolute()).jobs(folders.raw.name, folders.plan_name)
    return JobGraph(title=f"preprocessing of {folders.raw.name}", folder=folder, jobs=(job,))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionJobsRequest:
    """What a user asked of `predict`, for jobs.

    Attributes:
        source: Folder of scans.
        output: Folder for the segmentations.
        workspace: Folder of the workspace.
        dataset: Name of the dataset that was trained; None if a model is named.
        options: Further options of `predict`, as `list_options` takes them.
        device: The device, as the user named it.
        parts: Number of parts.
        plan_name: Name of the plan, if it is not the usual one.
    """

    source: Path
    output: Path
    workspace: Path
    dataset: str | None
    options: Mapping[str, OptionValue]
    device: str
    parts: int
    plan_name: str | None = None


def make_prediction_graph(request: PredictionJobsRequest) -> JobGraph:
    """Returns the array that segments the scans of a folder. Each job leaves out what is segmented already.

    Args:
        request: What the user asked for.
    """
    options = list_options(
        {
            "--input": request.source.absolute(),
            "--output": request.output.absolute(),
            **request.options,
            "--plan": request.plan_name,
            "--device": request.device,
            "--workspace": request.workspace.absolute(),
            "--continue": True,
        }
    )
    job = Job(
        name=name_prediction(request.output),
        kind="predict",
        command=(*PROGRAM, "predict", *options),
        parts=request.parts,
        gpus=count_gpus(request.device, None),
    )
    folder = Workspace(root=request.workspace.absolute()).jobs(request.dataset, request.plan_name)
    return JobGraph(title=f"prediction of {request.source}", folder=folder, jobs=(job,))


def name_prediction(output: Path) -> str:
    """Returns the name of the job that segments into a folder: the name of the folder, and digits of its whole path.

    >>> name_prediction(Path("/data/my masks"))
    'predict_my_masks_d45864d6'
    """
    words = re.sub(r"\W+", "_", output.absolute().name, flags=re.ASCII).strip("_")[:40]
    digits = f"{zlib.crc32(str(output.absolute()).encode(errors='surrogateescape')):08x}"
    return "_".join(filter(None, ["predict", words, digits]))
