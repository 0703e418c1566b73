"""The spacing of a TIFF in a JSON file beside it, which goes before anything that the TIFF itself says.

A TIFF holds at most a resolution in the plane, which most programs fill in at random, and no distance between slices.
nnU-Net v2.8.1 keeps the spacing of a volume in a file beside it, and so does this program:

    imagesTr/CASE_0000.tif  imagesTr/CASE.json       {"spacing": [z, y, x]}, in mm
    labelsTr/CASE.tif       labelsTr/CASE.json
"""

import json
import math
import re
from pathlib import Path

from autoseg.errors import ArtifactError, ImageError
from autoseg.imaging.formats import is_tiff
from autoseg.imaging.geometry import Vector
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.json_text import read_json_text

CHANNEL_NUMBER = re.compile(r"_\d{4}$")


def find_spacing_file(path: Path) -> Path | None:
    """Returns the spacing file beside a TIFF, or None if there is none.

    It has the name of the TIFF, or its name without the channel number.
    """
    if not is_tiff(path):
        return None
    same_name = path.with_suffix(".json")
    case_name = path.with_name(CHANNEL_NUMBER.sub("", path.stem) + ".json")
    return next((file for file in (same_name, case_name) if file.is_file()), None)


def read_spacing(path: Path) -> Vector | None:
    """Reads the spacing (z, y, x) in mm from the spacing file of a TIFF; None if there is no spacing file.

    It is that of the picture as it is shown, as in the results. The first number counts for volumes only.

    Raises:
        ImageError: The spacing file cannot be read, or does not hold three positive numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_spacing(Path(folder) / "case_1.tif", (3.0, 0.5, 0.5))
        ...     read_spacing(Path(folder) / "case_1_0000.tif")
        (3.0, 0.5, 0.5)
    """
    spacing_file = find_spacing_file(path)
    if spacing_file is None:
        return None
    try:
        content = json.loads(read_json_text(spacing_file))
        z, y, x = (float(step) for step in content["spacing"])
    except ArtifactError as error:
        raise ImageError(error.what, error.fix) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_spacing(spacing_file) from error
    if not all(0 < step < math.inf for step in (z, y, x)):
        raise _no_spacing(spacing_file)
    return z, y, x


def write_spacing(path: Path, spacing_mm: Vector) -> None:
    """Writes the spacing file of a TIFF, atomically."""
    with atomic_file(path.with_suffix(".json")) as writing:
        writing.write_text(json.dumps({"spacing": list(spacing_mm)}) + "\n", encoding="utf-8")


def _no_spacing(path: Path) -> ImageError:
    return ImageError(f"{path} holds no spacing of a volume", 'write {"spacing": [z, y, x]} into it, in millimetres')
