"""``python -m autoseg`` and the ``autoseg`` command."""

import os
import sys

# Threads that wait for work by spinning take the cores from those that make batches: on two cores with another program
# running, steps became several times slower. Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Runs the command line."""
    try:
        from autoseg.cli.app import app  # noqa: PLC0415 - so that Ctrl-C is quiet while it loads too
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="autoseg")


if __name__ == "__main__":
    main()
