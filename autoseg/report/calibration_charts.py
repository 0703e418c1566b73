"""How reliable the probabilities of a configuration are: a diagram for each structure."""

from autoseg.evaluation.reliability import Reliability
from autoseg.models.calibration import Calibration
from autoseg.report.charts import Chart, Frame, Series, make_chart

MOST_CHARTS = 12
"""Structures of which a diagram is drawn. Decision: of more, nobody looks at all."""


def draw_calibration(calibration: Calibration) -> list[Chart]:
    """Draws for each structure which share of the voxels is right, over the probability that they were given.

    Calibrated probabilities lie on the diagonal. A second line shows them divided by temperatures.

    Args:
        calibration: What was measured on held-out cases.
    """
    frame = Frame(
        x_title="probability",
        y_title="share of voxels that are right",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )
    charts = []
    for name, before in list(calibration.before.items())[:MOST_CHARTS]:
        series = [_make_series("as predicted", before)]
        if name in calibration.after:
            series.append(_make_series("with temperatures", calibration.after[name]))
        charts.append(make_chart(name, series, frame))
    return [chart for chart in charts if chart is not None]


def _make_series(name: str, reliability: Reliability) -> Series:
    points = list(zip(reliability.confidences, reliability.accuracies, strict=True))
    filled = [point for point, count in zip(points, reliability.counts, strict=True) if count > 0]
    return Series(name=f"{name}, error {reliability.error:.3f}", points=filled)
