"""Reads broken and hostile DICOM files in a process of its own: how long the slowest takes, and the memory of all.

    python tests/benchmarks/dicom_hostile.py

The files are those of tests/support/hostile_dicom.py, read one after the other.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measured_on import print_machine


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    print_machine()
    import hostile_dicom

    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in hostile_dicom.make_hostile(folder / "scratch").items():
            (folder / "files" / file).mkdir(parents=True)
            (folder / "files" / file / "slice.dcm").write_bytes(content)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, hostile_dicom.__file__, str(folder / "files")]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    read = [json.loads(line) for line in result.stdout.splitlines()]
    slowest = max(read, key=lambda row: row[1])
    print("| files | with an error in one line | slowest, s | which | memory, MB |\n|---|---|---|---|---|")
    errors = sum(1 for _, _, error, _ in read if error and "\n" not in error)
    print(f"| {len(read)} | {errors} | {slowest[1]:.2f} | {slowest[0]} | {max(row[3] for row in read)} |")


if __name__ == "__main__":
    main()
