"""Distillation: a small student learns from a trained model, its teacher; it becomes a configuration like any other."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.scans import find_scans
from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.pipeline.datasets import preprocess
from autoseg.planning.distillation_settings import TEACHER_WEIGHT, DistillationSettings
from autoseg.planning.machine_speed import count_tiles, typical_shape
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import list_planned_cases, load_fingerprint, load_plan, save_plan
from autoseg.planning.student import StudentLimits, plan_student
from autoseg.runtime.lock import run_alone
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter, list_names
from autoseg.runtime.units import parse_memory
from autoseg.workspace import DatasetFolders, Fold, find_workspace, list_folds

if TYPE_CHECKING:
    from autoseg.models.fold_description import FoldDescription
    from autoseg.models.model_source import ResolvedModel

FilePath = str | os.PathLike[str]
WORK_SHARE, MEMORY = 1 / 3, "4GB"


def distil(
    number: int,
    *,
    name: str = "laptop",
    model: FilePath | None = None,
    configuration: ConfigurationName | None = None,
    plan_name: str | None = None,
    folds: Fold | Sequence[Fold] = "cv",
    unlabelled: FilePath | None = None,
    work: float = WORK_SHARE,
    seconds: float | None = None,
    memory: str = MEMORY,
    weight: float = TEACHER_WEIGHT,
    mirroring: bool | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    restart: bool = False,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Summary | None:
    """Trains a small network, the student, on what a trained model, the teacher, says about the training cases.

    The student gets a plan of its own beside the usual one, and is trained and validated on the same folds. The student
    of a fold learns from the networks of that fold alone, which have not seen its held-out cases either, so its scores
    are as honest as theirs. It is an ordinary configuration of that plan: `predict`, `find_best`, `export_model` and
    the reports take it by `plan_name`. After a stop, the same call goes on.

    Args:
        number: Number of the dataset, whose training cases teach.
        name: Name of the student's plan.
        model: A model folder, bundle or installed model that teaches; by default what is trained on the dataset.
        configuration: Configuration that teaches; by default the choice of `find_best`, or the only one trained, else
            "3d_fullres".
        plan_name: Plan of the teacher, if it is not the usual one.
        folds: Folds of the student: numbers, "cv" for each, or "all", which all folds of the teacher teach together.
        unlabelled: Folder of scans without labels to learn from as well.
        work: Most multiply-adds for a typical image, as a share of those of the teacher: of one fold of it, without
            mirror images.
        seconds: Most seconds for a typical image on this machine's processor, from the start of `predict` to its end.
        memory: Most memory for a typical image, such as "4GB".
        weight: Share of the loss that compares with the teacher, above 0 and up to 1; the rest compares with labels.
        mirroring: Whether the teacher averages over mirror images; by default as in its predictions.
        epochs: See `train`, for this and the next two arguments.
        budget: A length of training such as "quick" or "2h".
        device: "auto", "cpu", "cuda" or "mps".
        restart: Whether to plan anew and to discard what was trained of the folds of this student.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what was planned and how good teacher and student are.

    Returns:
        Scores of the held-out cases of all folds of the student so far, before postprocessing; None if none is held
        out.

    Raises:
        UsageError: No student keeps the limits; the plan of this name is not that of such a student; or see `train`.
        ModelError: The teacher is missing or damaged, or was trained on other cases, channels or labels.
        DatasetError: There is no such dataset, or no scans where unlabelled ones are said to be.
        ProblemsError: Scans are damaged, with a line for each.
        Stopped, KeyboardInterrupt: See `train`.

    Example:
        After all folds of the teacher were trained::

            autoseg.distil(4, seconds=20)
            autoseg.predict("scans", "masks", number=4, plan_name="laptop")
    """
    from autoseg.inference.lesson import Lesson
    from autoseg.inference.loading import PredictionOptions
    from autoseg.inference.teacher import describe_teacher
    from autoseg.models.model_source import find_model, opened_model
    from autoseg.pipeline import train

    _check_numbers(work, seconds, weight)
    folders = find_workspace(workspace).dataset(number, name)
    if name == plan_name or (folders.plan.is_file() and load_plan(number, folders).training.distillation is None):
        what = f"the plan {name!r} of {folders.raw.name} is not that of a student"
        raise UsageError(what, "choose another name with --for")
    info, splits = DatasetInfo.load(info_file(folders.raw)), _load_splits(folders, number)
    asked = splits.expand(list_folds(folds))
    for fold in asked:
        splits.fold(fold)
    scans = [] if unlabelled is None else _find_unlabelled(as_path(unlabelled, "unlabelled"), info, folders)
    source = number if model is None else model
    path = find_model(
        source, configuration, plan_name=plan_name, default="3d_fullres" if model is None else None, workspace=workspace
    )
    with ExitStack() as stack:
        teacher = stack.enter_context(opened_model(path))
        described = describe_teacher(teacher, asked, splits, info)
        settings = DistillationSettings(
            teacher=_name_members(teacher, described),
            weight=weight,
            unlabelled=tuple(scan.name for scan in scans),
            work_share=work,
            seconds=seconds,
            memory_bytes=parse_memory(memory),
        )
        plan = _find_plan(number, folders, info, settings, described, restart=restart, reporter=reporter)
        preprocess(number, plan_name=name, workspace=workspace, reporter=reporter)
        lesson = Lesson(
            plan=plan,
            folders=folders,
            dataset=Dataset.open(folders.raw).only(splits.names),
            splits=splits,
            scans=scans,
            teacher=teacher,
            options=PredictionOptions(device=device, mirroring=mirroring),
        )
        lesson.teach(asked, reporter, restart=restart)
        [student] = plan.configurations
        summary = train(
            number,
            student,
            asked,
            epochs=epochs,
            budget=budget,
            device=device,
            restart=restart,
            plan_name=name,
            workspace=workspace,
            reporter=reporter,
        )
        for line in _compare(teacher, folders, student, asked):
            reporter.say(line)
    return summary


def _check_numbers(work: float, seconds: float | None, weight: float) -> None:
    for what, value, most in (("work", work, 1.0), ("seconds", seconds, float("inf")), ("weight", weight, 1.0)):
        if value is not None and not 0 < value <= most:
            limit = "above 0" if most > 1 else "above 0 and at most 1"
            raise UsageError(f"{what} is {value:g}", f"give a number {limit}")


def _load_splits(folders: DatasetFolders, number: int) -> Splits:
    if not folders.splits.is_file():
        what = f"{folders.raw.name} has no splits.json, so nothing was trained that could teach"
        raise UsageError(what, f"run 'autoseg plan_and_preprocess -d {number}' and train a teacher first")
    return Splits.load(folders.splits)


def _find_unlabelled(source: "os.PathLike[str]", info: DatasetInfo, folders: DatasetFolders) -> list[Case]:
    """Finds scans without labels, none of which may be a case of the dataset, which may be held out."""
    targets = info.targets
    if targets.as_masks:
        what = "scans without labels cannot be used where structures overlap without an order"
        raise UsageError(what, 'add "regions_class_order" to dataset.json, or leave the scans out')
    scans = find_scans(as_path(source, "unlabelled"), info)
    known = set(list_planned_cases(folders))
    twice = sorted(scan.name for scan in scans if scan.name in known)
    if twice:
        what = f"scans without labels have names of cases of the dataset: {list_names(twice)}"
        raise UsageError(what, "take these scans out, since cases that are held out must not teach, or rename them")
    return scans


def _name_members(teacher: "ResolvedModel", described: Sequence["FoldDescription"]) -> tuple[str, ...]:
    if len(teacher.members) == 1 and teacher.members[0].name is None:
        return (described[0].configuration_name,)
    return tuple(str(member.name) for member in teacher.members)


def _find_plan(
    number: int,
    folders: DatasetFolders,
    info: DatasetInfo,
    settings: DistillationSettings,
    described: Sequence["FoldDescription"],
    *,
    restart: bool,
    reporter: Reporter,
) -> Plan:
    """Returns the plan of an earlier call, if it was for the same student, else makes one and saves it."""
    if folders.plan.is_file() and not restart:
        plan = load_plan(number, folders)
        before = plan.training.distillation
        if before != settings:
            fields = [name for name, value in settings if getattr(before, name) != value]
            what = f"the student {folders.plan_name!r} was begun with another {' and '.join(fields)}"
            raise UsageError(what, "repeat its options, choose another name with --for, or add --restart")
        return plan
    fingerprint = load_fingerprint(number, folders)
    limits = _make_limits(settings, described, fingerprint)
    plan = plan_student(folders.raw.name, fingerprint, info, limits)
    with run_alone(folders.preprocessed):
        save_plan(plan, folders, reporter)
    for line in plan.why:
        reporter.say(line)
    return plan


def _make_limits(
    settings: DistillationSettings, described: Sequence["FoldDescription"], fingerprint: Fingerprint
) -> StudentLimits:
    """Returns the limits of the student, with the work of the teacher, and what this machine takes if that counts."""
    from autoseg.models.work import measure_patch_work

    teacher_work = 0.0
    for fold in described:
        patch_work = measure_patch_work(fold.configuration)
        if patch_work is None:
            what = (
                f"the work of the network of {fold.configuration_name} cannot be counted, so that of a student neither"
            )
            raise UsageError(what, "choose another teacher with -c")
        teacher_work += patch_work * count_tiles(fold.configuration, typical_shape(fold.plan, fold.configuration_name))
    limits = StudentLimits(settings=settings, teacher_work=teacher_work)
    if settings.seconds is None:
        return limits
    from autoseg.models.handling_speed import measure_handling, measure_start
    from autoseg.models.speed import measure_potential
    from autoseg.runtime.device import resolve_device

    shapes = [case.shape or case.shape_after_crop for case in fingerprint.cases]
    z, y, x = (round(median(axis)) for axis in zip(*shapes, strict=True))
    z_mm, y_mm, x_mm = (median(axis) for axis in zip(*(case.spacing_mm for case in fingerprint.cases), strict=True))
    handling = measure_handling(described[0].configuration, (z, y, x), (z_mm, y_mm, x_mm))
    return replace(
        limits,
        speed=measure_potential(resolve_device("cpu")),
        other_seconds=measure_start() + handling,
    )


def _compare(
    teacher: "ResolvedModel", folders: DatasetFolders, student: ConfigurationName, folds: Sequence[Fold]
) -> Iterator[str]:
    """Yields a line for each fold on the Dice of student and teacher on the same held-out cases, if both are known."""
    if len(teacher.members) > 1:
        yield "'autoseg find_best' compares the student with the configurations that taught it together"
        return
    [member] = teacher.members
    for fold in folds:
        files = [summary_file(model.validation(fold)) for model in (folders.model(student), member.folder)]
        if all(path.is_file() for path in files):
            own, taught = (Summary.load(path).foreground_mean.dice for path in files)
            yield f"fold {fold}: mean Dice of whole held-out cases {own:.4f}, of its teacher {taught:.4f}"
