"""How every command behaves: options that take several values, errors in one line, exit codes.

Exit codes: 0 done, 2 something that the user can mend, 130 stopped by Ctrl-C.
"""

import errno
import sys
from typing import Any

import typer
from typer.core import TyperCommand

from autoseg.errors import AutosegError

MENDABLE_OS_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
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
        return super().parse_args(ctx, spread(args, repeatable))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; turns errors into one line each."""
        try:
            return super().invoke(ctx)
        except AutosegError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.stderr.write("stopped; finished work is kept, and the same command goes on from there\n")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in MENDABLE_OS_ERRORS:
                raise
            place = f" {error.filename}" if error.filename else ""
            fail(f"cannot write or read{place}: {error.strerror}; free some space or choose another folder")


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
