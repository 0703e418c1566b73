"""The method on one page: START HERE. Each function is a command, each of its lines a stage.

    raw scans and masks
      -> fingerprint   what the data look like                      fingerprint.json
      -> plan          how to segment them, and why                 plan.json
      -> preprocess    crop, normalize, resample each case          preprocessed cases
      -> train         learn a fold, judge it on held-out cases     checkpoint.pt, summary.json
      -> predict       segment new scans with what was learned      masks

Stages are functions from values to values; the files between them are read and written here and in `folds`.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.artifact import atomic_file, atomic_folder
from autoseg.checkpoint import load_checkpoint
from autoseg.data.splits import Splits, make_splits
from autoseg.data.store import save_case
from autoseg.dataset import Case, Dataset
from autoseg.device import resolve_device
from autoseg.errors import AutosegError, DatasetError, ProblemsError, UsageError, WriteError
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.fingerprint import CaseSample, Fingerprint, fingerprint_case, fingerprint_dataset
from autoseg.folds import FoldJob, conclude, replace_length, save_summary, settle_plan, train_to_end, validate
from autoseg.imageio import read_image, read_label_map, write_label_map
from autoseg.integrity import Inspection, find_problems, inspect_case, load_case
from autoseg.model import load_segmenter
from autoseg.parallel import all_sound, work_on_each
from autoseg.plan import CONFIGURATION_NAMES, ConfigurationName, Plan, PresetName
from autoseg.planning.planner import make_plan
from autoseg.preprocessing.case import preprocess_case
from autoseg.reporting import SILENT, Reporter
from autoseg.scans import check_channels, check_values, find_labels, find_scans, pair_label_maps, result_ending
from autoseg.units import parse_duration, parse_memory
from autoseg.workspace import DatasetFolders, Fold, ModelFolder, find_workspace

DEFAULT_MEMORY = "8GB"
"""Fits the GPUs that most groups have. Source: the budget of the reference method."""


def plan_and_preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str = DEFAULT_MEMORY,
    preset: PresetName = "standard",
    skip: Sequence[str] = (),
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Looks at a dataset, decides how to segment it, and prepares its cases for training.

    Nothing is written before every case was read and found sound. A splits.json that holds the same cases is kept: it
    may have been edited.

    Args:
        number: Of the dataset: 4 for "Dataset004_Hippocampus".
        configurations: Which to prepare; by default all that the plan has.
        memory: Device memory that training may use, such as "8GB".
        preset: "standard", or "small" for two CPU cores or a laptop.
        skip: Cases to leave out.
        workspace: Folder that holds raw/, preprocessed/ and results/; see `find_workspace`.
        reporter: Shows progress and states what was decided.

    Raises:
        AutosegError: Cases are damaged or incomplete, each with its line; or a configuration or dataset does not exist,
            or the memory is too small.
    """
    _check_names(configurations)
    folders = find_workspace(workspace).dataset(number)
    dataset = Dataset.open(folders.raw).without(skip)
    budget_bytes = parse_memory(memory)
    fingerprint = _take_fingerprint(dataset, reporter)
    plan = make_plan(fingerprint, dataset.info, dataset=dataset.name, preset=preset, memory_budget_bytes=budget_bytes)
    splits = _settle_splits([case.name for case in dataset.cases], folders, reporter)
    chosen = _choose_configurations(plan, configurations)

    fingerprint.save(folders.fingerprint)
    plan.save(folders.plan)
    splits.save(folders.splits)
    for sentence in plan.why:
        reporter.say(sentence)
    for name in chosen:
        _preprocess_configuration(dataset, plan, name, folders, reporter)
    return plan


def preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Prepares the cases anew by plan.json as it stands, after it was edited; see `plan_and_preprocess`."""
    folders = find_workspace(workspace).dataset(number)
    plan, splits = _load_decisions(number, folders)
    dataset = _open_planned(number, folders, plan, splits)
    for name in _choose_configurations(plan, configurations):
        _preprocess_configuration(dataset, plan, name, folders, reporter)
    return plan


def train(
    number: int,
    configuration: ConfigurationName,
    folds: Sequence[Fold],
    *,
    epochs: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    restart: bool = False,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Summary | None:
    """Trains folds one after the other and judges each on its held-out cases.

    A fold that was begun goes on where its last epoch ended; one that is finished is not trained again.

    Args:
        number: Of the dataset.
        configuration: "2d" or "3d_fullres".
        folds: Numbers from 0 to 4, "cv" for each of them, or "all" for a model of all cases, which holds none out.
        epochs: Instead of the plan's.
        budget: Training time per fold instead of epochs, such as "5m" or "2h".
        device: "auto", "cpu", "cuda" or "mps".
        restart: Forget what was trained of these folds.
        workspace: See `find_workspace`.
        reporter: Shows progress and states results.

    Returns:
        Scores of the held-out cases of all folds trained so far, before postprocessing; None if none is held out.

    Raises:
        UsageError: No such fold, configuration or device, or options that contradict the run to be continued.
        ArtifactError: The dataset is not preprocessed.
        ModelError: The plan changed since a fold was begun.
    """
    if epochs is not None and budget is not None:
        raise UsageError("--epochs and --budget both say how long to train", "give one of them")
    folders = find_workspace(workspace).dataset(number)
    plan, splits = _load_decisions(number, folders)
    plan = replace_length(plan, epochs=epochs, budget_seconds=parse_duration(budget) if budget else None)
    [name] = _choose_configurations(plan, [configuration])
    _check_preprocessed(plan, name, folders, number)
    dataset, model = _open_planned(number, folders, plan, splits), folders.model(name)
    jobs = [
        FoldJob(
            dataset=dataset,
            plan=plan,
            configuration_name=name,
            fold=fold,
            split=splits.fold(fold),
            cases_folder=folders.cases(name),
            model=model,
            device=resolve_device(device),
        )
        for fold in splits.expand(folds)
    ]
    for job in jobs:
        _train_and_validate(job, restart=restart, length_was_given=bool(epochs or budget), reporter=reporter)
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
    folds: Sequence[Fold] | None = None,
    device: str = "auto",
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
        folds: Which folds to average; by default all that are trained.
        device: "auto", "cpu", "cuda" or "mps".
        workspace: See `find_workspace`.
        reporter: Shows progress.

    Returns:
        The files that were written.

    Raises:
        ModelError: The model or a fold of it is missing or damaged.
        DatasetError: There are no scans.
        ProblemsError: Some scans could not be segmented, each with its line; the others are done.
    """
    folder = _model_folder(model, number, configuration, workspace)
    segmenter = load_segmenter(folder, folds=folds, device=device)
    scans = find_scans(Path(source), segmenter.info)
    output = _make_output_folder(Path(output), Path(source))
    written, failures = [], []
    with reporter.task("segmenting", total=len(scans)) as task:
        for scan in scans:
            try:
                check_channels(scan, segmenter.info)
                segmentation = segmenter.segment(read_image(scan.images), on_progress=task.advance)
                path = output / (scan.name + result_ending(scan))
                write_label_map(path, segmentation)
                written.append(path)
            except WriteError as error:  # every other scan would meet it too
                failures.append(str(error))
                break
            except AutosegError as error:
                failures.append(f"case {scan.name!r}: {error}")
    if failures:
        reporter.say(f"{len(written)} of {len(scans)} scans were segmented: {output}")
        raise ProblemsError(failures)
    return written


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
        labels: Name to number; by default those of the dataset.json beside the references, else the numbers found.
        reporter: Shows progress.

    Raises:
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs are damaged, lie on different grids or hold values that dataset.json does not name; each
            has its line.
    """
    pairs = pair_label_maps(Path(reference), Path(prediction))
    named = None if labels else find_labels(Path(reference))
    chosen = labels or named or _number_labels(pairs, reporter)

    def compare(name: str) -> CaseResult:
        truth, guess = (read_label_map(path) for path in pairs[name])
        files = dict(zip(("reference_file", "prediction_file"), (path.name for path in pairs[name]), strict=True))
        if named:
            check_values(pairs[name], (truth, guess), named)
        return evaluate_case(name, truth, guess, chosen, **files)

    results = all_sound(work_on_each(compare, list(pairs), title="comparing", reporter=reporter))
    summary = summarize(results, chosen)
    save_summary(summary, Path(prediction))
    return summary


def _number_labels(pairs: dict[str, tuple[Path, Path]], reporter: Reporter) -> dict[str, int]:
    """Names the labels by the numbers that the references hold: "label_1", "label_2", ..."""

    def find_numbers(name: str) -> set[int]:
        truth, guess = (read_label_map(path) for path in pairs[name])
        evaluate_case(name, truth, guess, {})  # whether they can be compared at all
        return set(np.unique(truth.array).tolist())

    found = all_sound(work_on_each(find_numbers, list(pairs), title="looking for labels", reporter=reporter))
    numbers = sorted(set().union(*found) - {0})
    if not numbers:
        raise DatasetError("the reference label maps hold background only", "check the folder of references")
    return {f"label_{number}": number for number in numbers}


def _take_fingerprint(dataset: Dataset, reporter: Reporter) -> Fingerprint:
    """Reads every case once: checks it, and takes its facts."""

    def inspect(case: Case) -> tuple[Inspection, CaseSample | None]:
        inspection = inspect_case(case, dataset.info)
        if inspection.problems or inspection.image is None or inspection.label is None:
            return inspection.without_voxels(), None
        sample = fingerprint_case(case.name, inspection.image, inspection.label, number_of_cases=len(dataset.cases))
        return inspection.without_voxels(), sample

    inspected = all_sound(work_on_each(inspect, dataset.cases, title="reading cases", reporter=reporter))
    problems = find_problems(dataset, [inspection for inspection, _ in inspected])
    if problems:
        raise ProblemsError([str(problem) for problem in problems])
    return fingerprint_dataset([sample for _, sample in inspected if sample is not None])


def _preprocess_configuration(
    dataset: Dataset, plan: Plan, name: ConfigurationName, folders: DatasetFolders, reporter: Reporter
) -> None:
    """Prepares all cases for one configuration; its folder appears when all are done, with the plan they follow."""
    configuration = plan.configurations[name]

    with atomic_folder(folders.cases(name)) as folder:

        def prepare(case: Case) -> None:
            image, label = load_case(case, dataset.info)
            prepared = preprocess_case(image, label, axis_order=plan.axis_order, configuration=configuration)
            save_case(folder, case.name, prepared, patch_size=configuration.patch_size)

        all_sound(work_on_each(prepare, dataset.cases, title=f"preprocessing {name}", reporter=reporter))
        plan.save(folder / folders.plan.name)


def _settle_splits(names: Sequence[str], folders: DatasetFolders, reporter: Reporter) -> Splits:
    """The folds of splits.json if it holds these cases and no others, else new ones."""
    usual = make_splits(names)
    present = Splits.load(folders.splits) if folders.splits.is_file() else usual
    if present == usual:
        return usual
    if present.names == set(names):
        reporter.say(f"kept the folds of {folders.splits}; remove it to have the cases dealt anew")
        return present
    reporter.say(f"dealt the cases anew, because {folders.splits} held others")
    return usual


def _load_decisions(number: int, folders: DatasetFolders) -> tuple[Plan, Splits]:
    """Reads what `plan_and_preprocess` decided."""
    if not folders.plan.is_file() or not folders.splits.is_file():
        raise UsageError(f"{folders.raw.name} has no plan", f"run 'autoseg plan_and_preprocess -d {number}' first")
    return Plan.load(folders.plan), Splits.load(folders.splits)


def _open_planned(number: int, folders: DatasetFolders, plan: Plan, splits: Splits) -> Dataset:
    """The cases of splits.json, which must be what the plan was made for."""
    dataset = Dataset.open(folders.raw).only(splits.names)
    networks = (configuration.architecture for configuration in plan.configurations.values())
    if {(network.in_channels, network.out_channels) for network in networks} != {
        (dataset.info.channels, dataset.info.classes)
    }:
        what = f"{folders.raw / 'dataset.json'} names other channels or labels than those that plan.json was made for"
        raise UsageError(what, f"restore the file, or run 'autoseg plan_and_preprocess -d {number}' again")
    return dataset


def _check_preprocessed(plan: Plan, name: ConfigurationName, folders: DatasetFolders, number: int) -> None:
    """Makes sure that the cases were prepared as the plan says now."""
    prepared = folders.cases(name) / folders.plan.name
    fix = f"run 'autoseg preprocess -d {number} -c {name}' first"
    if not prepared.is_file():
        raise UsageError(f"{plan.dataset} is not preprocessed for {name}", fix)
    former = Plan.load(prepared)
    now, then = plan.configurations[name], former.configurations[name]
    if (now.spacing_mm, now.normalization, plan.axis_order) != (then.spacing_mm, then.normalization, former.axis_order):
        raise UsageError(f"plan.json has changed since {plan.dataset} was preprocessed for {name}", fix)


def _train_and_validate(job: FoldJob, *, restart: bool, length_was_given: bool, reporter: Reporter) -> None:
    """Brings one fold to its end, from wherever it stands."""
    if restart and job.model.fold(job.fold).exists():
        shutil.rmtree(job.model.fold(job.fold))
    path = job.model.checkpoint(job.fold)
    former = load_checkpoint(path) if path.is_file() else None
    if former is not None:
        plan = settle_plan(job.plan, former, job.configuration_name, length_was_given=length_was_given)
        job = replace(job, plan=plan)
    reporter.say(job.describe())
    checkpoint = train_to_end(job, former, reporter)
    is_judged = (job.model.validation(job.fold) / "summary.json").is_file()
    if job.split.validation and not (is_judged and former is not None and former.finished):
        summary = validate(job, checkpoint, reporter)
        reporter.say(f"fold {job.fold}: mean Dice of whole held-out cases {summary.foreground_mean.dice:.4f}")


def _check_names(configurations: Sequence[str] | None) -> None:
    """Refuses a misspelt configuration before hours of reading."""
    for name in configurations or ():
        if name not in CONFIGURATION_NAMES:
            raise UsageError(f"there is no configuration {name!r}", f"choose from {', '.join(CONFIGURATION_NAMES)}")


def _choose_configurations(plan: Plan, names: Sequence[str] | None) -> list[ConfigurationName]:
    """The configurations of the plan with these names; all of them if there are no names."""
    unknown = sorted(set(names or ()) - set(plan.configurations))
    if unknown:
        known = ", ".join(plan.configurations)
        raise UsageError(f"{plan.dataset} has no configuration {unknown[0]!r}", f"choose from {known}")
    return [name for name in plan.configurations if not names or name in names]


def _model_folder(
    model: str | os.PathLike[str] | None,
    number: int | None,
    configuration: str | None,
    workspace: str | os.PathLike[str] | None,
) -> ModelFolder:
    if model is not None and number is None:
        return ModelFolder(path=Path(model))
    if number is None or model is not None:
        raise UsageError("a model is named by its folder or by its dataset", "give either -m FOLDER or -d NUMBER")
    folders = find_workspace(workspace).dataset(number)
    trained = [path.name for path in sorted(folders.results.glob("*")) if folders.model(path.name).trained_folds()]
    if configuration is None and len(trained) == 1:
        return folders.model(trained[0])
    return folders.model(configuration or "3d_fullres")


def _make_output_folder(output: Path, source: Path) -> Path:
    """Makes the folder, and finds out before the work whether it can be written."""
    if output.resolve() == (source.parent if source.is_file() else source).resolve():
        raise UsageError(f"{output} holds the scans, which the results would replace", "give another folder with -o")
    with atomic_file(output / ".writable") as probe:
        probe.touch()
    (output / ".writable").unlink()
    return output
