"""Broken and hostile DICOM files: one line each, no hang, no explosion of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_dicom
import numpy as np
import pytest
from hostile_dicom import make_file, make_hostile, read

MOST_SECONDS = 20.0
MOST_MEGABYTES = 1500
READABLE = {"a type of many values"}
"""Files that are odd, and may be read all the same."""


def test_every_file_gets_one_line_in_time_and_memory(tmp_path):
    """In a process of its own, so that a crash is noticed and memory is that of the reading."""
    files = make_hostile(tmp_path / "scratch")
    assert len(files) >= 40
    for name, content in files.items():
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "slice.dcm").write_bytes(content)
    command = [sys.executable, hostile_dicom.__file__, str(tmp_path / "files")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert result.returncode == 0, (result.stdout[-500:], result.stderr[-2000:])
    outcomes = {name: rest for name, *rest in map(json.loads, result.stdout.splitlines())}
    assert outcomes.keys() == files.keys()
    before = 0
    for name, (seconds, error, megabytes) in sorted(outcomes.items()):
        assert seconds < MOST_SECONDS, name
        assert megabytes - before < MOST_MEGABYTES, name
        assert "\n" not in error, name
        assert error or name in READABLE, name
        assert "slice.dcm" in error or str(Path("files") / name) in error or not error, (name, error)


@pytest.mark.parametrize("enhanced", [False, True])
def test_random_changes_are_read_or_named(tmp_path, enhanced):
    """Bytes of a sound file are changed at random; nothing but an error of this program is raised."""
    rng = np.random.default_rng(11)
    sound = np.frombuffer(make_file(tmp_path / "scratch", enhanced=enhanced), dtype=np.uint8)
    folder = tmp_path / "file"
    folder.mkdir()
    for _ in range(150):
        content = sound.copy()
        places = rng.integers(128, min(len(content), 3000), size=rng.integers(1, 8))
        content[places] = rng.integers(0, 256, size=len(places))
        (folder / "slice.dcm").write_bytes(content.tobytes())
        assert "\n" not in read(folder)
