"""``python -m autoseg`` and the ``autoseg`` command."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from autoseg.cli.app import app  # noqa: PLC0415 - so that Ctrl-C during the import prints no traceback
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="autoseg")


if __name__ == "__main__":
    main()
