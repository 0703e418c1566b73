"""The method on one page: START HERE. Each function is a command, each of its lines a stage.

    raw scans and masks
      -> fingerprint   what the data look like                      fingerprint.json
      -> plan          how to segment them, and why                 plan.json
      -> preprocess    crop, normalize, resample each case          preprocessed cases
      -> train         learn a fold, judge it on held-out cases     checkpoint.pt, summary.json
      -> predict       segment new scans with what was learned      masks

Stages are functions from values to values; the files between them are read and written here, and in the modules that
stand just below: `inspection`, `decisions`, `preparation`, `prepared_cases`, `folds`, `validation`, `prediction`,
`comparison`. The first two have commands of their own, `extract_fingerprint` and `plan_configurations`. Up to
preprocessing nothing needs torch, which takes a second to load; so what needs it is imported where it is used.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from autoseg.comparison import compare_folders
from autoseg.dataset import Dataset
from autoseg.decisions import save_plan, settle_options
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary
from autoseg.info import DatasetInfo
from autoseg.inspection import take_fingerprint
from autoseg.lock import run_alone
from autoseg.plan import ConfigurationName, Plan, PresetName, RulesName
from autoseg.planning.planner import make_plan
from autoseg.preparation import (
    check_names,
    check_trainable,
    choose_configurations,
    list_cases,
    load_decisions,
    load_plan,
    open_planned,
    with_own_cases,
)
from autoseg.prepared_cases import check_prepared, prepare_cases
from autoseg.reporting import SILENT, Reporter
from autoseg.scans import find_scans
from autoseg.splitting import check_leaks, settle_splits
from autoseg.units import parse_duration
from autoseg.workspace import Fold, find_workspace, list_folds


def plan_and_preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
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
    options = settle_options(dataset.name, memory=memory, preset=preset, rules=rules, reporter=reporter)

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
    device: str = "auto",
    restart: bool = False,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Summary | None:
    """Trains folds one after the other and judges each on its held-out cases.

    A fold that was begun goes on where its last epoch ended; one that is finished is not trained again.

    Args:
        number: Of the dataset.
        configuration: "2d", "3d_fullres" or "3d_lowres".
        folds: A number from 0 to 4 or several, "cv" for each of them, or "all" for a model of all cases, which holds
            none out.
        epochs: Instead of the plan's.
        budget: Training time per fold instead of epochs, such as "5m" or "2h".
        device: "auto", "cpu", "cuda" or "mps".
        restart: Forget what was trained of these folds.
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
        ModelError: The plan changed since a fold was begun, or its checkpoint is damaged.
        AutosegError: The loss is no longer a number, or the device's memory is full.
    """
    from autoseg.device import resolve_device
    from autoseg.folds import FoldJob, replace_length, settle_job, train_to_end, warn_of_memory
    from autoseg.validation import conclude, is_validated, validate

    if epochs is not None and budget is not None:
        raise UsageError("--epochs and --budget both say how long to train", "give one of them")
    folders = find_workspace(workspace).dataset(number, plan_name)
    plan, splits = load_decisions(number, folders)
    plan = replace_length(plan, epochs=epochs, budget_seconds=parse_duration(budget) if budget else None)
    [name] = choose_configurations(plan, [configuration])
    check_trainable(plan, name)
    dataset, model = open_planned(number, folders, plan, splits), folders.model(name)
    check_prepared(dataset, plan, name, folders, number)
    check_leaks(splits, folders, dataset.info)
    place = resolve_device(device)
    jobs = [
        FoldJob(
            dataset=dataset,
            plan=plan,
            configuration_name=name,
            fold=fold,
            split=splits.fold(fold),
            cases_folder=folders.cases(name),
            model=model,
            device=place,
        )
        for fold in splits.expand(list_folds(folds))
    ]
    jobs = [settle_job(job, restart=restart, length_was_given=bool(epochs or budget)) for job in jobs]
    if plan.preset != "small" and place.type == "cpu":
        reporter.say("this plan is made for a GPU; on a CPU, plan_and_preprocess with --preset small learns far sooner")
    for job in jobs[:1]:
        warn_of_memory(job, reporter)
    for job in jobs:
        reporter.say(job.describe())
        checkpoint = train_to_end(job, reporter, restart=restart)
        if job.split.validation and not is_validated(model, job.fold):
            scores = validate(job, checkpoint, reporter)
            reporter.say(f"fold {job.fold}: mean Dice of whole held-out cases {scores.foreground_mean.dice:.4f}")
    if all(job.fold == "all" for job in jobs):
        return None
    rules, summary = conclude(dataset, model)
    reporter.say(rules.describe())
    return summary


def predict(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    number: int | None = None,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    probabilities: str | Sequence[str] = (),
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> list[Path]:
    """Segments all scans of a folder.

    Each result has the name, grid, geometry and file type of its scan. A scan that cannot be segmented does not stop
    the others.

    Args:
        source: Folder of scans, named as for training, or one file of a single-channel scan.
        output: Folder for the segmentations; made if it is missing.
        model: A model folder; instead of `number` and `configuration`.
        number: Of the dataset that was trained.
        configuration: Which one; by default the only one that is trained, else "3d_fullres".
        folds: Which to average; by default all that are trained.
        probabilities: Labels whose probabilities are wanted as well, or "all", which leaves out the background. Each
            becomes a file of numbers from 0 to 255, for 0 to 1, on the grid of the scan, and without postprocessing:
            probabilities/CASE_LABEL.nii.gz in `output`.
        device: "auto", "cpu", "cuda" or "mps".
        plan_name: Of the plan that was trained, if it is not the usual one.
        workspace: See `find_workspace`.
        reporter: Shows progress.

    Returns:
        The segmentations that were written.

    Raises:
        UsageError: The model was named in both ways or in none, there is no such device or label, or `output` holds the
            scans.
        ModelError: The model or a fold of it is missing or damaged.
        DatasetError: There are no scans, or no such dataset.
        ProblemsError: Some scans could not be segmented, each with its line; the others are done.
    """
    from autoseg.model import load_segmenter
    from autoseg.prediction import PROBABILITIES_FOLDER, choose_labels, find_model, make_output_folder, segment_scans

    folder = find_model(model, number, configuration, workspace, plan_name)
    segmenter = load_segmenter(folder, folds=folds, device=device)
    labels = choose_labels(probabilities, segmenter.info)
    scans = find_scans(Path(source), segmenter.info)
    output = make_output_folder(Path(output), Path(source))
    if labels:
        make_output_folder(output / PROBABILITIES_FOLDER, Path(source))
    return segment_scans(segmenter, scans, output, labels, reporter)


def evaluate(
    reference: str | os.PathLike[str],
    prediction: str | os.PathLike[str],
    *,
    labels: dict[str, int] | None = None,
    reporter: Reporter = SILENT,
) -> Summary:
    """Compares a folder of segmentations with a folder of reference label maps, by file name.

    Writes summary.json and summary.csv into the folder of the segmentations.

    Args:
        reference: Label maps.
        prediction: Segmentations; each must have its reference, but references may have none.
        labels: Name to number, the background left out; by default those of the dataset.json in or beside the folder of
            references or among the segmentations, else the numbers that the references hold.
        reporter: Shows progress.

    Returns:
        The scores, as they stand in summary.json.

    Raises:
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs are damaged, lie on different grids or hold values that dataset.json does not name; each
            has its line.
    """
    summary = compare_folders(Path(reference), Path(prediction), labels, reporter)
    summary.write(Path(prediction))
    return summary
