"""The probe of the speed; its passes are timed by a pretended clock."""

import pytest
import torch

from autoseg.models import speed
from autoseg.models.speed import BATCH, PATCH, design_probe, measure_potential, measure_speed
from autoseg.networks.architecture import count_multiply_adds
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.runtime import device as device_room
from autoseg.runtime.machine import identify_machine

CPU = torch.device("cpu")
WORK = BATCH * count_multiply_adds(design_probe(), PATCH)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of the passes in training and in prediction, instead of those that they take."""
    seconds = [0.5, 0.1]
    remaining = iter(seconds)
    monkeypatch.setattr(speed, "time_fastest", lambda *_, **__: next(remaining))
    measure_speed.cache_clear()
    yield seconds
    measure_speed.cache_clear()


def test_speed_is_work_by_time(passes: list[float]) -> None:
    """In training a pass counts three times the multiply-adds of the forward pass."""
    measured = measure_speed(CPU)
    assert measured.training == pytest.approx(3 * WORK / passes[0])
    assert measured.prediction == pytest.approx(WORK / passes[1])
    assert (measured.machine, measured.device) == (identify_machine(), "cpu")
    assert measure_speed(CPU) is measured  # another measurement would find no pass


@pytest.mark.parametrize(("exact", "precision"), [(False, "bfloat16"), (True, "float32")])
@pytest.mark.usefixtures("passes")
def test_speed_names_its_precision(exact: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of training, unless float32 is asked for."""
    monkeypatch.setattr(device_room, "_cpu_has_bfloat16", lambda: True)
    assert measure_speed(CPU, exact=exact).precision == precision


def test_both_passes_are_calculated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward in training, forward alone in prediction, on whole patches of the preset."""
    monkeypatch.setattr(speed, "ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(speed, "PATCH", (16, 16, 16))
    measure_speed.cache_clear()
    measured = measure_speed(CPU)
    measure_speed.cache_clear()
    assert measured.training > 0
    assert measured.prediction > 0


def test_the_fastest_pass_counts_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first chooses algorithms; other programs can only slow the others down."""
    moments = iter([0.0, 0.001, 1.0, 1.0, 1.3, 1.3, 1.3, 1.5, 1.5, 1.5, 1.9, 1.9])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(moments))
    assert speed.time_fastest(lambda: None, CPU, enough_seconds=speed.ENOUGH_SECONDS) == pytest.approx(0.2)


def speeds(training: list[float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretends measurements; returns the numbers of threads that they were taken with."""
    threads: list[int] = []

    class Measure:
        def __call__(self, _: torch.device) -> MachineSpeed:
            threads.append(torch.get_num_threads())
            value = training[len(threads) - 1]
            return MachineSpeed(machine="any", device="cpu", precision="float32", training=value, prediction=value)

        __wrapped__ = __call__

    monkeypatch.setattr(speed, "measure_speed", Measure())
    return threads


@pytest.fixture
def two_threads() -> None:
    """Torch calculates with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("training", "fastest", "threads"), [([45e9], 45e9, [2]), ([2e9, 20e9], 20e9, [2, 1]), ([9e9, 5e9], 9e9, [2, 1])]
)
def test_a_busy_machine_is_measured_with_one_thread(
    training: list[float], fastest: float, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that wait for each other must not make a plan smaller; the number of threads is as before."""
    used = speeds(training, monkeypatch)
    assert measure_potential(CPU).training == fastest
    assert used == threads
    assert torch.get_num_threads() == 2
