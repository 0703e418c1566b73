"""Passing models on, as people type it."""

import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
from tiny_workspaces import NUMBER, files_in, folders_of
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.imaging.image_files import read_label_map


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that breaks no line."""
    monkeypatch.setattr(console, "_width", 200)


def run(command: str, *, code: int = 0) -> str:
    """Runs a command and gives back what it printed, or the only line that says what is wrong."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == code, result.output
    if code:
        [line] = result.output.splitlines()
        assert line.startswith("error: ")
    return result.output


def test_from_one_workspace_to_another(trained_volumes: Path, tmp_path: Path) -> None:
    """Export, install, predict by name and by file: the same masks; other folds on request."""
    home, there = folders_of(trained_volumes), shlex.quote(str(tmp_path / "there"))
    file = tmp_path / "Tiny.zip"
    told = run(f"export -d {NUMBER} -o {file} -w {trained_volumes} --licence MIT --about 'Made by us.'")
    for text in ("bright, dark", "3d_fullres (folds 0, 1, all)", "mean Dice", f"MODEL_CARD.md, inside: {file}"):
        assert text in told
    told = run(f"install {file} -w {there}")
    assert "use it: autoseg predict -m Tiny -i scans/ -o masks/" in told
    assert "bright, dark" in told
    card = (tmp_path / "there" / "models" / "Tiny" / "MODEL_CARD.md").read_text()
    assert "Made by us." in card
    assert "MIT" in card
    scans = home.raw / "imagesTs"
    run(f"predict -m Tiny -w {there} -i {scans} -o {tmp_path / 'by_name'} --device cpu")
    run(f"predict -m {file} -i {scans} -o {tmp_path / 'by_file'} --device cpu")
    run(f"predict -m {home.model('3d_fullres').path} -i {scans} -o {tmp_path / 'at_home'} --device cpu")
    masks = [(tmp_path / name / "case_4.nii.gz") for name in ("by_name", "by_file", "at_home")]
    first, *others = [read_label_map(mask).array for mask in masks]
    assert all((first == other).all() for other in others)
    model = home.model("3d_fullres").path
    run(f"export {model} -o {tmp_path / 'one.zip'} -f 1")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert [name for name in archive.namelist() if "fold" in name] == ["3d_fullres/fold_1/checkpoint.pt"]


@pytest.mark.slow
def test_trained_model_is_begun_with_but_not_gone_on_with(trained_volumes: Path, tmp_path: Path) -> None:
    """What came from a bundle is a start for other folds with --init; to train it on is refused in one line."""
    shutil.copytree(trained_volumes, tmp_path / "work")
    work, model = tmp_path / "work", folders_of(tmp_path / "work").model("3d_fullres")
    run(f"export {model.path} -o {tmp_path / 'm.zip'} -f 0")
    run(f"install {tmp_path / 'm.zip'} -w {work}")
    shutil.copy(work / "models" / "m" / "3d_fullres" / "fold_0" / "checkpoint.pt", model.checkpoint(0))
    told = run(f"train -d {NUMBER} -c 3d_fullres -f 0 -w {work} --device cpu")
    assert "fold 0 was trained elsewhere, to its end; --restart would train it anew" in told
    line = run(f"train -d {NUMBER} -c 3d_fullres -f 0 -w {work} --device cpu --extend 1", code=2)
    assert "was passed on without what training needs to go on; begin with its weights" in line
    told = run(f"train -d {NUMBER} -c 3d_fullres -f 2 -w {work} --device cpu --init {work / 'models/m/3d_fullres'}")
    assert "taken: " in told
    assert model.checkpoint(2).is_file()
    line = run(f"train -d {NUMBER} -c 3d_fullres -f 1 --restart --init {tmp_path / 'm.zip'} -w {work}", code=2)
    assert "m.zip is a model bundle, no checkpoint; unpack it with 'autoseg install'" in line


def test_wrong_use_is_one_line(trained_volumes: Path, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    model = folders_of(trained_volumes).model("3d_fullres").path
    neither = "a model is named by its folder or by its dataset; give either a folder or -d NUMBER"
    assert neither in run(f"export -o {tmp_path / 'm.zip'}", code=2)
    assert neither in run(f"export {model} -d 1 -o {tmp_path / 'm.zip'}", code=2)
    assert "'-o'" in run(f"export {model}", code=2)
    assert "'x' is no fold" in run(f"export {model} -f x -o {tmp_path / 'm.zip'}", code=2)
    assert "does not exist; check the path" in run(f"install {tmp_path / 'm.zip'} -w {tmp_path}", code=2)
    (tmp_path / "m.zip").write_bytes(b"PK")
    assert "is no zip, or a damaged" in run(f"install {tmp_path / 'm.zip'} -w {tmp_path}", code=2)
    scans = folders_of(trained_volumes).raw / "imagesTs"
    text = run(f"predict -m {tmp_path / 'm.zip'} -i {scans} -o {tmp_path / 'masks'}", code=2)
    assert f"{tmp_path / 'm.zip'} is no zip, or a damaged" in text
    text = run(f"predict -m nobody -w {tmp_path} -i {scans} -o {tmp_path / 'masks'}", code=2)
    assert "nobody holds no trained fold; train one with 'autoseg train', or check the path" in text
    assert files_in(tmp_path) == {"m.zip"}
