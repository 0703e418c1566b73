"""A device augments a batch in few operations, with all that they need at hand."""

from dataclasses import replace

import pytest
import torch
from augmented_batches import make_batches
from changed_patches import CPU, OFF
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.dataloading.augmentation_parameters import UNCHANGED
from autoseg.dataloading.batch_changes import prepare_changes, prepare_warping
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.tensor_block import TensorBlock, map_tensors

MOST_KERNELS = 250

NO_KERNEL = ("empty", "_unsafe_view", "_reshape_alias", "scalar_tensor")


class KernelCount(TorchDispatchMode):
    """Counts the operations that calculate something, each of which would be a kernel on a GPU."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        if not is_view and not name.startswith(NO_KERNEL):
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dimensions", "changes", "most"),
    [
        (3, dict.fromkeys(OFF, 1.0), MOST_KERNELS),
        (2, dict.fromkeys(OFF, 1.0), MOST_KERNELS),
        (3, {}, MOST_KERNELS),
        (3, {**dict.fromkeys(OFF, 1.0), "deformation_probability": 0.0, "histogram_matching_probability": 0.0}, 155),
        (3, {**dict.fromkeys(OFF, 0.0), "rotation_probability": 1.0, "mirror_axes": (), "swap_axis": None,
             "swapped_labels": ()}, 50),
    ],
)  # fmt: skip
def test_kernels_of_a_batch_are_few(dimensions, changes, most):
    """This holds with all changes together, with those that are usual, and for the warp alone."""
    batches = replace(make_batches(dimensions, **changes), augmentation_device=CPU)
    for number in range(3):
        prepared = batches._prepare(number)
        with KernelCount() as count:
            batches._finish(prepared)
        assert 10 < len(count.operations) <= most, sorted(count.operations)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_all_that_a_device_needs_is_in_one_block(dimensions):
    """A batch that went through a block, as on its way to a GPU, is augmented to the same patches."""
    batches = replace(make_batches(dimensions), augmentation_device=CPU)
    for number in range(3):
        block = TensorBlock.pack(batches._prepare(number))
        one, other = batches.make(number), batches._finish(block.unpack())
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_prepared_batch_stays_as_it_is():
    """It may be augmented twice, with the same result."""
    batches = replace(make_batches(), augmentation_device=CPU)
    prepared = batches._prepare(0)
    assert torch.equal(batches._finish(prepared).images, batches._finish(prepared).images)


def test_changes_that_no_patch_gets_take_nothing():
    """A batch without changes has no tensors for them."""
    settings, tensors = AugmentationSettings(), []
    map_tensors(prepare_changes([UNCHANGED] * 2, settings, (8, 8), 1), tensors.append)
    assert tensors == []
    assert prepare_warping([UNCHANGED] * 2, settings, (8, 8), (8, 8)) is None
