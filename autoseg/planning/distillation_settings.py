"""The type of the section of plan.json on distillation: a student that learns from a teacher."""

from typing import Annotated

from pydantic import Field

from autoseg.networks.architecture import PositiveFloat, PositiveInt, Section

TEACHER_WEIGHT = 0.1
"""Share of the loss that compares with the teacher. Source: on hippocampi a student has a Dice of 0.868 with 0.5, 0.873
with 0.1, and 0.874 by labels alone (tests/benchmarks/RESULTS.md)."""


class DistillationSettings(Section):
    """Training on the soft predictions of a teacher, beside the labels; see `training.distillation_loss`.

    Attributes:
        teacher: The configurations that predict together as the teacher, such as ["3d_fullres"]; for a fold, only their
            networks of the same fold do, which have not seen its held-out cases either.
        weight: Share of the loss that compares with the probabilities of the teacher; the rest compares with labels.
        unlabelled: Names of the scans without labels that are trained on as well. The segmentation of the teacher
            stands for their labels.
        work_share: Multiply-adds for a typical image that the student was allowed, as a share of the teacher's.
        seconds: Seconds for a typical image that the student was allowed, on the machine that planned it; None if
            they were not limited.
        memory_bytes: Memory in bytes that the prediction of a typical image was allowed.
    """

    teacher: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: Annotated[float, Field(gt=0, le=1)] = TEACHER_WEIGHT
    unlabelled: tuple[str, ...] = ()
    work_share: PositiveFloat
    seconds: PositiveFloat | None = None
    memory_bytes: PositiveInt
