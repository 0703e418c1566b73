"""Where patches are changed, and how to look at them, from the command line."""

import shlex

import pytest
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.dataloading.loader import Batches


def run(command: str, *, code: int = 0) -> str:
    """Runs a command and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_patches_are_drawn(trained_volumes, tmp_path):
    """Into the file that was named; a count that makes no picture is said in one line."""
    command = f"augmentations -d {NUMBER} -c 3d_fullres -w {trained_volumes} -o {tmp_path / 'a.png'}"
    assert f"4 changed patches: {tmp_path / 'a.png'}" in run(f"{command} --count 4")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "0 patches make no picture" in run(f"{command} --count 0", code=2)


@pytest.mark.parametrize(("choice", "place"), [("auto", None), ("cpu", None), ("device", "cpu")])
def test_training_changes_patches_where_it_is_told(tmp_path, monkeypatch, choice, place):
    """The option reaches the loader; a CPU that trains leaves it to the threads unless told otherwise."""
    write_volumes(tmp_path, cases=2)
    plan_tiny(tmp_path, epochs=1)
    made = []
    prepare = Batches._prepare

    def note(self, number):
        made.append((self.augmented, None if self.augmentation_device is None else self.augmentation_device.type))
        return prepare(self, number)

    monkeypatch.setattr(Batches, "_prepare", note)
    run(f"train -d {NUMBER} -c 3d_fullres -f all --device cpu --augment-on {choice} -w {tmp_path}")
    assert {way for augmented, way in made if augmented} == {place}
    assert folders_of(tmp_path).model("3d_fullres").trained_folds() == ["all"]


def test_unknown_place_is_said_in_one_line(trained_volumes):
    """With the places that there are."""
    output = run(f"train -d {NUMBER} -c 3d_fullres -f 0 --device cpu --augment-on gpu -w {trained_volumes}", code=2)
    assert "choose --augment-on auto, cpu or device" in output
