"""Bad input through the real command line: one clear line per problem, exit code 2, and nothing changed on disk."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tiny_workspaces import NUMBER, folders_of, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.cli.command import EXIT_ERROR, EXIT_INTERRUPTED
from autoseg.cli.terminal import console
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.inference.scan_records import FOLDER_NAME, ScanRecords
from autoseg.workspace import DatasetFolders

NOBODY = 65534
ENOUGH_SECONDS = 60


def run(*args: object) -> tuple[int, str, list[str]]:
    """Runs a command; returns its exit code, its output and the lines of its error stream."""
    with patch.object(console, "_width", 500):  # the console may have been made before, at another width
        result = CliRunner(env={"COLUMNS": "500"}).invoke(app, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr.splitlines()


def snapshot(root: Path) -> dict[Path, bytes]:
    """Every file below a folder with its content, but for what is known of sound cases, which is never in the way."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != "fingerprint_parts")
    return {path: path.read_bytes() for path in files}


def refuse(root: Path, *args: object) -> list[str]:
    """Runs a command in a workspace that it must refuse without touching a file; returns what it says, by line."""
    before = snapshot(root)
    code, _, errors = run(*args, "-w", root)
    assert code == EXIT_ERROR
    assert snapshot(root) == before
    return problems_of(errors)


def problems_of(errors: list[str]) -> list[str]:
    """The lines of an error stream, each of which must be a problem and what to do about it."""
    assert errors
    assert all(re.fullmatch(r"error: .+; .+", line) for line in errors), errors
    return [line.removeprefix("error: ") for line in errors]


def only(lines: list[str]) -> str:
    """The only line."""
    [line] = lines
    return line


@pytest.fixture(scope="module")
def trained_volumes(trained_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained workspace, in which no other process locks anything while it is looked for changes."""
    return shutil.copytree(trained_volumes, tmp_path_factory.mktemp("bad_input") / "volumes")


@pytest.fixture
def trained(trained_volumes: Path, tmp_path: Path) -> Path:
    """A trained workspace to be spoilt."""
    return shutil.copytree(trained_volumes, tmp_path / "trained")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A workspace with a raw dataset of three sound cases and nothing else."""
    write_volumes(tmp_path / "fresh")
    return tmp_path / "fresh"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Lets permissions count for root too."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


# --- Spoilt cases -----------------------------------------------------------------------------------------------------


def image_of(folder: Path, name: str) -> Path:
    """The image of a case, in imagesTr or in a folder of scans."""
    return folder / f"{name}_0000.nii.gz"


def change_label(folders: DatasetFolders, name: str, change: Callable[[Volume], Volume]) -> None:
    """Writes the label map of a case anew."""
    path = folders.raw / "labelsTr" / f"{name}.nii.gz"
    changed = change(read_label_map(path))
    if np.issubdtype(changed.array.dtype, np.floating):
        write_image(path, replace(changed, array=changed.array[np.newaxis]))
    else:
        write_label_map(path, changed)


def change_image(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Changes voxels of an image."""
    volume = read_image((path,))
    change(volume.array)
    write_image(path, volume)


def set_first(value: float) -> Callable[[np.ndarray], None]:
    """Sets one voxel."""

    def change(array: np.ndarray) -> None:
        array.flat[7] = value

    return change


def cut(path: Path) -> None:
    """Takes away the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def moved(**changes: object) -> Callable[[Volume], Volume]:
    """A change of the geometry alone."""
    return lambda volume: replace(volume, geometry=replace(volume.geometry, **changes))


def nudged(volume: Volume) -> Volume:
    """The label map with the noise of another program's header, which is no difference."""
    z_mm, y_mm, x_mm = volume.geometry.spacing_mm
    return moved(spacing_mm=(z_mm + 1e-6, y_mm, x_mm - 1e-6))(volume)


def valued(value: float) -> Callable[[Volume], Volume]:
    """Puts a value into a label map."""

    def change(volume: Volume) -> Volume:
        array = volume.array.astype(np.float32 if value % 1 else np.int32)
        array[0, 0, 0] = value
        return replace(volume, array=array)

    return change


def shortened(volume: Volume) -> Volume:
    """The label map without its last slice."""
    z, y, x = volume.geometry.shape
    return Volume(array=volume.array[:-1], geometry=replace(volume.geometry, shape=(z - 1, y, x)))


def spoil_images(folder: Path, spoilers: dict[str, Callable[[Path], object]]) -> None:
    """Spoils images by name of the case."""
    for name, spoil in spoilers.items():
        spoil(image_of(folder, name))


def turn_into_folder(path: Path) -> None:
    """A folder with the name of an image."""
    path.unlink()
    path.mkdir()


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "case_1": (cut, r"case_1_0000\.nii\.gz is cut off.*; copy it again"),
    "case_2": (lambda path: path.write_text("not an image"), r"case_2_0000\.nii\.gz cannot be read as an image"),
    "case_3": (
        lambda path: change_image(path, set_first(np.nan)),
        r"case_3_0000\.nii\.gz: voxels that are NaN or infinite: 1",
    ),
    "case_4": (
        lambda path: change_image(path, set_first(np.inf)),
        r"case_4_0000\.nii\.gz: voxels that are NaN or infinite: 1",
    ),
    "case_5": (turn_into_folder, r"case_5_0000\.nii\.gz is a folder"),
    "case_6": (lambda path: path.write_bytes(b""), r"case_6_0000\.nii\.gz cannot be read as an image"),
    "case_7": (
        lambda path: shutil.copy(path, path.with_name("case_7.nii.gz")),
        r"case_7\.nii\.gz, case_7_0000\.nii\.gz.*; keep one of them",
    ),
}
CONSTANT = (
    lambda path: change_image(path, lambda array: array.fill(5)),
    r"its image has the same value everywhere, 5 in channel 0 \(channel_0\), and its label map holds structures",
)
BAD_LABELS: dict[str, tuple[Callable[[Volume], Volume], str]] = {
    "case_11": (shortened, r"different grids: shape 18 x 16 x 14 differs from 18 x 16 x 13 voxels"),
    "case_12": (moved(spacing_mm=(1.0, 1.0, 1.1)), r"different grids: spacing .* mm"),
    "case_13": (moved(direction=((1.0, 0, 0), (0, -1.0, 0), (0, 0, -1.0))), r"different grids: direction"),
    "case_14": (valued(7), r"holds 7, but dataset\.json names 0 to 2"),
    "case_15": (valued(-1), r"holds -1, but dataset\.json names 0 to 2"),
    "case_16": (valued(1.5), r"case_16\.nii\.gz: voxel value 1\.5 is no label"),
}


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A dataset of 22 cases, of which two are sound."""
    folders = write_volumes(tmp_path / "spoilt", cases=22)
    images, labels = folders.raw / "imagesTr", folders.raw / "labelsTr"
    spoil_images(images, {name: spoil for name, (spoil, _) in BAD_IMAGES.items()})
    CONSTANT[0](image_of(images, "case_8"))
    image_of(images, "case_9").unlink()
    (labels / "case_10.nii.gz").unlink()
    for name, (change, _) in BAD_LABELS.items():
        if name != "case_15":  # the format for label maps has no negative numbers
            change_label(folders, name, change)
    change_label(folders, "case_15", lambda volume: replace(volume, array=volume.array.astype(np.float32) - 1))
    cut(labels / "case_17.nii.gz")
    (labels / "case_18.nii.gz").write_text("not a label map")
    change_label(folders, "case_19", lambda volume: replace(volume, array=volume.array * np.float32(np.nan)))
    change_label(folders, "case_20", nudged)
    return folders.raw.parents[1]


SPOILT = {
    **{name: text for name, (_, text) in BAD_IMAGES.items()},
    "case_8": CONSTANT[1],
    "case_9": r"its image is missing in imagesTr; add it",
    "case_10": r"its label labelsTr/case_10\.nii\.gz is missing; add it",
    **{name: text for name, (_, text) in BAD_LABELS.items()},
    "case_17": r"labelsTr/case_17\.nii\.gz is cut off",
    "case_18": r"labelsTr/case_18\.nii\.gz cannot be read as an image",
    "case_19": r"labelsTr/case_19\.nii\.gz: voxels that are NaN or infinite: \d+",
}


def test_each_bad_case_of_a_dataset_has_its_line(spoilt: Path) -> None:
    """However many there are, planning names each with what to do, and begins nothing; the sound ones are not named."""
    lines = refuse(spoilt, "plan_and_preprocess", "-d", NUMBER)
    assert len(lines) == len(SPOILT)
    for name, text in SPOILT.items():
        line = only([line for line in lines if line.startswith(f"case {name!r}: ")])
        assert re.search(text, line), line
        assert line.endswith(f"or leave the case out with 'plan_and_preprocess --skip {name}'")


def test_check_lists_each_bad_case(spoilt: Path) -> None:
    """The table has a row per problem; the exit code says that there are some."""
    before = snapshot(spoilt)
    code, output, errors = run("check", "-d", NUMBER, "-w", spoilt)
    assert (code, errors) == (EXIT_ERROR, [])
    assert f"{len(SPOILT)} problems" in output
    for name, text in SPOILT.items():
        row = only([row for row in output.splitlines() if f" {name} " in row])
        assert re.search(text.partition(".*;")[0].partition("; ")[0], row), row
    assert snapshot(spoilt) == before


def test_bad_cases_can_be_left_out(spoilt: Path) -> None:
    """What the lines advise works: without the bad cases the dataset is prepared."""
    code, _, errors = run("plan_and_preprocess", "-d", NUMBER, "--preset", "small", "-w", spoilt, "--skip", *SPOILT)
    assert (code, errors) == (0, [])
    assert run("check", "-d", NUMBER, "-w", spoilt, "--skip", *SPOILT)[0] == 0


def test_missing_channels_are_named(tmp_path: Path) -> None:
    """Each case that lacks a channel, with the files that are there."""
    folders = write_volumes(tmp_path, channels=2, cases=4)
    (folders.raw / "imagesTr" / "case_1_0001.nii.gz").unlink()
    image = folders.raw / "imagesTr" / "case_2_0000.nii.gz"
    image.rename(image.with_name("case_2_0002.nii.gz"))
    first, second = refuse(tmp_path, "plan_and_preprocess", "-d", NUMBER)
    assert re.search(
        r"'case_1'.*each of its 2 channels \(there: case_1_0000\.nii\.gz\); bring case_1_0000 to _0001", first
    )
    assert re.search(r"'case_2'.*\(there: case_2_0001\.nii\.gz, case_2_0002\.nii\.gz\)", second)


# --- The dataset as a whole -------------------------------------------------------------------------------------------

DATASET_COMMANDS = [
    ("check",),
    ("plan_and_preprocess",),
    ("preprocess",),
    ("train", "-c", "3d_fullres", "-f", "0"),
    ("predict", "-i", "scans", "-o", "masks"),
]


@pytest.mark.parametrize("command", DATASET_COMMANDS, ids=lambda command: command[0])
def test_dataset_that_does_not_exist(fresh: Path, command: tuple[str, ...]) -> None:
    """The line says which there are, and how to make one."""
    line = only(refuse(fresh, *command, "-d", 7))
    assert re.search(
        r"no dataset 7 in .*raw \(there: Dataset001_Tiny\); make one with 'autoseg import SOURCE -d 7'", line
    )


@pytest.mark.parametrize("command", DATASET_COMMANDS, ids=lambda command: command[0])
def test_two_datasets_with_one_number(fresh: Path, command: tuple[str, ...]) -> None:
    """Both are named."""
    (fresh / "raw" / "Dataset001_Other").mkdir()
    line = only(refuse(fresh, *command, "-d", NUMBER))
    assert "Dataset001_Other and Dataset001_Tiny; rename or remove all but one" in line


@pytest.mark.parametrize("number", ["0", "-1", "1000", "x"])
def test_impossible_dataset_number(fresh: Path, number: str) -> None:
    """Is refused before anything is looked for."""
    assert "'-d' / '--dataset'" in only(refuse(fresh, "check", "-d", number))


def test_workspace_that_is_no_folder(tmp_path: Path) -> None:
    """A file in its place is named."""
    path = tmp_path / "file"
    path.write_text("mine")
    code, _, errors = run("check", "-d", "1", "-w", path)
    assert (code, path.read_text()) == (EXIT_ERROR, "mine")
    assert f"no dataset 1 in {path / 'raw'}" in only(problems_of(errors))


def test_dataset_without_description(fresh: Path) -> None:
    """A missing dataset.json, one that is not JSON, and one with a wrong field are named with the file."""
    path = folders_of(fresh).raw / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "labels": {"background": 0, "a": 2}}))
    assert re.search(
        r"dataset\.json: labels: the numbers must be 0, 1,.*; mend", only(refuse(fresh, "check", "-d", "1"))
    )
    path.write_text("{")
    assert re.search(r"dataset\.json: Invalid JSON.*; mend", only(refuse(fresh, "check", "-d", "1")))
    path.unlink()
    assert "has no dataset.json; write one" in only(refuse(fresh, "check", "-d", "1"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"numTraining": "many"}, r"numTraining: .*; mend that field"),
        ({"numTraining": 2.5}, r"numTraining: .*; mend that field"),
        ({"dataset": {}}, r"dataset: .*; mend that field"),
        ({"dataset": {"a": {"images": []}}}, r"dataset\.a\.images: .*; mend that field"),
        ({"dataset": {"a/b": {"images": ["a"], "label": "b"}}}, r"'a/b' cannot be the name of a case.*; mend"),
        ({"overwrite_image_reader_writer": "LabIO"}, r"overwrite_image_reader_writer: 'LabIO' is no reader .*; mend"),
        ({"overwrite_image_reader_writer": 3}, r"overwrite_image_reader_writer: .*; mend that field"),
        ({"channel_names": None, "modality": {"1": "CT"}}, r"channel_names: .*; mend that field"),
        ({"labels": {"0": "background"}}, r"labels: there must be at least one label .*; mend that field"),
        ({"labels": {"background": 0, "a": [1, 2]}, "regions_class_order": [1, 2]}, r"must have 1 numbers.*; mend"),
    ],
)
def test_fields_of_nnunet_that_are_wrong(fresh: Path, fields: dict[str, object], said: str) -> None:
    """Each is named with its file."""
    path = folders_of(fresh).raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    line = only(refuse(fresh, "check", "-d", "1"))
    assert str(path) in line
    assert re.search(said, line)


def test_files_in_place_that_are_gone_or_damaged(fresh: Path, tmp_path: Path) -> None:
    """They are named where they really are, by every command that needs them, and another number of cases is said."""
    shutil.move(fresh, tmp_path / "theirs")
    theirs = folders_of(tmp_path / "theirs").raw
    code, _, errors = run("import", theirs, "-d", 1, "--link", "-w", fresh)
    assert (code, errors) == (0, [])
    image, label = theirs / "imagesTr" / "case_1_0000.nii.gz", theirs / "labelsTr" / "case_3.nii.gz"
    image.unlink()
    cut(label)
    path = folders_of(fresh).raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "numTraining": 4}))
    before = snapshot(tmp_path / "theirs")
    lines = refuse(fresh, "plan_and_preprocess", "-d", NUMBER)
    assert f"{image} does not exist; bring it, correct" in lines[0]
    assert f"{label} is cut off" in lines[1]
    assert snapshot(tmp_path / "theirs") == before
    code, output, _ = run("check", "-d", NUMBER, "-w", fresh)
    assert code == EXIT_ERROR
    assert "dataset.json states 4 training cases (numTraining), and 3 are there" in output
    assert str(image) in output


def test_empty_dataset(fresh: Path) -> None:
    """Folders without files."""
    for name in ("imagesTr", "labelsTr"):
        shutil.rmtree(folders_of(fresh).raw / name)
        (folders_of(fresh).raw / name).mkdir()
    assert re.search(r"imagesTr holds no file that ends in \.nii\.gz; copy", only(refuse(fresh, "check", "-d", "1")))


def test_one_case_only(tmp_path: Path) -> None:
    """Nothing could be held out."""
    write_volumes(tmp_path, cases=1)
    line = only(refuse(tmp_path, "plan_and_preprocess", "-d", NUMBER))
    assert line == "the dataset has 1 complete case; bring at least 2"


def test_label_that_never_occurs(fresh: Path) -> None:
    """Is named as dataset.json names it."""
    for number in (1, 2, 3):
        change_label(
            folders_of(fresh), f"case_{number}", lambda volume: replace(volume, array=np.minimum(volume.array, 1))
        )
    assert only(refuse(fresh, "plan_and_preprocess", "-d", NUMBER)).startswith(
        "no label map holds 'dark'; add such cases"
    )


def test_unknown_case_to_skip(fresh: Path) -> None:
    """A misspelt name would leave the bad case in."""
    line = only(refuse(fresh, "plan_and_preprocess", "-d", NUMBER, "--skip", "case_9"))
    assert "has no case 'case_9'; check the name given to --skip" in line


def test_unreadable_files(public: Path) -> None:
    """Each file without permission has its line."""
    folders = write_volumes(public, cases=4)
    images = [image_of(folders.raw / "imagesTr", name) for name in ("case_1", "case_3")]
    for path in images:
        path.chmod(0)
    (public / "preprocessed").mkdir()
    (public / "preprocessed").chmod(0o777)
    with without_privileges():
        code, _, errors = run("plan_and_preprocess", "-d", NUMBER, "-w", public)
    lines = problems_of(errors)
    assert (code, len(lines)) == (EXIT_ERROR, 2)
    for path, line in zip(images, lines, strict=True):
        assert f"cannot read {path}: Permission denied; check that you may read it" in line


def test_unwritable_workspace(public: Path) -> None:
    """A folder without permission is one line."""
    write_volumes(public)
    with without_privileges():
        code, _, errors = run("plan_and_preprocess", "-d", NUMBER, "--preset", "small", "-w", public)
    assert code == EXIT_ERROR
    assert re.search(
        rf"cannot write {public}/preprocessed.*: Permission denied; choose a folder", only(problems_of(errors))
    )
    assert not (public / "preprocessed").exists()


# --- Options ----------------------------------------------------------------------------------------------------------

TRAIN = ("train", "-d", NUMBER, "-c", "3d_fullres")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ("plan_and_preprocess", "-d", NUMBER, "-c", "4d"),
            "there is no configuration '4d'; choose from 2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres",
        ),
        (
            ("plan_and_preprocess", "-d", NUMBER, "--memory", "much"),
            "'much' is not an amount of memory such as 8GB; use",
        ),
        (("plan_and_preprocess", "-d", NUMBER, "--memory", "0GB"), "'0GB' is not an amount of memory such as 8GB; use"),
        (("plan", "-d", NUMBER, "--memory", "1MB"), "a memory budget of 1 MB does not hold a"),
        (("plan", "-d", NUMBER, "--rules", "mine"), "there are no rules 'mine'; choose from autoseg, nnunet"),
        (
            ("plan", "-d", NUMBER, "--rules", "nnunet", "--preset", "8gb"),
            "there is no preset '8gb' in the rules 'nnunet'; choose from plain, resenc_m, resenc_l, resenc_xl",
        ),
        (("plan", "-d", NUMBER, "--plan", "3d"), "'3d' cannot be the name of a plan; take a letter"),
        ((*TRAIN, "-f", 0, "--plan", "wide"), "has no plan 'wide'; run 'autoseg plan_and_preprocess -d 1 --plan wide'"),
        (
            ("plan_and_preprocess", "-d", NUMBER, "--preset", "big"),
            "there is no preset 'big' in the rules 'autoseg'; choose from small, 4gb, 8gb",
        ),
        (("preprocess", "-d", NUMBER, "-c", "4d"), "has no configuration '4d'; choose from 2d, 3d_fullres"),
        (("train", "-d", NUMBER, "-c", "4d", "-f", 0), "has no configuration '4d'; choose from 2d, 3d_fullres"),
        ((*TRAIN, "-f", 9), "there is no fold 9; take a number from 0 to 2, or 'all'"),
        ((*TRAIN, "-f", "x"), "'x' is no fold; take numbers"),
        ((*TRAIN, "-f", "-1"), "'-1' is no fold; take numbers"),
        ((*TRAIN,), "Missing option '-f' / '--fold'; see 'autoseg train --help'"),
        (
            (*TRAIN, "-f", 0, "--epochs", 5, "--budget", "5m"),
            "--epochs and --budget both say how long to train; give one",
        ),
        ((*TRAIN, "-f", 0, "--epochs", 0), "Invalid value for '--epochs'"),
        ((*TRAIN, "-f", 0, "--budget", "soon"), "'soon' is not a duration such as 90s, 5m or 2h; use"),
        ((*TRAIN, "-f", 0, "--budget", "5"), "'5' is not a duration such as 90s, 5m or 2h; use"),
        ((*TRAIN, "-f", 0, "--budget", "fast"), "use one of the units s, sec, m, min, h, d, or one of quick, standard"),
        ((*TRAIN, "-f", 0, "--extend", "soon"), "'soon' is neither a number of epochs nor a duration such as 30m; use"),
        ((*TRAIN, "-f", 0, "--extend", "5", "--restart"), "--extend goes on with a fold that --restart forgets; give"),
        (
            (*TRAIN, "-f", 2, "--extend", "5"),
            "fold 2 of 3d_fullres is not trained to its end, so it cannot be extended",
        ),
        ((*TRAIN, "-f", 0, "--log", "wandb"), "there is no log 'wandb'; choose from tensorboard, mlflow"),
        (("stop", "-d", NUMBER, "-c", "3d_fullres"), "no fold of 3d_fullres is being trained; look at -d, -c, -f"),
        (("stop", "-d", NUMBER, "-c", "2d", "-f", 3), "fold 3 of 2d is not being trained; look at -d, -c, -f"),
        ((*TRAIN, "-f", 0, "--device", "cuda:99"), "there is no device 'cuda:99' here; choose one of: auto, "),
        ((*TRAIN, "-f", 0, "--device", "gpu"), "there is no device 'gpu' here; choose one of: auto, "),
        ((*TRAIN, "-f", 0, "--epochs", 5), "fold 0 of 3d_fullres was begun with another length of training; leave out"),
        ((*TRAIN, "-f", 0, "--fast"), "No such option: --fast"),
        (("predict", "-i", "in", "-o", "out"), "a model is named by its folder or by its dataset; give either -m"),
        (
            ("predict", "-m", "model", "-c", "2d", "-i", "in", "-o", "out"),
            "a model folder holds one configuration of one plan; leave",
        ),
        (
            ("predict", "-i", "in", "-o", "out", "-d", 1, "-m", "m"),
            "named by its folder or by its dataset; give either",
        ),
        (("predict", "-i", "in", "-o", "out", "-m", "nowhere"), "nowhere holds no trained fold; train one"),
        (("predict", "-i", "in", "-o", "out", "-d", 1, "-c", "2d"), "2d holds no trained fold; train one"),
        (("predict", "-i", "in", "-o", "out", "-d", 1, "-f", 2), "is not trained (there: 0, 1, all); choose with -f"),
        (("predict", "-i", "in", "-o", "out", "-d", 1, "--device", "gpu"), "there is no device 'gpu' here; choose"),
        (
            ("predict", "-i", "in", "-o", "out", "-d", 1, "--probabilities", "bright", "brihgt"),
            "the model has no label 'brihgt'; choose from background, bright, dark, or 'all'",
        ),
        (("predict", "-i", "nowhere", "-o", "out", "-d", 1), "nowhere does not exist; give a folder of scans with -i"),
        (("prodict", "-i", "in"), "No such command 'prodict'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_options(trained_volumes: Path, args: tuple[object, ...], text: str) -> None:
    """Are refused with what there is instead, before anything is trained or written."""
    assert text in only(refuse(trained_volumes, *args))


def test_option_without_value() -> None:
    """Is named."""
    code, _, errors = run(*TRAIN, "-f")
    assert code == EXIT_ERROR
    assert only(problems_of(errors)) == "Option '-f' requires an argument; see 'autoseg train --help'"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu(trained_volumes: Path) -> None:
    """Is said, with the devices that are there."""
    assert "there is no device 'cuda' here; choose one of: auto, " in only(
        refuse(trained_volumes, *TRAIN, "-f", 0, "--device", "cuda")
    )


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(*TRAIN, "-f", 0), ("preprocess", "-d", NUMBER)], ids=["train", "preprocess"])
def test_training_before_planning(fresh: Path, command: tuple[object, ...]) -> None:
    """The missing step is named."""
    assert only(refuse(fresh, *command)) == (
        f"Dataset001_Tiny has no plan; run 'autoseg plan_and_preprocess -d {NUMBER}' first"
    )


def test_training_before_preprocessing(trained: Path) -> None:
    """A configuration that was planned but not prepared."""
    shutil.rmtree(folders_of(trained).cases("3d_fullres"))
    line = only(refuse(trained, *TRAIN, "-f", 2))
    assert (
        line == "Dataset001_Tiny is not preprocessed for 3d_fullres; run 'autoseg preprocess -d 1 -c 3d_fullres' first"
    )


def edit_plan(root: Path, change: Callable[[dict], object]) -> None:
    """Edits plan.json as a user would."""
    path = folders_of(root).plan
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def small(plan: dict) -> dict:
    """The part of a plan that describes 3d_fullres."""
    return plan["configurations"]["3d_fullres"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda plan: plan.update(epoch=5), r"plan\.json: epoch: Extra inputs are not permitted; mend"),
        (lambda plan: plan["training"].update(epochs=0), r"plan\.json: training\.epochs: .*greater than 0; mend"),
        (
            lambda plan: small(plan).update(patch_size=[7, 8, 8]),
            r"plan\.json: configurations.*must be divisible by.*; mend",
        ),
        (lambda plan: small(plan).update(spacing_mm=[1.0, 1.0]), r"plan\.json: configurations.*spacing_mm.*; mend"),
        (
            lambda plan: small(plan).update(spacing_mm=[2.0, 1.0, 1.0]),
            r"plan\.json has changed since.*; run 'autoseg prep",
        ),
        (lambda plan: plan.update(format_version=99), r"plan\.json: format_version is 99, this program reads 1; mend"),
        (lambda plan: plan["configurations"].pop("3d_fullres"), r"has no configuration '3d_fullres'; choose from 2d"),
        (
            lambda plan: small(plan).update(batch_size=3),
            r"fold 0 of 3d_fullres was begun by another plan\.json; restore",
        ),
    ],
    ids=["key", "epochs", "patch", "axes", "spacing", "version", "configuration", "begun"],
)
def test_edited_plan(trained: Path, change: Callable[[dict], object], text: str) -> None:
    """The file and the field are named, or what does not fit to what was prepared or begun."""
    edit_plan(trained, change)
    assert re.search(text, only(refuse(trained, *TRAIN, "-f", 0)))


@pytest.mark.parametrize("content", ["{", "", "[]", "\x00\xff"])
@pytest.mark.parametrize("name", ["plan.json", "splits.json"])
def test_damaged_decisions(trained: Path, name: str, content: str) -> None:
    """A file that is no JSON, or is another thing, is named."""
    path = folders_of(trained).preprocessed / name
    path.write_bytes(content.encode("latin-1"))
    assert str(path) in only(refuse(trained, *TRAIN, "-f", 0))


def test_damaged_preprocessed_cases(trained: Path) -> None:
    """Each has its line, which says how to preprocess it again; doing so preprocesses no other case."""
    cases = folders_of(trained).cases("3d_fullres")
    cut(cases / "case_1.zip")
    (cases / "case_2.zip").unlink()
    first, second = refuse(trained, *TRAIN, "-f", 2)
    fix = r"run 'autoseg preprocess -d 1 -c 3d_fullres', which"
    assert re.search(rf"case_1\.zip is missing, damaged or cut off; {fix} preprocesses it again", first)
    assert re.search(rf"1 of 3 cases are not preprocessed for 3d_fullres: case_2; {fix} preprocesses them", second)
    code, output, _ = run("preprocess", "-d", NUMBER, "-c", "3d_fullres", "-w", trained)
    assert code == 0
    assert "1 of 3 cases were prepared for 3d_fullres by an earlier run" in output
    assert run(*TRAIN, "-f", "2", "-w", trained)[0] == 0


def test_raw_cases_that_went_away(trained: Path) -> None:
    """Validation would miss them, so training does not begin; each has its line."""
    raw = folders_of(trained).raw
    for part in ("imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz", "labelsTr/case_2.nii.gz"):
        (raw / part).unlink()
    for command in ((*TRAIN, "-f", 2), ("preprocess", "-d", NUMBER)):
        first, second = refuse(trained, *command)
        assert "case 'case_1' of Dataset001_Tiny: it is not there any more; mend it, or plan again" in first
        assert re.search(
            r"case 'case_2'.*its label labelsTr/case_2\.nii\.gz is missing; mend it, or plan again", second
        )


def test_cases_that_went_bad(trained: Path) -> None:
    """Preparing the data again names each of them and keeps what was prepared before."""
    raw = folders_of(trained).raw
    cut(image_of(raw / "imagesTr", "case_1"))
    change_label(folders_of(trained), "case_3", valued(7))
    first, third = refuse(trained, "preprocess", "-d", NUMBER)
    assert re.search(r"case 'case_1': .*case_1_0000\.nii\.gz is cut off.*; copy it again, or leave the case out", first)
    assert re.search(r"case 'case_3': its label map holds 7.*; correct the label map", third)


def test_dataset_with_other_labels_than_the_plan(trained: Path) -> None:
    """A dataset.json that was edited after planning is refused."""
    path = folders_of(trained).raw / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "labels": {**content["labels"], "third": 3}}))
    for command in ((*TRAIN, "-f", 2), ("preprocess", "-d", NUMBER)):
        assert "names other channels or labels than those that plan.json was made for" in only(
            refuse(trained, *command)
        )


@pytest.mark.parametrize("spoil", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_text("weights")])
def test_damaged_checkpoint(trained: Path, spoil: Callable[[Path], object]) -> None:
    """Training on and predicting name the file; --restart mends it."""
    path = folders_of(trained).model("3d_fullres").checkpoint(0)
    spoil(path)
    scans = folders_of(trained).raw / "imagesTs"
    for command in ((*TRAIN, "-f", 0), ("predict", "-d", 1, "-i", scans, "-o", trained / "masks")):
        assert re.search(rf"{path} is damaged or .*; get a sound copy, or train", only(refuse(trained, *command)))


# --- Prediction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_model", [False, True], ids=["-d", "-m"])
def test_good_scans_are_segmented_beside_bad_ones(trained_volumes: Path, tmp_path: Path, by_model: bool) -> None:
    """Every bad scan has its line, exit code 2, and the results of the others are there."""
    folders = folders_of(trained_volumes)
    scans, masks = tmp_path / "scans", tmp_path / "masks"
    scans.mkdir()
    sound = image_of(folders.raw / "imagesTs", "case_4")
    for number in (*range(1, 8), 20, 21):
        shutil.copy(sound, image_of(scans, f"case_{number}"))
    spoil_images(scans, {name: spoil for name, (spoil, _) in BAD_IMAGES.items()})
    shutil.copy(sound, scans / "case_21.nii")
    model = ("-m", folders.results / "3d_fullres") if by_model else ("-d", NUMBER, "-w", trained_volumes)
    before = snapshot(scans)
    code, output, errors = run("predict", *model, "-i", scans, "-o", masks, "-f", 0)
    assert code == EXIT_ERROR
    assert "1 of 9 scans were segmented" in output
    lines = problems_of(errors)
    assert len(lines) == 8
    expected = {name: text for name, (_, text) in BAD_IMAGES.items()} | {"case_21": "case_21.nii, case_21_0000.nii.gz"}
    for name, text in expected.items():
        line = only([line for line in lines if line.startswith(f"case {name!r}: ")])
        assert re.search(text, line), line
    assert sorted(path.name for path in masks.iterdir()) == [
        ".report",
        "case_20.nii.gz",
        "dataset.json",
        "prediction.json",
        "report.csv",
    ]
    assert read_label_map(masks / "case_20.nii.gz").geometry.shape == (14, 16, 18)
    assert snapshot(scans) == before


def test_wrong_channels(trained_oblique: Path, tmp_path: Path) -> None:
    """Too few, too many or misnumbered files are said by scan, with what the model wants."""
    scans = tmp_path / "scans"
    scans.mkdir()
    [image, _] = sorted((folders_of(trained_oblique).raw / "imagesTs").iterdir())
    names = ("few_0000", "many_0000", "many_0001", "many_0002", "off_0001", "off_0002")
    for name in names:
        shutil.copy(image, scans / f"{name}.nii.gz")
    before = snapshot(tmp_path)
    code, _, errors = run("predict", "-d", 1, "-w", trained_oblique, "-i", scans, "-o", tmp_path / "masks", "-f", 0)
    few, many, off = problems_of(errors)
    assert (code, snapshot(tmp_path)) == (EXIT_ERROR, before)
    assert re.search(
        r"'few': the image has 1 channels, the model wants 2 \(channel_0, channel_1\); give a file per", few
    )
    assert re.search(r"'many': many_0000.*many_0002\.nii\.gz are not one file for each of the 2 channels", many)
    assert re.search(r"'off': off_0001.*are not one file for each.*; bring off_0000 to off_0001", off)


def test_folder_without_scans(trained_volumes: Path, tmp_path: Path) -> None:
    """Empty, or with other files."""
    (tmp_path / "notes.txt").write_text("no scan")
    line = only(refuse(trained_volumes, "predict", "-d", 1, "-i", tmp_path, "-o", tmp_path / "masks"))
    assert line == f"{tmp_path} holds no image files; put scans there, such as CASE_0000.nii.gz"


def test_results_never_replace_scans(trained: Path) -> None:
    """Neither those of a folder nor a single one."""
    scans = folders_of(trained).raw / "imagesTs"
    for source in (scans, image_of(scans, "case_4")):
        line = only(refuse(trained, "predict", "-d", 1, "-i", source, "-o", scans))
        assert line == f"{scans} holds the scans, which the results would replace; give another folder with -o"


def test_unwritable_output(trained_volumes: Path, public: Path) -> None:
    """A file in the place of the folder, and a folder without permission, are found before the work."""
    scans = folders_of(trained_volumes).raw / "imagesTs"
    (public / "file").write_text("mine")
    line = only(refuse(trained_volumes, "predict", "-d", 1, "-i", scans, "-o", public / "file"))
    assert line.startswith(f"cannot write {public / 'file'}: ")
    assert (public / "file").read_text() == "mine"
    work, closed = public / "work", public / "closed"
    shutil.copytree(trained_volumes, work)
    work.chmod(0o755)
    closed.mkdir()
    with without_privileges():
        code, _, errors = run("predict", "-d", 1, "-w", work, "-i", folders_of(work).raw / "imagesTs", "-o", closed)
    assert code == EXIT_ERROR
    assert f"cannot write {closed}: Permission denied; choose a folder that you may write to" in only(
        problems_of(errors)
    )


# --- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of equal label maps, "references" and "masks"."""
    folders = write_volumes(tmp_path / "source", cases=6)
    for name in ("references", "masks"):
        shutil.copytree(folders.raw / "labelsTr", tmp_path / name)
    return tmp_path / "references", tmp_path / "masks"


def refuse_to_compare(references: Path, predictions: Path) -> list[str]:
    """Compares what must not be compared; returns the problems."""
    before = snapshot(references.parent)
    code, _, errors = run("evaluate", references, predictions)
    assert code == EXIT_ERROR
    assert snapshot(references.parent) == before
    return problems_of(errors)


@pytest.mark.parametrize("described", [False, True], ids=["found labels", "dataset.json"])
def test_each_bad_pair_has_its_line(masks: tuple[Path, Path], described: bool) -> None:
    """Other grids, damaged files and values that are no labels, on either side."""
    references, predictions = masks
    if described:
        shutil.copy(folders_of(references.parent / "source").raw / "dataset.json", references.parent)
    write_label_map(predictions / "case_1.nii.gz", shortened(read_label_map(predictions / "case_1.nii.gz")))
    cut(references / "case_2.nii.gz")
    (predictions / "case_3.nii.gz").write_text("not a label map")
    fractions = read_image((references / "case_4.nii.gz",))
    write_image(references / "case_4.nii.gz", replace(fractions, array=fractions.array / 2))
    write_label_map(predictions / "case_5.nii.gz", valued(7)(read_label_map(predictions / "case_5.nii.gz")))
    expected = [
        r"case 'case_1': reference and prediction lie on different grids: shape",
        r"references/case_2\.nii\.gz is cut off",
        r"masks/case_3\.nii\.gz cannot be read",
        r"references/case_4\.nii\.gz: voxel value 0\.5 is no label",
    ]
    if described:
        expected.append(r"masks/case_5\.nii\.gz holds the value 7, but dataset\.json names 0 to 2; correct")
    lines = refuse_to_compare(references, predictions)
    assert len(lines) == len(expected)
    assert all(re.search(text, line) for text, line in zip(expected, lines, strict=True)), lines


def test_predictions_without_reference(masks: tuple[Path, Path]) -> None:
    """Each has its line, and so has a name that is there twice."""
    references, predictions = masks
    for name in ("case_1", "case_3"):
        (references / f"{name}.nii.gz").unlink()
    write_label_map(predictions / "case_2.nrrd", read_label_map(predictions / "case_2.nii.gz"))
    doubled, first, third = refuse_to_compare(references, predictions)
    assert re.search(r"masks/case_2\.nii\.gz and case_2\.nrrd have the same name; keep one of them", doubled)
    assert re.search(r"masks/case_1\.nii\.gz has no reference in .*references; remove it or add", first)
    assert re.search(r"masks/case_3\.nii\.gz has no reference in .*references; remove it or add", third)


def test_folders_without_label_maps(masks: tuple[Path, Path], tmp_path: Path) -> None:
    """Missing, empty, or full of background."""
    references, predictions = masks
    (tmp_path / "empty").mkdir()
    assert "nowhere does not exist; give" in only(refuse_to_compare(references, tmp_path / "nowhere"))
    assert "empty holds no label maps; check" in only(refuse_to_compare(references, tmp_path / "empty"))
    assert "empty holds no label maps; check" in only(refuse_to_compare(tmp_path / "empty", predictions))
    for path in references.iterdir():
        write_label_map(path, replace(read_label_map(path), array=read_label_map(path).array * 0))
    assert "hold background only; check" in only(refuse_to_compare(references, predictions))


# --- Import -----------------------------------------------------------------------------------------------------------


def test_import_of_what_is_no_dataset(fresh: Path, tmp_path: Path) -> None:
    """A missing folder, an empty one, a number that is taken, a name that is none, and masks of other images."""
    source = folders_of(fresh).raw
    images, labels = source / "imagesTr", source / "labelsTr"
    (tmp_path / "empty").mkdir()
    assert "nowhere is not a folder; check" in only(refuse(fresh, "import", tmp_path / "nowhere", "-d", 2))
    assert "holds neither dataset.json nor a folder" in only(refuse(fresh, "import", tmp_path / "empty", "-d", 2))
    assert "already holds Dataset001_Tiny; choose another number" in only(refuse(fresh, "import", source, "-d", 1))
    assert "do not make a dataset name; take" in only(refuse(fresh, "import", source, "-d", 2, "--name", "a b/c"))
    assert "found 3 images and 0 masks that are read here; bring" in only(
        refuse(fresh, "import", images, "--labels", tmp_path / "empty", "-d", 2)
    )
    for path in labels.iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    assert "no image has a mask of its name" in only(refuse(fresh, "import", images, "--labels", labels, "-d", 2))


def test_import_names_each_file_that_cannot_be_read(fresh: Path) -> None:
    """Images and masks alike, and begins no dataset."""
    source = folders_of(fresh).raw
    image_of(source / "imagesTr", "case_1").write_text("not an image")
    cut(source / "labelsTr" / "case_2.nii.gz")
    change_label(folders_of(fresh), "case_3", valued(1.5))
    lines = refuse(fresh, "import", source / "imagesTr", "--labels", source / "labelsTr", "-d", 2)
    expected = (
        r"case_1_0000\.nii\.gz cannot be read",
        r"case_2\.nii\.gz is cut off",
        r"case_3\.nii\.gz: voxel value 1\.5",
    )
    assert all(re.search(text, line) for text, line in zip(expected, lines, strict=True)), lines


# --- A full disk ------------------------------------------------------------------------------------------------------


def test_full_disk_while_preprocessing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one line, whatever the number of cases; with space the same command works."""

    def fail(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    command = ("plan_and_preprocess", "-d", NUMBER, "--preset", "small", "-c", "3d_fullres", "-w", fresh)
    with monkeypatch.context() as patched:
        patched.setattr("autoseg.preprocessing.store.write_archive", fail)
        code, _, errors = run(*command)
    folder = folders_of(fresh).cases("3d_fullres")
    assert code == EXIT_ERROR
    assert re.fullmatch(
        rf"cannot write {folder}/case_\d\.zip: No space left on device; free some space or .*",
        only(problems_of(errors)),
    )
    assert sorted(path.name for path in folder.parent.rglob("*") if path.is_file()) == [
        "fingerprint.json",
        "plan.json",
        "splits.json",
    ]
    assert run(*command)[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, *, free_bytes: int) -> Path:
    """Fills a disk up to some bytes; returns the file to remove."""
    path = disk / "filler"
    path.write_bytes(bytes(shutil.disk_usage(disk).free - free_bytes))
    return path


def test_disk_that_is_really_full(
    trained_volumes: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing, predicting and importing stop with one line and leave nothing; with space the same commands work."""
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
    raw = folders_of(trained_volumes).raw
    folders = folders_of(small_disk)
    shutil.copytree(raw, folders.raw)
    converted = tmp_path / "nrrd"
    write_volumes(converted, ending=".nrrd")
    commands = {
        folders.cases("3d_fullres"): ("plan_and_preprocess", "-d", 1, "--preset", "small", "-c", "3d_fullres"),
        small_disk / "masks": ("predict", "-m", folders_of(trained_volumes).results / "3d_fullres", "-f", 0, "-i",
                               raw / "imagesTs", "-o", small_disk / "masks"),
        small_disk / "raw/Dataset002_Tiny": ("import", raw, "-d", 2),
    }  # fmt: skip
    for target, command in commands.items():
        filler = fill(small_disk, free_bytes=20480 if command[0] != "predict" else 0)
        code, _, errors = run(*command, "-w", small_disk)
        assert code == EXIT_ERROR
        place = folders.preprocessed if command[0] == "plan_and_preprocess" else target
        assert re.match(rf"cannot write {place}.*: .*; free some space", only(problems_of(errors)))
        assert not list(small_disk.rglob(".writing_*"))
        assert not list(target.rglob("*"))
        filler.unlink()
        assert run(*command, "-w", small_disk)[0] == 0
        shutil.rmtree(target)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

# Each program slows down one step, so that Ctrl-C comes in the midst of the work on a machine of any speed. Programs
# that are started in the background may have been told to pass over Ctrl-C; so the usual answer to it is restored.
SLOWLY = """
import signal, sys, time, {module}
signal.signal(signal.SIGINT, signal.default_int_handler)
quick = {module}.{function}
def slow(*args, **options):
    result = quick(*args, **options)
    time.sleep(0.4)
    return result
{module}.{function} = slow
from autoseg.__main__ import main
main()
"""


def interrupt(command: tuple[object, ...], slow: str, begun: Callable[[], bool]) -> tuple[int, str]:
    """Starts a command, stops it with Ctrl-C once it has begun; returns its exit code and error stream."""
    module, _, function = slow.rpartition(".")
    program = [sys.executable, "-c", SLOWLY.format(module=module, function=function), *map(str, command)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not begun() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=ENOUGH_SECONDS)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("name", ["import", "plan_and_preprocess", "train", "predict"])
def test_interrupted_command(trained: Path, tmp_path: Path, name: str) -> None:
    """One line and exit code 130; no file is half-written, and the same command then succeeds."""
    folders = folders_of(trained)
    for number in (5, 6):
        shutil.copy(image_of(folders.raw / "imagesTs", "case_4"), image_of(folders.raw / "imagesTs", f"case_{number}"))
    masks, checkpoint = tmp_path / "masks", folders.model("3d_fullres").checkpoint(2)
    commands = {
        "import": (
            ("import", folders.raw, "-d", 2),
            "shutil.copy2",
            lambda: any((trained / "raw").glob(".writing_*/imagesTr/*")),
        ),
        "plan_and_preprocess": (
            ("plan_and_preprocess", "-d", NUMBER, "--preset", "small", "-c", "3d_fullres"),
            "autoseg.preprocessing.case.resample_image",
            lambda: any(folders.cases("3d_fullres").glob("case_*.zip")),
        ),
        "train": ((*TRAIN, "-f", 2, "--budget", "1.5s"), "autoseg.training.loop.measure", checkpoint.exists),
        "predict": (
            ("predict", "-d", NUMBER, "-f", 0, "-i", folders.raw / "imagesTs", "-o", masks),
            "autoseg.inference.prediction.restore_case",
            lambda: any(masks.glob("*.nii.gz")),
        ),
    }
    command, slow, begun = commands[name]
    if name == "plan_and_preprocess":
        shutil.rmtree(folders.cases("3d_fullres"))
    before = snapshot(trained / "preprocessed")
    code, errors = interrupt((*command, "-w", trained), slow, begun)
    assert code == EXIT_INTERRUPTED
    assert re.fullmatch(r"stopped( by Ctrl-C, and saved to the last step)?; .*\n", errors)
    hidden = {path.relative_to(masks) for path in tmp_path.rglob(".*")}
    assert hidden <= ({Path(FOLDER_NAME)} if name == "predict" else set())
    segmented = sorted(masks.glob("*.nii.gz"))
    assert all(read_label_map(path).geometry.shape == (14, 16, 18) for path in segmented)
    recorded = {path.stem for path in (masks / FOLDER_NAME).glob("*")}
    assert all(ScanRecords(masks).load(case) is not None for case in recorded)
    assert recorded <= {path.name.removesuffix(".nii.gz") for path in segmented}
    assert not (trained / "raw" / "Dataset002_Tiny").exists()
    if name != "plan_and_preprocess":
        assert snapshot(trained / "preprocessed") == before
    code, _, problems = run(*command, "-w", trained)
    assert (code, problems) == (0, [])
