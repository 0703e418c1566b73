"""Pictures of a training run: losses, pseudo Dice, learning rate and seconds over the epochs."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.runtime.artifact import atomic_file
from autoseg.training.monitoring.progress import EpochReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Decision: Okabe and Ito's colours, which people with any colour vision can tell apart; their yellow is left out, as it
# is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINE_STYLES = ("-", "--", ":")
MOST_NAMED_LABELS = len(COLOURS) * len(LINE_STYLES)
FEW_EPOCHS = 40  # up to this number, each epoch shows as a dot; beyond, a running mean shows the trend


def draw_progress(path: Path, reports: Sequence[EpochReport]) -> None:
    """Draws losses, pseudo Dice, learning rate and seconds over the epochs, atomically.

    Args:
        path: Path of the PNG file.
        reports: Reports of all epochs so far, at least one, all with the same labels.

    Raises:
        ValueError: There are no reports.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import, for one picture
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    if not reports:
        raise ValueError("there are no epochs to draw")
    figure = Figure(figsize=(12, 7.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    figure.suptitle(_headline(reports), x=0.01, ha="left", fontsize=13, fontweight="bold")
    (losses, dice), (rate, seconds) = figure.subplots(2, 2, sharex=True)
    _draw_losses(losses, reports)
    _draw_pseudo_dice(dice, reports)
    _draw_curve(rate, reports, [report.learning_rate for report in reports], color=COLOURS[0])
    _draw_curve(seconds, reports, [report.seconds for report in reports], color=COLOURS[0], smoothed=True)
    for axes in (rate, seconds):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
    for axes, title in (
        (losses, "Loss"),
        (dice, "Pseudo Dice"),
        (rate, "Learning rate"),
        (seconds, "Seconds per epoch"),
    ):
        _style_axes(axes, title)
    _save(figure, path)


def _headline(reports: Sequence[EpochReport]) -> str:
    last = reports[-1]
    epochs = "1 epoch" if len(reports) == 1 else f"{len(reports)} epochs"
    minutes, seconds = divmod(round(last.elapsed_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    duration = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
    return f"{epochs} in {duration} · mean pseudo Dice {last.mean_pseudo_dice:.3f}"


def _draw_losses(axes: "Axes", reports: Sequence[EpochReport]) -> None:
    training = [report.training_loss for report in reports]
    held_out = [report.validation_loss for report in reports]
    _draw_curve(axes, reports, training, color=COLOURS[0], label="training", smoothed=True)
    if not np.isnan(held_out).all():
        _draw_curve(axes, reports, held_out, color=COLOURS[1], label="held out", smoothed=True)
    axes.legend(frameon=False)


def _draw_pseudo_dice(axes: "Axes", reports: Sequence[EpochReport]) -> None:
    labels = list(reports[0].pseudo_dice)
    many = len(labels) > MOST_NAMED_LABELS
    for index, label in enumerate(labels):
        values = [report.pseudo_dice[label] for report in reports]
        style = _grey_style(index) if many else _label_style(index, label)
        _draw_curve(axes, reports, values, smoothed=True, **style)
    if len(labels) > 1:
        mean = [report.mean_pseudo_dice for report in reports]
        _draw_curve(axes, reports, mean, color="black", linewidth=2.2, label=" mean", smoothed=True)
    axes.set_ylim(0, 1)
    handles, names = axes.get_legend_handles_labels()
    if handles:
        legend = axes.legend(handles, names, frameon=False, ncols=1 + len(names) // 7, loc="lower right")
        for text in legend.get_texts():
            text.set_parse_math(False)


def _label_style(index: int, label: str) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[index // len(COLOURS)],
        "label": f" {label}",  # a legend hides names that start with "_"
    }


def _grey_style(index: int) -> dict[str, Any]:
    return {"color": "0.75", "linewidth": 0.8, "label": " each label" if index == 0 else None}


def _draw_curve(
    axes: "Axes", reports: Sequence[EpochReport], values: Sequence[float], *, smoothed: bool = False, **style: Any
) -> None:
    """Draws dots and a line for few epochs; for many, a line, or if `smoothed` a running mean over pale values."""
    epochs = [report.epoch for report in reports]
    style = {"linewidth": 1.6, **style}
    if len(reports) <= FEW_EPOCHS:
        axes.plot(epochs, values, marker="o", markersize=4, **style)
    elif smoothed:
        axes.plot(epochs, values, color=style["color"], linewidth=0.6, alpha=0.3)
        axes.plot(epochs, _running_mean(values, window=2 * (len(reports) // 100) + 3), **style)
    else:
        axes.plot(epochs, values, **style)


def _running_mean(values: Sequence[float], window: int) -> NDArray[np.floating]:
    """Returns the mean over `window` epochs around each one; NaN values do not count, and stay NaN.

    Example:
        >>> _running_mean([1.0, 2.0, 6.0], window=3)
        array([1.5, 3. , 4. ])

    Args:
        values: One value per epoch.
        window: An odd number of epochs; at both ends there are fewer.
    """
    array = np.asarray(values, dtype=float)
    known = ~np.isnan(array)
    box, inside = np.ones(window), slice(window // 2, window // 2 + array.size)
    total = np.convolve(np.where(known, array, 0.0), box)[inside]
    count = np.convolve(known, box)[inside]
    return np.where(known, total / np.maximum(count, 1), np.nan)


def _style_axes(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - see draw_progress

    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelbottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _save(figure: "Figure", path: Path) -> None:
    with atomic_file(path) as writing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks show as boxes
        figure.savefig(writing, dpi=100)
