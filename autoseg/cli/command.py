"""How every command behaves: options that take several values, errors in one line, exit codes.

Exit codes: 0 done, or ended by 'autoseg stop'; 2 something that the user can mend; 130 stopped by Ctrl-C; 143 a
training that was ended by SIGTERM and saved to its last step.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from autoseg.errors import AutosegError, Stopped

# What a disk, a network drive or a wrong path may do; any other error of the system is a bug and shown whole.
MENDABLE_OS_ERRORS = {
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
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class Command(TyperCommand):
    """A command whose repeatable options also take several values at once: ``-f 0 1 2`` for ``-f 0 -f 1 -f 2``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spreads the values of repeatable options, then parses as usual."""
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
        except KeyboardInterrupt:
            sys.stderr.write("stopped; nothing is left half-written, and the same command goes on or begins anew\n")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in MENDABLE_OS_ERRORS:
                raise
            place = f" {error.filename}" if error.filename else ""
            fail(f"cannot write or read{place}: {error.strerror}; free some space or choose another folder")


class Commands(TyperGroup):
    """The program: a misspelt command or option is one line too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the options that stand before the command."""
        if not args:
            return super().parse_args(ctx, args)  # shows the help
        with _in_one_line(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command."""
        with _in_one_line(ctx):
            return super().resolve_command(ctx, args)


# The base of what typer raises about options; it has a public name in no version.
_OptionError: type[Exception] = typer.BadParameter.__mro__[1]


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    """Says in one line what is wrong with the options."""
    try:
        yield
    except _OptionError as error:
        text = getattr(error, "format_message", error.__str__)().rstrip(".")
        fail(f"{' '.join(text.split())}; see '{ctx.command_path} --help'")


def fail(text: str) -> None:
    """Ends the command: every line of `text` is one problem."""
    for line in text.splitlines():
        sys.stderr.write(f"error: {line}\n")
    raise typer.Exit(EXIT_ERROR)


def spread(args: list[str], repeatable: set[str]) -> list[str]:
    """Repeats an option before each of its values.

    Example: ``["-d", "4", "-f", "0", "1", "-c", "2d"]`` with ``{"-f"}`` becomes
    ``["-d", "4", "-f", "0", "-f", "1", "-c", "2d"]``.
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
