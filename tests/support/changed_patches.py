"""Patches that are changed in both ways: one by one on the CPU, and as a batch as a GPU does it."""

import numpy as np
import torch

from autoseg.dataloading.augmentation import augment
from autoseg.dataloading.augmentation_parameters import UNCHANGED, draw_parameters
from autoseg.dataloading.device_augmentation import stack_unaugmented
from autoseg.dataloading.patch import PatchRegion
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import sample_foreground

OFF = dict.fromkeys((name for name in AugmentationSettings.model_fields if name.endswith("probability")), 0.0)
CPU = torch.device("cpu")
WAYS = ("patch by patch", "by batches")


def only(**changes) -> AugmentationSettings:
    """Settings with everything switched off but `changes`."""
    return AugmentationSettings(**{**OFF, "mirror_axes": (), **changes})


def make_case(image, label=None) -> InMemoryCase:
    """A case of an image (c, z, y, x), without labels unless there are some."""
    image = np.asarray(image, dtype=np.float32)
    label = np.zeros(image.shape[1:], np.int8) if label is None else label
    return InMemoryCase(image=image, label=label, foreground=sample_foreground(label))


def cut_out(case, patch_size, draw=UNCHANGED) -> PatchRegion:
    """The patch in the middle of a case."""
    patch = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    z, y, x = ((whole - size) // 2 for whole, size in zip(case.shape, patch, strict=True))
    return PatchRegion(case=case, start=(z, y, x), patch_size=tuple(patch_size), augmentation=draw)


def change(way, regions, settings):
    """The patches of a batch, changed as drawn: images (n, c, *patch) and labels (n, *patch)."""
    if way == "by batches":
        return stack_unaugmented(
            regions, [region.read_source_region(settings) for region in regions], settings, ()
        ).augment(CPU)
    patches = [region.read(settings) for region in regions]
    images, labels = (torch.stack([pair[which] for pair in patches]) for which in (0, 1))
    augment(images, labels, [region.augmentation for region in regions], settings)
    return images, labels.clamp_min(0)


def change_often(way, case, patch_size, settings, *, count=300, seed=0):
    """The patch in the middle of a case, changed by chance again and again."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(0, count, 50):
        draws = [
            draw_parameters(settings, patch_size, channels=len(case.image), others=range(50), random=random)
            for _ in range(50)
        ]
        pair = change(way, [cut_out(case, patch_size, draw) for draw in draws], settings)
        images.append(pair[0])
        labels.append(pair[1])
    return torch.cat(images)[:count], torch.cat(labels)[:count]
