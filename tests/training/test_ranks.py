"""Two processes take the step that one would take with the whole batch."""

from dataclasses import replace
from functools import partial

import pytest
import rank_work
import torch
from phantoms import Listener
from rank_work import LOSSES, STEPS, save_crowded, save_shares
from small_models import small_run

from autoseg.dataloading.batch import Batch
from autoseg.errors import AutosegError, UsageError
from autoseg.runtime import device
from autoseg.training import ranks as ranks_module
from autoseg.training.launch import launch
from autoseg.training.memory_trial import advise_on_memory
from autoseg.training.ranks import (
    ALONE,
    Ranks,
    check_device,
    check_shares,
    find_ranks,
    is_distributed,
    is_main_process,
)
from autoseg.training.step import split_batch


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """Returns the values that each of two ranks calculated."""
    folder = tmp_path_factory.mktemp("shares")
    assert launch(partial(save_shares, folder, "cpu"), 2, "cpu", Listener()) == 2
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture
def in_float32(monkeypatch):
    """Makes networks calculate in float32 on any hardware."""
    monkeypatch.setattr(device, "precision", lambda _: torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_shares_add_up_to_the_loss_of_the_batch(shares, name):
    """Gradients add up too, patch by patch: of five patches the first rank has three."""
    loss, gradient = LOSSES[name].share()
    found = [share["losses"][name] for share in shares]
    assert sum(value for value, _ in found) == pytest.approx(loss, abs=1e-6)
    for rank, (_, part) in enumerate(found):
        torch.testing.assert_close(part, gradient[rank::2], atol=1e-7, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("name", STEPS)
def test_gradients_are_those_of_the_whole_batch(shares, name):
    """They are so on every rank, and each rank knows the loss of the batch."""
    loss, gradients = rank_work.one_step(name)
    assert gradients.abs().max() > 0.01
    for share in shares:
        value, found = share["steps"][name]
        assert value.item() == pytest.approx(loss.item(), abs=1e-5)
        torch.testing.assert_close(found, gradients, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_ranks_take_as_many_parts_as_the_smallest_memory_asks_for(tmp_path):
    """Each rank tries alone before the first step only, and nothing of the trial is left."""
    launch(partial(save_crowded, tmp_path, "cpu"), 2, "cpu", Listener())
    roomy, crowded = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert roomy["tried"] == [[3, 2, 1], [2, 1]]
    assert crowded["tried"] == [[2, 1, 1, 1, 1], [1, 1]]
    assert (roomy["size"], crowded["size"]) == (None, 1)
    assert (roomy["measured"], crowded["measured"]) == ({}, {2: 700_000})
    [line] = roomy["said"]
    assert "its share of a step of 2 patches at once; from now on each of the 2 processes takes 2 at a time" in line
    for share in (roomy, crowded):
        assert share["counted"] == 4  # two parts in each of two steps
        assert all(torch.equal(found, roomy["gradients"][0]) for found in share["gradients"])


def test_memory_that_fills_up_later_ends_several_ranks():
    """Their advice differs from that of a single process."""
    assert "set a smaller micro_batch_size in plan.json, and run the same command" in advise_on_memory(Ranks(count=2))
    assert advise_on_memory(ALONE).endswith("plan again with less --memory")


@pytest.mark.slow
def test_all_follow_the_clock_of_the_first(shares):
    """So a limit of seconds ends all ranks after the same step."""
    assert [share["pace"] for share in shares] == [10.0, 10.0]


@pytest.mark.slow
def test_values_of_any_kind_are_shared_and_collected(shares):
    """All ranks get the value of the main rank, or those of all in their order, of any length."""
    for share in shares:
        assert share["shared"] == "folder 0"
        assert share["collected"] == [[0], [1, 1]]


def test_alone_nothing_happens():
    """Values, networks and clocks are returned as they are."""
    values, network = torch.ones(3, requires_grad=True), torch.nn.Linear(2, 2)
    assert ALONE.all_reduce(values) is ALONE.all_reduce_with_gradient(values) is ALONE.equal_share(values) is values
    assert ALONE.wrap_ddp(network, ["bias"]) is network
    assert (ALONE.broadcast_float(2.5), ALONE.all_reduce_max(-1)) == (2.5, -1)
    assert (ALONE.broadcast("name"), ALONE.all_gather(7)) == ("name", [7])
    ALONE.barrier()
    ALONE.shutdown()
    assert find_ranks(torch.device("cpu"), {}) == (ALONE, torch.device("cpu"))


@pytest.mark.parametrize("number", [0, 3, 8])
@pytest.mark.parametrize(("ranks", "matching"), [(1, 0.0), (2, 0.0), (2, 0.5), (3, 1.0)])
def test_shares_of_batches_make_up_the_batch(number, ranks, matching):
    """They are equal bit for bit, or up to rounding if a device augments the patches."""
    for augmentation_device in (None, torch.device("cpu")):
        batches = batches_of(5, matching, augmentation_device)
        whole = batches.make(number)
        parts = [replace_share(batches, rank, ranks).make(number) for rank in range(ranks)]
        for rank, part in enumerate(parts):
            assert torch.equal(part.labels, whole.labels[rank::ranks])
            torch.testing.assert_close(
                part.images, whole.images[rank::ranks], atol=1e-4 if augmentation_device else 0, rtol=0
            )


def batches_of(size, matching, augmentation_device):
    """Returns augmented batches of some number of patches."""
    batches = small_run().training
    augmentation = batches.configuration.augmentation.model_copy(update={"histogram_matching_probability": matching})
    configuration = batches.configuration.model_copy(update={"batch_size": size, "augmentation": augmentation})
    return replace(batches, configuration=configuration, augmentation_device=augmentation_device)


def replace_share(batches, rank, ranks):
    """Returns the batches of one of several ranks."""
    return replace(batches, share=(rank, ranks))


def test_every_rank_makes_as_many_parts(monkeypatch):
    """Parts are as even as possible; if one rank has too few patches, all end with one line."""
    batch = Batch(images=torch.zeros(2, 1, 2, 2), labels=torch.zeros(2, 2, 2))
    others = iter([2, 0])  # three patches, of which two fit at once
    monkeypatch.setattr(Ranks, "all_reduce_max", lambda _, value: max(value, next(others)))
    assert [len(part.images) for part in split_batch(batch, 2, Ranks(count=2))] == [1, 1]
    others = iter([3, 1])
    with pytest.raises(
        UsageError, match="2 processes cannot share a batch evenly in micro-batches of 1; raise batch_s"
    ):
        next(split_batch(batch, 1, Ranks(count=2)))


def test_too_few_patches_and_gpus_are_one_line(monkeypatch):
    """Each line says what to do."""
    with pytest.raises(UsageError, match="a batch of 2 patches cannot be shared among 3 processes; take at most 2, or"):
        check_shares(Ranks(count=3), 2)
    check_shares(Ranks(count=2), 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="this machine has 1 CUDA GPUs, not 2; ask for fewer"):
        check_device(torch.device("cuda"), 2)
    for name in ("cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"several processes cannot share {name}; choose --device cuda"):
            check_device(torch.device(name), 2)


def test_ranks_that_see_other_files_are_told(monkeypatch):
    """They end before one of them trains on from another step."""
    ranks = Ranks(number=1, count=2)
    monkeypatch.setattr(Ranks, "broadcast_float", lambda *_: 6.0)
    monkeypatch.setattr(Ranks, "all_reduce_max", lambda _, value: value)
    ranks.check_same_step(6, "checkpoint.pt")
    with pytest.raises(
        AutosegError, match=r"not all processes see the same checkpoint.pt; this one is at step 0, the f"
    ):
        ranks.check_same_step(0, "checkpoint.pt")


def test_environment_says_who_speaks():
    """The variables of torchrun tell the main process from the others."""
    assert is_distributed({"WORLD_SIZE": "2", "RANK": "0"})
    assert not is_distributed({"WORLD_SIZE": "1", "RANK": "0"})
    assert not is_distributed({"WORLD_SIZE": "2"})
    assert not is_distributed({})
    assert is_main_process({})
    assert is_main_process({"WORLD_SIZE": "2", "RANK": "0"})
    assert not is_main_process({"WORLD_SIZE": "2", "RANK": "1"})
    assert ranks_module.TIMEOUT.days > 1  # a validation may take a night
