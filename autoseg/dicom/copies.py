"""Copies among the frames of DICOM files: what is there twice counts once, unless the copies differ."""

from collections.abc import Iterator, Sequence
from typing import Any

from autoseg.dicom.headers import Header
from autoseg.dicom.series import Defect, Frame

BLOCK_BYTES = 2**20

LONGEST_ELEMENT_HEAD = 12
"""Bytes of tag, value representation and length before pixels. Source: PS3.5, section 7.1.2."""


def unique_frames(headers: Sequence[Header]) -> dict[tuple[Any, ...], Frame]:
    """Returns the frames of files without copies: those of one SOP Instance UID that also lie at one place."""
    unique: dict[tuple[Any, ...], Frame] = {}
    for frame in _frames(headers):
        unique.setdefault(_identity(frame), frame)
    return unique


def find_conflict(headers: Sequence[Header]) -> Defect | None:
    """Finds two files that would count as copies, and hold other voxels: programs that remove names give such UIDs.

    Only files that are copies by their headers are read. Files of two transfer syntaxes are not compared.
    """
    unique, compared = unique_frames(headers), set[tuple[Any, ...]]()
    for frame in _frames(headers):
        first = unique[_identity(frame)]
        if frame.path == first.path or (first.path, frame.path) in compared:
            continue
        compared.add((first.path, frame.path))
        if _differ(first, frame):
            what = f"{first.path} and {frame.path} have the same UIDs and position, and other voxels"
            return Defect(what=what, fix="give the folder of one patient alone, or new UIDs to one of them")
    return None


def _frames(headers: Sequence[Header]) -> Iterator[Frame]:
    return (frame for header in headers for frame in header.frames)


def _identity(frame: Frame) -> tuple[Any, ...]:
    same = (frame.sop_uid or str(frame.path), frame.number, frame.position_mm, frame.instance)
    return (*same, tuple(sorted(frame.attributes.items())))


def _differ(first: Frame, second: Frame) -> bool:
    """Returns whether the pixels of two files differ, from the element of the pixels on."""
    layout, copied = first.layout, second.layout
    if layout is None or copied is None or layout.transfer_syntax != copied.transfer_syntax:
        return False
    left = layout.frames * first.size[0] * first.size[1] * layout.bits_allocated // 8 + LONGEST_ELEMENT_HEAD
    if not layout.is_plain:
        left = max(first.path.stat().st_size, second.path.stat().st_size)
    with first.path.open("rb") as file, second.path.open("rb") as copy:
        file.seek(layout.offset)
        copy.seek(copied.offset)
        while left > 0:
            block = file.read(min(left, BLOCK_BYTES))
            if block != copy.read(min(left, BLOCK_BYTES)):
                return True
            left -= BLOCK_BYTES
    return False
