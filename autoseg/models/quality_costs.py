"""What each quality of prediction costs and is worth, on cases that the folds held out; quality_costs.json.

`model_selection.quality_measurement` measures it. It is passed on with the model, and names no case.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.runtime.artifact import Artifact, Score
from autoseg.workspace import ModelFolder

MEASURED_AGAINST = "best"


class QualityScores(BaseModel):
    """One quality.

    Attributes:
        foreground_mean_dice: Mean Dice over the labels, before postprocessing.
        dice: Name of each label to its mean Dice over the cases in which it is defined.
        passes: Mean number of passes of a patch through the networks of a fold, per case: tiles times mirror images.
        seconds: Mean seconds per case on the machine that measured, from the image in memory to its label map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground_mean_dice: Score
    dice: dict[str, Score]
    passes: Annotated[float, Field(gt=0)]
    seconds: Annotated[float, Field(ge=0)]


class QualityCosts(Artifact):
    """The qualities of a configuration; quality_costs.json.

    Attributes:
        cases: Number of held-out cases.
        weights: Fold to the digest of the weights that were measured; see `weight_digest.digest_weights`.
        qualities: Name of each quality to its scores, the fastest first.
    """

    cases: Annotated[int, Field(ge=1)]
    weights: Annotated[dict[str, str], Field(min_length=1)]
    qualities: Annotated[dict[str, QualityScores], Field(min_length=1)]

    @model_validator(mode="after")
    def _compares_the_same_labels(self) -> Self:
        if MEASURED_AGAINST not in self.qualities:
            raise ValueError(f"qualities must name {MEASURED_AGAINST!r}, with which the others are compared")
        if len({frozenset(scores.dice) for scores in self.qualities.values()}) > 1:
            raise ValueError("qualities must have the Dice of the same labels")
        return self

    def is_of(self, weights: Mapping[str, str]) -> bool:
        """Returns whether all folds that were measured are among these, with the same weights.

        Args:
            weights: Fold to the digest of its weights.
        """
        return self.weights.items() <= weights.items()

    def share_of_work(self, name: str) -> float:
        """Returns the passes of a quality as a share of those of the best."""
        return self.qualities[name].passes / self.qualities[MEASURED_AGAINST].passes

    def find_largest_loss(self, name: str) -> tuple[str, float]:
        """Returns the label that loses most by a quality, and how much Dice that is; negative if every label gains.

        Example:
            >>> best = QualityScores(foreground_mean_dice=0.9, dice={"liver": 0.9}, passes=8, seconds=4)
            >>> fast = QualityScores(foreground_mean_dice=0.875, dice={"liver": 0.875}, passes=1, seconds=1)
            >>> costs = QualityCosts(cases=3, weights={"0": "ab"}, qualities={"fast": fast, "best": best})
            >>> costs.share_of_work("fast"), costs.find_largest_loss("fast")
            (0.125, ('liver', 0.025))
        """
        best = self.qualities[MEASURED_AGAINST].dice
        losses = {label: round(best[label] - dice, 6) for label, dice in self.qualities[name].dice.items()}
        defined = {label: loss for label, loss in losses.items() if loss == loss}  # noqa: PLR0124 - not NaN
        label = max(defined, key=lambda label: defined[label], default="")
        return label, defined.get(label, 0.0)


def load_quality_costs(folder: ModelFolder) -> QualityCosts | None:
    """Loads what the qualities of a configuration cost, if it was measured.

    Raises:
        ArtifactError: The file is damaged.
    """
    return QualityCosts.load(folder.quality_costs) if folder.quality_costs.is_file() else None
