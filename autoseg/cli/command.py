"""The behaviour that all commands share: options with several values, errors in one line, exit codes.

Exit codes: 0 for success, or a training that 'autoseg stop' ended; 2 for an error that the user can fix; 130 for
Ctrl-C; 143 for a training that SIGTERM ended. A training is saved to its last step in either case.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from autoseg.errors import AutosegError, Stopped
from autoseg.runtime.os_errors import advise_access, reason_of
from autoseg.runtime.printable import printable
from autoseg.runtime.process_end import call_briefly

# Errors that a disk, a network drive or a wrong path can cause; any other OSError is a bug and shows its traceback.
FIXABLE_OS_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
}
LEFT_OUT = {
    "PIL": "pillow",
    "SimpleITK": "SimpleITK",
    "batchgenerators": "batchgenerators",
    "blosc2": "blosc2",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "pandas": "pandas",
    "skimage": "scikit-image",
    "tifffile": "tifffile",
    "torch": "torch",
}
"""Modules that prediction without torch does without, to the names of their packages."""
EXIT_BUG = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

INTERRUPTED = "stopped; nothing is left half-written, and the same command goes on or begins anew"


class Command(TyperCommand):
    """A command whose repeatable options also take several values at once: ``-f 0 1 2`` for ``-f 0 -f 1 -f 2``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeats each repeatable option before each of its values, then parses as usual."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        with _in_one_line(ctx):
            return super().parse_args(ctx, spread(args, repeatable))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; turns errors into one line each."""
        try:
            return super().invoke(ctx)
        except AutosegError as error:
            fail(str(error))
        except Stopped as stopped:
            sys.stderr.write(f"{stopped}\n")
            raise typer.Exit(stopped.exit_code) from None
        except KeyboardInterrupt as interrupt:
            sys.stderr.write(f"{str(interrupt) or INTERRUPTED}\n")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except ModuleNotFoundError as error:
            package = LEFT_OUT.get((error.name or "").partition(".")[0])
            if package is None:
                raise
            fail(f"this needs {package}, which is not installed; pip install {package}")
        except OSError as error:
            if not _can_be_fixed(error):
                raise
            fail(_explain(error))


class Commands(TyperGroup):
    """The program; it reports a misspelt command or option in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the options that stand before the command."""
        if not args:
            return super().parse_args(ctx, args)  # shows the help
        with _in_one_line(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command."""
        with _in_one_line(ctx):
            return super().resolve_command(ctx, args)


# Base class of the errors that typer raises about options; typer does not export it.
_OptionError: type[Exception] = typer.BadParameter.__mro__[1]


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    """Reports an error in the options in one line."""
    try:
        yield
    except _OptionError as error:
        text = getattr(error, "format_message", error.__str__)().rstrip(".")
        fail(f"{' '.join(text.split())}; see '{ctx.command_path} --help'")


@contextmanager
def explained_os_errors() -> Iterator[None]:
    """Ends the program in one line if its output cannot be written before a command runs, as that of --help."""
    try:
        yield
    except OSError as error:
        if not _can_be_fixed(error):
            raise
        with suppress(OSError):
            _write_error(_explain(error))
        raise SystemExit(EXIT_ERROR) from None


def _explain(error: OSError) -> str:
    """Returns what could not be read or written, why, and what helps."""
    if _is_folder_gone(error):
        return "the current folder is gone: it was removed or renamed, or its disk is away; change to another folder"
    path = f" {error.filename}" if error.filename else ""
    return f"cannot write or read{path}: {reason_of(error)}; {advise_access(error)}"


def _can_be_fixed(error: OSError) -> bool:
    """Returns whether an error comes from a disk, a network drive or a folder, and not from a bug."""
    return error.errno in FIXABLE_OS_ERRORS or _is_folder_gone(error)


def _is_folder_gone(error: OSError) -> bool:
    """Returns whether an error comes of a current folder that is there no longer, of which the system names no path."""
    if not isinstance(error, FileNotFoundError) or error.filename is not None:
        return False
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def fail(text: str) -> None:
    """Ends the command with an error message; every line of `text` is one problem."""
    _write_error(text)
    raise typer.Exit(EXIT_ERROR)


def _write_error(text: str) -> None:
    """Writes each line of a text as an error; the exit code tells of it where nothing can be written."""
    try:
        for line in text.splitlines():
            sys.stderr.write(f"error: {printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = None  # or the interpreter would fail at its end, with an exit code of its own


def end_process(reason: BaseException) -> None:
    """Ends the process from any thread, while others are busy, with the message and exit code that a command has.

    Args:
        reason: The error, or the `Stopped`, that ends it.
    """
    call_briefly(lambda: _report_end(reason))
    os._exit(_exit_code(reason))


def _exit_code(reason: BaseException) -> int:
    if isinstance(reason, Stopped):
        return reason.exit_code
    return EXIT_ERROR if isinstance(reason, AutosegError) else EXIT_BUG


def _report_end(reason: BaseException) -> None:
    from autoseg.cli.terminal import close_bars

    close_bars()
    if isinstance(reason, Stopped):
        sys.stderr.write(f"{reason}\n")
    elif isinstance(reason, AutosegError):
        _write_error(str(reason))
    else:
        traceback.print_exception(reason)
    sys.stdout.flush()
    sys.stderr.flush()


def spread(args: list[str], repeatable: set[str]) -> list[str]:
    """Repeats an option before each of its values.

    Args:
        args: Arguments as the user typed them.
        repeatable: Options that take several values.

    Example:
        >>> spread(["-d", "4", "-f", "0", "1", "-c", "2d"], {"-f"})
        ['-d', '4', '-f', '0', '-f', '1', '-c', '2d']
        >>> spread(["--point", "4,5,6", "-7.5,5,6"], {"--point"})
        ['--point', '4,5,6', '--point', '-7.5,5,6']
    """
    result: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("-") and not re.match(r"-\.?\d", arg):  # which begins with a negative number
            current = arg if arg in repeatable else ""
            result.append(arg)
        elif current and result[-1] != current:
            result += [current, arg]
        else:
            result.append(arg)
    return result
