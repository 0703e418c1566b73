"""The memory of a training step, as plan.json estimates it: warnings, micro-batches from the start, and correction."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from autoseg.errors import AutosegError
from autoseg.planning.budget import count_fitting_patches, estimate_step_bytes, update_memory_estimate
from autoseg.planning.plan import Configuration, Plan
from autoseg.runtime.device import gpu_memory_bytes, gpu_memory_within_reach
from autoseg.runtime.lock import change_alone
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.units import describe_memory
from autoseg.training.fold_job import FoldJob
from autoseg.training.plugin_checks import describe_limits
from autoseg.training.state import TrainState


def describe_memory_limit(job: FoldJob) -> Iterator[str]:
    """Yields a line if the GPU is too small for a training step, as after an edit of plan.json, or if none can tell."""
    yield from describe_limits(job.configuration, job.plan.training)
    available, configuration = gpu_memory_bytes(job.device), job.configuration
    needed = estimate_step_bytes(configuration, recomputes=job.plan.training.recompute_activations)
    if not configuration.is_foreign and available is not None and needed > available:
        yield (
            f"a step of {job.configuration_name} takes about {describe_memory(needed)}, but {job.device} has "
            f"{describe_memory(available)}; if it runs out, plan with --memory {available // 10**9}GB, or lower "
            "batch_size or patch_size in plan.json"
        )


def limit_micro_batches(job: FoldJob, state: TrainState, reporter: Reporter) -> None:
    """Lets a fold begin in micro-batches if an earlier fold measured that a whole batch does not fit.

    So the memory runs out once, and not again for each fold. Several ranks agree later on how many micro-batches all of
    them make; see `training.memory_trial`.

    Args:
        job: The fold.
        state: Its state; `micro_batch_size` is set, unless the fold has one from an earlier run.
        reporter: Told about the micro-batches.
    """
    available, configuration = gpu_memory_within_reach(job.device), _load_measured(job)
    if available is None or state.micro_batch_size is not None or configuration.is_foreign:
        return
    recomputes = job.plan.training.recompute_activations
    fitting = count_fitting_patches(available, configuration, recomputes=recomputes)
    share = -(-configuration.batch_size // job.ranks.count)
    if fitting is None or fitting >= min(share, job.plan.training.micro_batch_size or share):
        return
    state.micro_batch_size = max(1, fitting)
    reporter.say(
        f"a step of {job.configuration_name} takes about "
        f"{describe_memory(estimate_step_bytes(configuration, recomputes=recomputes))}, as "
        f"was measured, and {describe_memory(available)} could be had of {job.device}: each step takes "
        f"{state.micro_batch_size} patches at a time and adds up their gradients"
    )


def correct_estimate(job: FoldJob, least_bytes: Mapping[int, int], reporter: Reporter) -> None:
    """Writes the memory that steps were measured to take to plan.json, for the following folds, and reports it.

    Jobs that run at once do so one after the other, so that each keeps what the others wrote. If plan.json cannot be
    written, that is reported, and the training goes on.

    Args:
        job: The fold whose steps were measured.
        least_bytes: Number of patches at once, to the measured bytes; see `TrainState.measured_bytes`.
        reporter: Told about the estimate.
    """
    name = job.configuration_name
    if job.configuration.is_foreign or not least_bytes:
        return
    recomputed = job.plan.training.recompute_activations
    try:
        with change_alone(job.folders.plan):
            plan = Plan.load(job.folders.plan)
            now = plan.configurations.get(name)
            if now is None or now.without_estimates != job.configuration.without_estimates:
                reporter.say(f"plan.json says something else of {name} by now, and keeps its estimate")
                return
            plan = update_memory_estimate(plan, name, least_bytes, recomputed=recomputed)
            plan.save(job.folders.plan)
    except AutosegError as error:
        reporter.say(f"the estimate of plan.json could not be corrected: {error}")
        return
    estimate = describe_memory(plan.configurations[name].estimated_bytes)
    reporter.say(f"plan.json now estimates {estimate} for a step of {name}, as measured")


def _load_measured(job: FoldJob) -> Configuration:
    """Returns the configuration, with the memory that plan.json says by now that its steps were measured to take."""
    measured = job.configuration.measured_memory
    with suppress(AutosegError):  # plan.json was sound when the job was made; the next run names what is wrong now
        plan = Plan.load(job.folders.plan)
        measured = plan.configurations.get(job.configuration_name, job.configuration).measured_memory
    return job.configuration.model_copy(update={"measured_memory": measured})
