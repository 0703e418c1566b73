"""Tests of networks that are compiled in the middle of a long prediction."""

import pytest
import torch

from autoseg.inference import late_compilation
from autoseg.inference.late_compilation import COMPILE_AFTER_SECONDS, LateCompiler
from autoseg.inference.network_predictor import NetworkPredictor

CPU = torch.device("cpu")
MINUTES, PAUSE = int(COMPILE_AFTER_SECONDS) + 2, 3600.0


class Clock:
    """A clock of which each look at it costs a second, or more."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def monotonic(self) -> float:
        """The time."""
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A clock, and a device on which compiling pays off."""
    clock = Clock()
    monkeypatch.setattr(late_compilation, "time", clock)
    monkeypatch.setattr(late_compilation, "compiles_well", lambda _: True)
    return clock


@pytest.fixture
def compiled(monkeypatch):
    """The shapes of the batches that a compiled network got."""
    shapes = []

    def compile_network(network, **_options):
        def call(patches):
            shapes.append(tuple(patches.shape))
            return network(patches)

        return call

    monkeypatch.setattr(torch, "compile", compile_network)
    return shapes


@pytest.mark.usefixtures("clock")
def test_a_network_is_compiled_after_some_minutes_for_the_usual_shape(compiled):
    """Batches of other shapes, such as the last one of an image, run as they are."""
    network = LateCompiler(torch.nn.Identity(), CPU)
    for _ in range(MINUTES):
        network(torch.zeros(1, 3))
    before = len(compiled)
    for number in (2, 1, 2, 1):
        assert network(torch.zeros(number, 3)).shape == (number, 3)
    assert before <= 1
    assert compiled[before:] == [(1, 3), (1, 3)]


def test_pauses_do_not_count(compiled, clock):
    """A program that segments a scan each hour never compiles."""
    network = LateCompiler(torch.nn.Identity(), CPU)
    clock.step = PAUSE
    for _ in range(MINUTES):
        network(torch.zeros(1, 3))
    assert not compiled


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.usefixtures("clock")
def test_predictors_compile_unless_they_are_exact(compiled, exact):
    """An exact one gives the same digits from the first scan to the last."""
    predictor = NetworkPredictor(torch.nn.Identity(), CPU, exact=exact)
    for _ in range(MINUTES + 5):
        predictor(torch.zeros(1, 3))
    assert bool(compiled) != exact


def test_a_cpu_does_not_compile(compiled, monkeypatch):
    """There it does not pay off."""
    monkeypatch.setattr(late_compilation, "time", Clock())
    network = LateCompiler(torch.nn.Identity(), CPU)
    for _ in range(MINUTES + 5):
        network(torch.zeros(1, 3))
    assert not compiled


@pytest.mark.usefixtures("clock")
def test_a_network_that_cannot_be_compiled_runs_as_it_is(monkeypatch):
    """One warning names the cause."""

    def fail(_patches):
        raise RuntimeError("no C compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda _network, **_options: fail)
    network = LateCompiler(torch.nn.Identity(), CPU)
    patches = torch.ones(1, 3)
    with pytest.warns(UserWarning, match="compiling it failed: no C compiler$") as warned:
        results = [network(patches) for _ in range(MINUTES + 5)]
    assert all(torch.equal(result, patches) for result in results)
    assert len(warned) == 1


@pytest.mark.usefixtures("clock")
def test_a_full_memory_is_left_to_the_predictor(monkeypatch):
    """It halves the batch; the network stays compiled."""

    def fail(patches):
        if len(patches) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return patches

    monkeypatch.setattr(torch, "compile", lambda _network, **_options: fail)
    predictor = NetworkPredictor(torch.nn.Identity(), CPU)
    for _ in range(MINUTES + 5):
        assert predictor(torch.ones(2, 3)).shape == (2, 3)
    assert predictor.most_patches == 1
