"""What a model is, in words for those who get it: MODEL_CARD.md, and the few lines that are shown when it is installed.

A card tells what a model segments, what it learned from, how good it was and where it ends; never whose scans they
were: scores are means over cases that have no name.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from autoseg.artifact import Artifact, Score
from autoseg.checkpoint import Checkpoint
from autoseg.evaluation.statistics import Interval
from autoseg.evaluation.summary import Summary
from autoseg.networks.monai import INSTALL, is_monai
from autoseg.plan import Configuration, Normalization
from autoseg.postprocessing import PostprocessingRules
from autoseg.units import describe_duration
from autoseg.workspace import Fold

Count = Annotated[int, Field(ge=0)]
NOT_DEFINED = "–"  # noqa: RUF001


class LabelSpread(BaseModel):
    """The scores of one label over the held-out cases that have one.

    Attributes:
        cases: How many those are.
        dice, iou: Means, 0 to 1; undefined if there is no such case.
        dice_interval: 95 % confidence interval of the mean Dice.
        dice_std: Standard deviation of the Dice over the cases; undefined for fewer than two.
        dice_lowest: The worst of them.
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
        cases: How many.
        foreground_mean_dice: Mean over the labels.
        labels: By name.
    """

    cases: Count
    foreground_mean_dice: Score
    labels: dict[str, LabelSpread]

    @classmethod
    def of(cls, summary: Summary) -> "HeldOutScores":
        """What remains of a summary without the cases."""
        return cls(
            cases=len(summary.cases),
            foreground_mean_dice=summary.foreground_mean.dice,
            labels={label: _spread(summary, label) for label in summary.mean},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """One configuration of a model.

    Attributes:
        checkpoint: Of its first fold.
        folds: All of them.
        scores: On held-out cases, if any were.
        rules: Its postprocessing.
        name: What it is called among those of several plans; by default as its configuration.
    """

    checkpoint: Checkpoint
    folds: Sequence[Fold]
    scores: HeldOutScores | None
    rules: PostprocessingRules
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A whole model.

    Attributes:
        name: Of it.
        members: The configurations that predict, then those that they follow.
        scores: Of all of them together, if that was measured.
        rules: Postprocessing of the result.
        cases: That could be learned from; None if nobody knows.
        licence, about: What its authors say.
    """

    name: str
    members: Sequence[MemberFacts]
    scores: HeldOutScores | None
    rules: PostprocessingRules
    cases: int | None = None
    licence: str = ""
    about: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """What there is to know at a glance: title and value."""
        first = self.members[0].checkpoint
        scores = self.scores
        shown = [
            ("segments", ", ".join(map(plain, first.info.targets.names))),
            ("images", ", ".join(_describe_channels(first))),
            ("learned from", _describe_origin(self)),
            ("configurations", "; ".join(_describe_member(one) for one in self.members)),
        ]
        if scores is not None:
            shown.append(("mean Dice", f"{_score(scores.foreground_mean_dice)} on {scores.cases} held-out cases"))
        shown.append(("afterwards", self.rules.describe()))
        return shown


def write_card(facts: ModelFacts) -> str:
    """The text of MODEL_CARD.md."""
    return "\n".join(_write_lines(facts)) + "\n"


def plain(text: str, longest: int = 200) -> str:
    """A text of unknown origin on one line, without signs that terminals obey, and not endless."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:longest])
    return " ".join(shown.split()) + ("..." if len(text) > longest else "")


def _write_lines(facts: ModelFacts) -> Iterator[str]:
    first = facts.members[0].checkpoint
    yield f"# {facts.name}"
    yield from _paragraph(facts.about)
    yield from ("", "## What it segments", "", "| label | number |", "|---|---|")
    for name, numbers in first.info.targets.structures.items():
        yield f"| {_cell(name)} | {', '.join(map(str, numbers))} |"
    yield from ("", "## Images that it takes", "")
    yield from (f"- {line}" for line in _describe_images(first))
    yield from ("", "## What it learned from", "", f"- {_describe_origin(facts)}")
    for member in facts.members:
        yield f"- {_describe_member(member)}: {_describe_training(member.checkpoint)}"
    yield from ("", "## How good it was on cases that it had not seen", "")
    yield from _write_scores(facts)
    yield from ("", f"Done to each result: {facts.rules.describe()}.")
    yield from ("", "## Limits", "", *(f"- {line}" for line in _limits(first)))
    yield from ("", "## How to use it", "", "```bash", f"autoseg install {facts.name}.zip")
    yield from (f"autoseg predict -m {facts.name} -i scans/ -o masks/", "```")
    yield from ("", "## Licence", "", plain(facts.licence, 2000) or "Not stated: ask its authors before you use it.")


def _paragraph(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from ("", plain(line, 2000)) if line.strip() else ()


def _describe_origin(facts: ModelFacts) -> str:
    cases = "" if facts.cases is None else f", {facts.cases} labelled cases"
    return f"{plain(facts.members[0].checkpoint.plan.dataset)}{cases}"


def _describe_member(member: MemberFacts) -> str:
    folds = ", ".join(map(str, member.folds))
    name = member.name or member.checkpoint.configuration_name
    return f"{name} ({'folds' if len(member.folds) > 1 else 'fold'} {folds})"


def _describe_training(checkpoint: Checkpoint) -> str:
    one, training = checkpoint.configuration, checkpoint.plan.training
    length = (
        f"{training.epochs} epochs of {training.steps_per_epoch} steps"
        if training.budget_seconds is None
        else f"{describe_duration(training.budget_seconds)} of training"
    )
    own = "" if one.network is None else f", network {one.network.name!r}"
    if one.network is not None and is_monai(one.network.name):
        own += f", for which MONAI must be installed ({INSTALL})"
    elif one.is_foreign:
        own += ", which an installed package must offer"
    patch = " x ".join(map(str, one.patch_size))
    return f"{length} per fold, {one.batch_size} patches of {patch} voxels of {_spacing(one)} mm at once{own}"


def _describe_channels(checkpoint: Checkpoint) -> Iterator[str]:
    names = checkpoint.info.channel_names.values()
    for name, scale in zip(names, checkpoint.configuration.normalization, strict=False):
        yield f"{plain(name)} ({_describe_scale(scale)})"


def _describe_scale(scale: Normalization) -> str:
    if scale.scheme == "ct":
        return f"CT in Hounsfield units, clipped to {scale.lower:g} to {scale.upper:g}"
    return {
        "zscore": "each image brought to mean 0 and deviation 1",
        "rescale_to_0_1": "each image brought to 0 to 1",
        "rgb_to_0_1": "colours from 0 to 255",
        "none": "values as they are",
    }[scale.scheme]


def _describe_images(checkpoint: Checkpoint) -> Iterator[str]:
    one = checkpoint.configuration
    for number, channel in enumerate(_describe_channels(checkpoint)):
        yield f"channel {number}: {channel}"
    size = " x ".join(f"{step * count:.0f}" for step, count in zip(one.spacing_mm, one.median_shape, strict=True))
    yield f"typical size of those it learned from: {size} mm, typical voxels of {_spacing(one)} mm"
    yield "other voxels are resampled, and results brought back to the grid of the scan"


def _write_scores(facts: ModelFacts) -> Iterator[str]:
    if facts.scores is None:
        yield "No cases were held out, so nobody knows. Try it on cases whose truth you know before you rely on it."
        return
    mean = _score(facts.scores.foreground_mean_dice)
    yield f"Mean Dice {mean} over the labels, on {facts.scores.cases} held-out cases, before postprocessing."
    yield from ("", "| label | cases | Dice | 95 % of the mean | standard deviation | lowest | IoU |")
    yield "|---|---|---|---|---|---|---|"
    for name, one in facts.scores.labels.items():
        values = [_score(one.dice), " to ".join(map(_score, one.dice_interval))]
        values += map(_score, (one.dice_std, one.dice_lowest, one.iou))
        yield f"| {_cell(name)} | {one.cases} | {' | '.join(values)} |"


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    yield "It is not a medical device, and was made for research: no diagnosis or treatment may rest on it."
    yield (
        "It works on images like those it learned from. Other scanners, protocols, body parts, ages and diseases may "
        "make it fail without a word: look at every result, and measure it on cases of your own first."
    )
    if checkpoint.configuration.normalization[0].scheme == "ct":
        yield "CT must come in Hounsfield units; windowed or rescaled images look like something else to it."
    yield "A structure that is missing from an image may still be found there, and the other way round."


def _spacing(configuration: Configuration) -> str:
    return " x ".join(f"{step:.3g}" for step in configuration.spacing_mm)


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


def _score(value: float) -> str:
    return NOT_DEFINED if math.isnan(value) else f"{value:.3f}"


def _spread(summary: Summary, label: str) -> LabelSpread:
    found = [case.scores[label].dice for case in summary.cases]
    dice = [value for value in found if not math.isnan(value)]
    return LabelSpread(
        cases=len(dice),
        dice=summary.mean[label].dice,
        dice_interval=summary.mean[label].intervals.get("dice", (math.nan, math.nan)),
        dice_std=statistics.stdev(dice) if len(dice) > 1 else math.nan,
        dice_lowest=min(dice, default=math.nan),
        iou=summary.mean[label].iou,
    )
