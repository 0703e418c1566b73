"""The networks, patches and made-up cases that the parts of gpu_overview.py measure."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from unittest.mock import patch

import numpy as np
import torch
from memory_cases import CASES, ONE, TWO, Case
from small_models import small_configuration, usual_loss

from autoseg.dataloading.batch import Batch
from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.networks.default_unet import build_network
from autoseg.planning.plan import Configuration
from autoseg.planning.settings import AugmentationSettings, TrainingSettings
from autoseg.preprocessing.foreground import Foreground
from autoseg.runtime.device import needs_scaling
from autoseg.training.state import Run, TrainState, start_training

TINY_FEATURES, TINY_BATCH = 4, 2
SLICES = 4


@dataclass(frozen=True)
class Choice:
    """What is measured, from the command line.

    Attributes:
        device: The device.
        tiny: Whether everything is small, to try the script out on a CPU.
        hippocampus: Folder of a preprocessed workspace, or None.
    """

    device: torch.device
    tiny: bool
    hippocampus: str | None = None


def emit(name: str, **cells: object) -> None:
    """Hands a row over to gpu_overview.py, which prints it at once.

    Args:
        name: What the row is about.
        cells: The columns of the row.
    """
    print("ROW " + json.dumps({"what": name, **cells}), flush=True)


HIPPOCAMPUS = Case(
    name="hippocampus",
    residual="none",
    strides=(ONE, *[TWO] * 3),
    classes=3,
    patch_size=(40, 56, 40),
    batch_size=9,
    small_patch=(16, 16, 16),
)


def plans(*, tiny: bool) -> list[Case]:
    """Returns four plans: hippocampus, plain and residual networks of 128^3 and more, and a 2D one."""
    named = {case.name: case for case in CASES}
    chosen = [HIPPOCAMPUS, named["plain"], named["residual encoder"], named["2D, plain"]]
    if not tiny:
        return chosen
    return [replace(case, patch_size=case.small_patch, batch_size=TINY_BATCH) for case in chosen]


def features_of(*, tiny: bool) -> int:
    """Returns the features of the first stage."""
    return TINY_FEATURES if tiny else 32


def describe(case: Case) -> str:
    """Returns the patch and the batch of a plan."""
    return f"{' x '.join(map(str, case.patch_size))}, batch {case.batch_size}"


def make_configuration(case: Case, *, tiny: bool) -> Configuration:
    """Returns a configuration of the network and the patch of a plan, with the usual augmentation."""
    dimensions = len(case.patch_size)
    rotation = {} if dimensions == 3 else {"rotation_axes": (0,), "rotation_degrees": 180.0}
    changes = {
        "patch_size": case.patch_size,
        "batch_size": case.batch_size,
        "median_shape": case.patch_size,
        "architecture": case.architecture(features_of(tiny=tiny)),
        "augmentation": AugmentationSettings(mirror_axes=tuple(range(dimensions)), **rotation),
    }
    return small_configuration(dimensions).model_copy(update=changes)


def make_cases(case: Case, count: int) -> list[InMemoryCase]:
    """Returns noisy made-up cases, somewhat larger than a patch, with a bright block for each class."""
    random, cases = np.random.default_rng(0), []
    edges = tuple(max(size + 8, round(1.2 * size)) for size in case.patch_size)
    shape = edges if len(edges) == 3 else (SLICES, *edges)
    for _ in range(count):
        label, places = np.zeros(shape, np.int8), []
        image = random.normal(0, 0.3, (case.channels, *shape)).astype(np.float32)
        for number in range(1, case.classes):
            start = [int(random.integers(0, size - size // 3)) for size in shape]
            label[tuple(slice(first, first + size // 3) for first, size in zip(start, shape, strict=True))] = number
        for number in range(1, case.classes):
            image[:, label == number] += 2.0 * number
            voxels = np.argwhere(label == number)
            places.append(voxels[random.integers(len(voxels), size=1000)] if len(voxels) else voxels)
        cases.append(InMemoryCase(image=image, label=label, foreground=Foreground.of(places)))
    return cases


def make_run(case: Case, choice: Choice, *, cases: int = 4, **training: object) -> Run:
    """Returns a run over made-up cases, whose batches threads augment; `training` changes the settings."""
    settings = TrainingSettings(**{"epochs": 1000, "compile": "off", **training})
    configuration = make_configuration(case, tiny=choice.tiny)
    batches = Batches(
        cases=make_cases(case, cases),
        configuration=configuration,
        foreground_fraction=settings.foreground_fraction,
        seed=(0, 0),
        augmented=True,
    )
    return Run(
        settings=settings,
        training=batches,
        validation=replace(batches, augmented=False),
        loss=usual_loss(case.classes),
        device=choice.device,
        workers=1,
    )


def make_state(run: Run, *, channels_last: bool | None = None) -> TrainState:
    """Returns the state of a run before its first step, in the order of memory that is asked for, or the usual one."""
    network = build_network(run.training.configuration.architecture, torch.Generator().manual_seed(0))
    scaled = needs_scaling(run.device)
    if channels_last is None:
        return start_training(network, run.settings, run.device, scaled=scaled)
    with patch("autoseg.models.build.prefers_channels_last", return_value=channels_last):
        return start_training(network, run.settings, run.device, scaled=scaled)


def make_batch(case: Case, device: torch.device) -> Batch:
    """Returns a batch of noise on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch_size, case.channels, *case.patch_size, generator=generator)
    labels = torch.randint(case.classes, (case.batch_size, *case.patch_size), generator=generator)
    return Batch(images=images.to(device), labels=labels.to(device))


def voxels_of(case: Case) -> int:
    """Returns the number of voxels of a batch."""
    return case.batch_size * prod(case.patch_size)


@contextmanager
def compiled_lightly(*, tiny: bool) -> Iterator[None]:
    """Replaces torch's compiler by one that generates no code, if everything is small."""
    if not tiny:
        yield
        return
    compile_ = torch.compile
    with patch.object(torch, "compile", lambda *given, **options: compile_(*given, **{**options, "backend": "eager"})):
        yield
