"""How long the training of a `run` will take, from its plan; before there is one, from the sizes of the images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import FOLDS
from autoseg.dicom.search import unpacked
from autoseg.errors import AutosegError, UsageError
from autoseg.imaging.image_headers import read_grid
from autoseg.pipeline.run_context import RunContext
from autoseg.planning.cpu_preset import CPU_PRESET
from autoseg.planning.machine_speed import (
    MachineSpeed,
    count_patch_work,
    describe_roughly,
    fold_seconds,
    validation_seconds,
)
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import load_plan_and_splits
from autoseg.runtime.machine import may_have_gpu
from autoseg.runtime.reporting import SILENT, list_names

MOST_HEADERS = 50
"""Images whose headers are read before there is a plan. Decision: the plan follows from the typical one."""

UNKNOWN_CHANNEL = ChannelFacts(
    mean=0, median=0, std=1, minimum=0, maximum=1, percentile_00_5=0, percentile_99_5=1
)  # intensities choose the normalization, which takes no time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The folds of a configuration that are to be trained.

    Attributes:
        name: The configuration.
        shares: For each fold, the share of its training that is left.
        held_out: Number of held-out cases of a fold.
    """

    name: ConfigurationName
    shares: tuple[float, ...]
    held_out: float


def describe_training(context: RunContext) -> str:
    """Returns which folds are to be trained, and about how long that takes on this machine, if that can be told."""
    try:
        if context.is_imported and context.folders.plan.is_file() and context.folders.splits.is_file():
            plan, work = _find_work(context)
            source = ""
        else:
            plan, cases = _forecast_plan(context)
            names = context.find_configurations(plan) if context.is_imported else _names(context, plan)
            work = [_Work(name=name, shares=(1.0,) * FOLDS, held_out=cases / FOLDS) for name in names]
            source = ", by the sizes of the images"
    except AutosegError as error:
        return f"to do: all folds; how long it takes is not known yet ({error.what})"
    folds = list_names(f"{len(entry.shares)} folds of {entry.name}" for entry in work)
    seconds = _estimate(context, plan, work)
    if seconds is None:
        return f"to do: {folds}; how long it takes is said after the first steps"
    return f"to do: {folds}, about {describe_roughly(seconds)} on this machine{source}"


def _names(context: RunContext, plan: Plan) -> list[ConfigurationName]:
    from autoseg.planning.worthwhile import choose_worthwhile

    return list(context.record.options.configurations) or choose_worthwhile(plan, _measure(context))


def _find_work(context: RunContext) -> tuple[Plan, list[_Work]]:
    """Returns the plan, and what is left of the training of each configuration."""
    from autoseg.training.duration import LengthRequest

    plan, splits = load_plan_and_splits(context.number, context.folders)
    options, work = context.record.options, []
    plan = LengthRequest(epochs=options.epochs, budget=options.budget).apply(plan)
    for name in context.find_configurations(plan):
        model, shares = context.folders.model(name), []
        for fold in context.list_open_folds(name):
            log = model.progress(fold, "jsonl")
            epochs = log.read_bytes().count(b"\n") if log.is_file() else 0
            shares.append(max(0.0, 1 - epochs / plan.training.epochs))
        held_out = sum(len(split.validation) for split in splits.folds) / len(splits.folds)
        work.append(_Work(name=name, shares=tuple(shares), held_out=held_out))
    return plan, [entry for entry in work if entry.shares]


def _estimate(context: RunContext, plan: Plan, work: Sequence[_Work]) -> float | None:
    """Returns the seconds of the work on this machine; None if they cannot be told, as on a CUDA GPU."""
    speed, training, seconds = _measure(context), plan.training, 0.0
    for entry in work:
        configuration = plan.configurations[entry.name]
        patch_work = count_patch_work(configuration)
        if speed is None or patch_work is None:
            return None
        whole = training.budget_seconds or fold_seconds(configuration, training, speed, patch_work)
        scan = validation_seconds(plan, entry.name, speed, patch_work)
        seconds += sum(share * whole + entry.held_out * scan for share in entry.shares)
    return seconds


def _measure(context: RunContext) -> MachineSpeed | None:
    """Returns the speed of the device that trains; None for a CUDA GPU, whose speed differs from network to network."""
    if context.device.startswith("cuda") or (context.device == "auto" and may_have_gpu()):
        return None
    from autoseg.models.speed import measure_speed
    from autoseg.runtime.device import resolve_device

    return measure_speed(resolve_device(context.device))


def _forecast_plan(context: RunContext) -> tuple[Plan, int]:
    """Returns the plan that would be made if nothing of the images were cropped, and the number of cases.

    Raises:
        AutosegError: The source cannot be read, or is in DICOM, whose series are sorted by the import.
    """
    from autoseg.pipeline.options import resolve_options
    from autoseg.planning.planner import make_plan
    from autoseg.training.duration import LengthRequest

    options = context.record.options
    info, cases, shapes = _read_headers(context)
    fingerprint = Fingerprint(
        cases=tuple(shapes), channels=(UNKNOWN_CHANNEL,) * info.channels, median_relative_size_after_crop=1.0
    )
    folders = context.workspace.folders(f"Dataset{context.number:03d}_Source")
    planning = resolve_options(folders, memory=options.memory, preset=options.preset, rules="autoseg", reporter=SILENT)
    if options.memory is None and options.preset is None and planning.preset == CPU_PRESET:
        speed = _measure(context)
        planning = planning if speed is None else replace(planning, speed=speed.rounded)
    plan = make_plan(fingerprint, info, planning)
    return LengthRequest(epochs=options.epochs, budget=options.budget).apply(plan), cases


def _read_headers(context: RunContext) -> tuple[DatasetInfo, int, list[CaseFacts]]:
    """Returns the description of the dataset, the number of its cases, and the sizes of some of its images."""
    if context.is_imported:
        dataset = context.dataset
        return dataset.info, len(dataset.cases), list(_read_sizes(dataset.cases))
    from autoseg.importing.dicom_recognition import is_dicom_dataset
    from autoseg.importing.recognition import recognise

    record = context.record
    with unpacked(Path(record.source or "")) as opened:
        labels = None if record.importing.labels is None else Path(record.importing.labels)
        if is_dicom_dataset(opened, labels):
            raise UsageError("it is in DICOM", "import it first")
        source = recognise(opened if labels is None else (opened, labels), SILENT)
        return source.info, len(source.cases), list(_read_sizes(source.cases))


def _read_sizes(cases: Sequence[Case]) -> Iterator[CaseFacts]:
    """Yields size and spacing of some of the cases, from the headers of their first images."""
    for case in islice(cases, 0, None, max(1, len(cases) // MOST_HEADERS)):
        shape, spacing_mm = read_grid(case.images[0])
        yield CaseFacts(name=case.name, shape=shape, shape_after_crop=shape, spacing_mm=spacing_mm)
