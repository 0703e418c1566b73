"""The one check command: format, lint, types, import contracts, tests. Stops at the first that fails.

python tests/check.py            all of it
python tests/check.py -m slow    further arguments go to pytest
"""

import os
import subprocess
import sys
from pathlib import Path

CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("lint-imports",),
    ("pytest", "-q", "-n", "auto", "--durations=10"),
)


def main() -> int:
    """Runs each check from the folder of the checkout; returns the first exit code that is not 0."""
    folder = Path(__file__).resolve().parent.parent
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", "")])}
    for check in CHECKS:
        command = [*check, *sys.argv[1:]] if check[0] == "pytest" else [*check]
        sys.stdout.write(f"\n== {' '.join(command)}\n")
        sys.stdout.flush()
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
