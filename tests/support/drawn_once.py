"""Pictures that take longer than a tiny training are drawn once in a process; a like one is copied."""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from autoseg.evaluation.overlay import draw_overlay
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import atomic_file
from autoseg.training.monitoring.curves import draw_progress
from autoseg.training.monitoring.progress import EpochReport


@contextmanager
def like_pictures_drawn_once() -> Iterator[None]:
    """While this lasts, trainings draw each kind of curves once, and validations each kind of overlay."""
    curves, overlay = _drawn_once(draw_progress, _kind_of_curves), _drawn_once(draw_overlay, _kind_of_overlay)
    with (
        patch("autoseg.training.monitoring.log_files.draw_progress", curves),
        patch("autoseg.model_selection.validation.draw_overlay", overlay),
    ):
        yield


def _drawn_once(draw: Callable[..., None], kind_of: Callable[..., Hashable]) -> Callable[..., None]:
    drawn: dict[Hashable, bytes] = {}

    def draw_or_copy(path: Path, *arguments: Any, **options: Any) -> None:
        kind = kind_of(*arguments, **options)
        if kind in drawn:
            with atomic_file(path) as writing:
                writing.write_bytes(drawn[kind])
        else:
            draw(path, *arguments, **options)
            drawn[kind] = path.read_bytes()

    return draw_or_copy


def _kind_of_curves(reports: Sequence[EpochReport]) -> Hashable:
    """What decides which lines there are: the epochs, the labels, and which values are missing."""
    rows = [(row.training_loss, row.validation_loss, *row.pseudo_dice.values()) for row in reports]
    return tuple(reports[-1].pseudo_dice), np.isnan(rows).tobytes(), len(reports)


def _kind_of_overlay(image: Volume, reference: Volume, prediction: Volume, *, title: str, targets: Targets) -> Hashable:
    """What decides which parts there are: the grid, the labels, and what is no letter and no digit of the title."""
    labels = (tuple(np.unique(volume.array)) for volume in (reference, prediction))
    return image.array.shape, image.geometry.spacing_mm, *labels, re.sub(r"[a-zA-Z0-9]", "", title), repr(targets)
