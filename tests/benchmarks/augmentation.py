"""Augmentation beside batchgenerators: patches per second of each transform, on one thread.

    python tests/benchmarks/augmentation.py [--sizes 40,56,40 96,96,96] [--rounds 7] [--rows noise blur]

Each row is one transform of the augmentation table, applied with probability one to all channels; "whole table" has all
of them with their usual probabilities. Rounds alternate between three programs: batchgenerators' transforms,
augmentation patch by patch as the loader's threads do it, and augmentation of whole batches as a GPU does it, here on
the CPU and with one patch. The median of each is shown; "times" is the median of the ratios within a round of the
second to the first. All start from a copy of the patch and end with a batch of one patch; where patches are rotated,
they start from a case in memory.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from batchgenerators.transforms.abstract_transforms import AbstractTransform, Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from measured_on import print_machine
from numpy.typing import NDArray

from autoseg.dataloading import augmentation_parameters
from autoseg.dataloading.augmentation import augment
from autoseg.dataloading.device_augmentation import stack_unaugmented
from autoseg.dataloading.patch import PatchRegion
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.geometry import Box, Shape
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import sample_foreground

OFF = dict.fromkeys((name for name in AugmentationSettings.model_fields if name.endswith("probability")), 0.0)
WHOLE = "whole table"
ROTATED = ("rotation and scaling", WHOLE)
ROWS = {
    "rotation and scaling": ("rotation_probability", "scaling_probability"),
    "noise": ("noise_probability",),
    "blur": ("blur_probability",),
    "brightness": ("brightness_probability",),
    "contrast": ("contrast_probability",),
    "low resolution": ("low_resolution_probability",),
    "gamma, inverted": ("gamma_inverted_probability",),
    "gamma": ("gamma_probability",),
    "mirroring": (),
}
PATCHES = dict.fromkeys(ROWS, 8) | {WHOLE: 60}  # in each round
LABELS = 3


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A patch in the middle of a case that is large enough for every rotation of the patch."""

    patch: Shape
    case: InMemoryCase

    @property
    def start(self) -> tuple[int, int, int]:
        z, y, x = ((whole - size) // 2 for whole, size in zip(self.case.shape, self.patch, strict=True))
        return z, y, x

    @property
    def cut(self) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Image and label map of the patch without augmentation."""
        stop = tuple(start + size for start, size in zip(self.start, self.patch, strict=True))
        image, label = self.case.read(Box(start=self.start, stop=stop))
        return np.ascontiguousarray(image), label.astype(np.int16)


def make_subject(patch: Shape) -> Subject:
    """Makes a case of noise with three labels."""
    random = np.random.default_rng(0)
    shape = tuple(round(size * 2.4) // 2 * 2 for size in patch)
    image = random.normal(size=(1, *shape)).astype(np.float32)
    label = np.zeros(shape, dtype=np.int8)
    for number in range(1, LABELS + 1):
        inner = tuple(slice(size * number // 10, size - size * number // 10) for size in shape)
        label[inner] = number
    return Subject(patch=patch, case=InMemoryCase(image=image, label=label, foreground=sample_foreground(label)))


def make_settings(row: str) -> AugmentationSettings:
    """Returns the settings of one row of the table, or of the whole table."""
    if row == WHOLE:
        return AugmentationSettings()
    axes = (0, 1, 2) if row == "mirroring" else ()
    return AugmentationSettings(**{**OFF, **dict.fromkeys(ROWS[row], 1.0), "mirror_axes": axes})


def make_transform(row: str, patch: Shape) -> AbstractTransform:
    """Returns the transforms of batchgenerators for a row."""
    settings, usual = make_settings(row), row == WHOLE
    channel = 0.5 if usual else 1.0
    angle = (-np.deg2rad(settings.rotation_degrees), np.deg2rad(settings.rotation_degrees))
    rotation = SpatialTransform(
        patch,
        do_elastic_deform=False,
        angle_x=angle,
        angle_y=angle,
        angle_z=angle,
        scale=settings.scaling_factor,
        border_mode_data="constant",
        order_data=1,
        border_cval_seg=-1,
        order_seg=1,
        random_crop=False,
        p_rot_per_sample=settings.rotation_probability,
        p_scale_per_sample=settings.scaling_probability,
    )
    transforms = {
        "rotation and scaling": rotation,
        "noise": GaussianNoiseTransform((0, settings.noise_std), p_per_sample=settings.noise_probability),
        "blur": GaussianBlurTransform(
            settings.blur_sigma_voxels,
            different_sigma_per_axis=True,
            p_per_channel=channel,
            p_per_sample=settings.blur_probability,
        ),
        "brightness": BrightnessMultiplicativeTransform(
            settings.brightness_factor, p_per_sample=settings.brightness_probability
        ),
        "contrast": ContrastAugmentationTransform(settings.contrast_factor, p_per_sample=settings.contrast_probability),
        "low resolution": SimulateLowResolutionTransform(
            settings.low_resolution_factor,
            per_channel=True,
            p_per_channel=channel,
            order_downsample=0,
            order_upsample=1,
            p_per_sample=settings.low_resolution_probability,
        ),
        "gamma, inverted": GammaTransform(
            settings.gamma_exponent, True, True, retain_stats=True, p_per_sample=settings.gamma_inverted_probability
        ),
        "gamma": GammaTransform(
            settings.gamma_exponent, False, True, retain_stats=True, p_per_sample=settings.gamma_probability
        ),
        "mirroring": MirrorTransform((0, 1, 2)),
    }
    return Compose(list(transforms.values())) if usual else transforms[row]


def run_peer(row: str, subject: Subject) -> Callable[[], None]:
    """Returns a function that augments one patch by batchgenerators, which gets the whole case where it rotates."""
    transform = make_transform(row, subject.patch)
    image, label = (subject.case.image, subject.case.label) if row in ROTATED else subject.cut
    data, seg = np.ascontiguousarray(image[np.newaxis]), label[np.newaxis, np.newaxis].astype(np.float32)

    def run() -> None:
        transform(data=data if row in ROTATED else data.copy(), seg=seg if row in ROTATED else seg.copy())

    return run


def run_ours(row: str, subject: Subject, *, batched: bool) -> Callable[[], None]:
    """Returns a function that reads and augments one patch by autoseg."""
    settings, random = make_settings(row), np.random.default_rng(1)
    image, label = subject.cut
    images, labels = torch.from_numpy(image)[None], torch.from_numpy(label)[None]

    def draw_some() -> Iterator[augmentation_parameters.AugmentationParameters]:
        draws = [
            augmentation_parameters.draw_parameters(settings, subject.patch, channels=1, others=(), random=random)
            for _ in range(50)
        ]
        while True:  # drawing anew would take the time of a whole table for each row
            yield from draws

    coming = draw_some()

    def run() -> None:
        draw = next(coming)
        if row == WHOLE:
            draw = augmentation_parameters.draw_parameters(
                settings, subject.patch, channels=1, others=(), random=random
            )
        if row not in ROTATED and not batched:
            augment(images.clone(), labels.clone(), [draw], settings)
            return
        cut = PatchRegion(case=subject.case, start=subject.start, patch_size=subject.patch, augmentation=draw)
        if batched:
            part = cut.read_source_region(settings) if row in ROTATED else (image, label)
            stack_unaugmented([cut], [part], settings, ()).augment(torch.device("cpu"))
        else:
            rotated, rotated_label = cut.read(settings)
            augment(rotated[None], rotated_label[None], [draw], settings)

    return run


def measure(run: Callable[[], None], patches: int) -> float:
    """Returns patches per second."""
    began = time.perf_counter()
    for _ in range(patches):
        run()
    return patches / (time.perf_counter() - began)


def compare(row: str, subject: Subject, rounds: int) -> str:
    """Measures a row and returns its line of the table."""
    augmentation_parameters.CHANNEL_CHANCE = 0.5 if row == WHOLE else 1.0
    runs = [run_peer(row, subject), run_ours(row, subject, batched=False), run_ours(row, subject, batched=True)]
    for run in runs:
        run()
    speeds = np.array([[measure(run, PATCHES[row]) for run in runs] for _ in range(rounds)])
    peer, ours, batched = (statistics.median(column) for column in speeds.T)
    times = statistics.median(speeds[:, 1] / speeds[:, 0])
    size = " x ".join(map(str, subject.patch))
    return f"| {row} | {size} | {peer:.4g} | {ours:.4g} | **{times:.2f}** | {batched:.4g} |"


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["40,56,40", "96,96,96"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", nargs="+", default=[*ROWS, WHOLE])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_machine()
    print(
        "| row | patch | batchgenerators, patches/s | loader, patches/s | times | by batches, on the CPU, patches/s |"
    )
    print("|---|---|---|---|---|---|")
    for text in options.sizes:
        z, y, x = map(int, text.split(","))
        subject = make_subject((z, y, x))
        for row in options.rows:
            print(compare(row, subject, options.rounds), flush=True)


if __name__ == "__main__":
    main()
