"""Prediction: a folder of scans becomes a folder of segmentations."""

import os
from collections.abc import Sequence
from pathlib import Path

from autoseg.datasets.scans import PROBABILITIES_FOLDER, find_scans
from autoseg.errors import UsageError
from autoseg.planning.plan import ConfigurationName
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
    mirroring: bool = True,
    exact: bool = False,
    resume: bool = False,
    part: str | None = None,
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

    Args:
        source: Folder of scans, named as for training, or one file of a single-channel scan.
        output: Folder for the segmentations; made if it is missing. For one scan also the file for its label map, such
            as mask.nii.gz; then nothing else is written.
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
        mirroring: Whether to average over mirror images, which takes several times as long and is a little more
            accurate.
        exact: Whether to calculate in float32 even where lower precision is faster, so that label maps equal those of
            any other machine, and nnU-Net's.
        resume: Whether to leave out scans whose results of this very model are there, as after a stop.
        part: "2/4" segments the second of four parts of the scans, for four machines that share the work.
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
        ProblemsError: Some scans could not be segmented, with a line for each; the others are done.

    Example:
        With the model that `find_best` chose for dataset 4, or with any model::

            autoseg.predict("scans", "masks", number=4)
            autoseg.predict("scans", "masks", model="Hippocampus.zip")
    """
    from autoseg.inference.folder import (
        ask_for_disagreement,
        choose_labels,
        choose_part,
        leave_out_finished,
        make_output_folder,
        segment_scans,
    )
    from autoseg.inference.loading import PredictionOptions, load_segmenter
    from autoseg.inference.prediction_time import describe_prediction_time
    from autoseg.inference.single_file import names_a_file, segment_into_file
    from autoseg.models.model_source import choose_source, find_model

    path = find_model(
        choose_source(model, number, configuration, plan_name),
        configuration,
        plan_name=plan_name,
        with_best_model=folds is None,
        default="3d_fullres",
        workspace=workspace,
    )
    options = PredictionOptions(folds=folds, device=device, mirroring=mirroring, exact=exact)
    segmenter = load_segmenter(path, options, say=reporter.say, warn=reporter.say)
    segmenter = ask_for_disagreement(segmenter) if disagreement else segmenter
    labels = choose_labels(probabilities, segmenter.info)
    scans = choose_part(find_scans(Path(source), segmenter.info), part)
    if names_a_file(output := Path(output)):
        if labels or disagreement or resume:
            what = f"{output} is one file, which holds neither probabilities nor disagreement, nor goes on after a stop"
            raise UsageError(what, "give a folder with -o")
        return segment_into_file(segmenter, scans, output, reporter)
    output = make_output_folder(output, Path(source))
    if labels:
        make_output_folder(output / PROBABILITIES_FOLDER, Path(source))
    waiting = leave_out_finished(segmenter, scans, output, labels) if resume else scans
    if len(waiting) < len(scans):
        reporter.say(f"{len(scans) - len(waiting)} of {len(scans)} scans are segmented already")
    if reporter is not SILENT:
        for line in describe_prediction_time(segmenter, waiting):
            reporter.say(line)
    return segment_scans(segmenter, waiting, output, labels, reporter, part=part)
