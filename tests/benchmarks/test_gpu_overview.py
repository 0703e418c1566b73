"""gpu_overview.py needs few packages, survives its parts, and writes what it measured into the table of decisions."""

import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import gpu_overview
import gpu_overview_loop
import gpu_overview_report
import pytest
import torch
from gpu_overview_plans import Choice

from autoseg.runtime.gpu_decisions import FILE, GpuDecisions

FOLDER = Path(__file__).parent
ABSENT = (
    "SimpleITK",
    "skimage",
    "batchgenerators",
    "acvl_utils",
    "pandas",
    "blosc2",
    "threadpoolctl",
    "typer",
    "rich",
    "matplotlib",
    "monai",
    "einops",
    "nibabel",
    "dynamic_network_architectures",
)
"""Packages that a machine with a GPU may lack."""

WITHOUT = f"""
import importlib, sys, runpy
for name in {ABSENT!r}:
    sys.modules[name] = None
"""
MACHINE = {"line": "Measured on: a GPU", "device": "a GPU", "capability": [9, 0], "torch": "2.11"}
ARGUMENTS = Namespace(device="cpu", tiny=True, hippocampus=None, minutes=5.0, parts=["ceilings", "tiles"], report=None)


def python(code, **options):
    """Runs some code in a process of its own, without the packages that may be absent."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        capture_output=True,
        text=True,
        check=False,
        env=gpu_overview.environment(),
        cwd=FOLDER,
        **options,
    )


def test_parts_and_gpu_tests_do_without_most_packages():
    """They import torch, numpy, scipy and pydantic, and the tests pytest and hypothesis."""
    tests = [path for path in FOLDER.parent.glob("*/**/test_*.py") if "mark" + ".gpu" in path.read_text("utf-8")]
    folders = sorted({str(path.parent) for path in tests})
    names = ["gpu_overview_part", "conftest", *(path.stem for path in tests if path.parent != FOLDER)]
    code = f"sys.path += {[str(FOLDER.parent), *folders]!r}\nfor name in {names!r}: importlib.import_module(name)"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_missing_packages_are_named(monkeypatch, capsys):
    """Without one that is needed nothing begins; the others are only for some parts."""
    installed = {"torch", "numpy", "scipy", "triton"}
    monkeypatch.setattr(gpu_overview.importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert not gpu_overview.check_packages()
    printed = capsys.readouterr().out
    assert "missing: pydantic, without which nothing can be measured" in printed
    assert "missing: pytest, which is only for the tests for GPUs" in printed
    assert "triton" not in printed


@pytest.fixture
def part(monkeypatch, tmp_path):
    """Puts a program in the place of the parts."""

    def put(code):
        (tmp_path / "gpu_overview_part.py").write_text(code, encoding="utf-8")
        monkeypatch.setattr(gpu_overview, "FOLDER", tmp_path)

    return put


ROW = 'import time; print(\'ROW {"what": "a", "ms": 1}\', flush=True); '


def test_rows_of_a_part_that_crashes_count(part, capsys):
    """Its last line of errors is the reason; rows are printed."""
    part(ROW + "raise ValueError('no kernel image')")
    rows, problem = gpu_overview.run_part("tiles", ARGUMENTS, 60)
    assert rows == [{"what": "a", "ms": 1}]
    assert problem == "ended with code 1: ValueError: no kernel image"
    assert "a: ms 1" in capsys.readouterr().out


def test_a_part_that_hangs_is_ended(part):
    """It has so many seconds, and its rows until then count."""
    part(ROW + "time.sleep(600)")
    started = time.monotonic()
    rows, problem = gpu_overview.run_part("tiles", ARGUMENTS, 3)
    assert time.monotonic() - started < 60
    assert len(rows) == 1
    assert problem == "stopped after 3 s; the rows until then count"


def test_parts_follow_each_other_and_are_reported(part, tmp_path):
    """A crash in the first one does not keep the second one; both reports are there."""
    machine = json.dumps(MACHINE)
    part(
        f"import sys; name = sys.argv[1]\nif name == 'machine': print('ROW ' + {machine!r})\n"
        'elif name == \'ceilings\': raise SystemExit(3)\nelse: print(\'ROW {"what": "b", "fast": true}\')'
    )
    results = gpu_overview.measure(Namespace(**{**vars(ARGUMENTS), "report": tmp_path / "out"}))
    assert results["parts"]["ceilings"]["problem"].startswith("ended with code 3")
    assert results["parts"]["tiles"]["rows"] == [{"what": "b", "fast": True}]
    assert json.loads((tmp_path / "out" / "gpu_overview.json").read_text("utf-8")) == results
    table = (tmp_path / "out" / "gpu_overview.md").read_text("utf-8")
    assert table.startswith("Measured on: a GPU\n")
    assert "| b | yes |" in table


def test_parts_are_left_out_when_the_time_is_over(part, tmp_path):
    """The report says so."""
    part(f"print('ROW ' + {json.dumps(MACHINE)!r})")
    results = gpu_overview.measure(Namespace(**{**vars(ARGUMENTS), "report": tmp_path, "minutes": 0.0}))
    assert {found["problem"] for found in results["parts"].values()} == {"left out: no time was left"}


def step(what, ms, *, channels_last=True, compiled=False):
    """A row of the part "steps"."""
    return {"what": what, "channels_last": channels_last, "compiled": compiled, "ms_per_step": ms}


def loop(voxels, cores, where, ms):
    """A row of the part "loop"."""
    return {"what": "plan", "voxels": voxels, "cores": cores, "augmented_on": where, "ms_per_step": ms}


STEPS = [
    step("plain", 10),
    step("plain", 15, channels_last=False),
    step("residual", 12),
    step("residual", 10, channels_last=False),
    {"what": "plain", "convolutions_alone_ms": 5},
    step("plain", 11, compiled=True),
]
LOOP = [
    loop(1000, 16, "device", 9.0),
    loop(1000, 16, "cpu", 7.0),
    loop(1000, 4, "device", 9.0),
    loop(1000, 4, "cpu", 20.0),
    loop(5000, 16, "cpu", 20.0),
]


def results_with(steps=(), looped=(), capability=(9, 0)):
    """The results of a GPU."""
    parts = {"steps": {"rows": list(steps)}, "loop": {"rows": list(looped)}}
    return {"machine": {**MACHINE, "capability": capability and list(capability)}, "parts": parts}


def test_decisions_follow_from_what_was_measured():
    """Orders and compiling by the mean of the ratios over the plans, places of augmentation by size and cores."""
    rows = gpu_overview_report.decide(results_with(STEPS, LOOP))
    assert [row.choice for row in rows["channels_last"]] == [True]  # 1.5 times and 0.83 times
    assert [row.choice for row in rows["compile"]] == [False]
    places = [(row.most_voxels, row.least_cores, row.choice) for row in rows["augment_on_device"]]
    assert places == [(1000, 16, False), (1000, 4, True), (None, None, True)]
    assert {row.measured_on for row in rows["compile"]} == {"a GPU, torch 2.11"}
    assert gpu_overview_report.decide(results_with()) == {name: [] for name in rows}


def test_update_replaces_the_rows_of_the_same_gpu_only(tmp_path):
    """Beliefs and other GPUs stay, behind the new rows; what was not measured stays."""
    path = tmp_path / "decisions.json"
    path.write_text(FILE.read_text("utf-8"), encoding="utf-8")
    before = GpuDecisions.load(path)
    list(gpu_overview_report.update_decisions(results_with(STEPS, LOOP, (8, 0)), path))
    list(gpu_overview_report.update_decisions(results_with(STEPS, LOOP), path))
    slower = [step("plain", 10), step("plain", 9, channels_last=False)]
    lines = list(gpu_overview_report.update_decisions(results_with(slower), path))
    table = GpuDecisions.load(path)
    assert [(row.least_capability, row.choice) for row in table.channels_last[:2]] == [((9, 0), False), ((8, 0), True)]
    assert table.channels_last[2:] == before.channels_last
    assert len(table.augment_on_device) == 6 + len(before.augment_on_device)
    assert "compile: not measured, stays as it is" in lines


def test_a_cpu_decides_nothing(tmp_path):
    """The table is left alone."""
    [line] = gpu_overview_report.update_decisions(results_with(STEPS, LOOP, None), tmp_path / "absent.json")
    assert "is no CUDA GPU" in line


@pytest.mark.slow
def test_cases_are_made_up_where_no_workspace_is_named(capsys):
    """They are trained on for a while."""
    gpu_overview_loop.train_for_a_while(Choice(device=torch.device("cpu"), tiny=True))
    row = json.loads(capsys.readouterr().out.removeprefix("ROW "))
    assert row["what"] == "hippocampus, made up"
    assert row["steps"] > 0
    assert 0 <= row["pseudo_dice"] <= 1
