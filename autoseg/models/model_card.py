"""The model card, MODEL_CARD.md: a description of a model for those who get it.

A card states what a model segments, what it was trained on, how good it was and what its limits are; never whose scans
they were: scores are means over cases without names.
"""

import math
from collections.abc import Iterator

from autoseg.models.fold_description import FoldDescription, Int8Comparison
from autoseg.models.model_facts import (
    NOT_DEFINED,
    ModelFacts,
    describe_channels,
    describe_member,
    describe_origin,
    format_score,
    sanitize,
)
from autoseg.models.quality_costs import MEASURED_AGAINST, QualityCosts
from autoseg.networks.monai import INSTALL
from autoseg.networks.monai_names import is_monai
from autoseg.planning.plan import Configuration
from autoseg.planning.spacing import name_axes
from autoseg.runtime.units import describe_duration


def write_card(facts: ModelFacts) -> str:
    """Returns the text of MODEL_CARD.md, in which names of labels and other texts of strangers are never HTML."""
    return "\n".join(line.replace("&", "&amp;").replace("<", "&lt;") for line in _write_lines(facts)) + "\n"


def _write_lines(facts: ModelFacts) -> Iterator[str]:
    first = facts.members[0].checkpoint
    yield f"# {facts.name}"
    yield from _paragraph(facts.about)
    yield from ("", "## What it segments", "", "| label | number |", "|---|---|")
    for name, numbers in first.info.targets.structures.items():
        yield f"| {_escape_cell(name)} | {', '.join(map(str, numbers))} |"
    yield from ("", "## Images that it takes", "")
    yield from (f"- {line}" for line in _describe_images(first))
    yield from ("", "## What it learned from", "", f"- {describe_origin(facts)}")
    for member in facts.members:
        yield f"- {describe_member(member)}: {_describe_training(member.checkpoint)}"
    yield from ("", "## How good it was on cases that it had not seen", "")
    yield from _write_scores(facts)
    yield from ("", f"Done to each result: {facts.rules.describe()}.")
    yield from _describe_qualities(facts)
    yield from _describe_runtimes(facts)
    yield from ("", "## Limits", "", *(f"- {line}" for line in _list_limits(first)))
    yield from ("", "## How to use it", "", "```bash", f"autoseg install {facts.name}.zip")
    yield from (f"autoseg predict -m {facts.name} -i scans/ -o masks/", "```")
    yield from ("", "## Licence", "", sanitize(facts.licence, 2000) or "Not stated: ask its authors before you use it.")


def _paragraph(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from ("", sanitize(line, 2000)) if line.strip() else ()


def _describe_training(checkpoint: FoldDescription) -> str:
    configuration, training = checkpoint.configuration, checkpoint.plan.training
    length = (
        f"{training.epochs} epochs of {training.steps_per_epoch} steps"
        if training.budget_seconds is None
        else f"{describe_duration(training.budget_seconds)} of training"
    )
    plugin = configuration.network
    network = "" if plugin is None else f", network {plugin.name!r}"
    if plugin is not None and is_monai(plugin.name):
        network += f", for which MONAI must be installed ({INSTALL})"
    elif configuration.is_foreign:
        network += ", which an installed package must offer"
    distillation = training.distillation
    teacher = (
        "" if distillation is None else f", from labels and from what {' and '.join(distillation.teacher)} predicts"
    )
    axes = name_axes(checkpoint.plan.axis_order, len(configuration.patch_size))
    patch = f"{' x '.join(map(str, configuration.patch_size))} voxels of {_describe_spacing(configuration)} mm ({axes})"
    return f"{length} per fold, {configuration.batch_size} patches of {patch} at once{network}{teacher}"


def _describe_images(checkpoint: FoldDescription) -> Iterator[str]:
    configuration = checkpoint.configuration
    for number, channel in enumerate(describe_channels(checkpoint)):
        yield f"channel {number}: {channel}"
    sizes_mm = (step * count for step, count in zip(configuration.spacing_mm, configuration.median_shape, strict=True))
    size = " x ".join(f"{size_mm:.0f}" for size_mm in sizes_mm)
    axes = name_axes(checkpoint.plan.axis_order, len(configuration.spacing_mm))
    voxels = f"typical voxels of {_describe_spacing(configuration)} mm"
    yield f"typical size of those it learned from: {size} mm, {voxels} ({axes})"
    yield "other voxels are resampled, and results brought back to the grid of the scan"


def _write_scores(facts: ModelFacts) -> Iterator[str]:
    if facts.scores is None:
        yield "No cases were held out, so nobody knows. Try it on cases whose truth you know before you rely on it."
        return
    mean = format_score(facts.scores.foreground_mean_dice)
    yield f"Mean Dice {mean} over the labels, on {facts.scores.cases} held-out cases, before postprocessing."
    yield from ("", "| label | cases | Dice | 95 % of the mean | standard deviation | lowest | IoU |")
    yield "|---|---|---|---|---|---|---|"
    for name, scores in facts.scores.labels.items():
        values = [format_score(scores.dice), " to ".join(map(format_score, scores.dice_interval))]
        values += map(format_score, (scores.dice_std, scores.dice_lowest, scores.iou))
        yield f"| {_escape_cell(name)} | {scores.cases} | {' | '.join(values)} |"


def _describe_qualities(facts: ModelFacts) -> Iterator[str]:
    """Yields what each quality of prediction costs; nothing if it was not measured."""
    if not any(member.quality_costs for member in facts.members):
        return
    yield from (
        "",
        "## What less work costs",
        "",
        "Measured on held-out cases, from their images, before postprocessing.",
    )
    yield "Work: passes of a patch through the networks of a fold, beside those of `--quality best`."
    yield from ("", "| configuration | quality | cases | mean Dice | change | lost by a label, at most | work |")
    yield "|---|---|---|---|---|---|---|"
    for member in facts.members:
        if (costs := member.quality_costs) is not None:
            for name in costs.qualities:
                yield f"| {member.name} | {_escape_cell(name)} | {_describe_quality(costs, name)} |"


def _describe_quality(costs: QualityCosts, name: str) -> str:
    """Returns the cells of a quality: cases, mean Dice, its change, the label that loses most, and the work."""
    mean, best = costs.qualities[name].foreground_mean_dice, costs.qualities[MEASURED_AGAINST].foreground_mean_dice
    cells = [str(costs.cases), NOT_DEFINED if math.isnan(mean) else f"{mean:.4f}"]
    if name == MEASURED_AGAINST:
        return " | ".join([*cells, "", "", "1"])
    label, loss = costs.find_largest_loss(name)
    share = costs.share_of_work(name)
    return " | ".join(
        [
            *cells,
            NOT_DEFINED if math.isnan(mean - best) else f"{mean - best:+.4f}",
            f"{_escape_cell(label)} {loss:.4f}",
            f"{share:.2g}",
        ]
    )


def _describe_runtimes(facts: ModelFacts) -> Iterator[str]:
    """Yields how far exported networks are from torch's; nothing for a model that holds checkpoints."""
    exports = [(member, fold) for member in facts.members for fold in member.exports]
    if not exports:
        return
    what = "convolutions in int8, all else in float32" if any(fold.int8 for _, fold in exports) else "in float32"
    yield from ("", "## Without torch", "", f"ONNX Runtime or OpenVINO calculate the networks on the CPU: {what}.")
    yield "Compared with torch in float32, on patches of noise, in batches of other sizes than the traced one:"
    yield from (
        "",
        "| configuration | fold | largest difference of a logit | of the largest logit | voxels otherwise |",
    )
    yield "|---|---|---|---|---|"
    for member, fold in exports:
        parity = fold.parity
        differences = f"{parity.largest_difference:.1e} | {parity.largest_logit:.3g}"
        yield f"| {member.name} | {fold.fold} | {differences} | {100 * parity.voxels_otherwise:.4f} % |"
    for member, fold in exports:
        if fold.int8 is not None:
            yield from _describe_int8(f"{member.name}, fold {fold.fold}", fold.int8)


def _describe_int8(name: str, comparison: Int8Comparison) -> Iterator[str]:
    """Yields how a fold was brought to int8, and what that changed."""
    counted = f"{comparison.int8_convolutions} convolutions in int8, {comparison.float32_convolutions} in float32"
    yield from ("", f"### {name} in int8", "")
    yield f"- {counted}; weights of {comparison.weight_bits} bits, with which no processor overflows"
    yield f"- calibrated on {comparison.calibration_patches} patches of training cases"
    sizes = f"{comparison.bytes_after / 1e6:.3g} MB instead of {comparison.bytes_before / 1e6:.3g} MB"
    yield f"- size of the network: {sizes}"
    yield f"- times are those of a patch, on {sanitize(comparison.machine)}"
    yield f"- Dice is the mean over the {comparison.cases} cases that the fold held out, before postprocessing"
    names = list(comparison.dice)
    yield from ("", f"| | time | {' | '.join(map(_escape_cell, names))} |", f"|---|---|{'---|' * len(names)}")
    yield f"| float32 | | {' | '.join(f'{comparison.dice[name]:.4f}' for name in names)} |"
    for found in comparison.runtimes:
        times = f"{found.seconds_after:.3g} s instead of {found.seconds_before:.3g} s"
        dice = " | ".join(f"{found.dice.get(name, math.nan):.4f}" for name in names)
        yield f"| int8, {found.runtime} | {times} | {dice} |"


def _list_limits(checkpoint: FoldDescription) -> Iterator[str]:
    yield "It is not a medical device, and was made for research: no diagnosis or treatment may rest on it."
    yield (
        "It works on images like those it learned from. Other scanners, protocols, body parts, ages and diseases may "
        "make it fail without a word: look at every result, and measure it on cases of your own first."
    )
    if checkpoint.configuration.normalization[0].scheme in ("ct", "window"):
        yield "CT must come in Hounsfield units; windowed or rescaled images look like something else to it."
    yield "A structure that is missing from an image may still be found there, and the other way round."


def _describe_spacing(configuration: Configuration) -> str:
    return " x ".join(f"{step:.3g}" for step in configuration.spacing_mm)


def _escape_cell(text: str) -> str:
    return sanitize(text).replace("|", "\\|")
