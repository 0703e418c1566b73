"""``python -m autoseg`` and the ``autoseg`` command."""

import os

# Threads that wait for work by spinning take the cores from those that make batches: on two cores with another program
# running, steps became several times slower. Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from autoseg.cli.app import app


def main() -> None:
    """Runs the command line."""
    app(prog_name="autoseg")


if __name__ == "__main__":
    main()
