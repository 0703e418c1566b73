"""Batches that a pretended GPU augments: every row of the table, all kinds of cases, and nothing waits for the GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmented_batches import PATCH, make_batches
from changed_patches import OFF
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda
from fake_gpu_runs import prepared_before

from autoseg.dataloading.warping import interpolate_labels
from autoseg.imaging.label_encoding import code_base, encode_cascade
from autoseg.imaging.targets import Targets

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

MOST_KERNELS = 255  # with the single copy of a batch

TARGETS = Targets.of_labels({"one": 1, "two": 2, "three": 3})


def finish(batches, count=2):
    """Prepares batches with values, and augments them on the pretended GPU; returns them and what that takes."""
    batches = replace(batches, augmentation_device=CUDA)
    with prepared_before(batches, range(count)), pretended_cuda() as counts:
        finished = [batches.make(number) for number in range(count)]
        for batch in finished:
            assert batch.images.device == batch.labels.device == CUDA
            assert batch.images.dtype == torch.float32
            assert not batch.labels.dtype.is_floating_point
        return finished, counts


@pytest.mark.parametrize(
    ("dimensions", "changes"),
    [
        (2, dict.fromkeys(OFF, 1.0)),
        (3, dict.fromkeys(OFF, 1.0)),
        (2, {}),
        (3, {}),
        (3, {"rotation_axes": (0,), "rotation_degrees": 180.0}),
        (3, dict.fromkeys(OFF, 0.0)),
    ],
)
def test_all_rows_stay_on_the_gpu(dimensions, changes):
    """Together, by chance, and with nothing to do."""
    finished, counts = finish(make_batches(dimensions, **changes))
    assert all(tuple(batch.images.shape) == (5, 2, *PATCH[-dimensions:]) for batch in finished)
    assert counts.list_waits() == []
    assert counts.pins == len(finished)
    assert sum(counts.copied.values()) == counts.pinned_bytes
    assert counts.total_kernels <= MOST_KERNELS * len(finished)


@pytest.mark.parametrize("row", OFF)
def test_each_row_stays_on_the_gpu(row):
    """Each row of the table alone, so that none hides behind another."""
    _, counts = finish(make_batches(3, **{**OFF, row: 1.0}), count=1)
    assert counts.list_waits() == []


@pytest.mark.parametrize("augmentation_device", [None, CUDA])
def test_batches_are_copied_once_from_pinned_memory(augmentation_device):
    """This holds wherever they are augmented, with what is not annotated; labels travel with 16 bits."""
    unknown = ((True, False, False),) * 3
    batches = replace(make_batches(3), augmentation_device=augmentation_device, unknown=unknown)
    with prepared_before(batches, range(2)), pretended_cuda() as counts:
        for batch in batches.ahead(range(2), workers=0, device=CUDA):
            assert batch.images.device == batch.labels.device == batch.unknown.device == CUDA
            assert batch.labels.dtype == torch.int16
    assert counts.list_waits() == []
    assert counts.pins == 2
    assert sum(counts.copied.values()) == counts.pinned_bytes


def cascade():
    """Returns batches whose cases hold a coarse segmentation beside the labels."""
    batches = make_batches(3)
    cases = [
        replace(case, label=encode_cascade(case.label, np.maximum(case.label, 0), code_base(TARGETS)))
        for case in batches.cases
    ]
    return replace(batches, cases=cases, previous=TARGETS)


@pytest.mark.parametrize(
    "changes", [{}, {"share": (1, 2)}, {"unknown": ((True, False, False),) * 3}], ids=["whole", "share", "unknown"]
)
def test_cascades_stay_on_the_gpu(changes):
    """The coarse segmentation becomes channels there, also for one of several ranks, and with unknown structures."""
    finished, counts = finish(replace(cascade(), **changes))
    for batch in finished:
        assert batch.images.shape[1] == 2 + 3
        assert batch.unknown is None or batch.unknown.device == CUDA
    assert counts.list_waits() == []


@pytest.mark.parametrize("dimensions", [2, 3])
def test_labels_are_chosen_on_the_gpu(dimensions):
    """The labels of the corners of each cell are compared without a list of those that occur."""
    with pretended_cuda() as counts:
        labels = torch.zeros(2, *(9,) * dimensions, device=CUDA, dtype=torch.int16)
        positions, last = (
            torch.zeros(2, dimensions, *(8,) * dimensions, device=CUDA),
            torch.zeros(dimensions, device=CUDA),
        )
        chosen = interpolate_labels(labels, positions, last)
        assert (chosen.device, chosen.dtype, tuple(chosen.shape)) == (CUDA, torch.int16, (2, *(8,) * dimensions))
    assert counts.list_waits() == []
