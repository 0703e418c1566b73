"""Reports of a training run: one per epoch, as lines for people and as tables for programs."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from autoseg.errors import ArtifactError, WriteError
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.os_errors import advise_writing, reason_of
from autoseg.runtime.units import describe_memory

LOAD = ("patches_per_second", "waiting_share", "device_memory_bytes", "device_utilization")
"""Attributes of a report that tell how busy the machine was."""

REQUIRED = ("training_loss", "validation_loss", "learning_rate", "seconds", "elapsed_seconds")
"""Attributes of a report that are numbers in every version."""

MOST_SHOWN_LABELS = 8
"""Largest number of labels in a line of the console."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """The report of one epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        training_loss: Mean loss over the steps of the epoch.
        validation_loss: Mean loss over patches of the held-out cases, or of the training cases if none is held out.
        pseudo_dice: Label name to the Dice of the same patches, 0 to 1; NaN for a label that occurred nowhere.
        learning_rate: Learning rate at the start of the epoch.
        seconds: Duration of the epoch, its validation included.
        elapsed_seconds: Training time up to the end of the epoch, without pauses between interrupted runs.
        patches_per_second: Patches per second of training, without the validation. Like all that follow, None in
            reports of older runs.
        waiting_share: Share of the training time that was spent waiting for patches, 0 to 1.
        device_memory_bytes: Largest number of bytes of a CUDA GPU that torch reserved; None on other devices.
        device_utilization: Share of the time in which a CUDA GPU calculated, 0 to 1; None if torch cannot ask for it.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    pseudo_dice: dict[str, float]
    learning_rate: float
    seconds: float
    elapsed_seconds: float
    patches_per_second: float | None = None
    waiting_share: float | None = None
    device_memory_bytes: int | None = None
    device_utilization: float | None = None

    @property
    def mean_pseudo_dice(self) -> float:
        """Mean over the labels that have a pseudo Dice; NaN if none has."""
        values = [value for value in self.pseudo_dice.values() if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values by name, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Returns the report of which `to_dict` gave the values."""
        return cls(**values)

    def scalars(self) -> dict[str, float]:
        """Returns all numbers but that of the epoch, by name; undefined and unknown ones are left out."""
        values = {**asdict(self), "mean_pseudo_dice": self.mean_pseudo_dice}
        del values["epoch"]
        dice = values.pop("pseudo_dice")
        values |= {f"pseudo_dice/{label}": value for label, value in dice.items()}
        return {name: float(value) for name, value in values.items() if value is not None and not math.isnan(value)}

    def to_line(self) -> str:
        """Returns one line of progress.jsonl: all attributes, by name, and `mean_pseudo_dice`; undefined ones are null.

        `pseudo_dice` is an object with a number or null for each label.
        """
        values = {**asdict(self), "mean_pseudo_dice": self.mean_pseudo_dice}
        values["pseudo_dice"] = {label: _null_if_nan(value) for label, value in self.pseudo_dice.items()}
        values = {name: _null_if_nan(value) for name, value in values.items()}
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


def describe_epoch(report: EpochReport) -> str:
    """Returns one line for the console: losses, pseudo Dice, and speed.

    If there are many labels, it has their mean and the lowest ones.
    """
    named = sorted(report.pseudo_dice.items(), key=lambda item: item[1]) if _has_many(report) else report.pseudo_dice
    dice = "  ".join(f"{name} {value:.3f}" for name, value in list(dict(named).items())[:MOST_SHOWN_LABELS])
    if _has_many(report):
        dice = f"mean {report.mean_pseudo_dice:.3f}, lowest {dice}"
    return (
        f"epoch {report.epoch}: loss {report.training_loss:.3f}, held out {report.validation_loss:.3f}, "
        f"pseudo Dice {dice} ({', '.join(_describe_load(report))})"
    )


def _has_many(report: EpochReport) -> bool:
    return len(report.pseudo_dice) > MOST_SHOWN_LABELS


def _describe_load(report: EpochReport) -> Iterator[str]:
    yield f"{report.seconds:.1f} s"
    if report.patches_per_second is not None:
        yield f"{report.patches_per_second:.3g} patches/s"
    if report.waiting_share is not None:
        yield f"{report.waiting_share:.0%} waiting for them"
    if report.device_memory_bytes is not None:
        yield describe_memory(report.device_memory_bytes)
    if report.device_utilization is not None:
        yield f"GPU {report.device_utilization:.0%} busy"


def write_lines(path: Path, reports: Sequence[EpochReport]) -> None:
    """Writes progress.jsonl anew, atomically, with a line per report, so that it holds no epoch that was lost."""
    with atomic_file(path) as writing:
        writing.write_text("".join(report.to_line() for report in reports), encoding="utf-8", newline="\n")


def read_lines(path: Path) -> list[EpochReport]:
    """Reads progress.jsonl, also while a run appends to it: a last line without its end is left out.

    Args:
        path: Path of the file.

    Returns:
        The reports of all epochs; none if there is no such file. Attributes that this version does not know are left
        out, and numbers that are null are NaN.

    Raises:
        ArtifactError: A line is damaged.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = text.splitlines(keepends=True)
    return [_parse(line, f"line {number} of {path}") for number, line in enumerate(lines, start=1) if line[-1] == "\n"]


def _parse(line: str, place: str) -> EpochReport:
    try:
        values = json.loads(line)
        dice = {label: math.nan if score is None else float(score) for label, score in values["pseudo_dice"].items()}
        known = {field.name: values.get(field.name) for field in fields(EpochReport)} | {"pseudo_dice": dice}
        numbers = {name: math.nan if known[name] is None else float(known[name]) for name in REQUIRED}
        return EpochReport(**{**known, **numbers, "epoch": int(values["epoch"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{place} is damaged", "remove the line, or train the fold anew with --restart") from error


def append_line(path: Path, report: EpochReport) -> None:
    """Appends a line to progress.jsonl in a single write, which is either done or not if the process is killed.

    Raises:
        WriteError: The disk is full.
    """
    try:
        with path.open("ab", buffering=0) as file:
            file.write(report.to_line().encode())
    except OSError as error:
        what = f"cannot write {path}: {reason_of(error)}"
        raise WriteError(what, advise_writing(error)) from error


def write_progress(path: Path, reports: Sequence[EpochReport]) -> None:
    """Writes a table with one row per epoch, atomically; undefined values are empty.

    The whole table is written each time: after a resumed run it then holds each epoch once.

    Args:
        path: Path of the CSV file.
        reports: Reports of all epochs, all with the same labels.
    """
    labels = list(reports[0].pseudo_dice) if reports else []
    header = ["epoch", "training_loss", "validation_loss", "mean_pseudo_dice"]
    header += [f"pseudo_dice_{label}" for label in labels]
    header += ["learning_rate", "seconds", "elapsed_seconds", *LOAD]
    with atomic_file(path) as writing, writing.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for report in reports:
            losses = [report.training_loss, report.validation_loss]
            dice = [report.mean_pseudo_dice, *(report.pseudo_dice[label] for label in labels)]
            rest = [report.learning_rate, report.seconds, report.elapsed_seconds]
            load = [getattr(report, name) for name in LOAD]
            values = (_null_if_nan(value) for value in losses + dice + rest + load)
            table.writerow([report.epoch, *("" if value is None else float(value) for value in values)])


def _null_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
