"""Students are as fine and as wide as their limits allow, and no finer than the structures need."""

from math import prod

import pytest
from planning_cases import CHANNEL, golden_fingerprint, golden_info, info_of

from autoseg.datasets.fingerprint import CaseFacts, Fingerprint
from autoseg.datasets.label_facts import LabelFacts
from autoseg.errors import UsageError
from autoseg.planning.distillation_settings import DistillationSettings
from autoseg.planning.machine_speed import MachineSpeed, count_patch_work, count_tiles
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS
from autoseg.planning.student import (
    ENOUGH_VOXELS,
    LEAST_VOXELS,
    WIDTHS,
    StudentLimits,
    plan_student,
    smallest_structure_mm,
)

GB = 10**9
SPEED = MachineSpeed(machine="any, 2 cores", device="cpu", precision="float32", training=80e9, prediction=100e9)


def fingerprint_of_sizes(shape, spacing_mm, voxels, parts=1):
    """A fingerprint of cases with a structure for each number of voxels."""
    labels = tuple(
        LabelFacts(label=number, voxels=size, center=(0.5, 0.5, 0.5), parts=parts, largest_part=size // parts)
        for number, size in enumerate(voxels, start=1)
    )
    cases = tuple(
        CaseFacts(name=f"case_{n}", shape=shape, shape_after_crop=shape, spacing_mm=spacing_mm, labels=labels)
        for n in range(20)
    )
    return Fingerprint(cases=cases, channels=(CHANNEL,), median_relative_size_after_crop=1.0)


CT = fingerprint_of_sizes((300, 512, 512), (1.5, 0.8, 0.8), (1_500_000, 6_000))
INFO = info_of("CT", classes=3)


def limits_of(teacher_work=1e13, *, work=1.0, seconds=None, memory_gb=4.0, other_seconds=0.0):
    """Limits of a typical image."""
    settings = DistillationSettings(
        teacher=("3d_fullres",), work_share=work, seconds=seconds, memory_bytes=round(memory_gb * GB)
    )
    return StudentLimits(
        settings=settings,
        teacher_work=teacher_work,
        speed=None if seconds is None else SPEED,
        other_seconds=other_seconds,
    )


def plan_ct(**limits):
    """The only configuration of the student of a CT dataset."""
    [configuration] = plan_student("Dataset001_CT", CT, INFO, limits_of(**limits)).configurations.values()
    return configuration


def work_of(configuration):
    """Multiply-adds for a typical image."""
    return count_tiles(configuration, configuration.median_shape) * count_patch_work(configuration)


def test_a_hippocampus_keeps_its_spacing_at_a_third_of_the_work():
    """The teacher is the usual plan; the student has fewer features, which are a multiple of 8, and sees as finely."""
    fingerprint, info = golden_fingerprint("Hippo"), golden_info("Hippo")
    options = PlanningOptions(dataset="Dataset004_Hippocampus", memory_budget_bytes=4 * GB, preset="small")
    teacher = make_plan(fingerprint, info, options).configurations["3d_fullres"]
    limits = limits_of(work_of(teacher), work=1 / 3)
    plan = plan_student("Dataset004_Hippocampus", fingerprint, info, limits)
    [student] = plan.configurations.values()
    assert student.spacing_mm == teacher.spacing_mm
    assert student.architecture.stages[0].features == 8
    assert work_of(student) <= work_of(teacher) / 3
    assert student.augmentation.mirror_axes == (0, 1, 2)
    assert student.augmentation.averaged_axes == ()
    assert plan.training.distillation == limits.settings
    text = "\n".join(plan.why)
    assert "A student of 3d_fullres: 10% of the loss" in text
    assert "of the teacher's" in text
    assert "All images are resampled to 1 x 1 x 1 mm (z, y, x), the median" not in text


@pytest.mark.parametrize("ratio", [0.5, 3.0, 100.0])
def test_a_student_learns_about_as_long_as_its_teacher(ratio):
    """It takes as many more steps as its work is less, up to four times as many, and says so."""
    student = work_of(plan_ct(teacher_work=1e16, seconds=20))
    plan = plan_student("Dataset001_CT", CT, INFO, limits_of(ratio * student, work=2.0, seconds=20))
    times = {0.5: 1, 3.0: 3, 100.0: 4}[ratio]
    assert plan.training.epochs == times * PRESETS["small"].training.epochs
    [reason] = [sentence for sentence in plan.why if sentence.startswith("Training lasts")]
    assert ("steps, as in the preset small" in reason) == (times == 1)
    assert (f"{times} times as many as in the preset small" in reason) == (times > 1)


@pytest.mark.parametrize("seconds", [5, 10, 20, 60])
def test_seconds_are_kept_with_a_margin(seconds):
    """By the measured speed, with what reading and writing take, and a fifth more, since speeds vary."""
    student = plan_ct(seconds=seconds, other_seconds=1.0)
    speed = SPEED.of_network(student)
    assert 1.2 * (work_of(student) / speed.prediction + 1.0) <= seconds


def test_more_time_is_finer_or_wider():
    """Neither gets worse, and from a little to much time, both get better."""
    students = [plan_ct(teacher_work=1e16, memory_gb=100, seconds=seconds) for seconds in (5, 10, 20, 60, 6000)]
    fineness = [(-prod(student.spacing_mm), student.architecture.stages[0].features) for student in students]
    assert fineness == sorted(fineness)
    assert prod(students[0].spacing_mm) > prod(students[-1].spacing_mm)
    assert students[-1].architecture.stages[0].features == max(WIDTHS)


def test_coarse_grids_are_isotropic_first():
    """The finest axes lose voxels before the coarsest does."""
    z_mm, y_mm, x_mm = plan_ct(seconds=10).spacing_mm
    assert z_mm >= 1.5
    assert y_mm == x_mm
    assert z_mm / y_mm < 1.5 / 0.8


def test_no_finer_than_the_smallest_structure_needs():
    """With all the time in the world, the smallest structure is not seen in more voxels than are enough."""
    size_mm = smallest_structure_mm(CT, INFO, flat=False)
    assert size_mm == pytest.approx(22.3, abs=0.1)
    spacing = plan_ct(teacher_work=1e20, memory_gb=100).spacing_mm
    assert min(spacing) == pytest.approx(size_mm / ENOUGH_VOXELS)


def test_parts_of_a_structure_count_apart():
    """A hundred small lesions need as fine a grid as one of them."""
    one, many = (fingerprint_of_sizes((80, 80, 80), (1.0, 1.0, 1.0), (5_000, 50_000), parts=n) for n in (1, 100))
    assert smallest_structure_mm(one, INFO, flat=False) == pytest.approx(21.2, abs=0.1)
    assert smallest_structure_mm(many, INFO, flat=False) == pytest.approx(4.57, abs=0.01)


def test_limits_that_no_student_keeps_are_refused():
    """The error says what the smallest student takes; the smallest structure stays visible."""
    with pytest.raises(UsageError, match=r"within 1 of the work of the teacher, 0.05 s .* the smallest takes .* raise"):
        plan_ct(seconds=0.05)
    with pytest.raises(UsageError, match="the smallest takes"):
        plan_ct(memory_gb=0.8)
    coarsest = smallest_structure_mm(CT, INFO, flat=False) / LEAST_VOXELS
    assert max(plan_ct(seconds=2).spacing_mm) <= coarsest


@pytest.mark.parametrize("name", ["Nat2D", "ACDC", "LiverCT", "Promise12", "ProstateMSD"])
def test_every_dataset_has_a_student(name):
    """Pictures and volumes, with as many outputs as labels, in multiples of 8 features."""
    fingerprint, info = golden_fingerprint(name), golden_info(name)
    plan = plan_student("Dataset001_Any", fingerprint, info, limits_of(1e12, work=1 / 3, memory_gb=8))
    [(configuration_name, student)] = plan.configurations.items()
    assert configuration_name == ("2d" if name == "Nat2D" else "3d_fullres")
    assert all(stage.features % 8 == 0 for stage in student.architecture.stages)
    assert student.architecture.out_channels == info.targets.outputs
