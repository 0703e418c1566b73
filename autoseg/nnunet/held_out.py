"""What nnU-Net left of the cases that a fold held out, which it segments when the fold is trained to its end.

fold_0/validation/
    hippocampus_017.nii.gz      a segmentation of each, on the grid of its scan
    summary.json                their scores, written when all are there

The scores name the cases; nothing else in a model tells which ones a fold held out. In a zip they are all that is left.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.runtime.artifact import read_text
from autoseg.workspace import Fold

_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetHeldOut:
    """The held-out cases of a fold, as far as it tells.

    Attributes:
        scored: Those that have scores; None if there are no scores, as when nnU-Net was stopped before it wrote them.
        masks: Case to its segmentation.
    """

    scored: frozenset[str] | None
    masks: Mapping[str, Path]

    def find_stray(self, names: frozenset[str]) -> str | None:
        """A case that tells that the fold held out others than these; None if all agrees, or nothing is told."""
        stray = self.masks.keys() - names if self.scored is None else self.scored ^ names
        return min(stray, default=None)

    def holds_all(self, names: frozenset[str]) -> bool:
        """Whether there is a segmentation of each of these, and nnU-Net had come to the end of them."""
        return self.scored is not None and names <= self.masks.keys()


def read_held_out(model: Path, fold: Fold, ending: str) -> NnunetHeldOut:
    """Looks for the segmentations and scores of a fold.

    Args:
        model: Folder of the model.
        fold: Of it.
        ending: Of the files of its dataset.

    Raises:
        ModelError: The scores are damaged.
    """
    folder = model / f"fold_{fold}" / "validation"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    masks = {path.name[: -len(ending)]: path for path in files if path.name.endswith(ending) and path.is_file()}
    scores = folder / "summary.json"
    return NnunetHeldOut(scored=_read_scored(scores, ending) if scores.is_file() else None, masks=masks)


def _read_scored(path: Path, ending: str) -> frozenset[str]:
    try:
        files = [str(one["prediction_file"]) for one in json.loads(read_text(path))["metric_per_case"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} holds no scores of cases", "get a sound copy, or remove it") from error
    return frozenset(_SEPARATORS.split(file)[-1].removesuffix(ending) for file in files)
