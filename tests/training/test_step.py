"""Gradients of a step in micro-batches, after a full memory, and when compiled are those of the whole batch."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from full_memory import FULL, Fullness
from phantoms import Listener
from small_models import small_run, small_state
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.errors import AutosegError
from autoseg.runtime import device
from autoseg.runtime.reporting import SILENT
from autoseg.training.compilation import choose_forward
from autoseg.training.cuda_graphs import captures_graphs
from autoseg.training.loop import train_fold, train_step
from autoseg.training.memory_trial import fill_gradients
from autoseg.training.ranks import Ranks
from autoseg.training.state import pack_state, unpack_state
from autoseg.training.step import move_batch, split_batch


@pytest.fixture
def in_float32(monkeypatch):
    """Makes networks calculate in float32 on any hardware."""
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)


def a_batch(patches=5):
    """Returns noise, and labels that fill more of each patch than of the one before."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.zeros(patches, 8, 8, 8, dtype=torch.int64)
    for number in range(patches):
        labels[number, :number, 1:5], labels[number, 5:, : 8 - number] = 1, 2
    return Batch(images=torch.randn(patches, 1, 8, 8, 8, generator=generator), labels=labels)


def gradients(state):
    """Returns the gradients of all weights, one after the other."""
    return torch.cat([weights.grad.flatten() for weights in state.network.parameters() if weights.grad is not None])


# --- Micro-batches ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_parts_add_up_to_the_whole_batch(size):
    """Loss and gradients are equal, also where the last part is smaller."""
    results = []
    for number in (None, size):
        run = small_run(micro_batch_size=number)
        state = small_state(run)
        loss = fill_gradients(state, a_batch(), run, SILENT)
        results.append((loss, gradients(state)))
    (loss, whole), (loss_of_parts, parts) = results
    assert loss_of_parts.item() == pytest.approx(loss.item(), abs=1e-6)
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


def test_parts_are_as_small_as_asked():
    """So only the feature maps of a part are kept in memory."""
    run = small_run(micro_batch_size=2)
    state = small_state(run)
    memory = Fullness(state.network, most=8)
    fill_gradients(state, a_batch(), run, SILENT)
    assert memory.tried == [2, 2, 1]


def test_gradients_are_those_of_the_last_batch_alone():
    """Gradients are not added up over steps."""
    run = small_run(micro_batch_size=2)
    state = small_state(run)
    fill_gradients(state, a_batch(), run, SILENT)
    first = gradients(state).clone()
    fill_gradients(state, a_batch(), run, SILENT)
    assert torch.equal(gradients(state), first)


def test_batch_is_split_and_moved_whole():
    """Each field keeps its patches, in their order."""
    batch = a_batch()
    parts = list(split_batch(move_batch(batch, torch.device("cpu")), 2))
    assert [len(part.images) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)


# --- Full memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [FULL, RuntimeError("MPS backend out of memory")])
@pytest.mark.parametrize(("most", "found", "tried"), [(4, 3, [5, 3, 2]), (1, 1, [5, 3, 2, 1, 1, 1, 1, 1])])
def test_full_memory_halves_the_parts_and_leaves_nothing_behind(error, most, found, tried):
    """Gradients and random numbers are bit for bit those of a run that knew the size before."""
    results = []
    for size in (None, found):
        run = small_run(micro_batch_size=size)
        state = small_state(run)
        state.network.stem = nn.Dropout(0.5)
        memory = Fullness(state.network, most, error)
        torch.manual_seed(11)
        loss = fill_gradients(state, a_batch(), run, SILENT)
        results.append((loss, gradients(state), torch.get_rng_state()))
        if size is None:
            assert memory.tried == tried
            assert state.micro_batch_size == found
        else:
            assert state.micro_batch_size is None
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_full_memory_is_said_once_and_remembered():
    """The line has the estimate of the plan; later steps, also of a resumed run, begin with what fits."""
    run, listener = small_run(), Listener()
    state = small_state(run)
    memory = Fullness(state.network, most=1)
    batch = a_batch(patches=2)
    for _ in range(2):
        train_step(state, batch, run, listener)
    assert memory.tried == [2, 1, 1, 1, 1]
    [line] = listener.lines
    assert "the memory of the device cpu is too small for a step of 2 patches at once" in line
    assert "plan.json estimates 1 MB" in line
    assert "each step takes 1 at a time" in line
    resumed = small_state(run)
    unpack_state(resumed, pack_state(state), state.weights)
    memory = Fullness(resumed.network, most=1)
    train_step(resumed, batch, run, listener)
    assert memory.tried == [1, 1]
    assert len(listener.lines) == 1


def test_memory_of_a_gpu_is_said_beside_the_estimate(monkeypatch):
    """The line names the memory that was available."""
    monkeypatch.setattr("autoseg.training.memory_trial.gpu_memory_within_reach", lambda _: 700_000)
    run, listener = small_run(), Listener()
    state = small_state(run)
    Fullness(state.network, most=1)
    fill_gradients(state, a_batch(patches=2), run, listener)
    assert "plan.json estimates 1 MB, and 1 MB could be had" in listener.text


def test_what_full_memory_tells_is_noted(monkeypatch):
    """The smallest part that failed needs more than there was; the largest that worked took its peak."""
    monkeypatch.setattr("autoseg.training.memory_trial.gpu_memory_within_reach", lambda _: 700_000)
    monkeypatch.setattr("autoseg.training.memory_trial.peak_bytes", lambda _: 400_000)
    run = small_run()
    state = small_state(run)
    Fullness(state.network, most=2)
    for _ in range(2):
        fill_gradients(state, a_batch(patches=7), run, SILENT)
    assert state.measured_bytes == {
        4: 700_000,
        2: 400_000,
    }  # 7 and 4 patches fail; 2 are tried, in parts of 2, 2, 2 and 1


def test_device_that_tells_nothing_has_nothing_noted():
    """Neither the available memory nor the peak is known."""
    run = small_run()
    state = small_state(run)
    Fullness(state.network, most=1)
    fill_gradients(state, a_batch(patches=2), run, SILENT)
    assert state.measured_bytes == {}


def test_memory_that_is_too_small_for_one_patch_ends_the_run():
    """The error says what to do."""
    run = small_run()
    state = small_state(run)
    memory = Fullness(state.network, most=0)
    with pytest.raises(AutosegError, match=r"memory of the device cpu is full; .* plan again with less --memory"):
        train_fold(state, run, SILENT, lambda _: None)
    assert memory.tried == [2, 1]


def test_other_errors_are_not_tried_again():
    """They are bugs, or problems that another size does not solve."""
    run = small_run()
    state = small_state(run)
    memory = Fullness(state.network, most=0, error=RuntimeError("illegal access"))
    with pytest.raises(RuntimeError, match="illegal access"):
        fill_gradients(state, a_batch(), run, SILENT)
    assert memory.tried == [5]


@pytest.mark.usefixtures("in_float32")
def test_run_in_parts_learns_what_a_whole_one_learns():
    """The weights are equal after several steps of the optimizer, up to rounding."""
    networks = []
    for size in (None, 1):
        run = small_run(epochs=1, micro_batch_size=size)
        state = small_state(run)
        train_fold(state, run, SILENT, lambda _: None)
        networks.append(torch.cat([weights.flatten() for weights in state.network.parameters()]))
    torch.testing.assert_close(*networks, atol=1e-5, rtol=0)


# --- Feature maps that are calculated again ---------------------------------------------------------------------------


@pytest.mark.usefixtures("in_float32")
def test_recomputed_training_is_the_same_to_the_last_bit():
    """Weights, their names and losses are equal; each stage is passed twice as often."""
    results, calls = [], []
    for recomputes in (False, True):
        run = small_run(epochs=2, recompute_activations=recomputes)
        state = small_state(run)
        passed = []
        state.network.encoder[0].register_forward_pre_hook(lambda *_, passed=passed: passed.append(1))
        train_fold(state, run, SILENT, lambda _: None)
        results.append((state.weights, [(report.training_loss, report.validation_loss) for report in state.reports]))
        calls.append(len(passed))
    (usual, losses), (recomputed, losses_again) = results
    assert usual.keys() == recomputed.keys()
    assert all(torch.equal(usual[name], recomputed[name]) for name in usual)
    assert losses == losses_again
    assert calls == [6, 12]  # the held-out patches go through the average of the weights


# --- Compiling --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gpu_beliefs")
@pytest.mark.parametrize(
    ("kind", "setting", "compiled"),
    [("cpu", "auto", False), ("cpu", "on", True), ("cuda", "auto", True), ("cuda", "off", False)],
)
def test_network_is_compiled_where_it_is_worth_it(monkeypatch, kind, setting, compiled):
    """It is compiled on a CUDA GPU, or wherever the plan asks for it."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **_options: asked.append(network) or network)
    monkeypatch.setattr(
        "autoseg.training.compilation.compiles_well", lambda _: device.compiles_well(torch.device(kind))
    )
    run = small_run(compile=setting, epochs=1000)
    state = small_state(run)
    fill_gradients(state, a_batch(), run, SILENT)
    assert asked == ([state.network] if compiled else [])


@pytest.mark.parametrize(
    ("length", "compiled"), [({"budget_seconds": 60}, False), ({"budget_seconds": 3600}, True), ({"epochs": 1}, False)]
)
def test_a_short_training_is_not_worth_a_minute_of_compiling(monkeypatch, length, compiled):
    """It is compiled only if the plan says "on"."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **_options: asked.append(network) or network)
    monkeypatch.setattr("autoseg.training.compilation.compiles_well", lambda _: True)
    run = small_run(**{"epochs": 1000, **length})
    state = small_state(run)
    train_step(state, run.training.make(0), run, SILENT)
    assert bool(asked) == compiled


def test_compiled_network_trains_the_same_weights(monkeypatch):
    """Names are the same and losses nearly; the compiled form is called once per step."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    states = []
    for setting in ("off", "on"):
        run, listener = small_run(epochs=1, compile=setting), Listener()
        state = small_state(run)
        train_fold(state, run, listener, lambda _: None)
        assert len(listener.lines) == 1
        states.append(state)
    plain, compiled = states
    assert plain.forward is plain.network
    assert compiled.forward is not compiled.network
    assert compiled.weights.keys() == plain.weights.keys() == compiled.network.state_dict().keys()
    assert compiled.reports[0].training_loss == pytest.approx(plain.reports[0].training_loss, abs=1e-3)
    assert pack_state(compiled).keys() == pack_state(plain).keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("recomputes", [False, True])
def test_network_compiles_for_real(recomputes):
    """The compiler of the CPU gives nearly the same gradients."""
    results = []
    for setting in ("off", "on"):
        run, listener = small_run(compile=setting, recompute_activations=recomputes), Listener()
        state = small_state(run)
        loss = fill_gradients(state, a_batch(patches=2), run, listener)
        assert listener.lines == []
        results.append((loss, gradients(state)))
    assert results[1][0].item() == pytest.approx(results[0][0].item(), abs=0.01)
    assert (results[1][1] - results[0][1]).norm() < 0.05 * results[0][1].norm()


@pytest.mark.parametrize("at_once", [True, False])
def test_network_that_cannot_be_compiled_runs_as_it_is(monkeypatch, at_once):
    """One line names the cause, whether compiling fails at once or when the network is called."""

    def fail(*_arguments, **_options):
        raise RuntimeError("no working C compiler\nfound: none")

    monkeypatch.setattr(torch, "compile", fail if at_once else lambda *_arguments, **_options: fail)
    results = []
    for setting in ("off", "on"):
        run, listener = small_run(compile=setting), Listener()
        state = small_state(run)
        for _ in range(2):
            loss = train_step(state, a_batch(), run, listener)
        results.append((loss, gradients(state)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    [line] = listener.lines
    assert line.endswith("compiling it failed: no working C compiler")


def test_compiled_network_with_a_full_memory_is_split_like_any_other(monkeypatch):
    """It stays compiled."""
    monkeypatch.setattr(torch, "compile", lambda network, **_options: nn.Sequential(network))
    run = small_run(compile="on")
    state = small_state(run)
    memory = Fullness(state.network, most=2)
    fill_gradients(state, a_batch(patches=4), run, SILENT)
    assert memory.tried == [4, 2, 2]
    assert state.forward is not state.network


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_graphs_are_for_a_cuda_gpu(monkeypatch, kind):
    """Elsewhere the network is compiled without them."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.append(options["mode"]) or network)
    run = small_run(compile="graphs")
    choose_forward(small_state(run).network, replace(run, device=torch.device(kind)))
    assert asked == ["reduce-overhead" if kind == "cuda" else None]
    assert captures_graphs(replace(run, device=torch.device(kind))) == (kind == "cuda")
    assert not captures_graphs(replace(run, device=torch.device("cuda"), ranks=Ranks(count=2)))


class Overwriting(nn.Module):
    """A network whose gradients are overwritten by its next call, as those of a graph are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.returned = network, {}
        for weights in network.parameters():
            weights.register_post_accumulate_grad_hook(self._note)

    def _note(self, weights: nn.Parameter) -> None:
        """Notes a gradient that came from the network; what was added to an earlier one lies elsewhere."""
        if id(weights) not in self.returned:
            self.returned[id(weights)] = weights.grad

    def forward(self, images):
        """Overwrites the gradients of the first micro-batch of a step."""
        for gradient in self.returned.values():
            gradient.fill_(torch.nan)
        if any(weights.grad is not None for weights in self.network.parameters()):
            self.returned = {id(weights): torch.empty(0) for weights in self.network.parameters()}
        else:
            self.returned = {}
        return self.network(images)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradients_of_graphs_add_up_over_micro_batches(monkeypatch, size):
    """Although the first ones are overwritten by the second micro-batch; and the next step begins anew."""
    begun = []
    monkeypatch.setattr("autoseg.training.step.captures_graphs", lambda run: run.settings.compile == "graphs")
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))
    monkeypatch.setattr(torch, "compile", lambda network, **_options: Overwriting(network))
    results = []
    for setting in ("off", "graphs"):
        run = small_run(micro_batch_size=size, compile=setting)
        state = small_state(run)
        losses = [train_step(state, a_batch(), run, SILENT).item() for _ in range(2)]
        results.append((losses, gradients(state)))
    (losses, whole), (losses_of_graphs, parts) = results
    assert len(begun) == 2 * -(-5 // size)
    assert losses_of_graphs == pytest.approx(losses, abs=1e-6)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


# --- Order of the memory ----------------------------------------------------------------------------------------------


def test_weights_with_the_channels_last_are_the_same_weights(monkeypatch):
    """Where a device prefers the order, all networks have it, and checkpoints fit both ways."""
    usual_run = small_run(epochs=1)
    usual = small_state(usual_run)
    train_fold(usual, usual_run, SILENT, lambda _: None)
    monkeypatch.setattr("autoseg.models.build.prefers_channels_last", lambda _: True)
    ordered = small_state(usual_run)
    first = small_state(usual_run).weights
    assert all(torch.equal(ordered.weights[name], value) for name, value in first.items())
    for network in (ordered.network, ordered.average):
        assert network.encoder[1].blocks[0].conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    train_fold(ordered, usual_run, SILENT, lambda _: None)
    assert ordered.reports[0].training_loss == pytest.approx(usual.reports[0].training_loss, abs=1e-3)
    unpack_state(ordered, pack_state(usual), usual.weights)
    assert all(torch.equal(ordered.weights[name], value) for name, value in usual.weights.items())
    assert ordered.network.encoder[1].blocks[0].conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
