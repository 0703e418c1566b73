"""The facts of a model that its card and `autoseg install` state: members, labels, scores of held-out cases."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from autoseg.datasets.hu_windows import describe_windows
from autoseg.evaluation.statistics import Interval
from autoseg.evaluation.summary import Summary
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.models.best_model import BestModel, MemberName
from autoseg.models.bundle_format import SCORES
from autoseg.models.calibration import load_calibration
from autoseg.models.fold_description import ExportedFold, FoldDescription
from autoseg.models.fold_files import is_exported, load_exported, load_exports
from autoseg.models.quality_costs import QualityCosts, load_quality_costs
from autoseg.models.training_statistics import load_training_statistics
from autoseg.planning.channel_settings import Normalization
from autoseg.runtime.artifact import Artifact, Score
from autoseg.workspace import Fold, ModelFolder

Count = Annotated[int, Field(ge=0)]
NOT_DEFINED = "–"  # noqa: RUF001


class LabelSpread(BaseModel):
    """The scores of one label over the held-out cases in which they are defined.

    Attributes:
        cases: Number of these cases.
        dice, iou: Means, 0 to 1; NaN if there is no such case.
        dice_interval: 95 % confidence interval of the mean Dice.
        dice_std: Standard deviation of the Dice over the cases; NaN for fewer than two.
        dice_lowest: Lowest Dice of a case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: Count
    dice: Score
    dice_interval: Interval
    dice_std: Score
    dice_lowest: Score
    iou: Score


class HeldOutScores(Artifact):
    """How good a configuration was on cases that it had not seen, before postprocessing; scores.json.

    Attributes:
        cases: Number of held-out cases.
        foreground_mean_dice: Mean Dice over the labels.
        labels: Name of each label to its scores.
    """

    cases: Count
    foreground_mean_dice: Score
    labels: dict[str, LabelSpread]

    @classmethod
    def of(cls, summary: Summary) -> "HeldOutScores":
        """Summarizes the scores of a summary without its cases."""
        return cls(
            cases=len(summary.cases),
            foreground_mean_dice=summary.foreground_mean.dice,
            labels={label: _spread(summary, label) for label in summary.mean},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """One configuration of a model.

    Attributes:
        checkpoint: Description of the first fold.
        folds: All folds.
        scores: Scores on held-out cases, if there were any.
        rules: Postprocessing of the configuration.
        name: Name among configurations of several plans; by default that of the configuration.
        quality_costs: What each quality of prediction costs, if it was measured.
        exports: Description of each exported fold; empty if none was exported.
    """

    checkpoint: FoldDescription
    folds: Sequence[Fold]
    scores: HeldOutScores | None
    rules: PostprocessingRules
    name: str = ""
    quality_costs: QualityCosts | None = None
    exports: Sequence[ExportedFold] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A whole model.

    Attributes:
        name: Name of the model.
        members: Configurations that predict, then the coarser configurations of cascades among them.
        scores: Scores of all of them together, if they were validated together.
        rules: Postprocessing of the segmentation.
        cases: Number of labelled cases for training and validation; None if it is not known.
        licence, about: Texts of its authors.
    """

    name: str
    members: Sequence[MemberFacts]
    scores: HeldOutScores | None
    rules: PostprocessingRules
    cases: int | None = None
    licence: str = ""
    about: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Returns the main facts as rows of title and value."""
        first = self.members[0].checkpoint
        scores = self.scores
        shown = [
            ("segments", ", ".join(map(sanitize, first.info.targets.names))),
            ("images", ", ".join(describe_channels(first))),
            ("learned from", describe_origin(self)),
            ("configurations", "; ".join(describe_member(member) for member in self.members)),
        ]
        if scores is not None:
            shown.append(("mean Dice", f"{format_score(scores.foreground_mean_dice)} on {scores.cases} held-out cases"))
        shown.append(("afterwards", self.rules.describe()))
        return shown


def sanitize(text: str, longest: int = 200) -> str:
    r"""Returns a text of unknown origin on one line, shortened, and without control characters that terminals obey.

    Example:
        >>> sanitize("liver\n\x1b[31m tumour", longest=12)
        'liver [31m...'
    """
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:longest])
    return " ".join(shown.split()) + ("..." if len(text) > longest else "")


def describe_origin(facts: ModelFacts) -> str:
    """Returns the dataset that a model was trained on and its number of cases."""
    cases = "" if facts.cases is None else f", {facts.cases} labelled cases"
    return f"{sanitize(facts.members[0].checkpoint.plan.dataset)}{cases}"


def describe_member(member: MemberFacts) -> str:
    """Returns the name of a configuration and its folds."""
    folds = ", ".join(map(str, member.folds))
    name = member.name or member.checkpoint.configuration_name
    return f"{name} ({'folds' if len(member.folds) > 1 else 'fold'} {folds})"


def describe_channels(checkpoint: FoldDescription) -> Iterator[str]:
    """Yields the name of each channel with its normalization."""
    names = checkpoint.info.channel_names.values()
    for name, scale in zip(names, checkpoint.configuration.normalization, strict=False):
        yield f"{sanitize(name)} ({_describe_scale(scale)})"


def _describe_scale(scale: Normalization) -> str:
    if scale.scheme == "ct":
        return f"CT in Hounsfield units, clipped to {scale.lower:g} to {scale.upper:g}"
    if scale.window_hu is not None:
        each = "" if len(scale.window_hu) == 1 else ", each a channel of its own"
        return f"CT in Hounsfield units, in windows of {describe_windows(scale.window_hu)}{each}"
    return {
        "zscore": "each image brought to mean 0 and deviation 1",
        "rescale_to_0_1": "each image brought to 0 to 1",
        "rgb_to_0_1": "colours from 0 to 255",
        "none": "values as they are",
    }[scale.scheme]


def format_score(value: float) -> str:
    """Returns a score with three digits, or that it is undefined."""
    return NOT_DEFINED if math.isnan(value) else f"{value:.3f}"


def _spread(summary: Summary, label: str) -> LabelSpread:
    dice = [case.scores[label].dice for case in summary.cases if not math.isnan(case.scores[label].dice)]
    return LabelSpread(
        cases=len(dice),
        dice=summary.mean[label].dice,
        dice_interval=summary.mean[label].intervals.get("dice", (math.nan, math.nan)),
        dice_std=statistics.stdev(dice) if len(dice) > 1 else math.nan,
        dice_lowest=min(dice, default=math.nan),
        iou=summary.mean[label].iou,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMetadata:
    """The statements of a card that the files of the model do not hold.

    Attributes:
        name, cases, licence, about: See `ModelFacts`.
    """

    name: str
    cases: int | None = None
    licence: str = ""
    about: str = ""


def gather_facts(root: ModelFolder, names: Sequence[MemberName], metadata: CardMetadata) -> ModelFacts:
    """Gathers what a card states.

    Args:
        root: The folder of a whole model.
        names: The configurations that predict.
        metadata: What the files do not hold.

    Raises:
        ModelError, ArtifactError: A file is damaged.
    """
    folders = {path.parent for pattern in ("*/fold_*", "*/*/fold_*") for path in root.path.glob(pattern)}
    others = sorted({path.relative_to(root.path).as_posix() for path in folders} - set(names))
    members = [_gather_member(root.member(name), name) for name in (*names, *others)]
    first = members[0]
    alone = len(names) == 1
    return ModelFacts(
        name=metadata.name,
        members=members,
        scores=_load_scores(root) or (first.scores if alone else None),
        rules=BestModel.load(root.best_model).rules if root.best_model.is_file() else first.rules,
        cases=metadata.cases,
        licence=metadata.licence,
        about=metadata.about,
    )


def load_description(folder: ModelFolder, fold: Fold) -> FoldDescription:
    """Reads what a fold is; only a checkpoint needs torch.

    Raises:
        ModelError: The fold is missing or damaged.
    """
    if is_exported(folder, fold):
        return load_exported(folder, fold).description
    from autoseg.models.checkpoint import load_checkpoint  # noqa: PLC0415 - it needs torch

    return load_checkpoint(folder.checkpoint(fold))


def _gather_member(folder: ModelFolder, name: MemberName) -> MemberFacts:
    folds = folder.trained_folds()
    load_training_statistics(folder)  # raises an error if the file is damaged
    load_calibration(folder)  # likewise
    return MemberFacts(
        name=name,
        checkpoint=load_description(folder, folds[0]),
        exports=load_exports(folder, folds),
        quality_costs=load_quality_costs(folder),
        folds=folds,
        scores=_load_scores(folder),
        rules=PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES,
    )


def _load_scores(folder: ModelFolder) -> HeldOutScores | None:
    path = folder.path / SCORES
    return HeldOutScores.load(path) if path.is_file() else None
