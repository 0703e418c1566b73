"""Charts of lines and dots, ready to draw: places in the drawing, ticks, and a text for those who cannot see it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 8.0, 34.0
"""Size of a drawing, and the room for the numbers beside its axes, in units of its own."""

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
"""Decision: Okabe and Ito's colours, which people with any colour vision can tell apart. All of them are seen on white
and on black."""

MOST_POINTS = 250
"""Points of a line. Decision: more than the pixels of a drawing show no more."""

TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Numbers to draw.

    Attributes:
        name: What they are.
        points: Pairs (x, y); pairs with an undefined number are left out, and interrupt a line.
        names: Text of each point, if it has one.
    """

    name: str
    points: Sequence[tuple[float, float]]
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A dot of a drawing: its place and what it stands for."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSeries:
    """A series in the units of the drawing.

    Attributes:
        name, colour: What the legend says.
        lines: For each piece of the line, its points as SVG reads them.
        dots: Its dots, if it is drawn as dots.
    """

    name: str
    colour: str
    lines: tuple[str, ...] = ()
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: its title, its ends, and its ticks as pairs of a place in the drawing and a text."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
        title: What it shows.
        series: What is drawn.
        x, y: The axes.
        diagonal: The line of equal numbers as SVG reads it; empty for none.
        text: The chart in words.
    """

    title: str
    series: tuple[DrawnSeries, ...]
    x: Axis
    y: Axis
    diagonal: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a chart is to look like.

    Attributes:
        x_title, y_title: Titles of the axes.
        x_range, y_range: Ends of the axes; None for those of the numbers.
        dots: Whether numbers are drawn as dots rather than as a line.
        diagonal: Whether the line of equal numbers is drawn.
        whole: Whether x counts something, so that its ticks are whole numbers.
    """

    x_title: str
    y_title: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    dots: bool = False
    diagonal: bool = False
    whole: bool = False


def make_chart(title: str, series: Sequence[Series], frame: Frame) -> Chart | None:
    """Lays out a chart.

    Args:
        title: What it shows.
        series: What is drawn.
        frame: What it is to look like.

    Returns:
        The chart; None if there is no number to draw.

    Example:
        >>> frame = Frame(x_title="epoch", y_title="loss")
        >>> chart = make_chart("loss", [Series(name="fold 0", points=[(0, 1.0), (10, 0.5)])], frame)
        >>> chart.series[0].lines, [text for _, text in chart.x.ticks]
        (('46.0,8.0 330.0,176.0',), ['0', '2', '4', '6', '8', '10'])
    """
    points = np.array([point for part in series for point in part.points], dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    x_range, y_range = (
        ends or (float(points[:, axis].min()), float(points[:, axis].max()))
        for axis, ends in enumerate((frame.x_range, frame.y_range))
    )
    x = _make_axis(frame.x_title, x_range, (LEFT, WIDTH - RIGHT), whole=frame.whole)
    y = _make_axis(frame.y_title, y_range, (HEIGHT - BOTTOM, TOP))
    drawn = tuple(
        _draw(part, COLOURS[number % len(COLOURS)], (x, y), dots=frame.dots) for number, part in enumerate(series)
    )
    low, high = max(x.low, y.low), min(x.high, y.high)
    ends = [(_place_x(value, x), _place_y(value, y)) for value in (low, high)]
    return Chart(
        title=title,
        series=drawn,
        x=x,
        y=y,
        diagonal=_join(ends) if frame.diagonal and high > low else "",
        text=_describe(title, series, frame),
    )


def list_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Returns about five round numbers from `low` to `high`.

    Example:
        >>> list_ticks(0, 1), list_ticks(0, 3, whole=True)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 1.0, 2.0, 3.0])
    """
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _make_axis(title: str, ends: tuple[float, float], places: tuple[float, float], *, whole: bool = False) -> Axis:
    low, high = ends
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bare = Axis(title=title, low=low, high=high, ticks=())
    ticks = tuple(
        (_place(tick, bare, *places), f"{tick:.6g}" if abs(tick) >= 1e-12 else "0")
        for tick in list_ticks(low, high, whole=whole)
    )
    return Axis(title=title, low=low, high=high, ticks=ticks)


def _place(value: float, axis: Axis, first: float, last: float) -> float:
    return first + (last - first) * (value - axis.low) / (axis.high - axis.low)


def _place_x(value: float, axis: Axis) -> float:
    return _place(value, axis, LEFT, WIDTH - RIGHT)


def _place_y(value: float, axis: Axis) -> float:
    return _place(value, axis, HEIGHT - BOTTOM, TOP)


def _draw(series: Series, colour: str, axes: tuple[Axis, Axis], *, dots: bool) -> DrawnSeries:
    x, y = axes
    if dots:
        names = series.names or [f"{first:.4g}, {second:.4g}" for first, second in series.points]
        drawn = tuple(
            Dot(x=_place_x(first, x), y=_place_y(second, y), text=name)
            for (first, second), name in zip(series.points, names, strict=True)
            if math.isfinite(first) and math.isfinite(second)
        )
        return DrawnSeries(name=series.name, colour=colour, dots=drawn)
    pieces = [_thin(piece) for piece in _split(series.points)]
    single = tuple(
        Dot(x=_place_x(piece[0][0], x), y=_place_y(piece[0][1], y), text=series.name)
        for piece in pieces
        if len(piece) == 1
    )
    lines = tuple(
        _join([(_place_x(first, x), _place_y(second, y)) for first, second in piece])
        for piece in pieces
        if len(piece) > 1
    )
    return DrawnSeries(name=series.name, colour=colour, lines=lines, dots=single)


def _split(points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Yields the pieces of a line between points that are undefined."""
    piece: list[tuple[float, float]] = []
    for point in points:
        if all(map(math.isfinite, point)):
            piece.append(point)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns means of neighbouring points, at most `MOST_POINTS`; the last point stays."""
    size = -(-len(points) // MOST_POINTS)
    if size < 2:
        return points
    groups = [np.mean(points[start : start + size], axis=0) for start in range(0, len(points), size)]
    return [*((float(x), float(y)) for x, y in groups[:-1]), points[-1]]


def _join(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _describe(title: str, series: Sequence[Series], frame: Frame) -> str:
    """Describes a chart in words: for lines where each ends, for dots how many there are."""
    parts = []
    for part in series:
        defined = [point for point in part.points if all(map(math.isfinite, point))]
        if defined and frame.dots:
            parts.append(f"{part.name}: {len(defined)} points")
        elif defined:
            parts.append(f"{part.name} ends at {defined[-1][1]:.3g}")
    return f"{title}, {frame.y_title} over {frame.x_title}. {'; '.join(parts)}."
