"""What tests have several processes do, in functions that these can import; a single process does it to compare."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from full_memory import Fullness
from phantoms import Listener
from small_models import small_run, small_state
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.dataloading.shapes import NO_SHAPES, ShapeMaker
from autoseg.errors import AutosegError
from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.pipeline.training import train
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plugin_settings import Plugin
from autoseg.runtime import device as devices
from autoseg.runtime.reporting import SILENT
from autoseg.training import loop, memory_trial, watchdog
from autoseg.training.losses import Loss
from autoseg.training.memory_trial import fill_gradients
from autoseg.training.ranks import ALONE, find_ranks, init_ranks

PATCHES = 5
NUMBER = 1
CPU = torch.device("cpu")


def train_in_float32(root, device, *, reporter, **options):
    """Trains fold 0 with the same rounding in any number of processes; also if the hardware has bfloat16."""
    devices.precision = lambda _: torch.float32
    return train(NUMBER, "3d_fullres", [0], device=device, workspace=root, reporter=reporter, **options)


def train_and_fail(root, how, device, *, reporter):
    """Trains, but before the third step something happens to the second process."""
    original = loop.train_step

    def step_or_fail(state, *rest):
        if state.step == 2 and os.environ["RANK"] == "1":
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise AutosegError("the GPU melted", "cool it") if how == "error" else ZeroDivisionError("a bug")
        return original(state, *rest)

    loop.train_step = step_or_fail
    train(NUMBER, "3d_fullres", [0], device=device, workspace=root, reporter=reporter)


def start_and_be_terminated(*, reporter):
    """Does nothing yet when SIGTERM reaches all processes, and ends the second one, which does not handle it so far."""
    if os.environ["RANK"] == "1":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def train_and_take_a_minute(root, number, device, *, reporter):
    """Trains, but the main process takes a minute for one step, after the gradients of all are complete."""
    original = loop.fill_gradients

    def fill_gradients(state, *rest):
        loss = original(state, *rest)
        if state.step == number and os.environ["RANK"] == "0":
            (Path(root) / "busy").touch()
            time.sleep(60)
        return loss

    loop.fill_gradients, watchdog.PATIENCE_SECONDS = fill_gradients, 0.3
    train(NUMBER, "3d_fullres", [0], device=device, workspace=root, reporter=reporter)


# --- Losses and gradients ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LossCase:
    """A loss of five patches, with all that is pooled over their voxels."""

    batch_dice: bool = False
    ignore: int | None = None
    exclusive: bool = True
    unknown: bool = False
    settings: tuple[tuple[str, object], ...] = ()
    auxiliary_outputs: tuple[AuxiliaryOutput, ...] = ()

    def of(self, ranks) -> Loss:
        """As one of the ranks takes it."""
        targets = Targets(structures={"bright": (1,), "dark": (2,)}, exclusive=self.exclusive, ignore=self.ignore)
        return Loss(
            targets=targets,
            settings=LossSettings(**dict(self.settings)),
            batch_dice=self.batch_dice,
            ranks=ranks,
            auxiliary_outputs=self.auxiliary_outputs,
        )

    def share(self, ranks=ALONE) -> tuple[float, torch.Tensor]:
        """The share of a rank, and its gradient with respect to the logits of its patches, on two resolutions."""
        generator, loss = torch.Generator().manual_seed(5), self.of(ranks)
        sizes = [*SIZES, *((1, 1, 1) if one.is_per_patch else SIZES[0] for one in self.auxiliary_outputs)]
        outputs = [torch.randn(PATCHES, loss.targets.outputs, *size, generator=generator) for size in sizes]
        labels = torch.randint(3 if self.ignore is None else 4, (PATCHES, *SIZES[0]), generator=generator)
        labels[0, 1:] = self.ignore or 0
        unknown = torch.tensor([[False, True]] * 3 + [[False, False]] * 2)
        own = slice(ranks.number, None, ranks.count)
        maker = ShapeMaker.of(loss.settings, loss.targets)
        shapes = NO_SHAPES if maker is None else maker.make(labels[own])
        outputs = [logits[own].clone().requires_grad_(True) for logits in outputs]
        share = loss(outputs, labels[own], unknown[own] if self.unknown else None, shapes)
        share.backward()
        return share.item(), torch.cat([logits.grad.flatten(1) for logits in outputs if logits.grad is not None], dim=1)


SIZES = ((4, 6, 8), (2, 3, 4), (1, 1, 2))

FURTHER = (AuxiliaryOutput(target="changes", balanced=True), AuxiliaryOutput(target="presence", weight=0.5))

LOSSES = {
    "usual": LossCase(),
    "batch Dice": LossCase(batch_dice=True),
    "ignored voxels": LossCase(ignore=3),
    "batch Dice, ignored voxels": LossCase(ignore=3, batch_dice=True),
    "overlapping structures": LossCase(exclusive=False),
    "overlapping, batch Dice, ignored": LossCase(exclusive=False, batch_dice=True, ignore=3),
    "what nobody looked for": LossCase(unknown=True),
    "what nobody looked for, overlapping": LossCase(unknown=True, exclusive=False),
    "what nobody looked for, batch Dice": LossCase(unknown=True, batch_dice=True, exclusive=False),
    "Tversky": LossCase(batch_dice=True, settings=(("overlap", "tversky"),)),
    "squares": LossCase(settings=(("overlap", "squared_dice"),)),
    "components": LossCase(settings=(("component_weight", 0.5),)),
    "components, ignored voxels, overlapping": LossCase(
        ignore=3, exclusive=False, unknown=True, settings=(("component_weight", 2.0), ("overlap", "tversky"))
    ),
    "skeletons": LossCase(settings=(("skeleton_weight", 0.5),)),
    "skeletons, batch Dice": LossCase(batch_dice=True, settings=(("skeleton_weight", 1.0),)),
    "skeletons, ignored voxels, overlapping": LossCase(
        ignore=3, exclusive=False, unknown=True, batch_dice=True, settings=(("skeleton_weight", 1.0),)
    ),
    "borders": LossCase(settings=(("border_weight", 10.0), ("border_sigma_voxels", 1.0))),
    "borders, components, ignored voxels, overlapping": LossCase(
        ignore=3, exclusive=False, unknown=True, settings=(("border_weight", 10.0), ("component_weight", 0.5))
    ),
    "similarity, what nobody looked for": LossCase(
        ignore=3, exclusive=False, unknown=True, batch_dice=True, settings=(("similarity_weight", 0.5),)
    ),
    "focal": LossCase(settings=(("voxelwise", "focal"),), ignore=3),
    "further outputs": LossCase(auxiliary_outputs=FURTHER),
    "further outputs, ignored voxels": LossCase(auxiliary_outputs=FURTHER, ignore=3),
    "further outputs, what nobody looked for": LossCase(
        auxiliary_outputs=FURTHER, ignore=3, unknown=True, exclusive=False
    ),
    "class weights": LossCase(settings=(("class_weights", (0.5, 1.0, 3.0)),)),
}

STEPS = {
    "usual": {},
    "batch Dice, ignored voxels": {"loss": LossCase(batch_dice=True, ignore=3)},
    "micro-batches": {"micro_batch_size": 2},
    "recomputed": {"recompute_activations": True},
    "attention in windows, coarsest logits idle": {
        "network": Plugin(
            name="nnformer",
            settings={
                "features": 4,
                "token": [1, 1, 1],
                "reductions": [[2, 2, 2], [2, 2, 2], [1, 1, 1]],
                "head_features": 2,
                "drop_path": 0.0,
            },
        ),
    },
}


def one_step(name, ranks=ALONE, device=CPU) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradients of the small network for a share of five patches."""
    options = dict(STEPS[name])
    loss = options.pop("loss", LossCase(ignore=None)).of(ranks)
    network = options.pop("network", None)
    run = replace(small_run(**options), loss=loss, ranks=ranks, device=device)
    configuration = run.training.configuration.model_copy(update={"network": network})
    run = replace(run, training=replace(run.training, configuration=configuration))
    state = small_state(run)
    value = fill_gradients(state, own_patches(ranks, loss.targets.ignore), run, SILENT)
    return value.cpu(), gradients_of(state)


def own_patches(ranks, ignore=None) -> Batch:
    """The share that a rank has of five patches; `ignore` is a label that some voxels get."""
    generator, own = torch.Generator().manual_seed(3), slice(ranks.number, None, ranks.count)
    labels = torch.zeros(PATCHES, 8, 8, 8, dtype=torch.int64)
    for number in range(PATCHES):
        labels[number, :number, 1:5], labels[number, 5:, : 8 - number] = 1, 2
    if ignore is not None:
        labels[:2, :, 6:] = ignore
    images = torch.randn(PATCHES, 1, 8, 8, 8, generator=generator)
    return Batch(images=images[own], labels=labels[own])


def gradients_of(state) -> torch.Tensor:
    """Of all weights, one after the other."""
    found = [weights.grad.flatten() for weights in state.network.parameters() if weights.grad is not None]
    return torch.cat(found).cpu()


def save_crowded(folder, device, *, reporter):
    """Saves two equal steps of ranks of which the second has memory for one patch; the network draws, and counts."""
    devices.precision = lambda _: torch.float32
    memory_trial.tells_when_full = lambda _: True
    memory_trial.gpu_memory_within_reach = lambda _: 700_000
    ranks, place = find_ranks(torch.device(device))
    init_ranks(ranks, place)
    listener = Listener()
    run = replace(small_run(), ranks=ranks, device=place)
    state, tried, gradients = small_state(run), [], []
    state.network.stem = nn.Sequential(nn.BatchNorm3d(1, affine=False), nn.Dropout(0.5))
    memory = Fullness(state.network, most=1 if ranks.number else PATCHES)
    for _ in range(2):
        torch.manual_seed(7)
        fill_gradients(state, own_patches(ranks), run, listener)
        tried.append(memory.tried.copy())
        memory.tried.clear()
        gradients.append(gradients_of(state))
    content = {
        "tried": tried,
        "size": state.micro_batch_size,
        "said": listener.lines,
        "measured": state.measured_bytes,
        "gradients": gradients,
        "counted": int(state.network.stem[0].num_batches_tracked),
    }
    torch.save(content, Path(folder) / f"{ranks.number}.pt")
    ranks.barrier()
    ranks.shutdown()


def save_shares(folder, device, *, reporter):
    """Saves what each rank makes of all that is above."""
    devices.precision = lambda _: torch.float32
    ranks, place = find_ranks(torch.device(device))
    init_ranks(ranks, place)
    content = {
        "losses": {name: case.share(ranks) for name, case in LOSSES.items()},
        "steps": {name: one_step(name, ranks, place) for name in STEPS},
        "pace": ranks.broadcast_float(10.0 + ranks.number),
        "shared": ranks.broadcast(f"folder {ranks.number}"),
        "collected": ranks.all_gather([ranks.number] * (1 + ranks.number)),
    }
    torch.save(content, Path(folder) / f"{ranks.number}.pt")
    ranks.barrier()
    ranks.shutdown()
    return ranks.count
