"""The probabilities of a teacher follow the labels through every change of a patch, and no change of intensity."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_models import small_cases, small_configuration

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.soft_targets import UnlabelledCase, crop_soft_to_centre
from autoseg.imaging.geometry import Box
from autoseg.imaging.targets import OUTSIDE
from autoseg.preprocessing.foreground import Foreground, sample_foreground


@dataclass(frozen=True)
class CertainTeacher:
    """A teacher whose probabilities are the labels."""

    label: NDArray[np.integer]
    structures: int = 2

    def read(self, box: Box) -> NDArray[np.float32]:
        """Returns 1 where the label is."""
        part = self.label[box.slices]
        return np.stack([part == number for number in (1, 2)]).astype(np.float32)


def make_batches(dimensions=3, **augmentation):
    """Batches of cases whose teacher says what the labels say."""
    cases, configuration = small_cases(3), small_configuration(dimensions)
    settings = configuration.augmentation.model_validate({**configuration.augmentation.model_dump(), **augmentation})
    return Batches(
        cases=cases,
        configuration=configuration.model_copy(update={"augmentation": settings}),
        foreground_fraction=1.0,
        seed=(7,),
        augmented=True,
        soft=[CertainTeacher(case.label) for case in cases],
    )


CHANGES = {
    "as it is": {"mirror_axes": (), "rotation_probability": 0, "scaling_probability": 0},
    "flipped": {"mirror_axes": (0, 1), "rotation_probability": 0, "scaling_probability": 0},
    "sides swapped": {
        "mirror_axes": (0, 1),
        "swap_axis": 1,
        "swapped_labels": ((1, 2),),
        "rotation_probability": 0,
        "scaling_probability": 0,
    },
}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_probabilities_stay_on_their_labels(dimensions, changes):
    """Voxel by voxel where nothing is interpolated, whatever is done to intensities."""
    noisy = {"noise_probability": 1.0, "gamma_probability": 1.0, "brightness_probability": 1.0}
    batches = make_batches(dimensions, **noisy, **changes)
    found = 0
    for number in range(8):
        batch = batches.make(number)
        assert batch.images.shape[1] == 1
        assert batch.soft.shape == (2, 2, *[8] * dimensions)
        for structure in (1, 2):
            assert torch.equal(batch.soft[:, structure - 1], (batch.labels == structure).float())
            found += int((batch.labels == structure).sum())
    assert found > 0


def test_probabilities_turn_and_grow_with_their_labels():
    """Interpolated, the more probable structure is the label, but at few voxels between two."""
    batches = make_batches(rotation_probability=1.0, scaling_probability=1.0, rotation_degrees=90)
    same = total = 0
    for number in range(12):
        batch = batches.make(number)
        background = 1 - batch.soft.sum(dim=1, keepdim=True)
        likely = torch.cat([background, batch.soft], dim=1).argmax(dim=1)
        same, total = same + int((likely == batch.labels).sum()), total + likely.numel()
    assert same / total > 0.98


def test_a_teacher_changes_nothing_else():
    """Images and labels are those of the same batches without one."""
    taught = make_batches()
    alone = replace(taught, soft=())
    for number in range(4):
        one, other = taught.make(number), alone.make(number)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert other.soft is None


def test_probabilities_are_cropped_like_labels():
    """A network with a margin predicts the middle only."""
    soft = torch.arange(2 * 2 * 6 * 6.0).reshape(2, 2, 6, 6)
    assert torch.equal(crop_soft_to_centre(soft, (1, 2)), soft[..., 1:-1, 2:-2])
    assert crop_soft_to_centre(None, (1, 2)) is None


def test_the_segmentation_of_a_teacher_stands_for_labels():
    """A scan without labels is read with it, and its foreground is that of the segmentation."""
    scan, label = small_cases(1)[0], small_cases(1)[0].label.copy()
    label[0] = OUTSIDE
    segmented = replace(scan, image=scan.image[:0], label=label, foreground=sample_foreground(label))
    empty = replace(scan, label=np.zeros_like(label), foreground=Foreground.of([]))
    case = UnlabelledCase(case=empty, labels=segmented)
    box = Box(start=(0, 0, 0), stop=case.shape)
    image, read = case.read(box)
    assert np.array_equal(image, scan.image)
    assert np.array_equal(read, label)
    assert np.array_equal(case.load_label(), label)
    assert sum(case.foreground.counts) == np.count_nonzero(label > 0)
