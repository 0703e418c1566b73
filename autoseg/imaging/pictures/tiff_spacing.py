"""The spacing of a TIFF: what microscopes state in ImageJ's and OME's metadata, never the density of printing.

A resolution in dots per inch or per centimetre is what programs fill in for printers. ImageJ and OME state a unit
beside the size of a pixel; units of microscopes and scanners (nm, um, mm) are meant, inches and centimetres are
printing again, since ImageJ takes them over from the density of a photograph.
"""

import math
import re
from typing import Any

from autoseg.imaging.geometry import Vector
from autoseg.imaging.pictures.orientation_tag import exchanges_axes

MM_PER_UNIT = {
    "nm": 1e-6,
    "um": 1e-3,
    "\u00b5m": 1e-3,  # the micro sign
    "\u03bcm": 1e-3,  # the Greek letter
    "micron": 1e-3,
    "microns": 1e-3,
    "mm": 1.0,
}
PIXELS_ELEMENT = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")


def find_spacing(tiff: Any, slices: int, orientation: int) -> Vector | None:
    """Returns the spacing (z, y, x) in mm that an open TIFF states, as it is shown; None if it states none.

    Args:
        tiff: An open `tifffile.TiffFile`.
        slices: Number of its slices; a plane needs no distance between slices.
        orientation: Orientation by which it is turned.
    """
    stated = None
    if tiff.is_imagej:
        stated = _of_imagej(tiff)
    elif tiff.is_ome:
        stated = spacing_of_ome(tiff.ome_metadata or "", slices)
    if stated is None or not all(0 < step < math.inf for step in stated):
        return None
    z, y, x = stated
    return (z, x, y) if exchanges_axes(orientation) else stated


def spacing_of_ome(metadata: str, slices: int) -> Vector | None:
    """Returns the spacing that OME metadata state, in micrometres by default; None if a size or a unit is missing.

    Example:
        >>> spacing_of_ome('<Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="2.0"/>', slices=3)
        (0.002, 0.0005, 0.0005)
    """
    element = PIXELS_ELEMENT.search(metadata)
    attributes = dict(ATTRIBUTE.findall(element[1])) if element else {}
    steps = []
    for axis in "ZYX":
        mm_per_unit = MM_PER_UNIT.get(attributes.get(f"PhysicalSize{axis}Unit", "um"))
        size = _number(attributes.get(f"PhysicalSize{axis}", "1" if axis == "Z" and slices == 1 else ""))
        steps.append(math.nan if size is None or mm_per_unit is None else size * mm_per_unit)
    z, y, x = steps
    return (z, y, x) if all(math.isfinite(step) for step in steps) else None


def _of_imagej(tiff: Any) -> Vector | None:
    """Returns the spacing that ImageJ states: pixels per unit in the tags of resolution, and a distance of slices."""
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "\u00b5")
    if unit not in MM_PER_UNIT:
        return None
    pixels_per_unit = [_ratio(tiff.pages[0].tags.get(name)) for name in ("YResolution", "XResolution")]
    distance = _number(str(metadata.get("spacing", 1.0)))
    if distance is None or not all(pixels_per_unit):
        return None
    mm = MM_PER_UNIT[unit]
    y, x = (mm / number for number in pixels_per_unit)
    return abs(distance) * mm, y, x


def _ratio(tag: Any) -> float:
    """Returns the value of a tag that holds a ratio; 0 if there is none."""
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2:
        return 0.0
    return tag.value[0] / tag.value[1] if tag.value[1] else 0.0


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
