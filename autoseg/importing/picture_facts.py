"""What the headers of pictures say before anything is imported: the depth of colours, orientation, and spacing."""

from collections.abc import Sequence

from autoseg.datasets.dataset import Case
from autoseg.imaging.pictures.files import is_picture, open_picture
from autoseg.imaging.pictures.picture import Picture
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

BYTE_COLOURS = ("rgb_to_0_1",) * 3
"""Names of colours of 8 bits, which are divided by 255. Source: nnU-Net's dataset format."""

DEEP_COLOURS = ("red", "green", "blue")
"""Names of other colours. Decision: they are z-scored, since cameras fill 10, 12 or 16 of 16 bits and no scale fits
all; so a dataset may mix both depths."""


def name_colours(cases: Sequence[Case], reporter: Reporter) -> tuple[str, ...] | None:
    """Returns the names of the channels if every case is a picture in colours; None if they are others.

    Args:
        cases: Cases, of which no file is missing.
        reporter: Is told how colours are scaled if they have more than 8 bits, and which pictures are turned.

    Raises:
        ImageError: A picture cannot be read.
    """
    if not all(len(case.images) == 1 and is_picture(case.images[0]) for case in cases):
        return None

    def open_case(case: Case) -> Picture:
        return open_picture(case.images[0])

    pictures = results_or_raise(map_in_threads(open_case, cases, title="reading headers", reporter=reporter))
    turned = [case.name for case, picture in zip(cases, pictures, strict=True) if picture.turned_by > 1]
    if turned:
        reporter.say(
            f"{len(turned)} of {len(cases)} pictures are turned as their orientation tag (EXIF) says, and masks count "
            f"as drawn on the turned pictures: {list_names(turned)}"
        )
    if not all(picture.has_colours for picture in pictures):
        return None
    if all(picture.bits == 8 for picture in pictures):
        return BYTE_COLOURS
    reporter.say("Some colours have more than 8 bits: each picture is z-scored, instead of divided by 255")
    return DEEP_COLOURS


def has_own_place(case: Case) -> bool:
    """Returns whether the mask of a case says where it lies as well as its image does.

    A mask of ImageJ without a scale lies on its image, which may state one.

    Raises:
        ImageError: A picture cannot be read.
    """
    if case.label is None or case.label.is_dir() or not (is_picture(case.label) and is_picture(case.images[0])):
        return True
    return open_picture(case.label).spacing_mm is not None or open_picture(case.images[0]).spacing_mm is None
