"""Options of commands that run as jobs: what goes together, what is refused, and what is printed."""

import subprocess
from pathlib import Path

import pytest
from tiny_workspaces import NUMBER
from typer.testing import CliRunner

from autoseg.cli.app import app

TRAIN = ("train", "-d", str(NUMBER), "-c", "3d_fullres", "-f")


def invoke(root: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, [*arguments, "-w", str(root)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "2", "--on", "mars"), "jobs cannot be run on 'mars'; choose --on local or slurm; or --print them"),
        ((*TRAIN, "2", "--print", "lsf"), "jobs cannot be printed for 'lsf'; choose --print slurm, pbs, snakemake"),
        ((*TRAIN, "2", "--on", "local", "--print", "pbs"), "--on runs jobs and --print only shows them"),
        ((*TRAIN, "2", "--on", "local", "--restart"), "--restart does not go together with jobs"),
        ((*TRAIN, "2", "--print", "pbs", "--extend", "5"), "--extend does not go together with jobs"),
        ((*TRAIN, "9", "--print", "pbs"), "there is no fold 9"),
        ((*TRAIN, "0", "--print", "pbs"), "all of these folds are trained and validated"),
        ((*TRAIN, "2", "--print", "pbs", "--epochs", "3", "--budget", "1h"), "both say how long to train"),
        ((*TRAIN, "2", "--print", "pbs", "--log", "nothing"), "'nothing'"),
        ((*TRAIN, "2", "-c", "2d"), "one training is of one configuration; name one with -c, or add --on local"),
        (("preprocess", "-d", "1", "--parts", "3"), "--parts is for jobs; add --on or --print"),
        (
            ("preprocess", "-d", "1", "--on", "local"),
            "nothing says into how many jobs the work is divided; add --parts",
        ),
        (("preprocess", "-d", "1", "--print", "pbs", "--parts", "3", "--part", "1/3"), "--part does not go together"),
        (("predict", "-d", "1", "-i", "x", "-o", "y", "--parts", "3"), "--parts is for jobs"),
        (("predict", "-d", "1", "-i", "x", "-o", "y.nii.gz", "--parts", "3", "--on", "slurm"), "is one file, which"),
    ],
)
def test_what_does_not_go_together_is_refused(trained_volumes, arguments, message):
    """In one line, with exit code 2; nothing is written."""
    code, output = invoke(trained_volumes, *arguments)
    assert code == 2
    assert output.startswith("error: ")
    assert message in output
    assert not (trained_volumes / "jobs").exists()


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_the_printed_script_is_all_that_is_printed(trained_volumes, scheduler):
    """So that it can be piped into bash, which finds nothing wrong with it; folds that are done are left out."""
    code, output = invoke(trained_volumes, *TRAIN, "cv", "--device", "cpu", "--print", scheduler)
    assert code == 0
    assert output.startswith("#!/bin/bash\n")
    assert [line.split()[1] for line in output.splitlines() if line.startswith("submit ")] == [
        "train_3d_fullres_fold_2",
        "find_best",
        "report",
    ]
    subprocess.run(["bash", "-n"], input=output, text=True, check=True)
    assert not (trained_volumes / "jobs").exists()


def test_arrays_have_no_more_parts_than_cases_and_scans(trained_volumes, tmp_path):
    """Of three cases and one scan."""
    code, output = invoke(trained_volumes, "preprocess", "-d", "1", "--parts", "20", "--print", "slurm")
    assert (code, "--array=1-3 " in output) == (0, True)
    scans = next(trained_volumes.glob("raw/*/imagesTs"))
    arguments = ("predict", "-d", "1", "-c", "3d_fullres", "-i", str(scans), "-o", str(tmp_path / "masks"))
    code, output = invoke(trained_volumes, *arguments, "--parts", "20", "--print", "slurm")
    assert (code, "--array=1-1 " in output, "--continue" in output) == (0, True, True)


def test_a_damaged_cluster_file_is_named(trained_volumes, tmp_path, monkeypatch):
    """With the field that is wrong."""
    (tmp_path / "cluster.json").write_text('{"time": "soon"}')
    monkeypatch.setattr("autoseg.workspace.Workspace.cluster_settings", tmp_path / "cluster.json")
    code, output = invoke(trained_volumes, *TRAIN, "2", "--print", "slurm")
    assert code == 2
    assert f"error: {tmp_path / 'cluster.json'}: time: 'soon' is not a duration" in output


@pytest.mark.slow
def test_jobs_of_this_machine_segment_scans(trained_volumes, tmp_path):
    """To the end, with a table."""
    scans, masks = next(trained_volumes.glob("raw/*/imagesTs")), tmp_path / "my masks"
    model = next(trained_volumes.glob("results/*/3d_fullres"))
    arguments = ("predict", "-m", str(model), "-i", str(scans), "-o", str(masks), "--device", "cpu")
    code, output = invoke(tmp_path, *arguments, "--parts", "1", "--on", "local")
    assert (code, output.splitlines()[-1]) == (0, f"prediction of {scans}: done")
    assert {path.name for path in masks.glob("*.nii.gz")} == {"case_4.nii.gz"}
    assert (masks / "report.csv").is_file()
    code, output = invoke(tmp_path, "status")
    assert "1 of 1 parts done" in " ".join(output.replace("│", " ").split())
