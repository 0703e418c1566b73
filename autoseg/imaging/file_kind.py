"""What a file is, before any library opens it: a regular file, and large enough for what its header promises.

Scans come from strangers. A pipe or a device would keep a library waiting for ever, and a header of a hundred bytes
may promise more voxels than the memory holds.
"""

import os
import stat
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.os_errors import advise_reading, reason_of
from autoseg.runtime.units import describe_memory

DEFLATE_RATIO = 1100
"""Bytes that one compressed byte stands for at most. Source: zlib's technical details, 1032 to 1, rounded up; a mask of
zeros reaches it."""

ALWAYS_TRIED = 2**29
"""Bytes that are read whatever the system says of its free memory, which counts too little where files are cached."""


def check_kind(path: Path) -> os.stat_result:
    """Refuses what is no regular file, and what may not be read, without opening anything that could keep waiting.

    Returns:
        The size of the file, and the time of its last change.

    Raises:
        ImageError: The file is missing, a folder, a pipe or a device, or may not be read.

    Example:
        >>> check_kind(Path(os.devnull))
        Traceback (most recent call last):
        autoseg.errors.ImageError: /dev/null is no file but a device; put an image file in its place
    """
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            with path.open("rb"):
                return state
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist", "check the path") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error
    if stat.S_ISDIR(state.st_mode):
        raise ImageError(f"{path} is a folder", "put an image file in its place")
    kind = "pipe" if stat.S_ISFIFO(state.st_mode) else "socket" if stat.S_ISSOCK(state.st_mode) else "device"
    raise ImageError(f"{path} is no file but a {kind}", "put an image file in its place")


def check_budget(path: Path, needed_bytes: int, stored_bytes: int, *, largest_ratio: float = 1) -> None:
    """Refuses a file whose header promises more than the file can hold, or than the memory has room for.

    Args:
        path: Path of the file, for the message.
        needed_bytes: Bytes of all pixels, unpacked, by the header.
        stored_bytes: Bytes of the file that hold them.
        largest_ratio: Bytes that a stored byte may stand for: 1 if nothing is packed, `DEFLATE_RATIO` for zlib.

    Raises:
        ImageError: The header promises too much.

    Example:
        >>> check_budget(Path("a.nrrd"), needed_bytes=10**12, stored_bytes=5000)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        autoseg.errors.ImageError: a.nrrd is cut off: it ends before its last voxel, its header promises ...
    """
    if needed_bytes > largest_ratio * stored_bytes:
        what = f"{path} is cut off: it ends before its last voxel, its header promises {needed_bytes:,} bytes of them"
        raise ImageError(what, "copy it again")
    if needed_bytes <= ALWAYS_TRIED:
        return
    free_bytes = free_memory_bytes()
    if free_bytes is not None and needed_bytes > free_bytes:
        what = f"{path} does not fit into the memory: it holds {describe_memory(needed_bytes)} of voxels"
        raise ImageError(what, "crop it, or use a machine with more")


def cut_off(path: Path) -> ImageError:
    """Returns the error of a file that ends too early."""
    return ImageError(f"{path} is cut off: it ends before its last pixel", "copy it again")
