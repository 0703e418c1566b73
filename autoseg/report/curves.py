"""Training curves of all folds of a configuration."""

from collections.abc import Callable

from autoseg.report.charts import Chart, Frame, Series, make_chart
from autoseg.report.model_runs import ModelRun
from autoseg.training.monitoring.progress import EpochReport

CURVES: tuple[tuple[str, Callable[[EpochReport], float], tuple[float, float] | None], ...] = (
    ("held-out loss", lambda epoch: epoch.validation_loss, None),
    ("training loss", lambda epoch: epoch.training_loss, None),
    ("pseudo Dice, mean of the labels", lambda epoch: epoch.mean_pseudo_dice, (0.0, 1.0)),
    ("learning rate", lambda epoch: epoch.learning_rate, None),
)
"""Title, value and range of each chart. Pseudo Dice is that of patches of the held-out cases."""


def draw_curves(run: ModelRun) -> list[Chart]:
    """Draws losses, pseudo Dice and learning rate over the epochs, a line for each fold; none without epochs."""
    charts = []
    for title, value, ends in CURVES:
        series = [
            Series(name=f"fold {fold.fold}", points=[(epoch.epoch, value(epoch)) for epoch in fold.epochs])
            for fold in run.folds
        ]
        frame = Frame(x_title="epoch", y_title=title, y_range=ends, whole=True)
        charts.append(make_chart(title, series, frame))
    return [chart for chart in charts if chart is not None]
