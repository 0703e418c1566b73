"""The best of the trained configurations, or of pairs of them, and why it was chosen; best.json.

`model_selection.find_best` chooses it on held-out cases. Prediction follows it wherever the folder that holds best.json
is copied, with the folders of its configurations in it: 3d_fullres/, or NAME/3d_fullres/ for a plan with a name.
"""

import re
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from autoseg.evaluation.scores import METRICS
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.planning.plan import CONFIGURATION_NAMES, ConfigurationName
from autoseg.runtime.artifact import Artifact, Score

MetricName = Literal["dice", "nsd", "lesion_f1"]
"""A metric by which configurations may be compared. Decision: those that are defined where a structure is missed."""

MEMBER_PATTERN = rf"(?:[A-Za-z][A-Za-z0-9_-]{{0,40}}/)?(?:{'|'.join(CONFIGURATION_NAMES)})"


def _check_member(name: str) -> str:
    if re.fullmatch(MEMBER_PATTERN, name) is None:
        raise ValueError(f"Input should be {', '.join(CONFIGURATION_NAMES)}, or one of them behind PLAN/")
    return name


MemberName = Annotated[str, AfterValidator(_check_member)]
"""A configuration of one of several plans: "3d_fullres" for the plan of best.json, "NAME/3d_fullres" for another."""


def name_member(plan_name: str | None, configuration: str) -> MemberName:
    """Returns the name of a configuration among those of several plans, which is also the path of its folder.

    Example:
        >>> name_member(None, "2d"), name_member("large", "2d")
        ('2d', 'large/2d')
    """
    return configuration if plan_name is None else f"{plan_name}/{configuration}"


def split_member(name: MemberName) -> tuple[str | None, ConfigurationName]:
    """Returns the plan, None for that of best.json, and the configuration of a name that `name_member` made.

    Example:
        >>> split_member("2d"), split_member("large/2d")
        ((None, '2d'), ('large', '2d'))
    """
    plan_name, _, configuration = name.rpartition("/")
    return plan_name or None, cast("ConfigurationName", configuration)


def name_together(configurations: tuple[MemberName, ...]) -> str:
    """Returns the name of configurations that predict together.

    Example:
        >>> name_together(("2d", "3d_fullres"))
        '2d+3d_fullres'
    """
    return "+".join(configurations)


class BestModelFold(BaseModel):
    """A fold of a chosen configuration, as it was when best.json was written.

    Attributes:
        fold: Number of the fold.
        weights: Digest of its weights; see `weight_digest.digest_weights`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold: Annotated[int, Field(ge=0)]
    weights: str


class CandidateScores(BaseModel):
    """A configuration, or a pair of them, that was compared with others.

    Attributes:
        configurations: One, or two that predict together.
        cases: Number of held-out cases behind the scores.
        mean_dice: Mean Dice over the labels, before postprocessing.
        score: The mean over the labels of the metric that was compared, if it is not Dice.
        dice: Label name to mean Dice.
        chosen: Whether it was chosen, and so predicts from then on.
        reason: Why it was chosen or not, in words.
        repeats: Mean Dice in each repeat of a cross-validation; empty if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configurations: Annotated[tuple[MemberName, ...], Field(min_length=1, max_length=2)]
    cases: Annotated[int, Field(ge=0)]
    mean_dice: Score
    dice: dict[str, Score]
    chosen: bool
    reason: str
    score: Score | None = None
    repeats: tuple[Score, ...] = ()

    @property
    def name(self) -> str:
        """The name of the configurations, such as "2d+3d_fullres"."""
        return name_together(self.configurations)


class BestModel(Artifact):
    """The best of the trained configurations and pairs of them; best.json.

    Attributes:
        dataset: Name of the dataset's folder, such as "Dataset004_Hippocampus".
        configurations: One, or two whose probabilities are averaged.
        folds: Folds of each configuration that were validated; they predict.
        rules: Postprocessing that improves the segmentation, in place of the rules of each configuration.
        candidates: All that were compared, in the order in which they were.
        left_out: A line for each configuration that could not be compared: why, and what to do about it.
        metric: The metric by whose mean candidates were compared.
    """

    dataset: str
    configurations: Annotated[tuple[MemberName, ...], Field(min_length=1, max_length=2)]
    folds: dict[MemberName, Annotated[tuple[BestModelFold, ...], Field(min_length=1)]]
    rules: PostprocessingRules
    candidates: tuple[CandidateScores, ...]
    left_out: tuple[str, ...] = ()
    metric: MetricName = "dice"

    @model_validator(mode="after")
    def _folds_are_of_the_configurations(self) -> Self:
        if set(self.folds) != set(self.configurations):
            raise ValueError("folds must name those of each of the configurations, and of no other")
        return self

    @property
    def name(self) -> str:
        """The name of the configurations, such as "2d+3d_fullres"."""
        return name_together(self.configurations)

    @property
    def winner(self) -> CandidateScores | None:
        """The candidate that was chosen; None if it was removed from the file."""
        return next((candidate for candidate in self.candidates if candidate.chosen), None)

    def describe(self) -> str:
        """Returns one line about which configurations predict, and why."""
        winner = self.winner
        value = None if winner is None else winner.mean_dice if winner.score is None else winner.score
        title = METRICS[self.metric].title
        score = "" if winner is None else f", mean {title} {value:.4f} on {winner.cases} held-out cases"
        reason = "" if winner is None else f" ({winner.reason})"
        return f"{self.name}{score}{reason}; {self.rules.describe()}"
