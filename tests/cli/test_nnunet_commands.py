"""Models of nnU-Net in and out, as people type it."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from small_nnunet import GOLDEN, plain_configuration, save_model
from tiny_workspaces import NUMBER, folders_of
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


def test_out_in_and_predicted(trained_volumes: Path, tmp_path: Path) -> None:
    """A model that is exported and installed segments as before; the commands to go on with are told."""
    model = save_model(tmp_path / "ours", {"3d_fullres": plain_configuration()}, folds=(0, 2))
    told = run(f"export {model.path} --format nnunet -o {tmp_path / 'theirs'} -f 2")
    assert f"nnUNetv2_predict_from_modelfolder -i scans/ -o masks/ -m {tmp_path / 'theirs'} -f 2" in told
    told = run(f"install_nnunet {tmp_path / 'theirs'} -w {tmp_path / 'work'} --name back")
    assert "use it: autoseg predict -m back -i scans/ -o masks/" in told
    assert "3d_fullres (fold 2)" in told
    scans = folders_of(trained_volumes).raw / "imagesTs"
    run(f"predict -m {model.path} -f 2 -i {scans} -o {tmp_path / 'before'} --device cpu")
    run(f"predict -m back -w {tmp_path / 'work'} -i {scans} -o {tmp_path / 'after'} --device cpu")
    before, after = (read_label_map(tmp_path / name / "case_4.nii.gz").array for name in ("before", "after"))
    assert len(np.unique(before)) > 1
    np.testing.assert_array_equal(before, after)


def test_zips_have_a_command_of_their_own(tmp_path: Path) -> None:
    """The other names it; a name is taken once, unless it is to be replaced."""
    line = run(f"install {GOLDEN / 'plain.zip'} -w {tmp_path}", code=2)
    assert "looks like a model of nnU-Net; use 'autoseg install_nnunet', which reads those" in line
    run(f"install_nnunet {GOLDEN / 'plain.zip'} -w {tmp_path}")
    line = run(f"install_nnunet {GOLDEN / 'plain.zip'} -w {tmp_path}", code=2)
    assert "Plain exists; choose another name with --name, or add --replace" in line
    run(f"install_nnunet {GOLDEN / 'plain.zip'} -w {tmp_path} --replace")


def test_wrong_use_is_one_line(trained_volumes: Path, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    there = tmp_path / "theirs"
    assert "--format 'onnx' is unknown; choose autoseg or nnunet" in run(
        f"export -d 1 --format onnx -o {there}", code=2
    )
    line = run(f"export -d {NUMBER} -w {trained_volumes} --format nnunet --licence MIT -o {there}", code=2)
    assert "--licence is for bundles, which nnU-Net does not read; leave it out" in line
    line = run(f"export -d {NUMBER} -w {trained_volumes} --format nnunet -o {there}", code=2)
    assert "has residual stages as V-Net has, and nnU-Net knows none like it; a plan by --rules nnunet" in line
    line = run(f"install_nnunet {tmp_path / 'nowhere'}", code=2)
    assert "nowhere does not exist; give a model folder of nnU-Net's, or a zip of one" in line
    assert not any(tmp_path.iterdir())
