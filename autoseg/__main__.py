"""``python -m autoseg`` and the ``autoseg`` command."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from autoseg.cli.app import app  # noqa: PLC0415 - so that Ctrl-C during the import prints no traceback
        from autoseg.cli.command import end_process  # noqa: PLC0415
        from autoseg.runtime.process_end import allow_process_end  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    with allow_process_end(end_process):
        app(prog_name="autoseg")


if __name__ == "__main__":
    main()
