"""Training: folds trained and validated, and asked to stop."""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from autoseg.errors import ProblemsError, Stopped
from autoseg.evaluation.summary import Summary
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold, find_workspace, list_folds

if TYPE_CHECKING:
    from autoseg.training.jobs import TrainingRequest


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
    init_names: str | os.PathLike[str] | None = None,
    freeze: str | None = None,
    log: Sequence[str] = (),
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Summary | None:
    """Trains folds one after the other and validates each on its held-out cases.

    A fold that was begun goes on where it was stopped, or after a crash where its last epoch ended; a finished fold is
    not trained again. SIGTERM, Ctrl-C, or a call of `stop`, ends the run once its present step has ended and is saved;
    held-out cases that are segmented by then are kept as well. A second signal does what it does by default. On the
    command line, and with `gpus`, a step that takes longer than a few seconds is given up, so that the run ends within
    ten seconds; a call of this function never ends the program that calls it.

    Args:
        number: Number of the dataset.
        configuration: "2d", "3d_fullres", "3d_lowres", or "3d_cascade_fullres" after all folds of "3d_lowres".
        folds: A number from 0 to 4 or several, "cv" for each of them, or "all" for a model of all cases, which holds
            none out.
        epochs: Number of epochs instead of the plan's.
        budget: Instead of epochs: "quick", "standard" (as the plan says), "full", or a time per fold such as "2h"; see
            `training.duration`.
        extend: Epochs, such as "50", or a time, such as "30m", by which finished folds go on; the learning rate falls
            once more, from where the longer schedule would be by then.
        device: "auto", "cpu", "cuda" or "mps".
        gpus: Number of CUDA GPUs of this machine that train each fold together, with a process each; see
            `training.launch`. Processes that torchrun started, on any number of machines that share the workspace, do
            so by themselves.
        augment_on: Where patches are augmented: on the "cpu" or on the "device" of the network; "auto" is the device if
            that is a CUDA GPU. The changes are the same, up to rounding.
        restart: Whether to discard what was trained of these folds.
        init: Trained model whose weights to begin with, where they fit: a model folder, the folder of one of its folds,
            or a checkpoint.pt; or a file of `torch.save` that another program wrote, such as a checkpoint of nnssl. See
            `training.initial_weights`.
        init_names: File that says how the weights of another program are called here; see `models.weight_patterns`.
        freeze: Weights of `init` that are not trained: "encoder", "decoder" or "all_but_heads".
        log: "tensorboard", "mlflow", or both: where the numbers of each epoch are logged as well.
        plan_name: Name of the plan, if it is not the usual one.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress and states results, and first how long it will take; see `training.training_time`.

    Returns:
        Scores of the held-out cases of all folds trained so far, before postprocessing; None if none is held out.

    Raises:
        UsageError: The dataset is not preprocessed as its plan says, there is no such fold, configuration or device, or
            options contradict each other or the run to be continued.
        DatasetError: There is no such dataset.
        ArtifactError: plan.json or splits.json is damaged, or the disk is full.
        ProblemsError: Raw or preprocessed cases are damaged or missing, with a line for each.
        ModelError: The plan changed since a fold was begun, or its checkpoint, or the model to begin with, is damaged
            or missing.
        AutosegError: The loss is no longer a number, or the device's memory is full.
        Stopped: The run was asked to stop, and did after having saved all.
        KeyboardInterrupt: Likewise, by Ctrl-C.

    Example:
        After `plan_and_preprocess`, which prepared dataset 4::

            summary = autoseg.train(4, "3d_fullres", [0], budget="5m")
            summary.foreground_mean.dice
    """
    from autoseg.training.duration import LengthRequest
    from autoseg.training.initial_weights import InitialWeightsRequest
    from autoseg.training.jobs import TrainingRequest
    from autoseg.training.launch import launch
    from autoseg.training.stopping import EXIT_INTERRUPTED

    request = TrainingRequest(
        number=number,
        folders=find_workspace(workspace).dataset(number, plan_name),
        configuration=configuration,
        folds=tuple(list_folds(folds)),
        length=LengthRequest(epochs=epochs, budget=budget, extend=extend, restart=restart),
        initial_weights=InitialWeightsRequest(
            path=None if init is None else as_path(init, "init"),
            names=None if init_names is None else as_path(init_names, "init_names"),
            freeze=freeze,
        ),
        device=device,
        augment_on=augment_on,
        trackers=tuple(log),
    )
    try:
        if gpus is None:
            return _train_folds(request, reporter)
        return launch(partial(_train_folds, request), gpus, device, reporter)
    except Stopped as stopped:
        if stopped.exit_code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt(str(stopped)) from None
        raise


def _train_folds(request: "TrainingRequest", reporter: Reporter) -> Summary | None:
    """Trains and validates all folds of a request; with several GPUs each process runs this."""
    from autoseg.model_selection.validation import pool_validation, validate_fold
    from autoseg.models.calibration import load_calibration
    from autoseg.training.fold import hold_fold, train_to_end
    from autoseg.training.jobs import describe_concerns, make_jobs, prepare_cascade_labels
    from autoseg.training.ranks import init_ranks
    from autoseg.training.training_time import describe_training_time, paced

    jobs = make_jobs(request)
    first = jobs[0]  # dataset, model folder, device and ranks are the same for all jobs
    init_ranks(first.ranks, first.device)
    reporter = reporter if first.ranks.is_main else SILENT
    prepare_cascade_labels(first, request.number, reporter)
    for line in describe_concerns(first):
        reporter.say(line)
    if reporter is not SILENT:
        for line in describe_training_time(jobs):
            reporter.say(line)
    for number, job in enumerate(jobs):
        with hold_fold(job, reporter) as stop:
            checkpoint = train_to_end(job, stop, paced(job, reporter, folds=len(jobs) - number))
            validate_fold(job, checkpoint, reporter, stop)
    first.ranks.shutdown()
    if not first.ranks.is_main or all(job.fold == "all" for job in jobs):
        return None
    rules, summary = pool_validation(first.dataset, first.model, reporter)
    reporter.say(rules.describe())
    if (calibration := load_calibration(first.model)) is not None:
        reporter.say(calibration.describe())
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

    A run on the command line gives up a step that takes longer than a few seconds. Jobs that wait to train a fold are
    cancelled, whether Slurm has them or `run_jobs` runs them here.

    Args:
        number: Number of the dataset.
        configuration: Configuration that is being trained.
        folds: Folds to stop; by default all that are being trained or wait for it.
        plan_name: Name of the plan, if it is not the usual one.
        workspace: See `train`.

    Returns:
        The folds that were asked, and those whose jobs were cancelled.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: None of these folds is being trained.
        ProblemsError: Jobs could not be cancelled, with a line for each; all others were.

    Example:
        From another process, while `train` runs::

            autoseg.stop(4, "3d_fullres")
    """
    from autoseg.cluster.cancellation import cancel_jobs, find_fold_jobs
    from autoseg.cluster.job_state import find_job_states
    from autoseg.training.stopping import ask_to_stop, held_folds

    place = find_workspace(workspace)
    folders = place.dataset(number, plan_name)
    model, jobs_folder = folders.model(configuration), place.jobs(folders.raw.name, plan_name)
    held = held_folds(model)
    jobs = find_fold_jobs(find_job_states(jobs_folder), configuration, held)
    named = None if folds is None or "cv" in list_folds(folds) else list_folds(folds)
    chosen = {fold: job for fold, job in jobs.items() if named is None or fold in named}
    problems = cancel_jobs(jobs_folder, list(chosen.values()))  # first, since they begin as soon as others end
    others = held if named is None else [fold for fold in named if fold not in chosen or fold in held]
    asked = ask_to_stop(model, others) if others or not chosen else []
    if problems:
        raise ProblemsError(problems)
    return [*asked, *(fold for fold in chosen if fold not in asked)]
