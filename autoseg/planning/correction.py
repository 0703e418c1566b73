"""What steps of training were found to take, beside what `memory` counts: a factor, kept in plan.json.

A device whose memory ran out tells two things: that a step of so many patches needs more than there was, and how much
one of fewer patches took at its peak. What stands for the weights is known; the rest grows with the patches. So

    factor = (bytes - bytes of the weights) / (patches * bytes_per_patch)

holds for a batch of any size, and for patches and networks that are edited later. The context of the program is in
none of these numbers, because a device counts what a program can have beside it.
"""

from collections.abc import Mapping

from autoseg.plan import Configuration, ConfigurationName, MeasuredMemory, Plan
from autoseg.planning.memory import bytes_per_patch, training_bytes, weight_bytes
from autoseg.units import describe_memory

TIGHT_SHARE = 0.05
"""Of the memory that can be had, what a step leaves free. Decision: room for gaps between tensors, and for what other
programs take. Less than planning leaves, because this was measured, and a step that fails to fit is split again."""

BECAUSE = "measured when the memory of a device ran out"


def step_bytes(one: Configuration, *, recomputes: bool) -> int:
    """Device memory of a step of training: as it was measured, else as it is counted.

    Args:
        one: What is trained; its patches and its batch may have been edited since they were planned.
        recomputes: Whether feature maps are calculated again on the way back. What was measured with one and what was
            measured without have nothing to do with each other.
    """
    counted = training_bytes(one.architecture, one.patch_size, 0, one.network)
    return counted + round(one.batch_size * (_factor(one, recomputes) or 1) * _each(one))


def patches_within(most_bytes: int, one: Configuration, *, recomputes: bool) -> int | None:
    """How many patches fit at once, by what was measured; None if nothing was. See `step_bytes`."""
    factor = _factor(one, recomputes)
    if factor is None:
        return None
    return max(0, int((1 - TIGHT_SHARE) * (most_bytes - _weights(one)) / (factor * _each(one))))


def correct_plan(plan: Plan, name: ConfigurationName, least_bytes: Mapping[int, int], *, recomputed: bool) -> Plan:
    """The plan with the estimate of a configuration as it was measured, and a sentence that says so.

    What was measured before, in the same way, is kept where it is more: another device may take more for a patch.

    Args:
        plan: As it stands.
        name: Of the configuration.
        least_bytes: Patches at once, to what a step with them takes at least: tensors only, the weights included.
        recomputed: Whether feature maps were calculated again on the way back.
    """
    one = plan.configurations[name]
    factors = [(taken - _weights(one)) / (patches * _each(one)) for patches, taken in least_bytes.items()]
    factor = max([*factors, _factor(one, recomputed) or 0])
    if factor <= 0:
        return plan
    one = one.model_copy(update={"measured_memory": MeasuredMemory(factor=factor, recomputed=recomputed)})
    one = one.model_copy(update={"estimated_bytes": step_bytes(one, recomputes=recomputed)})
    counted = training_bytes(one.architecture, one.patch_size, one.batch_size, one.network)
    why = (
        f"{name}: {BECAUSE}: a training step takes about {describe_memory(one.estimated_bytes)}, where "
        f"{describe_memory(counted)} were counted."
    )
    kept = [sentence for sentence in plan.why if not sentence.startswith(f"{name}: {BECAUSE}")]
    return plan.model_copy(update={"configurations": {**plan.configurations, name: one}, "why": (*kept, why)})


def _factor(one: Configuration, recomputes: bool) -> float | None:
    measured = one.measured_memory
    return None if measured is None or measured.recomputed != recomputes else measured.factor


def _weights(one: Configuration) -> int:
    return weight_bytes(one.architecture, one.network)


def _each(one: Configuration) -> int:
    return bytes_per_patch(one.architecture, one.patch_size, one.network)
