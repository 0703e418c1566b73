"""Kernels, bytes and waits of a GPU in training and prediction, counted on a machine without one.

    python tests/benchmarks/gpu_counts.py [--tiny] [--without-triton]

The package runs on tensors that say cuda:0 and have no values (tests/support/fake_cuda.py), with patches of 128 x 128 x
128 voxels, two in a batch: the augmentation of a batch, in the mean of 16 batches, in the one with the most kernels,
and with all changes; the parts of a training step of a plain and of a residual encoder U-Net; and tiles of a volume,
mirrored along three axes, with and without the agreement of their votes. Kernels are counted as ATen starts them for
CUDA, uncompiled; bytes are what they read and write, of a convolution each tensor once; waits are the moments at which
the program stops for an answer of the GPU. Nothing is timed: the counts show what a change adds or removes. Triton,
which comes with torch for CUDA, is taken to be there. Needs a CPU build of torch 2.13.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from device_counts import DeviceCounts
from fake_cuda import CUDA, pretended_cuda
from fake_cuda_backward import backward_hooks, why_no_backward
from fake_gpu_runs import (
    fake_architecture,
    fake_batch,
    fake_run,
    fake_state,
    prepared_before,
    watched_phases,
)
from measured_on import print_machine
from small_models import small_configuration

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.network_predictor import NetworkPredictor
from autoseg.inference.predictor import MirroringPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.networks import fused_norm
from autoseg.networks.default_unet import UNet
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import sample_foreground
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step

PATCH, TINY_PATCH = (128, 128, 128), (16, 16, 16)
BATCHES = 16
PROBABILITIES = [name for name in AugmentationSettings.model_fields if name.endswith("probability")]
STEPS: dict[str, dict] = {
    "plain, 3 classes": {"preset": "plain"},
    "residual encoder, 3 classes": {"preset": "resenc_l"},
    "plain, 25 classes": {"preset": "plain", "classes": 25},
    "plain, 3 classes, top-k": {"preset": "plain", "loss": LossSettings(voxelwise="top_k")},
    "plain, 3 classes, class weights": {"preset": "plain", "loss": LossSettings(class_weights=(1.0,) * 3)},
}
PHASES = ("move", "forward", "loss", "backward", "clip", "optimizer", "average", "other")
GB = 1e9


def main() -> None:
    """Prints three tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small patches, to see that the script runs")
    parser.add_argument("--without-triton", action="store_true", help="normalize by the layers of torch")
    arguments = parser.parse_args()
    print_machine()
    reason = why_no_backward()
    if reason is not None:
        print(f"nothing was counted: {reason}")
        return
    patch_size, stages = (TINY_PATCH, 3) if arguments.tiny else (PATCH, 6)
    has_triton = mock.patch.object(fused_norm, "works_on", return_value=not arguments.without_triton)
    with backward_hooks(), has_triton:
        print("| augmentation of a batch | kernels | GB | waits |\n|---|---|---|---|", flush=True)
        for name, counts, batches in count_augmentation(patch_size):
            print_row(name, counts, "augmentation", batches)
        print("\n| training step | part | kernels | GB | waits |\n|---|---|---|---|---|", flush=True)
        for name, options in STEPS.items():
            counts = count_step(patch_size, stages, **options)
            for phase in PHASES:
                if counts.kernels[phase]:
                    print_row(f"{name} | {phase}", counts, phase)
            print_row(f"{name} | all", counts)
        print("\n| tile, 8 mirror images | part | kernels | GB | waits |\n|---|---|---|---|---|", flush=True)
        for name, counts, tiles in count_tiles(patch_size, stages):
            print_row(f"{name} | network", counts, "forward", tiles)
            print_row(f"{name} | all else", counts, "other", tiles)


def print_row(name: str, counts: DeviceCounts, phase: str | None = None, number: int = 1) -> None:
    """Prints the counts of a phase, or of all, divided by a number of batches or tiles."""
    phases = list(counts.kernels) if phase is None else [phase]
    kernels = sum(counts.kernels[phase] for phase in phases) / number
    moved = sum(counts.bytes_moved[phase] for phase in phases) / number / GB
    waits = sum(value for (phase, *_), value in counts.waits.items() if phase in phases) / number
    print(f"| {name} | {kernels:.0f} | {moved:.2f} | {waits:.3g} |", flush=True)


def count_augmentation(patch: tuple[int, ...]) -> Iterator[tuple[str, DeviceCounts, int]]:
    """Yields the counts of some batches, and their number.

    With the usual table these are all batches together, and the batch with the most kernels. Then comes a batch with
    all changes, each with probability one.
    """
    size = tuple(edge * 45 // 32 for edge in patch)
    label = np.zeros(size, np.int8)
    label[tuple(slice(edge * 2 // 9, edge * 4 // 9) for edge in size)] = 1
    label[tuple(slice(edge // 2, edge * 7 // 9) for edge in size)] = 2
    image = np.random.default_rng(0).standard_normal((1, *size), dtype=np.float32)
    case = InMemoryCase(image=image, label=label, foreground=sample_foreground(label, [(1,), (2,)]))
    changes = {"augmentation": AugmentationSettings(), "batch_size": 2, "patch_size": patch}
    configuration = small_configuration(len(patch)).model_copy(update=changes)
    batches = Batches(
        cases=[case],
        configuration=configuration,
        foreground_fraction=0.33,
        seed=(5,),
        augmented=True,
        augmentation_device=CUDA,
    )
    axes = tuple(range(len(patch)))
    augmentation = AugmentationSettings(**dict.fromkeys(PROBABILITIES, 1.0), mirror_axes=axes)
    changed = replace(batches, configuration=configuration.model_copy(update={"augmentation": augmentation}))
    each = []
    with prepared_before(batches, range(BATCHES)):
        for numbers in (range(BATCHES), *([number] for number in range(BATCHES))):
            with pretended_cuda() as counts, counts.during("augmentation"):
                for number in numbers:
                    batches.make(number)
            each.append(counts)
    yield f"mean of {BATCHES} batches", each[0], BATCHES
    yield "the batch with the most", max(each[1:], key=lambda counts: counts.total_kernels), 1
    with prepared_before(changed, [0]), pretended_cuda() as counts, counts.during("augmentation"):
        changed.make(0)
    yield "all changes together", counts, 1


def count_step(patch: tuple[int, ...], stages: int, *, preset: str, classes: int = 3, loss=None) -> DeviceCounts:
    """Returns the counts of the second step of a run, whose optimizer has momentum."""
    architecture = fake_architecture(preset, classes=classes, stages=stages)
    run = fake_run(architecture, patch, loss=loss)
    with pretended_cuda(backward=True) as counts:
        state = fake_state(run)
        with watched_phases(counts):
            for _ in range(2):
                counts.reset()
                train_step(state, fake_batch(run), run, SILENT)
    return counts


def count_tiles(patch: tuple[int, ...], stages: int) -> Iterator[tuple[str, DeviceCounts, int]]:
    """Yields the counts of all tiles of a volume, and their number, for each kind of prediction."""
    image = np.random.default_rng(0).normal(size=(1, *patch[:2], 5 * patch[2] // 2)).astype(np.float32)
    for classes in (3, 25):
        targets = Targets.of_labels({str(number): number for number in range(1, classes)})
        for with_agreement in (False, True):
            tiles: list[float] = []
            with pretended_cuda() as counts:
                network = UNet(fake_architecture(classes=classes, stages=stages))
                predictor = MirroringPredictor(NetworkPredictor(network, CUDA), (0, 1, 2), at_once=2)
                with watched_phases(counts):
                    counts.reset()
                    predict_volume(
                        image,
                        EnsembleAgreement(predictor, targets) if with_agreement else predictor,
                        patch_size=patch,
                        batch_size=1,
                        device=CUDA,
                        on_progress=tiles.append,
                    )
            yield f"{classes} classes, {'with' if with_agreement else 'without'} agreement", counts, len(tiles)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
