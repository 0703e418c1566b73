"""What was chosen among trained configurations: which of them predict together, and why; best.json.

`selection` finds it on held-out cases, and predicting follows it wherever the folder that holds best.json is copied,
with the folders of its configurations in it: 3d_fullres/, or of a plan that was given a name, NAME/3d_fullres/.
"""

import re
from typing import Annotated, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.planning.plan import CONFIGURATION_NAMES, ConfigurationName
from autoseg.runtime.artifact import Artifact, Score

MEMBER_PATTERN = rf"(?:[A-Za-z][A-Za-z0-9_-]{{0,40}}/)?(?:{'|'.join(CONFIGURATION_NAMES)})"


def _check_member(name: str) -> str:
    if re.fullmatch(MEMBER_PATTERN, name) is None:
        raise ValueError(f"Input should be {', '.join(CONFIGURATION_NAMES)}, or one of them behind PLAN/")
    return name


MemberName = Annotated[str, AfterValidator(_check_member)]
"""A configuration among those of several plans: "3d_fullres" of the same plan as best.json, or "NAME/3d_fullres"."""


def name_member(plan_name: str | None, configuration: str) -> MemberName:
    """What a configuration of a plan is called, and where its folder is: of the usual plan by its own name alone."""
    return configuration if plan_name is None else f"{plan_name}/{configuration}"


def split_member(name: MemberName) -> tuple[str | None, ConfigurationName]:
    """The plan of a member, None for that of best.json, and its configuration."""
    plan_name, _, configuration = name.rpartition("/")
    return plan_name or None, cast("ConfigurationName", configuration)


def name_together(configurations: tuple[MemberName, ...]) -> str:
    """What people call configurations that predict together: "2d+3d_fullres"."""
    return "+".join(configurations)


class BestModelFold(BaseModel):
    """A fold of a chosen configuration, as it was when it was chosen.

    Attributes:
        fold: Its number.
        weights: Digest of its weights; see `weight_digest.digest_weights`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold: Annotated[int, Field(ge=0)]
    weights: str


class CandidateScores(BaseModel):
    """Configurations that were tried, alone or together.

    Attributes:
        configurations: One, or two that predict together.
        cases: Held-out cases behind the scores.
        mean_dice: Mean over the labels, before postprocessing.
        dice: Label name to mean Dice.
        chosen: Whether this is what predicts from now on.
        reason: Why, or why not, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configurations: Annotated[tuple[MemberName, ...], Field(min_length=1, max_length=2)]
    cases: Annotated[int, Field(ge=0)]
    mean_dice: Score
    dice: dict[str, Score]
    chosen: bool
    reason: str

    @property
    def name(self) -> str:
        """What people call it."""
        return name_together(self.configurations)


class BestModel(Artifact):
    """The best of the trained configurations and pairs of them; best.json.

    Attributes:
        dataset: Name of its folder, such as "Dataset004_Hippocampus".
        configurations: One, or two whose probabilities are averaged.
        folds: Which folds of each were judged; they predict.
        rules: Postprocessing that helps them, in place of the rules that each has of its own.
        candidates: All that were tried, in the order in which they were.
        left_out: A line for each configuration that could not be tried: why, and what would mend it.
    """

    dataset: str
    configurations: Annotated[tuple[MemberName, ...], Field(min_length=1, max_length=2)]
    folds: dict[MemberName, Annotated[tuple[BestModelFold, ...], Field(min_length=1)]]
    rules: PostprocessingRules
    candidates: tuple[CandidateScores, ...]
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _folds_are_of_the_configurations(self) -> Self:
        if set(self.folds) != set(self.configurations):
            raise ValueError("folds must name those of each of the configurations, and of no other")
        return self

    @property
    def name(self) -> str:
        """What people call the configurations."""
        return name_together(self.configurations)

    @property
    def winner(self) -> CandidateScores | None:
        """The candidate that was chosen, unless someone took it out of the file."""
        return next((candidate for candidate in self.candidates if candidate.chosen), None)

    def describe(self) -> str:
        """One line for people: what predicts, and why."""
        winner = self.winner
        score = "" if winner is None else f", mean Dice {winner.mean_dice:.4f} on {winner.cases} held-out cases"
        reason = "" if winner is None else f" ({winner.reason})"
        return f"{self.name}{score}{reason}; {self.rules.describe()}"
