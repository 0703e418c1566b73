"""Explains the plan of a student in sentences with the numbers behind them, and why no student keeps some limits."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from autoseg.errors import UsageError
from autoseg.planning.explanation import explain_configuration
from autoseg.planning.machine_speed import describe_roughly
from autoseg.planning.patch_size import format_size
from autoseg.runtime.units import describe_memory

if TYPE_CHECKING:
    from autoseg.planning.settings import TrainingSettings
    from autoseg.planning.student import Student, StudentLimits


def explain_student(
    student: "Student", limits: "StudentLimits", training: "TrainingSettings", usual_epochs: int, size_mm: float | None
) -> Iterator[str]:
    """Yields a sentence per decision.

    Args:
        student: The student that was chosen.
        limits: The limits that it keeps.
        training: How long it is trained.
        usual_epochs: How many epochs the preset has.
        size_mm: Diameter of the smallest structure in mm, if it is known.
    """
    settings, name, costs = limits.settings, student.planned.name, student.costs
    yield (
        f"A student of {' and '.join(settings.teacher)}: {settings.weight:.0%} of the loss compares with the "
        "probabilities of that teacher, the rest with labels; of a fold, only the teacher's networks of the same fold "
        "teach, so that neither has seen the held-out cases."
    )
    yield (
        f"A typical image may take {describe_limits(limits)}; the finest spacing within these limits is taken, then "
        "the widest network, then the tiles of the least work."
    )
    spacing = student.planned.image.spacing_mm
    seen = ""
    if size_mm is not None:
        across = size_mm / prod(spacing) ** (1 / len(spacing))
        seen = f", where the smallest structure, a ball of {size_mm:.3g} mm, is {across:.2g} voxels wide"
    yield f"{name}: voxels of {format_size([float(f'{step:.4g}') for step in spacing])} mm{seen}."
    yield (
        f"{name}: a typical image takes {describe_work(costs.work)}, {costs.work / limits.teacher_work:.0%} of the "
        f"teacher's {describe_work(limits.teacher_work)}, and about {describe_memory(costs.memory_bytes)} of memory"
        f"{_describe_seconds(student, limits)}; prediction takes each tile once, without its mirror images."
    )
    times = training.epochs / usual_epochs
    longer = (
        f"{times:.2g} times as many as in the preset small, since a step is as much less work than one of the teacher"
        if times > 1
        else "as in the preset small"
    )
    yield f"Training lasts {training.epochs} epochs of {training.steps_per_epoch} steps, {longer}."
    yield from explain_configuration(student.planned, student.configuration, student.constraints)


def describe_limits(limits: "StudentLimits") -> str:
    """Returns the limits as text, such as "0.33 of the work of the teacher and 4.0 GB of memory"."""
    settings = limits.settings
    seconds = "" if settings.seconds is None else f", {settings.seconds:g} s on this machine"
    return f"{settings.work_share:.2g} of the work of the teacher{seconds} and {describe_memory(settings.memory_bytes)}"


def describe_work(work: float) -> str:
    """Returns a number of multiply-adds in words.

    >>> describe_work(8.04e9), describe_work(2.5e12)
    ('8.04 billion multiply-adds', '2500 billion multiply-adds')
    """
    return f"{float(f'{work / 1e9:.3g}'):g} billion multiply-adds"


def _describe_seconds(student: "Student", limits: "StudentLimits") -> str:
    if student.costs.seconds is None or limits.speed is None:
        return ""
    other = describe_roughly(limits.other_seconds)
    speed = limits.speed.describe().replace("in float32", "in training")
    return (
        f", and about {describe_roughly(student.costs.seconds)} on this machine ({limits.speed.machine}, {speed}), of "
        f"which the start of the program, reading, resampling and writing take {other}"
    )


def refuse_limits(cheapest: "Student | None", limits: "StudentLimits") -> UsageError:
    """Returns the error for limits that no student keeps, with what the cheapest one takes."""
    what = f"no student segments a typical image within {describe_limits(limits)}"
    if cheapest is None:
        return UsageError(what, "raise the limits")
    costs = cheapest.costs
    needs = [f"{costs.work / limits.teacher_work:.2g} of the work", describe_memory(costs.memory_bytes)]
    if costs.seconds is not None:
        needs.append(describe_roughly(costs.seconds))
    return UsageError(f"{what}: the smallest takes {', '.join(needs)}", "raise --work, --seconds or --memory")
