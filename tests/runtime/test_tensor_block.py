"""Tensors of a structure come out of their block as they went in."""

from dataclasses import dataclass

import pytest
import torch

from autoseg.runtime.tensor_block import ALIGNMENT_BYTES, TensorBlock, map_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Tensors of several types, nested, beside what is not a tensor."""

    images: torch.Tensor
    pair: tuple[torch.Tensor | None, ...]
    inner: "Parts | None" = None
    axes: tuple[int, ...] = (0, 2)


def make_parts():
    """Odd sizes, an empty tensor, a scalar, and a view of every second column."""
    inner = Parts(images=torch.tensor([True, False, True]), pair=(), axes=())
    odd = torch.arange(15, dtype=torch.int16).reshape(3, 5)[:, ::2]
    return Parts(images=torch.rand(2, 3, 5), pair=(odd, None, torch.zeros(0, 4), torch.tensor(7)), inner=inner)


def flatten(structure):
    """Returns the tensors of a structure."""
    tensors: list[torch.Tensor] = []
    map_tensors(structure, tensors.append)
    return tensors


def test_structure_is_the_same_after_packing():
    """Values, types, shapes and everything else stay."""
    parts = make_parts()
    unpacked = TensorBlock.pack(parts).unpack()
    assert (unpacked.axes, unpacked.inner.axes, unpacked.pair[1]) == ((0, 2), (), None)
    for tensor, before in zip(flatten(unpacked), flatten(parts), strict=True):
        assert (tensor.dtype, tensor.shape) == (before.dtype, before.shape)
        assert torch.equal(tensor, before)


def test_tensors_are_aligned_views_of_one_block():
    """Nothing is copied when a block is unpacked, and each tensor begins where CUDA would let it begin."""
    block = TensorBlock.pack(make_parts())
    start = block.memory.data_ptr()
    for tensor in flatten(block.unpack()):
        if tensor.numel():
            assert (tensor.data_ptr() - start) % ALIGNMENT_BYTES == 0
            assert 0 <= tensor.data_ptr() - start < len(block.memory)
            assert tensor.is_contiguous()


def test_block_holds_copies():
    """The tensors that were packed may be changed afterwards."""
    image = torch.zeros(4)
    block = TensorBlock.pack((image,))
    image.fill_(1)
    assert not block.unpack()[0].any()


@pytest.mark.parametrize("structure", [(), ((), None), "text"])
def test_structure_without_tensors(structure):
    """Its block is empty."""
    block = TensorBlock.pack(structure)
    assert block.memory.numel() == 0
    assert block.unpack() == structure
