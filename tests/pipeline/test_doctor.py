"""What the doctor finds on this machine, and on machines that are worse."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from autoseg.pipeline import doctor
from autoseg.pipeline.convolution_trial import STRIDED, THIN, Trial
from autoseg.pipeline.doctor import (
    Finding,
    examine_convolution,
    examine_folders,
    examine_gradients,
    examine_machine,
    examine_speed,
    examine_torch,
    judge_convolution,
    judge_gradients,
)
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.workspace import Workspace

SPEED = MachineSpeed(machine="any, 2 cores", device="cpu", precision="float32", training=45e9, prediction=64e9)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """One look at this machine."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "SECONDS_PER_PRECISION", 0.05)
        patch.setattr(doctor, "measure_speed", lambda _: SPEED)
        return examine_machine(root)


def test_everything_is_looked_at(findings: list[Finding]) -> None:
    """Versions, cores, memory, a device, a convolution and the folders each have a finding, and none is a failure."""
    titles = [finding.title for finding in findings]
    for title in ("python", "torch", "cores", "memory", "good for", "workspace", "raw", "preprocessed", "results"):
        assert titles.count(title) == 1
    assert any(title.startswith(("device", "GPU")) for title in titles)
    assert any(title.startswith("convolution") for title in titles)
    assert titles.count("gradients on cpu") == 1
    assert [finding for finding in findings if finding.state == "failure"] == []


def test_what_is_not_well_comes_with_advice(findings: list[Finding]) -> None:
    """A finding has advice if and only if something is to be done."""
    for finding in findings:
        assert bool(finding.advice) == (finding.state != "ok")


def test_dependencies_are_those_of_the_package() -> None:
    """The doctor looks at every package that autoseg needs, and at no other."""
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [line.split(">")[0] for line in pyproject["project"]["dependencies"]]
    assert sorted(doctor.DEPENDENCIES) == sorted(needed)


def test_missing_dependency_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is named with the command that installs it."""

    def refuse(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", refuse)
    missing = [finding for finding in doctor.examine_versions() if finding.state == "failure"]
    assert [finding.advice for finding in missing] == [f"pip install {name}" for name in doctor.DEPENDENCIES]


@pytest.mark.parametrize(
    ("version", "trapped"), [("2.9.0+cu128", True), ("2.9.1", True), ("2.13.0", False), ("2.8.0", False)]
)
def test_slow_torch_is_known(version: str, trapped: bool) -> None:
    """The version with slow 3D convolutions in mixed precision is a failure, its neighbours are not."""
    assert [finding.state for finding in examine_torch(version)] == (["failure"] if trapped else [])


def test_slow_mixed_precision_is_a_warning() -> None:
    """Mixed precision must not take longer than float32."""
    assert judge_convolution("c", "times", 0.5).state == "ok"
    slow = judge_convolution("c", "times", 3.0)
    assert (slow.state, "3.0 times slower" in slow.value) == ("warning", True)


def test_convolution_is_timed_in_the_precision_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed precision is judged only where training takes it."""
    monkeypatch.setattr(doctor, "_time_convolution", lambda _, context: 9.0 if context != "mixed" else 18.0)
    monkeypatch.setattr(doctor, "autocast", lambda _: "mixed")
    for dtype, state in ((torch.bfloat16, "warning"), (torch.float32, "ok")):
        monkeypatch.setattr(doctor, "precision", lambda _, dtype=dtype: dtype)
        finding = examine_convolution(torch.device("cpu"))
        assert (finding.state, "18.0" in finding.value) == (state, state == "warning")


def test_a_cpu_is_good_for_the_small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its speed says how long a step and a fold take, and its instruction set why."""
    monkeypatch.setattr(doctor, "measure_speed", lambda _: SPEED)
    monkeypatch.setattr(doctor, "describe_instructions", lambda: "AVX2 without bfloat16")
    finding = examine_speed(torch.device("cpu"))
    assert (finding.title, finding.state) == ("good for", "ok")
    assert finding.value == (
        "preset small: about 0.6 s per training step, a fold of hippocampus in about 50 min; 45 billion multiply-adds "
        "per second in float32 (AVX2 without bfloat16)"
    )


@pytest.mark.parametrize(("gigabytes", "preset"), [(2, "4gb"), (8.5, "8gb"), (24, "24gb"), (141, "80gb")])
def test_a_gpu_is_good_for_the_preset_of_its_memory(
    gigabytes: float, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured there."""
    monkeypatch.setattr(doctor, "gpu_memory_bytes", lambda _: int(gigabytes * 1e9))
    finding = examine_speed(torch.device("cuda"))
    assert finding.value == f"plans up to preset {preset}, by the memory of the GPU"


def test_broken_device_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that fails does not stop the doctor."""

    def fail(*_: object) -> float:
        raise RuntimeError("no kernel image\nsecond line")

    monkeypatch.setattr(doctor, "_time_convolution", fail)
    finding = examine_convolution(torch.device("cpu"))
    assert (finding.state, finding.value) == ("failure", "no kernel image")


def test_fault_of_torch_is_named() -> None:
    """It is no cause for concern unless networks of packages may call torch's convolutions by themselves."""
    assert judge_gradients("g", Trial((), ()), own_networks=True).value == "right"
    avoided = judge_gradients("g", Trial((), (STRIDED, THIN)), own_networks=False)
    assert avoided.state == "ok"
    assert all(words in avoided.value for words in (STRIDED, THIN, torch.__version__, "autoseg avoids"))
    told = judge_gradients("g", Trial((), (STRIDED,)), own_networks=True)
    assert (told.state, "nn.Conv2d" in told.advice) == ("warning", True)
    assert judge_gradients("g", Trial((STRIDED,), (STRIDED,)), own_networks=False).state == "failure"


def test_trial_that_fails_does_not_stop_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known is a warning with the cause."""

    def fail() -> Trial:
        raise RuntimeError("it did not begin within 30 seconds")

    monkeypatch.setattr(doctor, "try_convolutions", fail)
    finding = examine_gradients()
    assert (finding.state, "did not begin within 30 seconds" in finding.value) == ("warning", True)


def test_folders_are_resolved_and_left_alone(tmp_path: Path) -> None:
    """Folders that do not exist yet are judged by their parent, and nothing is made."""
    root = tmp_path / "a" / ".." / "new"
    values = [finding.value for finding in examine_folders(Workspace(root=root))]
    assert values[0].startswith(f"{tmp_path / 'new'} (will be made)")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """A workspace that is a file is a failure with advice."""
    (tmp_path / "file").touch()
    assert {finding.state for finding in examine_folders(Workspace(root=tmp_path / "file"))} == {"failure"}


def test_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little free space is said before it runs out."""
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GIB", float("inf"))
    assert {finding.state for finding in examine_folders(Workspace(root=tmp_path))} == {"warning"}
