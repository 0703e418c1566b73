"""Networks and patches on which the estimate of memory is tested, and the memory that torch really takes for them."""

from dataclasses import dataclass, replace
from typing import Literal
from unittest.mock import patch

import torch
from small_models import small_run, usual_loss

from autoseg.dataloading.batch import Batch
from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.networks.default_unet import build_network
from autoseg.runtime.device import forget_peak, free_cached_memory, needs_scaling
from autoseg.runtime.device import peak_bytes as peak_since_forgotten
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step
from autoseg.training.state import start_training

ONE, TWO, THREE = (1, 1, 1), (2, 2, 2), (3, 3, 3)


def network_of(
    dimensions,
    stages,
    largest,
    *,
    residual="none",
    channels=1,
    classes=2,
    convolutions=2,
    blocks=1,
    decoder_convolutions=None,
    deep_supervision=True,
) -> Architecture:
    """Makes a U-Net whose stages halve every axis; 32 features are doubled up to the largest number."""
    return Architecture(
        residual=residual,
        in_channels=channels,
        out_channels=classes,
        deep_supervision=deep_supervision,
        stages=tuple(
            Stage(
                features=min(largest, 32 * 2**number),
                kernel=(3,) * dimensions,
                stride=(1 if number == 0 else 2,) * dimensions,
                convolutions=convolutions,
                blocks=blocks,
                decoder_convolutions=decoder_convolutions,
            )
            for number in range(stages)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, and the size of its training step.

    Attributes:
        name: Short description of the network.
        strides: Stride of each stage.
        kernels: Kernel of each stage; a single one is that of all stages.
        blocks: Number of blocks of each stage; one each if left out.
        patch_size: Patch of a training step that takes 2 to 9 GB.
        batch_size: Number of patches of that step.
        small_patch: Patch of a step that a CPU does within a second.
    """

    name: str
    residual: Literal["stage", "block", "none"]
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...] = (THREE,)
    convolutions: int = 2
    blocks: tuple[int, ...] | None = None
    decoder_convolutions: int | None = None
    channels: int = 1
    classes: int = 2
    deep_supervision: bool = True
    patch_size: Axes
    batch_size: int
    small_patch: Axes

    def architecture(self, features: int = 32) -> Architecture:
        """Makes the network; the features of its first stage are doubled up to 10 times as many, in 2D 16 times."""
        stages = len(self.strides)
        kernels = self.kernels * stages if len(self.kernels) == 1 else self.kernels
        limit = (16 if len(self.patch_size) == 2 else 10) * features
        return Architecture(
            residual=self.residual,
            in_channels=self.channels,
            out_channels=self.classes,
            deep_supervision=self.deep_supervision,
            stages=tuple(
                Stage(
                    features=min(limit, features * 2**number),
                    kernel=kernels[number],
                    stride=self.strides[number],
                    convolutions=self.convolutions,
                    blocks=self.blocks[number] if self.blocks else 1,
                    decoder_convolutions=self.decoder_convolutions,
                )
                for number in range(stages)
            ),
        )


FLAT = (ONE, (1, 2, 2), (1, 2, 2), TWO, TWO)
FLAT_KERNELS = ((1, 3, 3), (1, 3, 3), THREE, THREE, THREE)
PLANES = ((1, 1), *[(2, 2)] * 5)
CASES = (
    Case(
        name="plain",
        residual="none",
        strides=(ONE, *[TWO] * 5),
        patch_size=(128, 128, 128),
        batch_size=2,
        small_patch=(32, 64, 64),
    ),
    Case(
        name="V-Net stages",
        residual="stage",
        strides=(ONE, *[TWO] * 4),
        classes=3,
        patch_size=(112, 112, 128),
        batch_size=2,
        small_patch=(32, 48, 64),
    ),
    Case(
        name="V-Net stages of one to three blocks",
        residual="stage",
        strides=(ONE, *[TWO] * 3),
        convolutions=3,
        blocks=(1, 2, 3, 1),
        patch_size=(96, 96, 96),
        batch_size=2,
        small_patch=(32, 32, 32),
    ),
    Case(
        name="V-Net stages of single convolutions",
        residual="stage",
        strides=(ONE, *[TWO] * 3),
        convolutions=1,
        blocks=(1, 2, 2, 3),
        channels=2,
        deep_supervision=False,
        patch_size=(96, 128, 128),
        batch_size=3,
        small_patch=(32, 32, 48),
    ),
    Case(
        name="residual encoder",
        residual="block",
        strides=(ONE, *[TWO] * 5),
        blocks=(1, 3, 4, 6, 6, 6),
        decoder_convolutions=1,
        patch_size=(128, 160, 128),
        batch_size=2,
        small_patch=(32, 64, 64),
    ),
    Case(
        name="residual encoder, thick slices, a cascade's channels",
        residual="block",
        strides=FLAT,
        kernels=FLAT_KERNELS,
        blocks=(1, 3, 4, 6, 6),
        decoder_convolutions=1,
        channels=4,
        classes=4,
        patch_size=(32, 192, 192),
        batch_size=3,
        small_patch=(8, 64, 64),
    ),
    Case(
        name="residual encoder, a stage that keeps the size, one that keeps the features",
        residual="block",
        strides=(ONE, ONE, TWO, TWO, TWO, TWO),
        blocks=(2, 1, 2, 1, 1, 2),
        patch_size=(64, 96, 96),
        batch_size=2,
        small_patch=(16, 32, 32),
    ),
    Case(
        name="plain, thick slices, 20 classes",
        residual="none",
        strides=FLAT,
        kernels=FLAT_KERNELS,
        classes=20,
        patch_size=(32, 160, 192),
        batch_size=2,
        small_patch=(8, 64, 48),
    ),
    Case(
        name="plain, halved along one axis first, single convolutions on the way up",
        residual="none",
        strides=(ONE, (1, 1, 2), TWO, (2, 2, 3)),
        decoder_convolutions=1,
        channels=3,
        patch_size=(64, 64, 96),
        batch_size=4,
        small_patch=(16, 16, 48),
    ),
    Case(
        name="2D, plain",
        residual="none",
        strides=(*PLANES, (2, 2), (2, 2)),
        kernels=((3, 3),),
        patch_size=(512, 512),
        batch_size=12,
        small_patch=(128, 256),
    ),
    Case(
        name="2D, V-Net stages, RGB",
        residual="stage",
        strides=PLANES,
        kernels=((3, 3),),
        channels=3,
        classes=5,
        patch_size=(384, 448),
        batch_size=16,
        small_patch=(96, 128),
    ),
    Case(
        name="2D, residual encoder",
        residual="block",
        strides=(*PLANES, (2, 2)),
        kernels=((3, 3),),
        blocks=(1, 3, 4, 6, 6, 6, 6),
        decoder_convolutions=1,
        patch_size=(512, 512),
        batch_size=12,
        small_patch=(128, 192),
    ),
)


def kept_bytes(architecture: Architecture, patch_size: Axes, dtype: torch.dtype = torch.bfloat16) -> int:
    """Returns the bytes that a CPU keeps for one patch once its loss is known: image, target, logits, saved tensors.

    It is the difference between a batch of three and a batch of two, so weights and their 16-bit copies do not count.
    The small maps of a single patch would be divided in float32. The logits are put into the order that they have on a
    GPU, where the cross entropy needs no copy of them, and the layers that a CPU calculates in another way in float32
    are those of a GPU.
    """
    network = build_network(architecture, torch.Generator().manual_seed(0))
    kept = []
    for batch_size in (2, 3):
        image = torch.zeros(batch_size, architecture.in_channels, *patch_size)
        target = torch.zeros(batch_size, *patch_size, dtype=torch.int64)
        storages = {}

        def note(tensor: torch.Tensor, storages: dict = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layers = patch("autoseg.networks.joined_input.learns_in_float32_on_cpu", return_value=False)
            with layers, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits = [output.contiguous() for output in network(image)]
            usual_loss(architecture.out_channels)(logits, target)
        for tensor in (image, target, *logits):
            note(tensor)
        kept.append(sum(storage.nbytes() for storage in storages.values()))
    return kept[1] - kept[0]


def peak_bytes(
    case: Case, device: torch.device, *, features: int = 32, patch_size: Axes | None = None, steps: int = 3
) -> int:
    """Returns the most bytes that tensors take on a CUDA GPU during real training steps of a case.

    The first step does not count: cuDNN tries its kernels in it, each with the memory that it likes to work in.

    Args:
        case: The network.
        device: The GPU; on a CPU the steps are done, and zero is returned.
        features: Features of the first stage.
        patch_size: Patch of a step; that of the case by default.
        steps: Number of steps, of which all but the first count.
    """
    free_cached_memory(device)
    before = allocated_bytes(device)
    architecture, patch_size = case.architecture(features), patch_size or case.patch_size
    loss = usual_loss(architecture.out_channels)
    run = replace(small_run(average_decay=0.99, compile="off"), device=device, loss=loss)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    state = start_training(network, run.settings, device, scaled=needs_scaling(device))
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        images=torch.randn(case.batch_size, case.channels, *patch_size, generator=generator),
        labels=torch.randint(case.classes, (case.batch_size, *patch_size), generator=generator),
    )
    for number in range(steps):
        train_step(state, batch, run, SILENT)
        if number == 0:
            forget_peak(device)
    return (peak_since_forgotten(device) or 0) - before


def allocated_bytes(device: torch.device) -> int:
    """Returns the bytes of tensors on a CUDA GPU; zero for another device."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
