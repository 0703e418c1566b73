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
from functools import partial
from pathlib import Path

from autoseg.comparison import compare_folders
from autoseg.dataset import Dataset
from autoseg.decisions import save_plan, settle_options
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
    load_decisions,
    load_plan,
    open_planned,
    with_own_cases,
)
from autoseg.prepared_cases import check_prepared, prepare_cases
from autoseg.reporting import SILENT, Reporter
from autoseg.scans import PROBABILITIES_FOLDER, find_scans
from autoseg.splitting import check_leaks, settle_splits
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
    from autoseg.cascade import prepare_previous
    from autoseg.data.device_augmentation import augments_on_device
    from autoseg.device import resolve_device
    from autoseg.folds import FoldJob, settle_job, train_to_end, warn_of_memory
    from autoseg.processes import launch
    from autoseg.training.length import LengthRequest
    from autoseg.training.origin import OriginRequest
    from autoseg.training.ranks import join_ranks
    from autoseg.training.tracking import find_trackers
    from autoseg.validation import conclude, judge

    if gpus is not None:
        return launch(
            partial(
                train,
                number,
                configuration,
                folds,
                epochs=epochs,
                budget=budget,
                extend=extend,
                augment_on=augment_on,
                restart=restart,
                init=init,
                freeze=freeze,
                log=log,
                plan_name=plan_name,
                workspace=workspace,
            ),
            gpus,
            device,
            reporter,
        )
    wanted = LengthRequest(epochs=epochs, budget=budget, extend=extend, restart=restart)
    origin = OriginRequest(path=None if init is None else Path(init), freeze=freeze)
    trackers = find_trackers(log)
    folders = find_workspace(workspace).dataset(number, plan_name)
    plan, splits = load_decisions(number, folders)
    plan = wanted.apply(plan)
    [name] = choose_configurations(plan, [configuration])
    [owner] = with_own_cases(plan, [name])
    dataset, model = open_planned(number, folders, plan, splits), folders.model(name)
    check_prepared(dataset, plan, owner, folders, number)
    check_leaks(splits, folders, dataset.info)
    ranks, place = join_ranks(resolve_device(device))
    reporter = reporter if ranks.leads else SILENT
    if ranks.leads:
        prepare_previous(dataset, plan, name, folders, number, reporter)
    ranks.wait()
    jobs = [
        FoldJob(
            dataset=dataset,
            plan=plan,
            configuration_name=name,
            fold=fold,
            split=splits.fold(fold),
            cases_folder=folders.cases(owner),
            codes_folder=folders.cases(name) if owner != name else None,
            model=model,
            device=place,
            augment_on_device=augments_on_device(augment_on, place, plan.configurations[name].augmentation.own),
            origin=origin,
            ranks=ranks,
        )
        for fold in splits.expand(list_folds(folds))
    ]
    jobs = [settle_job(job, wanted, restart=restart) for job in jobs]
    if plan.preset != "small" and place.type == "cpu":
        reporter.say("this plan is made for a GPU; on a CPU, plan_and_preprocess with --preset small learns far sooner")
    for job in jobs[:1]:
        warn_of_memory(job, reporter)
    for job in jobs:
        reporter.say(job.describe())
        checkpoint = train_to_end(job, reporter, restart=restart, trackers=trackers)
        judge(job, checkpoint, reporter)
    ranks.leave()
    if not ranks.leads or all(job.fold == "all" for job in jobs):
        return None
    rules, summary = conclude(dataset, model)
    reporter.say(rules.describe())
    return summary


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
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> list[Path]:
    """Segments all scans of a folder.

    Each result has the name, grid, geometry and file type of its scan; structures that may overlap become a folder of
    this name, with a mask for each. A scan that cannot be segmented does not stop the others.

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
    from autoseg.prediction import choose_labels, find_model, make_output_folder, segment_scans

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
