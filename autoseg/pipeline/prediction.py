"""Prediction: a folder of scans becomes a folder of segmentations."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.dicom_scans import describe_dicom_scans
from autoseg.datasets.names import ON_FOLDING, describe_lookalikes, describe_reserved
from autoseg.datasets.parts import ANY, choose_part
from autoseg.datasets.passed_over import describe_passed_over
from autoseg.datasets.scans import PROBABILITIES_FOLDER, find_scans
from autoseg.datasets.time_series import describe_series
from autoseg.dicom.search import unpacked
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold


def predict(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    number: int | None = None,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    probabilities: str | Sequence[str] = (),
    disagreement: bool = False,
    quality: str = "best",
    mirroring: bool | None = None,
    crop_by: str | os.PathLike[str] | None = None,
    crop_margin_mm: float | None = None,
    exact: bool = False,
    postprocessing: bool = True,
    missing_channels: bool = False,
    runtime: str = "auto",
    resume: bool = False,
    part: str | None = None,
    series: str | None = None,
    channels: Sequence[str] = (),
    resample_tilt: bool = False,
    dicom: str | Sequence[str] = (),
    meshes: str | Sequence[str] = (),
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> list[Path]:
    """Segments all scans of a folder.

    Each result has the name, grid, geometry and file type of its scan; structures that may overlap become a folder of
    this name, with a mask for each. A scan that cannot be segmented does not stop the others. While one scan is
    written, the network segments the next, and a third is read. The table report.csv holds the volumes of all scans,
    how far folds and mirror images agree, and what looks unlike training.

    A file of several volumes holds the channels of a scan. For a model of one channel it is a series over time, and
    each volume is a scan of its own: CASE_t00, CASE_t01, and so on.

    Args:
        source: Folder of scans, named as for training, or one file that holds a scan. Or DICOM files: a folder of
            one or many examinations, a zip file of it, or a DICOMDIR; results are NIfTI then, named by folders.
        output: Folder for the segmentations; made if it is missing. For one scan also the file for its label map, such
            as mask.nii.gz, or for the label maps of a series; then nothing else is written.
        model: A model folder, a folder of several that holds best.json, a bundle, or the name of an installed model;
            instead of `number` and `configuration`.
        number: Number of the dataset that was trained.
        configuration: Configuration that predicts; by default the choice of `find_best`, or, if `find_best` was not run
            or folds are named, the only one that is trained, else "3d_fullres".
        folds: Folds whose predictions are averaged; by default all that are trained.
        probabilities: Labels whose probabilities are written as well, or "all", which leaves out the background. Each
            becomes a file of numbers from 0 to 255, for 0 to 1, on the grid of the scan, and without postprocessing:
            probabilities/CASE_LABEL.nii.gz in `output`.
        disagreement: Whether to write where folds and mirror images disagree: the share of them that would have decided
            otherwise, 0 to 255 for 0 to 1, in disagreement/CASE.nii.gz.
        quality: What accuracy may cost. "best": all mirror images. "balanced": two of them, as the image is and
            mirrored along all axes at once. "fast": none, tiles that are three quarters of a tile apart in place of a
            half, and linear resampling in place of splines. The model card says what each costs, if it was measured.
        mirroring: Whether to average over all mirror images, or over none; by default as `quality` says.
        crop_by: A coarse model, around whose structures each scan is segmented, which saves the tiles elsewhere: the
            name of a configuration that is trained beside the model, such as "3d_lowres"; or another model of the same
            channels, as for `model`. A scan in which it finds nothing is segmented whole.
        crop_margin_mm: Margin around these structures; by default 8 voxels of the coarse model.
        exact: Whether to calculate in float32 even where lower precision is faster, so that label maps equal those of
            any other machine, and nnU-Net's.
        postprocessing: Whether to remove components as the rules of the model say that `find_best` chose.
        missing_channels: Whether scans may lack channels, although the scans of the training dataset may not; see
            "missing_channels" in dataset.json. report.csv names the channels that are missing.
        runtime: What calculates the networks: "torch" for checkpoints; "onnx" or "openvino" for a model that was
            exported by `export_model(..., runtime="onnx")`, on the CPU; "auto" for what the model needs, and the
            faster one if both are installed.
        resume: Whether to leave out scans whose results of this very model and these options are there, as after a
            stop. A scan whose file has another size or time of change since then is segmented again.
        part: "2/4" segments the second of four parts of the scans, for four machines that share the work; "any" those
            that no other run has in work and that are not finished, until all are, for machines that come and go.
        series: Which series of each examination in DICOM: its number in the table of series, a pattern of its
            description, such as "t2*", or its UID. It is needed if several could be meant.
        channels: The same for each channel of a model of several; series of other grids are resampled onto the first.
        resample_tilt: Whether DICOM slices of a tilted gantry are resampled to a straight grid.
        dicom: DICOM objects to write as well, of a scan in DICOM: "seg" for binary segments, which may overlap,
            "labelmap" for a label map, "rtstruct" for contours. They lie on the slices of the scan, with its patient
            and study, in dicom/CASE_seg.dcm and so on; probabilities and disagreement become objects too.
        meshes: Surfaces of the structures to write as well, of volumes: "stl" for meshes/CASE/LABEL.stl, "glb" for
            meshes/CASE.glb. They are closed and smoothed; see `imaging.meshes` and `imaging.mesh_files`.
        device: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of the plan that was trained, if it is not the usual one.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told how long it will take, and which results deserve a look.

    Returns:
        The paths of the segmentations that were written.

    Raises:
        UsageError: The model was named in both ways or in none, there is no such device or label, `output` holds the
            scans, or is a file that cannot hold what is asked for.
        ModelError: The model or a fold of it is missing or damaged.
        DatasetError: There are no scans, or no such dataset.
        SeriesChoiceError: Several series of an examination could be meant.
        ProblemsError: Some scans could not be segmented, with a line for each; the others are done.

    Example:
        With the model that `find_best` chose for dataset 4, or with any model::

            autoseg.predict("scans", "masks", number=4)
            autoseg.predict("scans", "masks", model="Hippocampus.zip")
    """
    from autoseg.inference.coarse_model import find_coarse_model
    from autoseg.inference.continuation import leave_out_finished
    from autoseg.inference.dicom_objects import choose_objects
    from autoseg.inference.folder import (
        ask_for_disagreement,
        choose_labels,
        make_output_folder,
        name_probability_maps,
        segment_scans,
        share_scans,
    )
    from autoseg.inference.loading import PredictionOptions, load_segmenter
    from autoseg.inference.mesh_writer import choose_meshes
    from autoseg.inference.prediction_time import describe_prediction_time
    from autoseg.inference.single_file import names_a_file, segment_into_file
    from autoseg.models.model_source import choose_source, find_model

    folder, output = as_path(source, "source"), as_path(output, "output")
    path = find_model(
        choose_source(model, number, configuration, plan_name),
        configuration,
        plan_name=plan_name,
        with_best_model=folds is None,
        default="3d_fullres",
        workspace=workspace,
    )
    options = PredictionOptions(
        folds=folds,
        device=device,
        quality=quality,
        mirroring=mirroring,
        crop_by=find_coarse_model(crop_by, workspace),
        crop_margin_mm=crop_margin_mm,
        exact=exact,
        postprocessing=postprocessing,
        missing_channels=missing_channels,
        runtime=runtime,
    )
    segmenter = load_segmenter(path, options, say=reporter.say, warn=reporter.say)
    segmenter = ask_for_disagreement(segmenter) if disagreement else segmenter
    labels = choose_labels(probabilities, segmenter.info)
    choice = SeriesChoice(series=series, channels=tuple(channels), resample_tilt=resample_tilt)
    with unpacked(folder) as opened:
        scans = choose_part(find_scans(opened, segmenter.info, choice), part)
        for line in _describe_scans(scans, folder):
            reporter.say(line)
        asked = (
            choose_objects([dicom] if isinstance(dicom, str) else dicom, segmenter, scans),
            choose_meshes([meshes] if isinstance(meshes, str) else meshes, segmenter.info.targets),
        )
        writers = [writer for writer in asked if writer is not None]
        if names_a_file(output):
            if labels or disagreement or resume or writers or part == ANY:
                holds = "holds neither probabilities, disagreement, DICOM objects nor meshes, nor goes on after a stop"
                what = f"{output} is one file, which {'several runs cannot share' if part == ANY else holds}"
                raise UsageError(what, "give a folder with -o")
            return segment_into_file(segmenter, scans, output, reporter)
        output = make_output_folder(output, folder)
        if labels:
            make_output_folder(output / PROBABILITIES_FOLDER, folder)
        if resume:
            maps = name_probability_maps(scans, labels)
            scans = leave_out_finished(segmenter, scans, output, maps, reporter, writers)
        if reporter is not SILENT:
            for line in describe_prediction_time(segmenter, scans):
                reporter.say(line)
        segment = share_scans if part == ANY else segment_scans
        return segment(segmenter, scans, output, labels, reporter, writers)


def _describe_scans(scans: Sequence[Case], folder: Path) -> Iterator[str]:
    """Yields what the user should know about scans before they are segmented."""
    if (line := describe_series(scans)) is not None:
        yield line
    yield from describe_dicom_scans(scans)
    if not any(scan.series for scan in scans):
        yield from describe_passed_over(folder)
    yield from describe_lookalikes("scans", [scan.name for scan in scans], ON_FOLDING)
    yield from describe_reserved("scans", [scan.name for scan in scans])
