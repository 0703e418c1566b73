"""Errors that a user can fix. Each says in one line what is wrong, where, and what to do about it."""

from collections.abc import Sequence


class AutosegError(Exception):
    """Base of all errors that come from the user's data, files or options rather than from a bug here.

    The command line prints the text as one line and exits with code 2.

    Args:
        what: What is wrong and where, for example ``"case 'liver_017': label shape (4, 4, 4) differs"``.
        fix: What to do about it, as an imperative.

    Example:
        >>> print(AutosegError("there is no fold 7", "take a number from 0 to 4"))
        there is no fold 7; take a number from 0 to 4
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[type["AutosegError"], tuple[str, str]]:
        """Supports pickling, which carries the error from one process to another."""
        return type(self), (self.what, self.fix)


class ImageError(AutosegError):
    """An image or label file that cannot be read, understood or written."""


class DatasetError(AutosegError):
    """A dataset, or a case of it, that is incomplete or inconsistent."""


class ArtifactError(AutosegError):
    """A file written by this program, or edited by its user, that is missing, damaged or of another version."""


class WriteError(ArtifactError):
    """A full disk, or a folder that may not be written. It ends the work, since it would affect every other case."""


class ModelError(AutosegError):
    """A trained model that is missing, damaged, or does not fit what it is asked to do."""


class TransferError(AutosegError):
    """A DICOM archive that cannot be reached, or that refuses what is sent or asked for."""


class UsageError(AutosegError):
    """Options that contradict each other or name something that does not exist."""


class Stopped(Exception):  # noqa: N818 - it is not an error
    """Training ended early because it was asked to.

    Args:
        by: Origin of the request: "'autoseg stop'", "SIGTERM", "Ctrl-C".
        exit_code: Exit code of a command that was stopped in this way.
        saved: Whether everything up to the last step is saved; if not, the run goes on after the last epoch.
    """

    def __init__(self, by: str, exit_code: int, *, saved: bool = True) -> None:
        at_once = f"ended at once by a second {by}; what followed the last saved epoch is lost"
        how = f"stopped by {by}, and saved to the last step" if saved else at_once
        super().__init__(f"{how}; the same command goes on (without --extend, --restart)")
        self.by, self.exit_code, self.saved = by, exit_code, saved

    def __reduce__(self) -> tuple[type["Stopped"], tuple[str, int]]:
        """Supports pickling, as for errors."""
        return type(self), (self.by, self.exit_code)


class ProblemsError(AutosegError):
    """Several problems, with a line for each: one bad case never hides the others.

    Args:
        lines: One line per problem.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        Exception.__init__(self, "\n".join(lines))
        self.what, self.fix = self.args[0], "mend each of them"
        self.lines = tuple(lines)

    def __reduce__(self) -> tuple[type["ProblemsError"], tuple[tuple[str, ...]]]:  # type: ignore[override]
        """Supports pickling, which carries the error from one process to another."""
        return type(self), (self.lines,)
