"""Copies of tensors: equal to the originals, independent of them, and in the same memory each time."""

import io

import torch
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda

from autoseg.runtime.tensor_copies import TensorCopies


def saved(content):
    """Returns the bytes that torch saves."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def make_state():
    """Returns a nested value, in which two tensors share their memory and one has its channels last."""
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    return {
        "weights": {"conv": weight, "bias": torch.randn(4), "none": torch.empty(0)},
        "training": [{"weights": {"conv": weight.detach()}, "momentum": (torch.randn(3), None)}, 7, "text", 0.5],
    }


def test_a_copy_is_saved_as_the_original_would_be():
    """Values, order of memory, and memory that is shared are the same."""
    state = make_state()
    copied = TensorCopies().take(state)
    assert saved(copied) == saved(state)
    assert copied["training"][0]["weights"]["conv"].data_ptr() == copied["weights"]["conv"].data_ptr()
    assert copied["weights"]["conv"].is_contiguous(memory_format=torch.channels_last)


def test_a_copy_stays_when_the_original_changes():
    """It has no gradient either."""
    weight = torch.nn.Parameter(torch.zeros(3))
    copied = TensorCopies().take([weight])
    weight.data += 1
    assert torch.equal(copied[0], torch.zeros(3))
    assert not copied[0].requires_grad


def test_the_next_copy_takes_the_same_memory():
    """Of tensors that keep their shape; others get new memory."""
    copies = TensorCopies()
    first = copies.take([torch.zeros(3), torch.zeros(2), torch.zeros(4)])
    second = copies.take([torch.ones(3), torch.ones(5), torch.ones(4)])
    same = [one.data_ptr() == other.data_ptr() for one, other in zip(first, second, strict=True)]
    assert same == [True, False, True]
    assert torch.equal(first[0], torch.ones(3))
    assert [tensor.sum().item() for tensor in second] == [3, 5, 4]


@requires_pretended_cuda
def test_the_program_waits_once_for_all_tensors_of_a_gpu():
    """Not once for each, because all of them are copied into pinned memory."""
    with pretended_cuda() as counts:
        state = {name: torch.zeros(3, number + 1, device=CUDA) for number, name in enumerate("abc")}
        copies = TensorCopies()
        copies.take(state)
        counts.reset()
        copied = copies.take(state)
    assert [kind for _, kind, _ in counts.waits] == ["synchronize"]
    assert {tensor.device.type for tensor in copied.values()} == {"cpu"}
