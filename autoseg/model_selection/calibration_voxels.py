"""Voxels of a held-out case that calibration is fitted to: drawn while the logits are in memory, kept in a small file.

    fold_0/validation/calibration_voxels/CASE.npz      logits (n, outputs), float16; truth and weights, see
                                                       `evaluation.reliability.LabelledVoxels`

Most voxels of a scan are background that no network doubts. So the voxels are divided by which label wins, and by
whether that is sure; as many are drawn of each group, and each counts for as many as it stands for.
"""

import zipfile
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.datasets.info import DatasetInfo
from autoseg.evaluation.reliability import LabelledVoxels, Values, calibrated_probabilities, find_winners
from autoseg.imaging.label_encoding import CaseLabels
from autoseg.imaging.targets import Targets
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.artifact import atomic_file

FOLDER = "calibration_voxels"

NUMBERS_PER_CASE = 2**16
"""Number of logits that are kept of a case. Decision: 16,000 voxels of four classes, 128 kB."""

NUMBERS_AT_FIRST = 2**25
"""Number of logits of the voxels that are looked at first, drawn evenly. Decision: 128 MB."""

SURE = 0.99
"""Probability from which on a voxel is sure. Decision: in a trained network these are nine voxels in ten."""

SEED = 20240


def voxels_file(folder: Path, case: str) -> Path:
    """Returns the path of the voxels of a case, in the folder of the segmentations of held-out cases."""
    return folder / FOLDER / f"{case}.npz"


def keep_voxels(logits: torch.Tensor, cases_folder: Path, info: DatasetInfo, case: str, folder: Path) -> None:
    """Draws voxels of a held-out case and writes them beside its segmentation; nothing if none can be counted.

    Args:
        logits: Shape (outputs, z, y, x) of the preprocessed case.
        cases_folder: Folder of the preprocessed cases.
        info: The dataset's description.
        case: Name of the case.
        folder: Folder of the segmentations.
    """
    label = CaseLabels(StoredCase.open(cases_folder, case).load_label())
    voxels = draw_voxels(logits, label, info.targets, info.unannotated_in(case), case)
    if voxels is not None:
        save_voxels(voxels, voxels_file(folder, case))


def draw_voxels(
    logits: torch.Tensor, label: CaseLabels, targets: Targets, unannotated: Collection[str], case: str
) -> LabelledVoxels | None:
    """Draws voxels of a case, the same ones each time.

    Args:
        logits: Shape (outputs, z, y, x), on any device.
        label: Label map on the same grid.
        targets: What outputs and labels stand for.
        unannotated: Structures that were not annotated in the case.
        case: Name of the case, by which the draw is seeded.

    Returns:
        None if no voxel can be counted: nothing was annotated, or, of classes that exclude each other, not every one
        was, so that nobody knows what the background is.
    """
    if unannotated and targets.exclusive:
        return None
    random = np.random.default_rng([SEED, crc32(case.encode())])
    labels = np.asarray(label).reshape(-1)
    annotated = np.arange(labels.size) if targets.ignore is None else np.flatnonzero(labels != targets.ignore)
    most = max(1, NUMBERS_AT_FIRST // targets.outputs)
    first = annotated if annotated.size <= most else np.sort(random.choice(annotated, most, replace=False))
    if not first.size:
        return None
    values = _gather(logits, first)
    chosen, weights = _choose(_group(values, exclusive=targets.exclusive), NUMBERS_PER_CASE // targets.outputs, random)
    return LabelledVoxels(
        logits=values[chosen],
        truth=_find_truth(labels[first[chosen]], targets, unannotated),
        weights=(weights * (annotated.size / first.size)).astype(np.float32),
        exclusive=targets.exclusive,
    )


def save_voxels(voxels: LabelledVoxels, path: Path) -> None:
    """Writes voxels into a file.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    with atomic_file(path, durable=False) as writing:
        np.savez_compressed(
            writing, logits=voxels.logits.astype(np.float16), truth=voxels.truth, weights=voxels.weights
        )


def load_voxels(path: Path, targets: Targets) -> LabelledVoxels | None:
    """Loads the voxels of a case; None if the file is missing, damaged or of other labels."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            logits, truth, weights = stored["logits"], stored["truth"], stored["weights"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shape = (len(weights), targets.outputs)
    if logits.shape != shape or truth.shape != shape:
        return None
    return LabelledVoxels(logits=logits.astype(np.float32), truth=truth, weights=weights, exclusive=targets.exclusive)


def _gather(logits: torch.Tensor, index: NDArray[np.intp]) -> Values:
    """Returns the logits of some voxels, (n, outputs), float32."""
    flat = logits.reshape(len(logits), -1)
    return np.asarray(flat[:, torch.from_numpy(index).to(flat.device)].T.float().cpu())


def _group(logits: Values, *, exclusive: bool) -> NDArray[np.intp]:
    """Numbers the group of each voxel: by the class that wins, or the last region that it is in, and whether sure."""
    probabilities = calibrated_probabilities(logits, (1.0,) * logits.shape[1], exclusive=exclusive)
    if exclusive:
        return np.asarray(2 * find_winners(logits) + (probabilities.max(axis=1) < SURE))
    inside = logits > 0
    last = np.where(inside.any(axis=1), logits.shape[1] - inside[:, ::-1].argmax(axis=1), 0)
    return np.asarray(2 * last + (np.maximum(probabilities, 1 - probabilities).min(axis=1) < SURE))


def _choose(
    groups: NDArray[np.intp], most: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Draws voxels of each group, the same number of each that has enough.

    Returns:
        Indices of the voxels, and how many of its group each of them stands for.
    """
    order, counts = np.argsort(groups, kind="stable"), np.bincount(groups)
    chosen, weights = [], []
    left, groups_left = most, int((counts > 0).sum())
    for number in sorted(np.flatnonzero(counts), key=lambda number: int(counts[number])):
        size = int(min(counts[number], max(1, left // groups_left)))
        begin = int(counts[:number].sum())
        chosen.append(order[begin + random.choice(int(counts[number]), size, replace=False)])
        weights.append(np.full(size, counts[number] / size))
        left, groups_left = left - size, groups_left - 1
    return np.concatenate(chosen), np.concatenate(weights)


def _find_truth(labels: NDArray[np.integer], targets: Targets, unannotated: Collection[str]) -> NDArray[np.int8]:
    """Returns what each voxel is of, by output; see `LabelledVoxels.truth`."""
    truth = np.zeros((labels.size, targets.outputs), dtype=np.int8)
    for name, output in targets.output_of.items():
        truth[:, output] = -1 if name in unannotated else np.isin(labels, targets.structures[name])
    if targets.exclusive:
        truth[:, 0] = ~truth[:, 1:].any(axis=1)
    return truth
