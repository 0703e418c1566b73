"""Prediction: a folder of scans becomes a folder of segmentations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.datasets.scans import PROBABILITIES_FOLDER, find_scans
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold

if TYPE_CHECKING:
    pass


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
    this name, with a mask for each. A scan that cannot be segmented does not stop the others. While one is written, the
    network sees the next, and a third is read. A table, report.csv, holds the volumes of all scans, how far folds and
    mirror images agree, and what looks unlike training.

    Args:
        source: Folder of scans, named as for training, or one file of a single-channel scan.
        output: Folder for the segmentations; made if it is missing.
        model: A model folder, or a folder of several that holds best.json; instead of `number` and `configuration`.
        number: Of the dataset that was trained.
        configuration: Which one; by default what `find_best` chose, or, if it was not asked or folds are named, the
            only one that is trained, else "3d_fullres".
        folds: Which to average; by default all that are trained.
        probabilities: Labels whose probabilities are wanted as well, or "all", which leaves out the background. Each
            becomes a file of numbers from 0 to 255, for 0 to 1, on the grid of the scan, and without postprocessing:
            probabilities/CASE_LABEL.nii.gz in `output`.
        disagreement: Write where folds and mirror images disagree as well: the share of them that would have decided
            otherwise, 0 to 255 for 0 to 1, in disagreement/CASE.nii.gz.
        mirroring: Average over mirror images, which takes several times as long and is a little more accurate.
        exact: Calculate in float32, whatever is faster: so label maps are those of any other machine, and nnU-Net's.
        resume: Leave out scans whose results of this very model are there, as after a stop.
        part: "2/4" segments the second of four parts of the scans: give each of four machines another.
        device: "auto", "cpu", "cuda" or "mps".
        plan_name: Of the plan that was trained, if it is not the usual one.
        workspace: See `find_workspace`.
        reporter: Shows progress, and is told which results deserve a look.

    Returns:
        The segmentations that were written.

    Raises:
        UsageError: The model was named in both ways or in none, there is no such device or label, or `output` holds the
            scans.
        ModelError: The model or a fold of it is missing or damaged.
        DatasetError: There are no scans, or no such dataset.
        ProblemsError: Some scans could not be segmented, each with its line; the others are done.
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
    output = make_output_folder(Path(output), Path(source))
    if labels:
        make_output_folder(output / PROBABILITIES_FOLDER, Path(source))
    waiting = leave_out_finished(segmenter, scans, output, labels) if resume else scans
    if len(waiting) < len(scans):
        reporter.say(f"{len(scans) - len(waiting)} of {len(scans)} scans are segmented already")
    return segment_scans(segmenter, waiting, output, labels, reporter, part=part)
