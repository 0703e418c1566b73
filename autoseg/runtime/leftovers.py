"""Half-written files and folders of runs that were killed: named by their process, and removed by the next run.

Several runs may write into one folder, also from several machines. So a name says which process writes, and where it
runs, and only what no running process of this machine owns is removed; what others left, when it is a day old.
"""

import os
import platform
import re
import shutil
import sys
import time
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

PREFIX = ".writing_"
NAME = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}(-old)?_(.+)", re.DOTALL)
"""Of a leftover: the system and the number of its process, whether it was replaced, and its final name."""

ABANDONED_SECONDS = 24 * 3600
"""Age from which what another machine half wrote belongs to no running process. Decision: a day without a new file."""

_swept: set[Path] = set()
"""Folders in which this process has looked for leftovers."""


def name_unfinished(path: Path, *, is_replaced: bool = False) -> Path:
    """Returns the path at which this process writes what will be renamed to `path`; each call gives another one.

    Args:
        path: The final path.
        is_replaced: Whether the name is that of what lies at `path`, moved aside until the new one is in its place.

    Example:
        >>> name = name_unfinished(Path("masks/case_1.nii.gz")).name
        >>> name.startswith(".writing_"), name.endswith("_case_1.nii.gz"), str(os.getpid()) in name
        (True, True, True)
    """
    return path.with_name(f"{PREFIX}{identify_system()}-{os.getpid()}-{token_hex(4)}{'-old' * is_replaced}_{path.name}")


def sweep_once(folder: Path) -> None:
    """Removes what killed runs left half-written in a folder, the first time that this process writes there.

    A folder that a killed run was about to replace, and had moved aside, comes back to its place.
    """
    folder = folder.absolute()
    if folder in _swept:
        return
    _swept.add(folder)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Removes what killed runs left half-written in a folder, as `sweep_once` does, each time that it is called."""
    with suppress(OSError):
        for path in list(folder.glob(f"{PREFIX}*")):
            if _is_abandoned(path):
                _tidy(path)


def _tidy(path: Path) -> None:
    """Removes a leftover, or brings it back if it is the last copy of a folder."""
    match = NAME.fullmatch(path.name)
    with suppress(OSError):
        if match and match[3] and not path.with_name(match[4]).exists():
            path.rename(path.with_name(match[4]))
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Returns whether no running process owns a half-written file or folder, as far as can be told."""
    match = NAME.fullmatch(path.name)
    if match is None or match[1] != identify_system() or sys.platform == "win32":
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    return has_ended(match[1], int(match[2]))


def has_ended(system: str, process_id: int) -> bool:
    """Returns whether a process has certainly ended; of processes of other machines, and on Windows, nothing is known.

    Args:
        system: What `identify_system` returned in that process.
        process_id: Number of the process.
    """
    if system != identify_system() or sys.platform == "win32":
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@cache
def identify_system() -> str:
    """Returns what tells machines, and containers on them, apart: numbers of processes mean the same within one."""
    facts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            facts.append(str(Path(path).readlink()) if path.endswith("pid") else Path(path).read_text())
    return sha256("\n".join(facts).encode()).hexdigest()[:8]
