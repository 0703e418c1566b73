"""From a folder of scans and masks to a chosen model: every step of a project, each of which goes on where it was."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import ProblemsError, UsageError
from autoseg.pipeline.interruption import interruptible
from autoseg.pipeline.jobs import PLACES
from autoseg.pipeline.run_context import RunContext, RunOutcome
from autoseg.pipeline.run_record import ImportOptions, RunOptions, RunRecord
from autoseg.pipeline.run_steps import RunStep, list_steps
from autoseg.pipeline.run_time import describe_training
from autoseg.planning.plan import ConfigurationName, PresetName
from autoseg.planning.plan_file import check_configuration_names
from autoseg.runtime.lock import find_holder, run_alone
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import DatasetFolders, Workspace, find_workspace

FilePath = str | os.PathLike[str]


def run(
    source: FilePath | None,
    number: int,
    *,
    labels: FilePath | None = None,
    name: str | None = None,
    link: bool = False,
    geometry: str = "own",
    series: str | None = None,
    channels: Sequence[str] = (),
    resample_tilt: bool = False,
    skip: Sequence[str] = (),
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str | None = None,
    preset: PresetName | None = None,
    groups: str | None = None,
    splits: FilePath | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    gpus: int | None = None,
    where: str | None = None,
    dry_run: bool = False,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> RunOutcome:
    """Does all that leads from scans and masks to a model: import, check, plan, preprocess, train, find_best, report.

    Steps that are done are left out, and a step that was stopped goes on where it was. Options are remembered, so that
    a later call needs none of them. Other files in the source than those that were imported are refused.

    Args:
        source: What to import; see `import_dataset`, also for the next seven arguments. None goes on with the dataset
            that was imported under this number, or with the source that was named before.
        number: Number of the dataset.
        labels: Folder of masks, if `source` holds images only.
        name: Name of the new dataset.
        link: Whether files stay where they are.
        geometry: Where masks lie: "own" or "image".
        series: Which series of each examination in DICOM.
        channels: The same for each channel.
        resample_tilt: Whether DICOM slices of a tilted gantry are resampled.
        skip: Names of cases to leave out.
        configurations: Configurations to train in all folds; by default those that are worth it on this machine, see
            `planning.worthwhile`.
        memory: See `plan_configurations`, also for `preset`.
        preset: Size of the network.
        groups: See `plan_and_preprocess`, also for `splits`.
        splits: File of folds to train by.
        epochs: See `train`, also for the next three arguments.
        budget: Length of training of each fold, in other words.
        device: The device.
        gpus: Number of GPUs that train a fold together.
        where: "local" or "slurm" trains the folds as jobs; see `run_jobs`. The call returns as soon as Slurm has them.
        dry_run: Whether nothing is done but to say what would be done, and how long it takes.
        workspace: See `import_dataset`.
        reporter: Shows progress, with a line for each step.

    Returns:
        The steps, the model that was chosen, its reports, and the jobs that were submitted.

    Raises:
        UsageError: The source has changed, options contradict what was done before, or another call is at work.
        AutosegError: Any error of the steps.
        Stopped: The run was asked to stop, by SIGTERM or `stop_run`. The same call goes on.
        KeyboardInterrupt: Likewise, by Ctrl-C.

    Example:
        Everything, and again after an interruption::

            outcome = autoseg.run("Task04_Hippocampus", 4)
            autoseg.predict("scans", "masks", number=4)
    """
    if where is not None and where not in PLACES:
        raise UsageError(f"jobs cannot be run on {where!r}", f"choose --on {' or '.join(PLACES)}")
    check_configuration_names(configurations)
    importing = ImportOptions(
        labels=None if labels is None else str(as_path(labels, "labels").absolute()),
        name=name,
        link=link,
        geometry=geometry,
        series=series,
        channels=tuple(channels),
        resample_tilt=resample_tilt,
    )
    options = _check_options(
        configurations=tuple(configurations or ()),
        memory=memory,
        preset=preset,
        groups=groups,
        splits=None if splits is None else str(as_path(splits, "splits").absolute()),
        skip=tuple(skip),
        epochs=epochs,
        budget=budget,
    )
    place = find_workspace(workspace)
    source = None if source is None else as_path(source, "source")
    context = RunContext(number=number, workspace=place, reporter=reporter, device=device, gpus=gpus, where=where)
    if dry_run:
        context.record = _resolve_record(place, number, source, importing, options)
        return context.outcome([(step.name, _describe(step, context)) for step in list_steps(context)])
    folder = place.run(number)
    _resolve_record(place, number, source, importing, options)  # before anything is written
    with run_alone(folder.path):
        folder.stop_file.unlink(missing_ok=True)
        try:
            context.record = _resolve_record(place, number, source, importing, options)
            context.record.save(folder.record)
            return _do_steps(context)
        finally:
            folder.stop_file.unlink(missing_ok=True)


def _do_steps(context: RunContext) -> RunOutcome:
    """Does the steps that are not done, and says so in a line each."""
    lines, stop_file = [], context.workspace.run(context.number).stop_file
    steps = list_steps(context)
    for position, step in enumerate(steps, start=1):
        with interruptible(stop_file, ask_to_end=step.ask_to_end):
            done = step.find_done(context)
            text = f"step {position} of {len(steps)}, {step.name}: "
            context.reporter.say(f"{text}{'done before: ' + done if done else step.purpose}")
            if not done:
                step.do(context)
            lines.append((step.name, "done"))
            if context.submitted:
                break
    return context.outcome(lines)


def _describe(step: RunStep, context: RunContext) -> str:
    """Returns what is done of a step, or would be done, and how long it takes if that can be told."""
    is_open = step.trains and not step.find_done(context)
    return describe_training(context) if is_open else step.describe(context)


def _check_options(**options: Any) -> RunOptions:
    """Returns the options, of which those that can be wrong are checked before anything is done."""
    from autoseg.planning.plan import PRESET_NAMES
    from autoseg.runtime.units import parse_memory

    if options["preset"] is not None and options["preset"] not in PRESET_NAMES:
        raise UsageError(f"there is no preset {options['preset']!r}", f"choose from {', '.join(PRESET_NAMES)}")
    if options["memory"] is not None:
        parse_memory(options["memory"])
    if options["epochs"] is not None and options["budget"] is not None:
        raise UsageError("--epochs and --budget both say how long to train", "give one of them")
    if options["splits"] is not None and not Path(options["splits"]).exists():
        raise UsageError(f"{options['splits']} does not exist", "check the path given to --splits")
    return RunOptions(**options)


def _resolve_record(
    place: Workspace, number: int, source: Path | None, importing: ImportOptions, options: RunOptions
) -> RunRecord:
    """Returns what is known of the dataset, with what was asked for now; nothing is written.

    Raises:
        UsageError: The source has changed, or the dataset came from elsewhere.
        DatasetError: There is neither a dataset nor a source.
    """
    names = place.names(number)
    record = _load_record(place, number, names)
    if source is not None and names and record.source is None:
        what = f"{place.raw} already holds {names[0]}, which 'autoseg run' did not import"
        raise UsageError(what, "leave SOURCE out to go on with it, or choose another number with -d")
    given = importing.model_dump(exclude_defaults=True)
    if source is None and given:
        name = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{name} says how SOURCE is imported", "name SOURCE as well")
    if source is not None:
        record = record.with_source(source, importing)
    elif record.source is None or names:
        place.dataset(number)  # is there, and only once
    elif missing := [path for path in record.source_paths if not path.exists()]:
        raise UsageError(f"{missing[0]} does not exist any more", "name SOURCE anew")
    return record.model_copy(update={"options": _check_plan(place, number, record.options, options)})


def _load_record(place: Workspace, number: int, names: Sequence[str]) -> RunRecord:
    """Returns the record as far as it is about the dataset that has the number now."""
    path = place.run(number).record
    record = RunRecord.load(path) if path.is_file() else RunRecord()
    if record.dataset is not None and record.dataset not in names:  # it was removed or renamed
        record = record.model_copy(update={"dataset": None, "checked": None})
        return RunRecord(options=record.options) if names else record
    if names and record.dataset is None and record.source is not None:  # the run ended after the import
        return record.model_copy(update={"dataset": names[0]})
    return record


def _check_plan(place: Workspace, number: int, before: RunOptions, asked: RunOptions) -> RunOptions:
    """Returns the options; those of planning must be the ones that a plan was made by, if there is one.

    Raises:
        UsageError: The plan was made by others.
    """
    options = before.updated(asked)
    names = place.names(number)
    changed = (options.memory, options.preset) != (before.memory, before.preset)
    if names and changed and place.folders(names[0]).plan.is_file():
        option = "--preset" if asked.preset is not None else "--memory"
        what = f"{names[0]} is planned already, without this {option}"
        raise UsageError(what, f"leave {option} out to go on with {place.folders(names[0]).plan}, or remove that file")
    return options


def stop_run(number: int, *, workspace: FilePath | None = None) -> list[str]:
    """Asks all that is being done for a dataset to end: a `run` at whatever step, every training, and all jobs.

    Jobs that wait for their turn, on a cluster or here, are cancelled.

    Args:
        number: Number of the dataset.
        workspace: See `train`.

    Returns:
        What was asked to end, in words.

    Raises:
        UsageError: Nothing is being done.
        ProblemsError: Jobs could not be cancelled, with a line for each; all others were.

    Example:
        From another process, while `run` is at work::

            autoseg.stop_run(4)
    """
    from autoseg.planning.plan import CONFIGURATION_NAMES

    place = find_workspace(workspace)
    folder, asked, problems = place.run(number), [], []
    if find_holder(folder.path) is not None:
        folder.stop_file.touch()
        asked.append("the run")
    for name in place.names(number):
        folders = place.folders(name)
        for plan_name in (None, *folders.named_plans):
            prefix = "" if plan_name is None else f"{plan_name}/"
            cancelled, refused = _cancel_all_jobs(place.jobs(name, plan_name), folders.with_plan(plan_name))
            asked += [f"job {prefix}{job}" for job in cancelled]
            problems += refused
            for configuration in CONFIGURATION_NAMES:
                model = folders.with_plan(plan_name).model(configuration)
                for fold in model.running_folds():
                    model.stop_file(fold).touch()
                    asked.append(f"fold {fold} of {prefix}{configuration}")
    if problems:
        raise ProblemsError(problems)
    if not asked:
        raise UsageError(f"nothing is being done for dataset {number} in {place.root}", "look at -d and -w again")
    return asked


def _cancel_all_jobs(jobs_folder: Path, folders: DatasetFolders) -> tuple[list[str], list[str]]:
    """Cancels all jobs of a plan but those that train a fold now, which end with their training.

    Returns:
        The names of those jobs, and a line for each that could not be cancelled.
    """
    from autoseg.cluster.cancellation import cancel_jobs
    from autoseg.cluster.job_state import ACTIVE, find_job_states
    from autoseg.cluster.training_jobs import name_fold_job
    from autoseg.planning.plan import CONFIGURATION_NAMES

    held = {
        name_fold_job(configuration, fold)
        for configuration in CONFIGURATION_NAMES
        for fold in folders.model(configuration).running_folds()
    }
    states = find_job_states(jobs_folder).values()
    chosen = [state for state in states if state.state in ACTIVE]
    chosen = [state for state in chosen if state.state == "waiting" or state.name not in held]
    problems = cancel_jobs(jobs_folder, chosen)
    return [state.name for state in chosen], problems
