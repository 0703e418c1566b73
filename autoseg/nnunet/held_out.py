"""Segmentations and scores of held-out cases that nnU-Net writes at the end of the training of a fold.

fold_0/validation/
    hippocampus_017.nii.gz      segmentation of each case, on the grid of its scan
    summary.json                scores of all cases, written last

The scores name the cases; nothing else in a model tells which cases a fold held out. A zip holds only the scores.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.imaging.formats import readable_name
from autoseg.runtime.json_text import read_json_text
from autoseg.workspace import Fold

_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetHeldOut:
    """The held-out cases of a fold, as far as its files name them.

    Attributes:
        scored: Names of the cases with scores; None if there are no scores, for example because nnU-Net was stopped
            before it wrote them.
        masks: Name of a case to its segmentation.
    """

    scored: frozenset[str] | None
    masks: Mapping[str, Path]

    def find_stray(self, names: frozenset[str]) -> str | None:
        """Finds a case which shows that the fold held out other cases than these.

        >>> NnunetHeldOut(scored=frozenset({"a", "b"}), masks={}).find_stray(frozenset({"a"}))
        'b'

        Returns:
            The first such case; None if the files agree, or name no cases.
        """
        stray = self.masks.keys() - names if self.scored is None else self.scored ^ names
        return min(stray, default=None)

    def holds_all(self, names: frozenset[str]) -> bool:
        """Tells whether there is a segmentation of each of these cases, and nnU-Net finished all of them."""
        return self.scored is not None and names <= self.masks.keys()


def read_held_out(model: Path, fold: Fold, ending: str) -> NnunetHeldOut:
    """Finds the segmentations and reads the names of the scored cases of a fold.

    Args:
        model: Path of the model folder.
        fold: Fold of the model.
        ending: File ending of its dataset.

    Raises:
        ModelError: The scores are damaged.
    """
    folder = model / f"fold_{fold}" / "validation"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    masks = {
        readable_name(path.name[: -len(ending)]): path
        for path in files
        if path.name.endswith(ending) and path.is_file()
    }
    scores = folder / "summary.json"
    return NnunetHeldOut(scored=_read_scored(scores, ending) if scores.is_file() else None, masks=masks)


def _read_scored(path: Path, ending: str) -> frozenset[str]:
    try:
        files = [str(case["prediction_file"]) for case in json.loads(read_json_text(path))["metric_per_case"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} holds no scores of cases", "get a sound copy, or remove it") from error
    return frozenset(readable_name(_SEPARATORS.split(file)[-1].removesuffix(ending)) for file in files)
