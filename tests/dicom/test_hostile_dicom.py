"""Broken and hostile DICOM files: one line each, no hang, no explosion of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_dicom
import numpy as np
import pytest
from dicom_files import make_series, random_voxels, write_series
from dicom_masks import make_segmentation, make_structure_set, save
from hostile_dicom import make_file, make_hostile, read

from autoseg.dicom.masks import describe_mask, read_mask
from autoseg.dicom.search import find_series
from autoseg.dicom.series import Series
from autoseg.errors import AutosegError

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
    for name, (seconds, error, megabytes) in sorted(outcomes.items()):
        assert seconds < MOST_SECONDS, name
        assert 0 < megabytes < MOST_MEGABYTES, name
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
    for _ in range(75):
        (folder / "slice.dcm").write_bytes(change(sound, rng, last=3000))
        assert "\n" not in read(folder)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "RTSTRUCT"])
def test_random_changes_of_masks_are_read_or_named(tmp_path, kind):
    """The same of segmentations and structure sets, whose masks are read on the series that they were drawn on."""
    rng = np.random.default_rng(12)
    slices = make_series(random_voxels((2, 9, 11)))
    [series] = find_series(write_series(tmp_path / "scan", slices)).series
    square = np.array([[1, 1, 0], [6, 1, 0], [6, 6, 0]]) + np.asarray(slices[0].ImagePositionPatient, float)
    mask = np.ones((2, 9, 11), bool)
    made = (
        make_segmentation(slices, {"a": mask}, kind)
        if kind != "RTSTRUCT"
        else make_structure_set(slices, {"a": [square]})
    )
    sound = np.frombuffer(save(tmp_path, made, "sound.dcm").read_bytes(), dtype=np.uint8)
    for _ in range(20):
        (tmp_path / "sound.dcm").write_bytes(change(sound, rng, last=len(sound)))
        assert "\n" not in read_masks(tmp_path / "sound.dcm", series)


def read_masks(path: Path, series: Series) -> str:
    """Reads all masks of a file; returns the error."""
    try:
        for header in find_series(path).masks:
            list(read_mask(describe_mask(header), series.grid()))
    except AutosegError as error:
        return str(error)
    return ""


def change(sound: np.ndarray, rng: np.random.Generator, last: int) -> bytes:
    """Returns the bytes of a file, some of which before the last were changed."""
    content = sound.copy()
    places = rng.integers(128, min(len(content), last), size=rng.integers(1, 8))
    content[places] = rng.integers(0, 256, size=len(places))
    return content.tobytes()
