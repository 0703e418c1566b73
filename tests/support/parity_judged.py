"""Made-up segmentations beside their references, to be scored and to be helped by postprocessing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from parity_cases import SMALL_CASES, describe
from phantoms import write_json

from autoseg.datasets.info import DatasetInfo
from autoseg.evaluation.postprocessing_search import find_rules
from autoseg.evaluation.summary import SegmentedCase, Summary, score_case, summarize
from autoseg.imaging.geometry import IDENTITY, Geometry, Volume
from autoseg.imaging.image_files import write_label_map
from autoseg.imaging.postprocessing import PostprocessingRules

MEANS = {"dice": "Dice", "iou": "IoU"}
SCORES = {**MEANS, "true_positive": "TP", "false_positive": "FP", "false_negative": "FN"}
"""Ours, and nnU-Net's names of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """References and segmentations of some cases.

    Attributes:
        info: Their labels.
        references, predictions: Label maps (z, y, x).
    """

    info: DatasetInfo
    references: tuple[NDArray[np.uint8], ...]
    predictions: tuple[NDArray[np.uint8], ...]

    def volumes(self) -> Iterator[tuple[Volume, Volume]]:
        """Pairs of references and segmentations."""
        for reference, prediction in zip(self.references, self.predictions, strict=True):
            geometry = Geometry(
                shape=reference.shape, spacing_mm=(2.0, 1.0, 1.5), origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY
            )
            yield Volume(array=reference, geometry=geometry), Volume(array=prediction, geometry=geometry)

    def cases(self) -> Iterator[SegmentedCase]:
        """The same for this program."""
        targets = self.info.targets
        for number, (reference, prediction) in enumerate(self.volumes()):
            yield SegmentedCase(name=str(number), reference=reference, prediction=prediction, targets=targets)

    def summarize(self) -> Summary:
        """The scores that this program gives."""
        return summarize([score_case(case) for case in self.cases()], self.info.targets.names)

    def find_rules(self) -> PostprocessingRules:
        """The postprocessing that this program chooses."""
        return find_rules(self.cases(), self.info.targets)

    def compare_scores(self, theirs: dict[str, Any]) -> int:
        """Makes sure that the numbers of nnU-Net's summary.json are those of this program; returns how many there are.

        Dice and IoU that are undefined are NaN in both.
        """
        ours, structures = self.summarize(), self.info.targets.structures
        keys = {label: str(one[0]) if len(one) == 1 else str(one) for label, one in structures.items()}
        pairs = [(ours.foreground_mean.dice, theirs["foreground_mean"]["Dice"])]
        for label, key in keys.items():
            pairs += [(getattr(ours.mean[label], our), theirs["mean"][key][their]) for our, their in MEANS.items()]
            for case, their_case in zip(ours.cases, theirs["metric_per_case"], strict=True):
                found = their_case["metrics"][key]
                pairs += [(getattr(case.scores[label], our), found[their]) for our, their in SCORES.items()]
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-12)
        return len(pairs)

    def write(self, folder: Path) -> dict[str, str]:
        """Writes all that nnU-Net wants; returns where it is."""
        for number, (reference, prediction) in enumerate(self.volumes()):
            write_label_map(folder / "reference" / f"case_{number}.nii.gz", reference)
            write_label_map(folder / "prediction" / f"case_{number}.nii.gz", prediction)
        write_json(folder / "dataset.json", describe(self.info))
        write_json(folder / "plans.json", SMALL_CASES["cube"].plans)
        names = {"dataset": "dataset.json", "plans": "plans.json"}
        return {
            **{kind: str(folder / kind) for kind in ("reference", "prediction")},
            **{kind: str(folder / name) for kind, name in names.items()},
        }


def _body(shift: int = 0) -> NDArray[np.uint8]:
    """Two blocks side by side, of 1 and of 2, that touch."""
    label = np.zeros((16, 24, 26), dtype=np.uint8)
    label[4:10, 4 + shift : 12 + shift, 4:10] = 1
    label[4:10, 4 + shift : 12 + shift, 10:16] = 2
    return label


def _with(label: NDArray[np.uint8], *blocks: tuple[int, tuple[slice, slice, slice]]) -> NDArray[np.uint8]:
    changed = label.copy()
    for number, place in blocks:
        changed[place] = number
    return changed


FAR_ONE = (1, (slice(13, 15), slice(19, 22), slice(20, 23)))
FAR_TWO = (2, (slice(13, 15), slice(2, 5), slice(20, 24)))
ONE_AT_TWO = (1, (slice(6, 8), slice(7, 9), slice(16, 19)))
SECOND_ONE = (1, (slice(12, 15), slice(18, 23), slice(2, 8)))
PLAIN = DatasetInfo(channel_names={"0": "MR"}, labels={"background": 0, "one": 1, "two": 2}, file_ending=".nii.gz")
NESTED = DatasetInfo(
    channel_names={"0": "MR"},
    labels={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3},
    regions_class_order=(1, 2),
    file_ending=".nii.gz",
)


def _judged(info: DatasetInfo, *pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> Judged:
    references, predictions = zip(*pairs, strict=True)
    return Judged(info=info, references=references, predictions=predictions)


UNLABELLED = (3, (slice(0, 16), slice(0, 24), slice(19, 26)))
JUDGED = {
    # what lies apart from all else is wrong: the foreground as a whole keeps its largest component
    "islands": _judged(
        PLAIN, (_body(), _with(_body(1), FAR_ONE)), (_body(1), _with(_body(), FAR_TWO)), (_body(2), _body(2))
    ),
    # it touches the foreground: only its label keeps its largest component
    "attached": _judged(PLAIN, (_body(), _with(_body(), ONE_AT_TWO)), (_body(1), _body())),
    # one label has two parts in truth, islands of the other are wrong
    "two parts": _judged(
        PLAIN,
        (_with(_body(), SECOND_ONE), _with(_body(), SECOND_ONE, FAR_TWO)),
        (_with(_body(1), SECOND_ONE), _with(_body(), SECOND_ONE, FAR_TWO)),
    ),
    # nothing is apart; a label is missing from a case, in truth, in the segmentation, or in both
    "nothing to do": _judged(
        PLAIN,
        (_body(), _body(1)),
        (_with(_body(), (0, (slice(None), slice(None), slice(10, 26)))), _body()),
        (_body(), _with(_body(), (0, (slice(None), slice(None), slice(0, 10))))),
        (_with(_body(), (0, (slice(None),) * 3)), _with(_body(), (0, (slice(None),) * 3))),
    ),
    # islands of the larger region, of which some lie where nobody labelled
    "regions": _judged(
        NESTED,
        (_with(_body(), UNLABELLED), _with(_body(1), FAR_ONE)),
        (_body(1), _with(_body(), FAR_ONE)),
    ),
}
"""What was found, by what postprocessing can do about it."""
