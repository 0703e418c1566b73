"""Charts lie within their drawing, with round ticks, whatever the numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.report.charts import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, Frame, Series, list_ticks
from autoseg.report.charts import make_chart as draw

FRAME = Frame(x_title="epoch", y_title="loss")


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_within(low, size):
    """Three to eleven of them, a step apart that begins with 1, 2 or 5."""
    ticks = list_ticks(low, low + size)
    assert 3 <= len(ticks) <= 11
    assert all(low - 1e-6 * size <= tick <= low + size * (1 + 1e-6) for tick in ticks)
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step * 1.0001)), 3) in (1, 2, 5)


def test_points_lie_where_the_axes_say():
    """The lowest number at the lower left, the highest at the upper right."""
    chart = draw("loss", [Series(name="a", points=[(0, -1.0), (10, 3.0)])], FRAME)
    assert chart.series[0].lines == (f"{LEFT},{HEIGHT - BOTTOM} {WIDTH - RIGHT},{TOP}",)


def test_undefined_numbers_interrupt_a_line():
    """A number alone is a dot."""
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0)]
    [series] = draw("loss", [Series(name="a", points=points)], FRAME).series
    assert len(series.lines) == 1
    assert [dot.text for dot in series.dots] == ["a"]


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(0, math.inf)]])
def test_nothing_to_draw_is_no_chart(points):
    """Rather than one without numbers."""
    assert draw("loss", [Series(name="a", points=points)], FRAME) is None


def test_long_lines_are_thinned_and_end_where_they_end():
    """A thousand epochs."""
    points = [(epoch, math.sin(epoch / 100)) for epoch in range(1000)]
    [line] = draw("loss", [Series(name="a", points=points)], FRAME).series[0].lines
    assert len(line.split()) <= MOST_POINTS
    assert line.split()[-1].split(",")[0] == str(WIDTH - RIGHT)


def test_one_value_has_an_axis():
    """Around it."""
    chart = draw("loss", [Series(name="a", points=[(5, 2.0), (5, 2.0)])], FRAME)
    assert chart.y.low < 2.0 < chart.y.high
    assert "a ends at 2" in chart.text


def test_dots_have_their_names():
    """And a diagonal, if it is asked for."""
    frame = Frame(x_title="x", y_title="y", x_range=(0, 1), y_range=(0, 1), dots=True, diagonal=True)
    chart = draw("scatter", [Series(name="a", points=[(0.5, 0.5)], names=["case 1"])], frame)
    assert [(dot.text, dot.x, dot.y) for dot in chart.series[0].dots] == [("case 1", 188.0, 92.0)]
    assert chart.diagonal.split()[0] == f"{LEFT},{HEIGHT - BOTTOM}"
