"""The arrays of jobs of `preprocess` and `predict`, from their options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from autoseg.cluster.array_jobs import (
    PredictionJobsRequest,
    check_parts,
    make_prediction_graph,
    make_preprocessing_graph,
)
from autoseg.cluster.command_lines import OptionValue
from autoseg.cluster.graph import JobGraph
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.scans import find_scans
from autoseg.datasets.splitting import SplitRequest, resolve_splits
from autoseg.dicom.search import unpacked
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import UsageError
from autoseg.imaging.formats import split_ending
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import choose_configurations, list_planned_cases, load_plan
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold, find_workspace, list_folds

FilePath = str | PathLike[str]


def make_preprocessing_jobs(
    number: int,
    parts: int | None,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: FilePath | None = None,
    repeats: int | None = None,
    leave_one_out: bool = False,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> JobGraph:
    """Returns the array that prepares the cases of a dataset; at most as many parts as cases.

    Args:
        number: Number of the dataset.
        parts: Number of parts.
        configurations: See `preprocess`, for this and the next six arguments.
        plan_name: Name of the plan.
        groups: How the patient is found in the name of a case.
        splits: File of folds.
        repeats: How often all cases are assigned to folds.
        leave_one_out: Whether each case is a fold of its own.
        workspace: The workspace.
        reporter: Told what is not as usual.

    Raises:
        UsageError, DatasetError, ArtifactError: As `preprocess` raises them, or the number of parts was not said.

    Example:
        After `plan_configurations`::

            autoseg.run_jobs(autoseg.make_preprocessing_jobs(4, parts=20), "slurm")
    """
    parts, place = check_parts(parts), find_workspace(workspace)
    folders = place.dataset(number, plan_name)
    names = choose_configurations(load_plan(number, folders), configurations)
    cases, info = list_planned_cases(folders), DatasetInfo.load(info_file(folders.raw))
    source = None if splits is None else Path(splits).absolute()
    request = SplitRequest(groups=groups, source=source, repeats=repeats, leave_one_out=leave_one_out)
    resolve_splits(cases, folders, info, reporter, request)
    options: Mapping[str, OptionValue] = {
        "--configuration": names if configurations else None,
        "--groups": groups,
        "--splits": source,
        "--repeats": repeats,
        "--leave-one-out": leave_one_out,
    }
    return make_preprocessing_graph(number, folders, place.root, options, min(parts, len(cases)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOptions:
    """Options of `predict` that each part gets as they are; see there.

    Attributes:
        number, configuration, plan_name: The dataset that was trained, and what of it predicts.
        model: A model folder, a bundle, or the name of an installed model instead.
        folds: Folds whose predictions are averaged.
        probabilities: Labels whose probabilities are written.
        disagreement, quality, mirroring, crop_by, crop_margin_mm, exact: What is calculated, and how.
        postprocessing, missing_channels: Likewise.
        series, channels, resample_tilt: How scans in DICOM are read.
        dicom, meshes: DICOM objects and meshes that are written as well.
        runtime: What calculates the networks of an exported model.
        device: The device.
    """

    number: int | None = None
    configuration: ConfigurationName | None = None
    plan_name: str | None = None
    model: FilePath | None = None
    folds: Sequence[Fold] | None = None
    probabilities: Sequence[str] = ()
    disagreement: bool = False
    quality: str = "best"
    mirroring: bool | None = None
    crop_by: str | Path | None = None
    crop_margin_mm: float | None = None
    exact: bool = False
    postprocessing: bool = True
    missing_channels: bool = False
    runtime: str = "auto"
    series: str | None = None
    channels: Sequence[str] = ()
    resample_tilt: bool = False
    dicom: Sequence[str] = ()
    meshes: Sequence[str] = ()
    device: str = "auto"

    def list_arguments(self, model: Path) -> Mapping[str, OptionValue]:
        """Returns the options that differ from their defaults, as `list_options` takes them; device and plan apart.

        Args:
            model: Where the model is, if it was named instead of a dataset.
        """
        return {
            "--dataset": self.number,
            "--model": None if self.model is None else model.absolute(),
            "--configuration": self.configuration,
            "--fold": None if self.folds is None else [str(fold) for fold in self.folds],
            "--probabilities": list(self.probabilities),
            "--disagreement": self.disagreement,
            "--quality": None if self.quality == "best" else self.quality,
            "--mirroring": self.mirroring is True,
            "--no-mirroring": self.mirroring is False,
            "--crop-by": self.crop_by.absolute() if isinstance(self.crop_by, Path) else self.crop_by,
            "--crop-margin": None if self.crop_margin_mm is None else f"{self.crop_margin_mm:g}",
            "--exact": self.exact,
            "--no-postprocessing": not self.postprocessing,
            "--missing-channels": self.missing_channels,
            "--runtime": None if self.runtime == "auto" else self.runtime,
            "--series": self.series,
            "--channels": list(self.channels),
            "--resample-tilt": self.resample_tilt,
            "--dicom": list(self.dicom),
            "--meshes": list(self.meshes),
        }


def make_prediction_jobs(
    source: FilePath,
    output: FilePath,
    parts: int | None,
    *,
    model: FilePath | None = None,
    number: int | None = None,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    probabilities: Sequence[str] = (),
    disagreement: bool = False,
    quality: str = "best",
    mirroring: bool | None = None,
    crop_by: FilePath | None = None,
    crop_margin_mm: float | None = None,
    exact: bool = False,
    postprocessing: bool = True,
    missing_channels: bool = False,
    runtime: str = "auto",
    series: str | None = None,
    channels: Sequence[str] = (),
    resample_tilt: bool = False,
    dicom: Sequence[str] = (),
    meshes: Sequence[str] = (),
    device: str = "auto",
    plan_name: str | None = None,
    workspace: FilePath | None = None,
) -> JobGraph:
    """Returns the array that segments the scans of a folder; at most as many parts as scans.

    The model is loaded, so that jobs do not find out one by one that it is damaged.

    Args:
        source: Folder of scans.
        output: Folder for the segmentations.
        parts: Number of parts.
        model: See `predict`, for all that follow: each part gets them as they are.
        number: Number of the dataset that was trained.
        configuration: Configuration that predicts.
        folds: Folds whose predictions are averaged.
        probabilities: Labels whose probabilities are written as well.
        disagreement: Whether to write where folds and mirror images disagree.
        quality: "fast", "balanced" or "best".
        mirroring: Whether to average over all mirror images or none.
        crop_by: A coarse model around whose structures scans are segmented.
        crop_margin_mm: Margin around these structures.
        exact: Whether to calculate in float32.
        postprocessing: Whether to remove components.
        missing_channels: Whether scans may lack channels.
        runtime: What calculates the networks of an exported model; it must be installed on this machine too.
        series: Which series of each examination in DICOM.
        channels: The same for each channel.
        resample_tilt: Whether DICOM slices of a tilted gantry are resampled.
        dicom: DICOM objects to write as well.
        meshes: Surfaces of the structures to write as well.
        device: The device; it need not be one of this machine.
        plan_name: Name of the plan that was trained.
        workspace: The workspace.

    Raises:
        UsageError, DatasetError, ModelError: As `predict` raises them; or the number of parts was not said, or the
            output is a file.

    Example:
        With the model that `find_best` chose for dataset 4::

            autoseg.run_jobs(autoseg.make_prediction_jobs("scans", "masks", 20, number=4), "slurm")
    """
    from autoseg.inference import loading
    from autoseg.inference.coarse_model import find_coarse_model
    from autoseg.models.model_source import choose_source, find_model

    options = PredictionOptions(
        number=number,
        configuration=configuration,
        plan_name=plan_name,
        model=model,
        folds=None if folds is None else list_folds(folds),
        probabilities=probabilities,
        disagreement=disagreement,
        quality=quality,
        mirroring=mirroring,
        crop_by=find_coarse_model(crop_by, workspace),
        crop_margin_mm=crop_margin_mm,
        exact=exact,
        postprocessing=postprocessing,
        missing_channels=missing_channels,
        runtime=runtime,
        series=series,
        channels=channels,
        resample_tilt=resample_tilt,
        dicom=dicom,
        meshes=meshes,
        device=device,
    )
    parts, place = check_parts(parts), find_workspace(workspace)
    if split_ending(Path(output))[1] and not Path(output).is_dir():
        raise UsageError(f"{output} is one file, which several jobs cannot write", "give a folder with -o")
    path = find_model(
        choose_source(options.model, options.number, options.configuration, options.plan_name),
        options.configuration,
        plan_name=options.plan_name,
        with_best_model=options.folds is None,
        default="3d_fullres",
        workspace=workspace,
    )
    loaded = loading.PredictionOptions(
        folds=options.folds,
        device="cpu",
        quality=quality,
        runtime=options.runtime,
        crop_by=options.crop_by,
        crop_margin_mm=crop_margin_mm,
    )
    segmenter = loading.load_segmenter(path, loaded)
    choice = SeriesChoice(series=options.series, channels=tuple(options.channels), resample_tilt=options.resample_tilt)
    with unpacked(Path(source)) as opened:
        scans = find_scans(opened, segmenter.info, choice)
    request = PredictionJobsRequest(
        source=Path(source),
        output=Path(output),
        workspace=place.root,
        dataset=None if options.number is None else place.dataset(options.number).raw.name,
        options=options.list_arguments(path),
        device=options.device,
        parts=min(parts, len(scans)),
        plan_name=options.plan_name,
    )
    return make_prediction_graph(request)
