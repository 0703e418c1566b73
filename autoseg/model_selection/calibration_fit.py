"""Temperatures of a model, fitted on the held-out cases of its folds, and judged on cases that were not fitted to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.evaluation.reliability import (
    LabelledVoxels,
    Reliability,
    calibrated_probabilities,
    fit_temperatures,
    measure_reliabilities,
)
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.imaging.targets import Targets
from autoseg.model_selection.calibration_voxels import load_voxels, voxels_file
from autoseg.models.calibration import Calibration, name_outputs
from autoseg.workspace import ModelFolder

NUMBERS_IN_ALL = 2**26
"""Number of logits in memory. Decision: 256 MB, which a thousand cases reach; of more cases each gives fewer voxels."""


def fit_calibration(places: Sequence[tuple[Path, str]], targets: Targets) -> Calibration | None:
    """Fits the temperatures of a model, and judges them by cross-fitting.

    The cases are divided in order of their names into two halves. Temperatures that were fitted on one half are judged
    on the other; the temperatures that are kept are fitted on both. Decision: in order of the names, because the scans
    of a patient mostly have neighbouring names, and so are in the same half.

    The temperatures are adopted if the mean error of the structures is lower with them.

    Args:
        places: For each held-out case, the folder of its segmentation, and its name.
        targets: Structures of the dataset.

    Returns:
        None if no case has voxels, as those that another program segmented.
    """
    most = max(1, NUMBERS_IN_ALL // targets.outputs // max(1, len(places)))
    parts = [_load(folder, name, targets, most) for folder, name in sorted(places, key=lambda place: place[1])]
    cases = [part for part in parts if part is not None]
    if not cases:
        return None
    voxels = LabelledVoxels.join(cases)
    raw = calibrated_probabilities(voxels.logits, (1.0,) * voxels.outputs, exclusive=voxels.exclusive)
    before, after = measure_reliabilities(voxels, raw), _judge_crosswise(cases)
    error_before, error_after = _mean_error(before), _mean_error(after)
    return Calibration(
        adopted=error_after < error_before,
        temperatures=dict(zip(name_outputs(targets), fit_temperatures(voxels), strict=True)),
        cases=len(cases),
        voxels=len(voxels.weights),
        error_before=error_before,
        error_after=error_after,
        before=dict(zip(targets.names, before, strict=True)),
        after=dict(zip(targets.names, after, strict=bool(after))),
    )


def save_calibration(places: Sequence[tuple[Path, str]], targets: Targets, model: ModelFolder) -> None:
    """Fits the temperatures of a model and writes its calibration.json; removes that file if there are no voxels.

    Args:
        places: See `fit_calibration`.
        targets: Structures of the dataset.
        model: Folder of the trained configuration.
    """
    calibration = fit_calibration(places, targets)
    if calibration is None:
        model.calibration.unlink(missing_ok=True)
    else:
        calibration.save(model.calibration)


def _load(folder: Path, name: str, targets: Targets, most: int) -> LabelledVoxels | None:
    """Loads the voxels of a case, or every n-th of them if they are too many."""
    voxels = load_voxels(voxels_file(folder, name), targets)
    step = 1 if voxels is None else -(-len(voxels.weights) // most)
    if voxels is None or step == 1:
        return voxels
    return LabelledVoxels(
        logits=voxels.logits[::step],
        truth=voxels.truth[::step],
        weights=voxels.weights[::step] * step,
        exclusive=voxels.exclusive,
    )


def _judge_crosswise(cases: Sequence[LabelledVoxels]) -> list[Reliability]:
    """Measures each half of the cases with temperatures that were fitted on the other; empty for a single case."""
    if len(cases) == 1:
        return []
    half = len(cases) // 2
    halves = [LabelledVoxels.join(cases[:half]), LabelledVoxels.join(cases[half:])]
    probabilities = [
        calibrated_probabilities(judged.logits, fit_temperatures(fitted), exclusive=judged.exclusive)
        for judged, fitted in zip(halves, reversed(halves), strict=True)
    ]
    return measure_reliabilities(LabelledVoxels.join(halves), np.concatenate(probabilities))


def _mean_error(reliabilities: Sequence[Reliability]) -> float:
    return mean_of_defined(reliability.error for reliability in reliabilities)
