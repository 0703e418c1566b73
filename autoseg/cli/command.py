"""The behaviour that all commands share: options with several values, errors in one line, exit codes.

Exit codes: 0 for success, or a training that 'autoseg stop' ended; 2 for an error that the user can fix; 130 for
Ctrl-C; 143 for a training that SIGTERM ended. A training is saved to its last step in either case.
"""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from autoseg.errors import AutosegError, Stopped
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
        except OSError as error:
            if error.errno not in FIXABLE_OS_ERRORS:
                raise
            path = f" {error.filename}" if error.filename else ""
            fail(f"cannot write or read{path}: {error.strerror}; free some space or choose another folder")


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


def fail(text: str) -> None:
    """Ends the command with an error message; every line of `text` is one problem."""
    _write_error(text)
    raise typer.Exit(EXIT_ERROR)


def _write_error(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"error: {line}\n")


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
    """
    result: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("-"):
            current = arg if arg in repeatable else ""
            result.append(arg)
        elif current and result[-1] != current:
            result += [current, arg]
        else:
            result.append(arg)
    return result
