"""Small cases and batches of them that augmentation changes, for tests."""

import numpy as np
from changed_patches import OFF
from small_models import small_configuration

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.targets import OUTSIDE
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import sample_foreground

SHAPE, PATCH = (14, 26, 22), (8, 16, 12)
CHANNELS = (Normalization(scheme="zscore", only_nonzero=True), Normalization(scheme="zscore"))


def make_cases(count=3):
    """Two-channel cases with two labels, an unlabelled corner of number 3, and a slice outside."""
    random = np.random.default_rng(0)
    cases = []
    for _ in range(count):
        label = np.zeros(SHAPE, np.int8)
        label[2:8, 4:16, 3:12], label[6:12, 12:20, 10:20], label[9:, :5, :5], label[:1] = 1, 2, 3, OUTSIDE
        image = random.normal(0, 0.2, (2, *SHAPE)) + 2.0 * (label == 1) - 2.0 * (label == 2)
        image[0, label == OUTSIDE] = 0
        cases.append(
            InMemoryCase(image=image.astype(np.float32), label=label, foreground=sample_foreground(label, [(1,), (2,)]))
        )
    return cases


def make_batches(dimensions=3, **changes):
    """Batches in which every row hits about half of the patches, but for `changes`."""
    usual = {
        **dict.fromkeys(OFF, 0.5),
        "rotation_axes": (0, 1, 2) if dimensions == 3 else (0,),
        "mirror_axes": tuple(range(dimensions)),
        "deformation_spacing_voxels": 7.0,
        "deformation_std_voxels": 1.5,
        "swap_axis": 1,
        "swapped_labels": ((1, 2),),
    }
    configuration = small_configuration(dimensions).model_copy(
        update={
            "augmentation": AugmentationSettings(**{**usual, **changes}),
            "batch_size": 5,
            "patch_size": PATCH[-dimensions:],
            "normalization": CHANNELS,
        }
    )
    return Batches(cases=make_cases(), configuration=configuration, foreground_fraction=0.5, seed=(3,), augmented=True)
