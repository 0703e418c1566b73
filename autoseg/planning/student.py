"""Plans a student: the narrow network that learns from a teacher, within limits of work, time and memory.

The finest spacing that is within the limits is taken, then the widest network, in tiles that cost least. Decision: of
the same multiply-adds, half the features made more than coarser or fewer patches (tests/benchmarks/RESULTS.md,
"Learning from the same work"), and what a coarse grid has lost no network brings back. But a spacing that shows the
smallest structure in more voxels than `ENOUGH_VOXELS` is not paid for, and one that shows it in fewer than
`LEAST_VOXELS` is refused. Coarser grids become isotropic first: the finest axes lose voxels until all are alike.
Source: on abdominal CT 2.5 mm along all axes was better than half the resolution of each (FLARE 2024, task 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import pi, prod
from statistics import median

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError
from autoseg.planning.budget import make_budget
from autoseg.planning.configurations import DatasetDecisions, decide_dataset, make_configuration
from autoseg.planning.distillation_settings import DistillationSettings
from autoseg.planning.explanation import ConfigurationDecisions
from autoseg.planning.low_resolution import has_little_context
from autoseg.planning.machine_speed import MachineSpeed, count_patch_work, count_tiles, scan_seconds
from autoseg.planning.patch_size import PlanningConstraints, TypicalImage, fit_patch
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.prediction_memory import prediction_bytes
from autoseg.planning.presets import PRESETS, RULES, Limits, Preset
from autoseg.planning.schedule import choose_training
from autoseg.planning.student_explanation import explain_student, refuse_limits
from autoseg.planning.topology import two_or_three

STUDENT_PRESET = PRESETS["small"]
WIDTHS = (32, 24, 16, 8)
"""Features at full resolution that are tried. Decision: multiples of 8, which a CPU calculates at once."""
TILE_EDGES: dict[int, tuple[int, ...]] = {2: (192, 256, 384), 3: (64, 80, 96, 112, 128)}
"""Edges in voxels of the tiles that are tried, by the number of axes. Decision: large tiles overlap less, so there is
less work; but a step of training takes as much longer as they are larger."""
SPACING_STEP = 1.1
"""Factor by which the spacing grows from one attempt to the next."""
ENOUGH_VOXELS, LEAST_VOXELS = 16.0, 4.0
"""Diameter of the smallest structure in voxels above which a finer spacing is not tried, and below which a coarser one
is not. Decision: where its border is half a voxel off, the Dice of a ball of 16 voxels is 0.91, of 4 voxels 0.68."""
WITHOUT_SIZES = 4.0
"""How many times as coarse as the typical image a student may see it if the sizes of structures are unknown."""

ESTIMATE_MARGIN = 1.2
"""Factor on the measured seconds of the parts. Decision: predictions took 0.86 to 1.16 of their sum
(tests/benchmarks/RESULTS.md), and a limit is to be kept."""

MOST_TIMES_AS_LONG = 4.0
"""How many times as many steps as the preset's a student is trained at most, where a step is so much less work than one
of the teacher. Source: on hippocampi, a student of a quarter of the work is 0.020 behind its teacher after as many
steps, and 0.005 after four times as many (tests/benchmarks/RESULTS.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentLimits:
    """What the prediction of a typical image may take.

    Attributes:
        settings: The limits as the user stated them, which the plan keeps.
        teacher_work: Multiply-adds of the teacher for a typical image: one fold, without mirror images.
        speed: The speed of this machine; needed if seconds are limited.
        other_seconds: Seconds for a typical image that the start of the program and reading, resampling and writing
            take beside the network.
    """

    settings: DistillationSettings
    teacher_work: float
    speed: MachineSpeed | None = None
    other_seconds: float = 0.0

    @property
    def work(self) -> float:
        """Most multiply-adds."""
        return self.settings.work_share * self.teacher_work


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentCosts:
    """What the prediction of a typical image takes by one possible student.

    Attributes:
        work: Multiply-adds.
        memory_bytes: Memory in bytes.
        seconds: Seconds from start to end; None if the speed of the machine was not measured.
    """

    work: float
    memory_bytes: int
    seconds: float | None

    def is_within(self, limits: StudentLimits) -> bool:
        """Returns whether all limits are kept."""
        settings = limits.settings
        is_fast = settings.seconds is None or (self.seconds is not None and self.seconds <= settings.seconds)
        return is_fast and self.work <= limits.work and self.memory_bytes <= settings.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A possible student.

    Attributes:
        planned: Its typical image, patch and network.
        configuration: Its configuration.
        constraints: What patch and batch were fitted by.
        costs: What it takes.
    """

    planned: ConfigurationDecisions
    configuration: Configuration
    constraints: PlanningConstraints
    costs: StudentCosts


def plan_student(dataset: str, fingerprint: Fingerprint, info: DatasetInfo, limits: StudentLimits) -> Plan:
    """Plans a student with a single configuration.

    Args:
        dataset: Name of the dataset's folder.
        fingerprint: Measurements of the training cases.
        info: The content of dataset.json.
        limits: What the prediction of a typical image may take.

    Returns:
        The plan, with the reasons in `Plan.why`.

    Raises:
        UsageError: No student keeps the limits.
        DatasetError: The images are too small for any network.
    """
    decisions = decide_dataset(fingerprint, info, RULES["autoseg"])
    name: ConfigurationName = "3d_fullres"
    if decisions.grid.is_flat or not decisions.typical_image(name).is_trainable:
        name = "2d"
    image, size_mm = decisions.typical_image(name), smallest_structure_mm(fingerprint, info, flat=name == "2d")
    if not image.is_trainable:
        raise DatasetError(f"the images of {dataset} are too small for any network", "use larger images")
    file_voxels = median(float(prod(case.shape or case.shape_after_crop)) for case in fingerprint.cases)
    cheapest = None
    for coarse in list_spacings(image, size_mm):
        for width in WIDTHS:
            student = _fit(name, coarse, width, decisions, limits, file_voxels)
            if student is not None and student.costs.is_within(limits):
                return _make_plan(dataset, student, decisions, limits, size_mm)
            cheapest = student or cheapest
    raise refuse_limits(cheapest, limits)


def smallest_structure_mm(fingerprint: Fingerprint, info: DatasetInfo, *, flat: bool) -> float | None:
    """Returns the diameter in mm of the smallest structure, as a ball or disc of its median size in the cases with it.

    A structure of several connected parts counts as the mean of them.

    Args:
        fingerprint: Measurements of the training cases.
        info: Names the structures.
        flat: Whether structures are seen in slices, so that the spacing between these does not count.

    Returns:
        None if no structure occurs, or the fingerprint, which nnU-Net took, does not tell.
    """
    diameters = []
    for numbers in info.targets.structures.values():
        sizes = []
        for case in fingerprint.cases:
            facts = [label for label in case.labels if label.label in numbers]
            if not facts:
                continue
            voxels = sum(label.voxels for label in facts) / max(1, sum(label.parts or 1 for label in facts))
            sizes.append(voxels * prod(case.spacing_mm[1:] if flat else case.spacing_mm))
        if sizes:
            size = median(sizes)
            diameters.append((4 * size / pi) ** (1 / 2) if flat else (6 * size / pi) ** (1 / 3))
    return min(diameters, default=None)


def list_spacings(image: TypicalImage, size_mm: float | None) -> Iterator[TypicalImage]:
    """Yields the typical image at ever coarser spacings, beginning with the finest that is worth its cost.

    >>> image = TypicalImage(spacing_mm=(3.0, 1.0, 1.0), median_shape=(50, 300, 300), dataset_voxels=45e6)
    >>> first, *_, last = list_spacings(image, 32.0)
    >>> first.spacing_mm, [round(step, 1) for step in last.spacing_mm]
    ((3.0, 2.0, 2.0), [7.6, 7.6, 7.6])

    Args:
        image: The typical image at full resolution.
        size_mm: Diameter of the smallest structure; see `smallest_structure_mm`.
    """
    finest = min(image.spacing_mm)
    step, coarsest = finest, WITHOUT_SIZES * finest
    if size_mm is not None:
        step, coarsest = max(finest, size_mm / ENOUGH_VOXELS), max(finest, size_mm / LEAST_VOXELS)
    while True:
        yield _coarsen(image, step)
        step *= SPACING_STEP
        if step > coarsest:
            return


def _coarsen(image: TypicalImage, step_mm: float) -> TypicalImage:
    """Returns the typical image with voxels of at least `step_mm` along each axis."""
    spacing = [max(axis, step_mm) for axis in image.spacing_mm]
    shape = [
        max(1.0, size * old / new) for size, old, new in zip(image.median_shape, image.spacing_mm, spacing, strict=True)
    ]
    return TypicalImage(
        spacing_mm=two_or_three(spacing),
        median_shape=tuple(shape),
        dataset_voxels=image.dataset_voxels * prod(shape) / image.voxels,
    )


def _fit(
    name: ConfigurationName,
    image: TypicalImage,
    width: int,
    decisions: DatasetDecisions,
    limits: StudentLimits,
    file_voxels: float,
) -> Student | None:
    """Returns the student of a spacing and a width in the tiles that take the least work; None without any patch."""
    students = []
    for edge in TILE_EDGES[len(image.spacing_mm)]:
        constraints = _constrain(_narrow(width, edge), decisions)
        if not image.is_trainable:
            continue
        fit = fit_patch(image, constraints)
        batch_dice = name == "2d" or has_little_context(image, fit)
        planned = ConfigurationDecisions(name=name, image=image, fit=fit, batch_dice=batch_dice)
        configuration = _without_mirror_images(make_configuration(planned, decisions, constraints))
        costs = _count_costs(configuration, decisions, limits, file_voxels)
        students.append(Student(planned=planned, configuration=configuration, constraints=constraints, costs=costs))
    return min(students, key=lambda student: student.costs.work, default=None)


def _narrow(width: int, edge: int) -> Preset:
    """Returns the preset `small` with other features, relative to which the limit of features stays, and patches."""
    share = width / STUDENT_PRESET.base_features
    volume, plane = STUDENT_PRESET.volume, STUDENT_PRESET.plane

    def limit(limits: Limits, voxels: int) -> Limits:
        return replace(limits, features=round(limits.features * share), patch_voxels=voxels)

    return replace(STUDENT_PRESET, base_features=width, volume=limit(volume, edge**3), plane=limit(plane, edge**2))


def _constrain(preset: Preset, decisions: DatasetDecisions) -> PlanningConstraints:
    return PlanningConstraints(
        preset_name="small",
        preset=preset,
        budget=make_budget(preset, preset.memory_bytes),
        budget_bytes=preset.memory_bytes,
        in_channels=sum(channel.channels for channel in decisions.normalization),
        out_channels=decisions.info.targets.outputs,
        monotonic=decisions.rules.monotonic,
        patches="fixed" if decisions.scattered else preset.patches,
    )


def _without_mirror_images(configuration: Configuration) -> Configuration:
    """Returns a configuration whose training flips patches, and whose prediction takes each tile once."""
    augmentation = configuration.augmentation.model_copy(update={"prediction_mirroring": False})
    return configuration.model_copy(update={"augmentation": augmentation})


def _count_costs(
    configuration: Configuration, decisions: DatasetDecisions, limits: StudentLimits, file_voxels: float
) -> StudentCosts:
    shape = configuration.median_shape
    shape = shape if len(shape) == 3 else (max(1, round(decisions.grid.median_shape[0])), *shape)
    patch_work = count_patch_work(configuration) or 0
    seconds = None
    if limits.speed is not None:
        network_seconds = scan_seconds(configuration, shape, limits.speed, patch_work, votes=1)
        seconds = ESTIMATE_MARGIN * (network_seconds + limits.other_seconds)
    return StudentCosts(
        work=count_tiles(configuration, shape) * patch_work,
        memory_bytes=prediction_bytes(configuration, shape, file_voxels),
        seconds=seconds,
    )


def _make_plan(
    dataset: str, student: Student, decisions: DatasetDecisions, limits: StudentLimits, size_mm: float | None
) -> Plan:
    usual = choose_training(student.constraints.preset, decisions.grid)
    times = min(MOST_TIMES_AS_LONG, max(1.0, limits.teacher_work / student.costs.work))
    training = usual.model_copy(update={"epochs": round(times * usual.epochs)})
    return Plan(
        dataset=dataset,
        preset="small",
        memory_budget_bytes=student.constraints.budget_bytes,
        axis_order=decisions.grid.axis_order,
        configurations={student.planned.name: student.configuration},
        training=training.model_copy(update={"distillation": limits.settings}),
        why=(*explain_student(student, limits, training, usual.epochs, size_mm), *decisions.explain_channels()),
    )
