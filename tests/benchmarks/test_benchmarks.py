"""Every benchmark still runs: each script at small size on made-up data, as a process of its own.

Most tests here are slow. Halves that need nnU-Net are skipped unless AUTOSEG_NNUNET_PYTHON names the python of an
environment with nnunetv2 2.8.1, as for tests/parity; those that need MONAI and MedPy, unless AUTOSEG_PEER_PYTHON names
that of an environment as tests/benchmarks/metrics.py describes it. gpu_training.py runs on the CPU and without nnU-Net,
whose benchmark trainer needs a GPU.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
from gpu_overview import LIMITS
from made_up_hippocampi import TASK, write_hippocampi
from made_up_model import make_model
from phantoms import REALDATA
from programs import NUMBER, import_hippocampus

import autoseg
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.workspace import Workspace

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]
NNUNET_VARIABLE, PEER_VARIABLE = "AUTOSEG_NNUNET_PYTHON", "AUTOSEG_PEER_PYTHON"


class Benchmark(NamedTuple):
    """How a script is run at small size.

    Attributes:
        script: Name of the script.
        options: Its arguments; names in braces stand for the folders of the fixture `folders`.
        rows: Beginnings of rows of its tables, each of which must hold a figure.
    """

    script: str
    options: str
    rows: tuple[str, ...]


FINGERPRINT = Benchmark(
    "fingerprint.py", "{task} {fresh} --pairs 1", ("autoseg, 6 cases", "autoseg, all 6 cases", "autoseg")
)
PREDICTION = Benchmark(
    "prediction.py",
    "{model} {fresh} --scans {scans} --pairs 1 --scale 0.08",
    ("sliding window over 32 x 32 x 32 voxels", "2 scans, whole command", "12 x 32 x 32 voxels, 25 classes", "48 x 41"),
)
PREPROCESSING = Benchmark(
    "preprocessing.py",
    "{fresh} --rows image labels export many cases hippocampus --source {task} --scale 0.06 --pairs 1 --cases 2",
    (
        "image, cubic",
        "label map of 15",
        "logits of 25",
        "logits of 117",
        "2 scans of 7 x 31 x 31",
        "6 hippocampus cases",
    ),
)
REFERENCE_PLANS = Benchmark("reference_plans.py", "{fresh} --datasets 1", ("",))
TRAINING_STEP = Benchmark(
    "training_step.py", "--patch 16 16 16 --batch 2 --steps 2 --pairs 1", ("patch 16 x 16 x 16, batch 2",)
)
FIDELITY = Benchmark(
    "fidelity.py",
    "{workspace} -d 4 --patch 16 16 16 --features 4 --epochs 2 --steps 2 --seeds 1 2 --held-out 1",
    ("autoseg", "nnU-Net"),
)
METRICS = Benchmark("metrics.py", "{labels} {masks} --cases 2 --rounds 1 --spacing 3 0.8 0.7", ("autoseg", "hd95_mm"))
BESIDE_NNUNET = (FINGERPRINT, PREDICTION, PREPROCESSING, REFERENCE_PLANS, TRAINING_STEP)
ALONE = (
    Benchmark("augmentation.py", "--sizes 12,16,12 --rounds 1", ("rotation and scaling", "noise", "whole table")),
    Benchmark(
        "busy_machine.py",
        '--seconds 0.1 --rounds 1 --settings "the package\'s" --patch 16 16 16',
        ("training", "prediction", "preprocessing"),
    ),
    Benchmark("checkpoint_writing.py", "{fresh} --megabytes 2 --rounds 1", ("in the loop", "beside it")),
    Benchmark(
        "coarse_to_fine.py",
        "--shape 48 56 64 --patch 16 16 16 --features 4 --radius 8",
        ("whole scan", "ball and 8 mm", "ball and 32 mm"),
    ),
    Benchmark("convolution_faults.py", "--cases 40 --repetitions 1 --instructions AVX2", ("AVX2",)),
    Benchmark(
        "ct_windows.py",
        "{scans}/hippocampus_001.nii.gz {labels}/hippocampus_001.nii.gz {fresh} --labels 1 2 --blocks 2",
        ("block_0", "block_1"),
    ),
    Benchmark("demo.py", "{fresh} --seeds 3 --training-seeds 1 --cases 2 --coarser 2", ("3",)),
    Benchmark(
        "distillation.py",
        "{task} {fresh} --teacher-epochs 1 --epochs 1 --work 0.9",
        ("teacher", "student", "the same without a teacher"),
    ),
    Benchmark(
        "dicom_objects.py", "--size 32 --slices 6 --structures 3", ("seg", "overlapping", "labelmap", "rtstruct")
    ),
    Benchmark("dicom_hostile.py", "", ("47",)),
    Benchmark("dicom_round_trip.py", "--slices 3 --size 9", ("seg", "labelmap")),
    Benchmark("dicom_reading.py", "--slices 6 --size 32 --rounds 1", ("autoseg", "dcm2niix")),
    Benchmark("duplicates.py", '"{task}/imagesTr/*.nii.gz"', ("Task04",)),
    Benchmark("gpu_counts.py", "--tiny", ("mean of 16 batches", "plain, 3 classes", "3 classes, with agreement")),
    Benchmark(
        "gpu_overview.py",
        "--device cpu --tiny --report {fresh} --minutes 5 --hippocampus {workspace}",
        (),
    ),
    Benchmark("gpu_step.py", "--device cpu --preset small --patch 16 16 16", ("step", "its convolutions alone")),
    Benchmark(
        "gpu_training.py",
        "{fresh} --source {task} --report {fresh}/report.md --device cpu --epochs 1 --fold-epochs 1 --folds 0 "
        "--steps 2 --patch 16 16 16 --scale 0.08",
        ("epoch, ", "multiply-adds of a step", "hippocampus, mean Dice after 1 epochs, fold 0"),
    ),
    Benchmark(
        "few_labels.py",
        "{task} {fresh} suggest --labelled 2 --unlabelled 3 --judged 1 --folds 2 --steps 2 --rounds 1 --count 1",
        ("to begin with", "suggested", "at random"),
    ),
    Benchmark("hippocampus.py", "{task} {fresh} --budget 2s", ("train", "predict", "evaluate")),
    Benchmark("instruction_sets.py", "--steps 2 --shape 16 20 14 --only AVX2 native", ("AVX2", "native")),
    Benchmark("int8.py", "{task} {fresh} --budget 2s", ("openvino, int8", "torch, as validated")),
    Benchmark("large_metrics.py", "--shape 20 30 30 --structures 3 5", ("3", "5")),
    Benchmark(
        "learning.py",
        "{workspace} -d 4 --seeds 1 --steps 2 --only growing 'fixed, structural similarity' 'fixed, border weights'",
        ("growing", "fixed, structural similarity", "fixed, border weights"),
    ),
    Benchmark(
        "learning.py",
        "{workspace} -d 4 -c 2d --seeds 1 --steps 2 --only fixed 'fixed, neighbouring slices'",
        ("fixed", "fixed, neighbouring slices"),
    ),
    Benchmark(
        "learning.py",
        "{workspace} -d 4 --seeds 1 --steps 2 --only fixed 'fixed, skeleton recall' --centrelines",
        ("fixed", "fixed, skeleton recall"),
    ),
    Benchmark("made_up_vessels.py", "{fresh} --cases 5", ("5",)),
    Benchmark("memory.py", '--only "2D, V-Net"', ("2D, V-Net stages",)),
    Benchmark("memory_order.py", "--patch 16 16 16 --steps 2", ("of the device", "float32")),
    Benchmark("network_schedules.py", "{workspace} --budget 1s --only attention_unet", ("attention_unet",)),
    Benchmark("network_sizes.py", "{workspace} --steps 2", ("16 to 128 features", "small again, other seed")),
    Benchmark(
        "networks.py",
        "--patch 16 16 16 --steps 2 --only usual attention_unet --dataset 4 --workspace {workspace} --budget 1s",
        ("usual", "attention_unet"),
    ),
    Benchmark(
        "refine.py",
        "{task} {fresh} --labelled 3 --corrected 2 --judged 1 --epochs 1 --steps 2 --extend 1",
        ("trained", "gone on without them", "refined", "trained anew with them"),
    ),
    Benchmark("missing_channels.py", "{workspace} -d 4 --seeds 1 --steps 2", ("0%", "40%")),
    Benchmark("narrow_networks.py", "--patch 16 16 16 --rounds 1", ("all features", "half the features")),
    Benchmark("planning.py", "--datasets 2", ("plans", "mean processor time of a plan")),
    Benchmark(
        "reading_images.py",
        "--size 24 --slices 6 --picture 32 --rounds 1",
        ("NIfTI, compressed", "NRRD", "MetaImage", "TIFF, volume", "PNG", "TIFF, colours"),
    ),
    Benchmark("report_opening.py", "{fresh} --cases 3 --rounds 1", ("3 cases",)),
    Benchmark("qualities.py", "{workspace} -d 4 --epochs 1", ("one image", "fast", "balanced", "best")),
    Benchmark("report_page.py", "{workspace} --rounds 1", ("seconds of the command", "MB of the page")),
    Benchmark("runtimes.py", "--shape 20 24 20 --patch 16 16 16 --features 4 --threads 1 --rounds 1", ("1",)),
    Benchmark(
        "scale.py",
        "{fresh} --cases 4 6 --scans 2 3",
        (
            "import",
            "import --link",
            "check of links",
            "fingerprint",
            "plan",
            "preprocess",
            "sampling",
            "report data",
            "status",
            "predict --continue",
            "evaluate",
        ),
    ),
    Benchmark("shapes.py", "{workspace} -d 4 --size 16 16 16", ("regions", "skeletons")),
    Benchmark(
        "serving.py", "{fresh} --requests 12 --at-once 4", ("answered with a mask", "resident memory", "exit code")
    ),
    Benchmark("single_tiles.py", "--patch 16 16 16 --rounds 1", ("tile", "training patch")),
    Benchmark("small_schedule.py", "{workspace} --budget 1s", ("0.01", "0.4")),
    Benchmark("student_scan.py", "{fresh} --shape 40 48 48 --labels 3", ("seconds, from the start", "memory")),
    Benchmark("watching.py", "{fresh} --epochs 1", ("training and validation", "watching, in percent")),
    Benchmark(
        "store.py",
        "{fresh} --size 24 32 32 --patch 16 16 16 --patches 2 --rounds 1 --cases 1 --only store",
        ("plain .npy", "**store**"),
    ),
    Benchmark(
        "unseen_cases.py",
        "{workspace} -d 4 --cases 4 --judged 2 --folds 2 --steps 2",
        ("4 held-out cases", "2 unseen cases"),
    ),
)
BENCHMARKS = (*ALONE, *BESIDE_NNUNET, METRICS)
STARTED_BY = {
    "gpu_overview_part.py": "gpu_overview.py",
    "measure_convolution_faults.py": "convolution_faults.py",
    "measure_busy_machine.py": "busy_machine.py",
    "measure_fidelity.py": "fidelity.py",
    "measure_metrics.py": "metrics.py",
    "measure_prediction.py": "prediction.py",
    "measure_resampling.py": "preprocessing.py",
    "measure_scale.py": "scale.py",
    "measure_training_step.py": "training_step.py",
    "nnunet_twin.py": "prediction.py",
}
"""Programs that a script starts as processes of their own."""


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of made-up data: the task, two of its scans, label maps and their predictions, a workspace, a model."""
    root = tmp_path_factory.mktemp("benchmarks")
    names = ("workspace", "model", "scans", "labels", "masks")
    folders = {"task": write_hippocampi(root), **{name: root / name for name in names}}
    for name in ("hippocampus_001.nii.gz", "hippocampus_002.nii.gz"):
        label = read_label_map(folders["task"] / "labelsTr" / name)
        write_label_map(folders["labels"] / name, label)
        shifted = Volume(array=label.array[::-1].copy(), geometry=label.geometry)
        write_label_map(folders["masks"] / name, shifted)
        folders["scans"].mkdir(exist_ok=True)
        (folders["scans"] / name).symlink_to(folders["task"] / "imagesTr" / name)
    make_model(folders["model"], classes=3, spacing_mm=(1.0, 1.0, 1.0), patch=(16, 16, 16), features=4)
    with patch("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000):
        import_hippocampus(folders["task"], Workspace(root=folders["workspace"]))
        autoseg.plan_and_preprocess(NUMBER, preset="small", workspace=folders["workspace"])
    return folders


@pytest.fixture
def folders(made_up: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The folders of made-up data, and an empty folder."""
    return {**made_up, "fresh": tmp_path}


def run(benchmark: Benchmark, folders: dict[str, Path], *further: object) -> str:
    """Runs a script and gives back its output."""
    words = shlex.split(benchmark.options.format(**folders))
    command = [sys.executable, FOLDER / benchmark.script, *words, *further]
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        check=False,
        text=True,
        cwd=folders["fresh"],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^Measured on: .*\d+ cores, .*; networks in \w+; torch \d", done.stdout, re.MULTILINE), (
        done.stdout
    )
    return done.stdout


def rows_of(output: str) -> list[list[str]]:
    """The cells of all rows of tables, without the lines under their heads."""
    lines = [line.strip() for line in output.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def find_row(output: str, beginning: str) -> list[str]:
    """The last row that begins so; fails if there is none."""
    rows = [row for row in rows_of(output) if row[0].startswith(beginning)]
    assert rows, f"no row of {beginning!r} in\n{output}"
    return rows[-1]


def environment(variable: str) -> str:
    """The interpreter that an environment variable names; skips without one."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} does not name the python of an environment with the other program")
    return python


def by_script(benchmark: Benchmark) -> str:
    """The name of a benchmark in its test."""
    return benchmark.script.removesuffix(".py")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("benchmark_run", BENCHMARKS, ids=by_script)
def test_runs_without_other_programs(benchmark_run: Benchmark, folders: dict[str, Path]) -> None:
    """Every row that the script is to print is there, with a figure."""
    output = run(benchmark_run, folders)
    for beginning in benchmark_run.rows:
        assert re.search(r"\d", "|".join(find_row(output, beginning)[1:])), output
    if benchmark_run.script == "gpu_overview.py":
        parts = json.loads((folders["fresh"] / "gpu_overview.json").read_text(encoding="utf-8"))["parts"]
        assert {name: part["problem"] for name, part in parts.items()} == dict.fromkeys(LIMITS, "")
        assert all(part["rows"] for part in parts.values())
    if benchmark_run.script == "gpu_training.py":
        report = (folders["fresh"] / "report.md").read_text(encoding="utf-8")
        assert report.startswith("Measured on: ")
        assert "fold 0" in report


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("benchmark_run", [*BESIDE_NNUNET, FIDELITY], ids=by_script)
def test_runs_beside_nnunet(benchmark_run: Benchmark, folders: dict[str, Path]) -> None:
    """Nothing fails, and a row compares both programs."""
    output = run(benchmark_run, folders, "--nnunet", environment(NNUNET_VARIABLE))
    if benchmark_run is REFERENCE_PLANS:
        assert "planned by autoseg alone" not in output
        assert "the same in every decision" in output or "not planned by nnU-Net" in output
    elif benchmark_run is FINGERPRINT:
        assert "Shapes and spacings of all cases agree: yes." in output
        assert re.search(r"nnU-Net takes \d+\.\d times as long", output)
    elif benchmark_run is FIDELITY:
        for program in benchmark_run.rows:
            seed, dice = find_row(output, program)[1:3]
            assert (seed, 0 <= float(dice) <= 1) == ("2", True)
        first, last = (find_row(output, epoch)[1:] for epoch in ("1", "2"))
        assert all(re.fullmatch(r"-?\d+\.\d+ \(-?\d+\.\d+ to -?\d+\.\d+\)", cell) for cell in (*first, *last))
        again = run(benchmark_run, folders, "--nnunet", environment(NNUNET_VARIABLE))
        assert rows_of(again) == rows_of(output)  # nothing is trained twice
    else:
        compared = [find_row(output, beginning) for beginning in benchmark_run.rows if beginning != "48 x 41"]
        assert all(re.fullmatch(r"\*\*\d+\.\d\*\* \(\d+\.\d\)", row[3]) for row in compared), output


@pytest.mark.slow
def test_metrics_beside_monai(folders: dict[str, Path]) -> None:
    """MONAI is among the packages that tests need, so its half runs everywhere; both programs agree."""
    output = run(METRICS, folders, "--peer", sys.executable, "--packages", "monai")
    assert rows_of(output)[-6][2:] == ["MONAI", "largest difference"]
    for metric in ("dice", "iou", "nsd", "hd95_mm", "assd_mm"):
        assert float(find_row(output, metric)[3]) < 1e-4


@pytest.mark.slow
def test_metrics_beside_monai_and_medpy(folders: dict[str, Path]) -> None:
    """The columns of both packages are filled."""
    output = run(METRICS, folders, "--peer", environment(PEER_VARIABLE))
    assert all(re.fullmatch(r"[\d.e+-]+", cell) for cell in find_row(output, "hd95_mm")[1:])


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.timeout(600)
def test_runs_on_real_scans(folders: dict[str, Path]) -> None:
    """The commands take the dataset of the Decathlon itself."""
    if not (REALDATA / TASK).is_dir():
        pytest.skip("no real scans beside the checkout")
    output = run(Benchmark("fingerprint.py", "{task} {fresh} --pairs 1", ()), {**folders, "task": REALDATA / TASK})
    assert find_row(output, "autoseg, all 260 cases")[1]


def test_no_script_is_forgotten() -> None:
    """Every program of the folder is run here, or started by one that is."""
    programs = {path.name for path in FOLDER.glob("*.py") if "\nif __name__ ==" in path.read_text("utf-8")}
    assert programs == {benchmark.script for benchmark in (*BENCHMARKS, FIDELITY)} | set(STARTED_BY)
    for program, starter in STARTED_BY.items():
        assert program.removesuffix(".py") in (FOLDER / starter).read_text("utf-8")
