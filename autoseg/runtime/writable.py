"""Finds out before the work whether its results can be written."""

from pathlib import Path
from secrets import token_hex

from autoseg.runtime.artifact import atomic_file


def check_writable(folder: Path) -> None:
    """Finds out whether a folder can be made and written; several programs may do so at the same time.

    The folder is made, since its results will come.

    Raises:
        WriteError: It cannot be made or written; the text says why.
    """
    trial = folder / f".writable_{token_hex(4)}"
    with atomic_file(trial) as probe:
        probe.touch()
    trial.unlink()


def check_place(path: Path) -> None:
    """Finds out whether a file or folder could be made, without making any folder on the way.

    Raises:
        WriteError: The nearest folder above that is there cannot be written; the text says why.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     check_place(Path(folder) / "scores" / "compared.csv")
        ...     list(Path(folder).iterdir())
        []
    """
    check_writable(next(folder for folder in path.absolute().parents if _is_there(folder)))


def _is_there(path: Path) -> bool:
    """Returns whether there is something at a path; if that may not even be seen, it counts as being there."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
