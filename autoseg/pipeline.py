"""The method on one page: START HERE. Each function is a command, each of its lines a stage.

    raw scans and masks
      -> fingerprint   what the data look like                      fingerprint.json
      -> plan          how to segment them, and why                 plan.json
      -> preprocess    crop, normalize, resample each case          preprocessed cases
      -> train         learn a fold, judge it on held-out cases     checkpoint.pt, summary.json
      -> find_best     try what was trained, alone and in pairs     best.json
      -> predict       segment new scans with what was learned      masks

Stages are functions from values to values; the files between them are read and written here, and in the modules that
stand just below: `inspection`, `decisions`, `preparation`, `prepared_cases`, `jobs`, `folds`, `validation`,
`selection`, `prediction`, `comparison`. The first two have commands of their own, `extract_fingerprint` and
`plan_configurations`. Up to preprocessing nothing needs torch, which takes a second to load; so what needs it is
imported where it is used.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.comparison import compare_folders
from autoseg.dataset import Dataset
from autoseg.decisions import save_plan, settle_options
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM
from autoseg.evaluation.summary import Summary
from autoseg.info import DatasetInfo
from autoseg.inspection import take_fingerprint
from autoseg.lock import run_alone
from autoseg.plan import ConfigurationName, Plan, PresetName, RulesName
from autoseg.planning.planner import make_plan
from autoseg.preparation import (
    check_names,
    choose_configurations,
    list_cases,
    load_plan,
    open_planned,
    with_own_cases,
)
from autoseg.prepared_cases import prepare_cases
from autoseg.reporting import SILENT, Reporter
from autoseg.scans import PROBABILITIES_FOLDER, find_scans
from autoseg.splitting import settle_splits
from autoseg.workspace import Fold, find_workspace, list_folds

if TYPE_CHECKING:
    from autoseg.choice import Choice
    from autoseg.jobs import TrainingRequest


def plan_and_preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: str | os.PathLike[str] | None = None,
    skip: Sequence[str] = (),
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Looks at a dataset, decides how to segment it, and prepares its cases for training.

    Nothing is decided before every case was read and found sound. A splits.json that was edited is kept.

    Args:
        number: Of the dataset: 4 for "Dataset004_Hippocampus".
        configurations: Which to prepare; by default all that the plan has.
        memory: See `plan_configurations`, here and in the next three.
        preset: Size of the network.
        rules: "autoseg" or "nnunet".
        network: Of the literature, such as "vnet" or "unet:padded=false"; see `plan_configurations`.
        plan_name: Of a plan beside the usual one.
        groups: Regular expression that finds the patient in a case's name; see `settle_splits`.
        splits: File of folds to train by, ours or nnU-Net's; by default they are dealt.
        skip: Cases to leave out.
        workspace: Folder that holds raw/, preprocessed/ and results/; see `find_workspace`.
        reporter: Shows progress and states what was decided.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        ProblemsError: Cases are damaged or incomplete, each with its line.
        DatasetError: There is no such dataset, or no such case to skip, or the images are too small for any network.
        UsageError: There is no such configuration or preset, the memory is too small, or folds do not fit the cases.
        ArtifactError: A file of folds is damaged.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    check_names(configurations)
    folders = find_workspace(workspace).dataset(number, plan_name)
    dataset = Dataset.open(folders.raw).without(skip)
    options = settle_options(
        dataset.name, memory=memory, preset=preset, rules=rules, network=network, reporter=reporter
    )

    with run_alone(folders.preprocessed):
        facts = take_fingerprint(dataset, folders, reporter)
        made = make_plan(facts, dataset.info, options)
        names = [case.name for case in dataset.cases]
        source = None if splits is None else Path(splits)
        folds = settle_splits(names, folders, dataset.info, reporter, groups=groups, source=source)
        chosen = choose_configurations(made, configurations)

        save_plan(made, folders, reporter)
        folds.save(folders.splits)
        prepare_cases(dataset, made, with_own_cases(made, chosen), folders, reporter)
    return made


def preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: str | os.PathLike[str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Prepares the cases by plan.json as it stands: after `plan_configurations`, or after the file was edited.

    Args:
        number: Of the dataset.
        configurations: Which to prepare; by default all that the plan has.
        plan_name: Of the plan, if it is not the usual one.
        groups: See `plan_and_preprocess`.
        splits: See `plan_and_preprocess`.
        workspace: See `find_workspace`.
        reporter: Shows progress.

    Returns:
        The plan.

    Raises:
        UsageError: There is no plan yet, or it has no such configuration, or dataset.json has changed since.
        ArtifactError: plan.json is damaged: the text names the field.
        ProblemsError: Cases are damaged or missing, each with its line.
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    with run_alone(folders.preprocessed):
        made = load_plan(number, folders)
        names = list_cases(folders)
        info = DatasetInfo.load(folders.raw / "dataset.json")
        source = None if splits is None else Path(splits)
        folds = settle_splits(names, folders, info, reporter, groups=groups, source=source)
        dataset = open_planned(number, folders, made, folds)
        chosen = choose_configurations(made, configurations)
        folds.save(folders.splits)
        prepare_cases(dataset, made, with_own_cases(made, chosen), folders, reporter)
    return made


def train(
    number: int,
    configuration: ConfigurationName,
    folds: Fold | Sequence[Fold],
    *,
    epochs: int | None = None,
    budget: str | None = None,
    extend: str | None = None,
    device: str = "auto",
    gpus: int | None = None,
    augment_on: str = "auto",
    restart: bool = False,
    init: str | os.PathLike[str] | None = None,
    freeze: str | None = None,
    log: Sequence[str] = (),
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Summary | None:
    """Trains folds one after the other and judges each on its held-out cases.

    A fold that was begun goes on where it was stopped, or after a crash where its last epoch ended; one that is
    finished is not trained again. SIGTERM, or a word from `stop`, ends the run cleanly.

    Args:
        number: Of the dataset.
        configuration: "2d", "3d_fullres", "3d_lowres", or "3d_cascade_fullres" after all folds of "3d_lowres".
        folds: A number from 0 to 4 or several, "cv" for each of them, or "all" for a model of all cases, which holds
            none out.
        epochs: Instead of the plan's.
        budget: Instead of epochs: "quick", "standard" (as the plan says), "full", or a time per fold such as "2h"; see
            `training.length`.
        extend: Epochs, such as "50", or a time, such as "30m", by which finished folds go on; the learning rate falls
            once more, from where the longer schedule would be by then.
        device: "auto", "cpu", "cuda" or "mps".
        gpus: How many CUDA GPUs of this machine train each fold together, in a process each; see `processes.launch`.
            Processes that torchrun started, on any number of machines that share the workspace, do so by themselves.
        augment_on: Where patches are changed at random: on the "cpu" or on the "device" of the network; "auto" is the
            device if that is a CUDA GPU. The changes are the same, up to rounding.
        restart: Forget what was trained of these folds.
        init: Begin with the weights of a trained model, where they fit: a model folder, the folder of one of its folds,
            or a checkpoint.pt. See `training.origin`.
        freeze: Weights that stay as they were there: "encoder", "decoder" or "all_but_heads".
        log: "tensorboard", "mlflow", or both: where the numbers of each epoch go as well.
        plan_name: Of the plan, if it is not the usual one.
        workspace: See `find_workspace`.
        reporter: Shows progress and states results.

    Returns:
        Scores of the held-out cases of all folds trained so far, before postprocessing; None if none is held out.

    Raises:
        UsageError: The dataset is not preprocessed as its plan says, there is no such fold, configuration or device, or
            options contradict each other or the run to be continued.
        DatasetError: There is no such dataset.
        ArtifactError: plan.json or splits.json is damaged, or the disk is full.
        ProblemsError: Raw or preprocessed cases are damaged or missing, each with its line.
        ModelError: The plan changed since a fold was begun, or its checkpoint, or the model to begin with, is damaged
            or missing.
        AutosegError: The loss is no longer a number, or the device's memory is full.
        Stopped: The run was asked to stop, and did after having saved all.
    """
    from autoseg.jobs import TrainingRequest
    from autoseg.processes import launch
    from autoseg.training.length import LengthRequest
    from autoseg.training.origin import OriginRequest

    request = TrainingRequest(
        number=number,
        folders=find_workspace(workspace).dataset(number, plan_name),
        configuration=configuration,
        folds=tuple(list_folds(folds)),
        length=LengthRequest(epochs=epochs, budget=budget, extend=extend, restart=restart),
        origin=OriginRequest(path=None if init is None else Path(init), freeze=freeze),
        device=device,
        augment_on=augment_on,
        trackers=tuple(log),
    )
    if gpus is None:
        return _train_folds(request, reporter)
    return launch(partial(_train_folds, request), gpus, device, reporter)


def _train_folds(request: "TrainingRequest", reporter: Reporter) -> Summary | None:
    """What `train` does in its process, or in each of several."""
    from autoseg.folds import train_to_end
    from autoseg.jobs import make_jobs
    from autoseg.validation import conclude, judge

    jobs = make_jobs(request, reporter)
    for job in jobs:
        checkpoint = train_to_end(job, reporter)
        judge(job, checkpoint, reporter)
    one = jobs[0]
    one.ranks.leave()
    if not one.ranks.leads or all(job.fold == "all" for job in jobs):
        return None
    rules, summary = conclude(one.dataset, one.model)
    reporter.say(rules.describe())
    return summary


def find_best(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    ensembles: bool = True,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> "Choice":
    """Finds out which trained configuration, or pair of them, is best, and what postprocessing helps it.

    All are judged on the same held-out cases: those of all folds, each segmented by the fold that never saw it. The
    decision is written to best.json, by which `predict` goes from then on. A run that was stopped goes on.

    Args:
        number: Of the dataset.
        configurations: Which may be chosen; by default all of the plan, and what is trained by plans beside the usual
            one. Those that are not trained in all folds are left out.
        ensembles: Whether pairs are tried as well, whose probabilities are averaged.
        device: Where pairs predict: "auto", "cpu", "cuda" or "mps".
        plan_name: Of a plan beside the usual one, whose configurations are then compared with no others.
        workspace: See `find_workspace`.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The decision and its evidence, as it stands in best.json.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: It is not preprocessed as its plan says, or has no such configuration; or another run does the same.
        ProblemsError: No configuration is trained in all folds; each has its line.
        ArtifactError: A file of plan or results is damaged, or the disk is full.
    """
    from autoseg.device import resolve_device
    from autoseg.selection import choose_best, open_contest

    check_names(configurations)
    place = resolve_device(device) if ensembles else None
    folders = find_workspace(workspace).dataset(number, plan_name)
    contest = open_contest(number, folders, configurations)
    with run_alone(folders.models):
        choice = choose_best(contest, place, reporter)
        choice.save(folders.choice)
    return choice


def stop(
    number: int,
    configuration: ConfigurationName,
    folds: Fold | Sequence[Fold] | None = None,
    *,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
) -> list[Fold]:
    """Asks runs of `train`, on this machine or another that shares the workspace, to end after their present step.

    Args:
        number: Of the dataset.
        configuration: Which is being trained.
        folds: Which are being trained; by default all that are.
        plan_name: Of the plan, if it is not the usual one.
        workspace: See `find_workspace`.

    Returns:
        The folds that were asked.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: None of these is being trained.
    """
    from autoseg.training.stopping import ask_to_stop

    model = find_workspace(workspace).dataset(number, plan_name).model(configuration)
    return ask_to_stop(model, None if folds is None else list_folds(folds))


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
    from autoseg.loading import Wanted, load_segmenter
    from autoseg.prediction import (
        ask_for_disagreement,
        choose_labels,
        choose_part,
        find_model,
        leave_out_finished,
        make_output_folder,
        segment_scans,
    )

    folder = find_model(model, number, configuration, workspace, plan_name, any_folds=folds is None)
    wanted = Wanted(folds=folds, device=device, mirroring=mirroring, exact=exact)
    segmenter = load_segmenter(folder, wanted, say=reporter.say, warn=reporter.say)
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


def evaluate(
    reference: str | os.PathLike[str],
    prediction: str | os.PathLike[str],
    *,
    labels: dict[str, int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    reporter: Reporter = SILENT,
) -> Summary:
    """Compares a folder of segmentations with a folder of reference label maps, by file name.

    Writes summary.json and summary.csv into the folder of the segmentations.

    Args:
        reference: Label maps.
        prediction: Segmentations; each must have its reference, but references may have none.
        labels: Name to number, the background left out; by default those of the dataset.json in or beside the folder of
            references or among the segmentations, else the numbers that the references hold.
        tolerance_mm: How far surfaces may be apart for NSD, the normalized surface Dice.
        reporter: Shows progress.

    Returns:
        The scores, as they stand in summary.json.

    Raises:
        UsageError: The tolerance is no distance.
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs are damaged, lie on different grids or hold values that dataset.json does not name; each
            has its line.
    """
    summary = compare_folders(Path(reference), Path(prediction), labels, reporter, tolerance_mm=tolerance_mm)
    summary.write(Path(prediction))
    return summary
