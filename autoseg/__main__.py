"""``python -m autoseg`` and the ``autoseg`` command."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C. Source: the code that shells report of a program that a signal ended."""

THREADS = ("OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS")
"""Environment variables that libraries read as numbers while they are imported, and fail if they are none."""


def main() -> None:
    """Runs the command line."""
    try:
        from autoseg.cli.streams import prepare_streams  # noqa: PLC0415 - so that Ctrl-C prints no traceback

        prepare_streams()
        _check_threads()
        from autoseg.cli.app import app  # noqa: PLC0415
        from autoseg.cli.command import end_process, explained_os_errors  # noqa: PLC0415
        from autoseg.runtime.process_end import allow_process_end  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        with allow_process_end(end_process), explained_os_errors():
            app(prog_name="autoseg")
    except KeyboardInterrupt:  # before a command has begun, or after it has ended
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends Python while it leaves, without a traceback
        _remove_empty_cache()


def _remove_empty_cache() -> None:
    """Removes the folder that torch makes for compiled kernels when it is imported, if nothing was compiled."""
    if "torch._dynamo" in sys.modules:
        import getpass  # noqa: PLC0415 - only where it is needed
        import tempfile  # noqa: PLC0415

        with suppress(OSError, KeyError):  # it holds kernels, or nobody knows the user's name
            (Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}").rmdir()


def _check_threads() -> None:
    """Ends the process with a line if a number of threads is none; of a list, as OpenMP allows it, the first counts."""
    for name in THREADS:
        value = os.environ.get(name, "").strip()
        first = value.split(",")[0].strip()
        if value and not (first.isdecimal() and int(first) > 0):
            sys.stderr.write(f"error: {name} is {ascii(value)[:40]}; set it to a number of threads, or remove it\n")
            sys.exit(2)
        if value:
            os.environ[name] = first


if __name__ == "__main__":
    main()
