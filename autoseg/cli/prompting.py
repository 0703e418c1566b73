"""The command that draws first masks from prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.options import Device, SeriesOption
from autoseg.errors import UsageError


def prompt(
    source: Annotated[Path, typer.Argument(help="The scan: an image file, or DICOM files.", metavar="SCAN")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the mask.", metavar="FILE")],
    weights: Annotated[
        Path,
        typer.Option(
            "--weights", help="Weights of your own: of Segment Anything, MedSAM, or the same network.", metavar="FILE"
        ),
    ],
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            help="Two opposite corners of a box around a structure, both of which belong to it: X,Y,Z,X,Y,Z; X,Y,X,Y "
            "for a picture.",
            metavar="X,Y,Z,X,Y,Z...",
        ),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option("--point", help="Points in the structure; X,Y for a picture.", metavar="X,Y,Z..."),
    ] = None,
    background_points: Annotated[
        list[str] | None,
        typer.Option("--background-point", help="Points beside the structure.", metavar="X,Y,Z..."),
    ] = None,
    in_mm: Annotated[
        bool,
        typer.Option("--mm", help="Coordinates are mm to the right, anterior and superior, instead of voxels from 0."),
    ] = False,
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate", help="Go on slice by slice: a box is that of its middle slice, and other slices follow."
        ),
    ] = False,
    slices: Annotated[
        str | None,
        typer.Option("--slices", help="First and last slice to segment, numbered from 0.", metavar="FIRST,LAST"),
    ] = None,
    plane: Annotated[
        str | None,
        typer.Option(
            "--plane",
            help="The slices. [default: across the axis along which voxels lie farthest apart, else axial]",
            metavar="axial|coronal|sagittal",
        ),
    ] = None,
    preparation: Annotated[
        str,
        typer.Option(
            "--preparation",
            help="How slices are prepared, as the weights learned it; auto goes by the name of their file.",
            metavar="auto|sam|medsam",
        ),
    ] = "auto",
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            help="Intensities that become black and white, such as -160,240 for CT of the abdomen. [default: the 0.5th "
            "and 99.5th percentile]",
            metavar="LOW,HIGH",
        ),
    ] = None,
    channel: Annotated[
        int | None, typer.Option("--channel", min=0, help="Which channel of several, from 0.", metavar="NUMBER")
    ] = None,
    label: Annotated[
        int, typer.Option("--label", min=1, max=65535, help="Number of the structure in the mask.", metavar="NUMBER")
    ] = 1,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the labels of a mask that is there, and add to its background.")
    ] = False,
    series: SeriesOption = None,
    device: Device = "auto",
) -> None:
    """Draws a first mask of what boxes and points prompt, by weights of your own.

    The weights are a checkpoint of Segment Anything or MedSAM, which nothing downloads. Each box is a structure; all
    points are one, and so are a box and points. Voxels count from 0, in the order x, y, z in which viewers show them.
    Without --propagate, a box stands on each of its slices. The mask has the grid and geometry of the scan.
    """
    from autoseg.cli.series_table import show_series
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import prompt

    with show_series():
        written = prompt(
            source,
            output,
            weights=weights,
            boxes=[parse_coordinates(text, "--box", (4, 6), in_mm=in_mm) for text in boxes or ()],
            points=[parse_coordinates(text, "--point", (2, 3), in_mm=in_mm) for text in points or ()],
            background_points=[
                parse_coordinates(text, "--background-point", (2, 3), in_mm=in_mm) for text in background_points or ()
            ],
            unit="mm" if in_mm else "voxels",
            propagate=propagate,
            slices=None if slices is None else _parse_slices(slices),
            plane=plane,
            preparation=preparation,
            window=None if window is None else _parse_pair(window, "--window"),
            channel=channel,
            label=label,
            add=add,
            series=series,
            device=device,
            reporter=Terminal(),
        )
    console.print(f"mask: {written}")


def parse_coordinates(text: str, option: str, counts: Sequence[int], *, in_mm: bool) -> tuple[float, ...]:
    """Returns one or two points in the order and the frame of the package, of those of viewers.

    Args:
        text: Numbers (x, y, z), or (x, y), of one point, or of two, divided by commas.
        option: Name of the option, for errors.
        counts: How many numbers there may be: those of a picture, and those of a volume.
        in_mm: Whether they are mm to the right, anterior and superior, instead of voxels.

    Raises:
        UsageError: These are no such numbers.

    Example:
        >>> parse_coordinates("1,2,3,4,5,6", "--box", (4, 6), in_mm=False)
        (3.0, 2.0, 1.0, 6.0, 5.0, 4.0)
        >>> parse_coordinates("10,-20,5", "--point", (2, 3), in_mm=True)
        (5.0, 20.0, -10.0)
    """
    values = _parse_numbers(text, option)
    if len(values) not in counts:
        what = f"{option} {text} has {len(values)} coordinates"
        raise UsageError(what, f"give {counts[0]} for a picture, {counts[1]} for a volume, divided by commas")
    dimensions = 2 if len(values) == counts[0] else 3
    points = [values[start : start + dimensions] for start in range(0, len(values), dimensions)]
    signs = (-1, -1, 1) if in_mm else (1, 1, 1)
    turned = (tuple(sign * value + 0.0 for sign, value in zip(signs, point, strict=False))[::-1] for point in points)
    return tuple(value for point in turned for value in point)


def _parse_slices(text: str) -> tuple[int, int]:
    first, last = _parse_pair(text, "--slices")
    if first != int(first) or last != int(last):
        raise UsageError(f"--slices {text} are no numbers of slices", "give whole numbers, such as --slices 20,45")
    return int(first), int(last)


def _parse_pair(text: str, option: str) -> tuple[float, float]:
    values = _parse_numbers(text, option)
    if len(values) != 2:
        raise UsageError(f"{option} {text} has {len(values)} numbers", "give two, divided by a comma")
    return values[0], values[1]


def _parse_numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text} are no numbers", "divide them by commas, without spaces") from None
    if not all(abs(value) < 1e9 for value in values):  # neither infinite nor NaN
        raise UsageError(f"{option} {text} are no coordinates or intensities", "give numbers")
    return values
