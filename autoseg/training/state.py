"""The state of a training run, with all that it needs to go on where it stopped: the mutable value of the package."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autoseg.models.build import place_network
from autoseg.models.checkpoint import Weights
from autoseg.networks.default_unet import UNet
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.device import make_ready
from autoseg.training.initial_weights import RANDOM, InitialWeights
from autoseg.training.losses import Loss
from autoseg.training.monitoring.progress import EpochReport
from autoseg.training.optimization import make_optimizer
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.stopping import NEVER, StopRequest

if TYPE_CHECKING:
    from autoseg.dataloading.loader import Batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The part of a training run that stays the same from the first step of a fold to the last.

    Attributes:
        settings: Settings of the plan, with the length that the user asked for.
        training: Augmented batches of the training cases.
        validation: Batches of the held-out cases without augmentation, or of the training cases if none is held out;
            the same ones after every epoch.
        loss: The loss, which knows the structures that the outputs of the network stand for.
        device: Device of the network.
        workers: Number of threads that make batches.
        stop: Whether the run was asked to stop early.
        ranks: The processes that share the batches.
    """

    settings: TrainingSettings
    training: "Batches"
    validation: "Batches"
    loss: Loss
    device: torch.device
    workers: int
    stop: StopRequest = NEVER
    ranks: Ranks = ALONE


Forward = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""A network in training: images of shape (n, channels, *patch) to logits, finest first."""


@dataclass(slots=True, kw_only=True)
class OpenEpoch:
    """The epoch that is being trained; saved if a run is stopped in its middle.

    Attributes:
        learning_rate: Learning rate at the start of the epoch.
        began_at_seconds: Training time of the run when the epoch began.
        waited_seconds: Seconds of the epoch that were spent waiting for patches.
        patches: Number of patches that it was trained on so far, over all ranks.
        losses: Training losses of its steps so far, scalars on the device.
    """

    learning_rate: float = 0.0
    began_at_seconds: float = 0.0
    waited_seconds: float = 0.0
    patches: int = 0
    losses: list[torch.Tensor] = field(default_factory=list)

    def pack(self) -> dict[str, Any]:
        """Returns the epoch as tensors and plain values, for a checkpoint."""
        losses = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        return {name: getattr(self, name) for name in NUMBERS} | {"losses": losses}

    @classmethod
    def unpack(cls, packed: dict[str, Any], device: torch.device) -> "OpenEpoch":
        """Returns the epoch of which `pack` gave the values; a new one if there are none, as in older checkpoints."""
        if not packed:
            return cls()
        numbers = {name: packed[name] for name in NUMBERS if name in packed}  # older checkpoints lack `patches`
        return cls(**numbers, losses=list(packed["losses"].to(device)))


NUMBERS = ("learning_rate", "began_at_seconds", "waited_seconds", "patches")
"""Attributes of `OpenEpoch` that are plain numbers."""


@dataclass(slots=True, kw_only=True)
class TrainState:
    """A training run between two steps.

    Attributes:
        network: The network, with the weights of the last step.
        average: The network with the running average of the weights; the same object if no average is kept.
        optimizer: The optimizer, with its momentum or its running means.
        scaler: Scales the loss where gradients are float16; does nothing elsewhere.
        step: Number of optimizer steps done.
        elapsed_seconds: Training time, without pauses between interrupted runs.
        epoch: The epoch that is being trained.
        reports: One report per finished epoch; schedules that depend on the loss read them.
        micro_batch_size: Largest number of patches at once that was found to fit on the device, if its memory ran out;
            see `training.memory_trial`.
        measured_bytes: Number of patches at once, to the bytes that a step with them was found to take at least when
            the memory of the device ran out, weights included; empty if it never did, or if the device does not tell.
            `train_to_end` writes it to plan.json and empties it; it is not saved.
        forward: The network as a step calls it, compiled or not, with the same weights. Chosen at the first step after
            every start, and not saved; the same goes for `plain_forward`.
        plain_forward: The network without compiling, wrapped for the gradients of several ranks.
        initial_weights: The weights that the run began with, and which of them stay frozen.
        buffers_before: Buffers of the network, such as running means, as they were before the step that is running, by
            name; empty between steps, and of the built-in network, which has none. See `saved_weights`.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    elapsed_seconds: float = 0.0
    epoch: OpenEpoch = field(default_factory=OpenEpoch)
    reports: list[EpochReport] = field(default_factory=list)
    micro_batch_size: int | None = None
    measured_bytes: dict[int, int] = field(default_factory=dict)
    forward: Forward | None = None
    plain_forward: Forward | None = None
    initial_weights: InitialWeights = RANDOM
    buffers_before: Weights = field(default_factory=dict)

    @property
    def weights(self) -> Weights:
        """The weights that predict, by name: tensors of the running training, on its device."""
        if self.average is self.network:
            return self.saved_weights
        return {name: value.detach() for name, value in self.average.state_dict().items()}

    @property
    def saved_weights(self) -> Weights:
        """The weights and buffers of the network after the last step, by name, on the device of the network.

        A step that is running may have changed the buffers already, in its forward pass.
        """
        weights = {**self.network.state_dict(), **self.buffers_before}
        return {name: value.detach() for name, value in weights.items()}

    def keep_buffers(self) -> None:
        """Copies the buffers of the network before a step, so that the state can be saved while the step is running."""
        if next(self.network.buffers(), None) is not None:
            parameters = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
            weights = self.network.state_dict()
            self.buffers_before = {name: weights[name].clone() for name in weights if name not in parameters}

    def count_step(self, loss: torch.Tensor, patches: int) -> None:
        """Adds a step that is done, its loss and its number of patches to the epoch that is being trained."""
        self.epoch.losses.append(loss)
        self.epoch.patches += patches
        self.step += 1
        self.buffers_before = {}

    def note_memory(self, least_bytes: Mapping[int, int | None]) -> None:
        """Adds measurements to `measured_bytes`; of several for the same number of patches, the largest is kept.

        Args:
            least_bytes: Number of patches at once, to the bytes that a step with them takes at least; None if unknown.
        """
        for patches, measured in least_bytes.items():
            if measured is not None:
                self.measured_bytes[patches] = max(measured, self.measured_bytes.get(patches, 0))


def start_training(
    network: nn.Module,
    settings: TrainingSettings,
    device: torch.device,
    *,
    scaled: bool,
    initial_weights: InitialWeights = RANDOM,
) -> TrainState:
    """Returns the state of a run before its first step.

    Args:
        network: A network with fresh weights, on the CPU; it becomes the network of the run.
        settings: Settings of the plan.
        device: Device on which the network is trained.
        scaled: Whether gradients are so small in 16 bits that the loss must be scaled.
        initial_weights: The weights that replace the fresh ones, and which of them stay frozen.
    """
    initial_weights.apply(network)
    network = place_network(network, device)
    if isinstance(network, UNet):
        network.recomputes = settings.recompute_activations
    make_ready(device)
    average: nn.Module = network
    if settings.average_decay > 0:
        average = copy.deepcopy(network).requires_grad_(False)
    return TrainState(
        network=network,
        average=average,
        optimizer=make_optimizer(network, settings, scaled=scaled),
        scaler=torch.amp.GradScaler(device.type, enabled=scaled),
        initial_weights=replace(initial_weights, weights=None),
    )


def pack_state(state: TrainState) -> dict[str, Any]:
    """Returns the state as its tensors and plain values; the averaged weights are apart, as those that predict."""
    return {
        "weights": state.saved_weights,
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "elapsed_seconds": state.elapsed_seconds,
        "epoch": state.epoch.pack(),
        "reports": [report.to_dict() for report in state.reports],
        "micro_batch_size": state.micro_batch_size,
        "origin": state.initial_weights.pack(),
    }


def unpack_state(state: TrainState, packed: dict[str, Any], weights: Weights) -> None:
    """Restores what `pack_state` gave.

    Args:
        state: A fresh state, which is changed.
        packed: The values of `pack_state`; see `Checkpoint.training`.
        weights: The averaged weights; see `Checkpoint.weights`.
    """
    state.network.load_state_dict(packed["weights"])
    if state.average is not state.network:
        state.average.load_state_dict(dict(weights))
    fused = [group.get("fused") for group in state.optimizer.param_groups]
    state.optimizer.load_state_dict(packed["optimizer"])
    for group, chosen in zip(state.optimizer.param_groups, fused, strict=True):
        group["fused"] = chosen  # by the device of this run, which may be another one
    if packed["scaler"]:  # empty if the run was on a device that needs no scaling, and goes on where it is needed
        state.scaler.load_state_dict(packed["scaler"])
    state.step = packed["step"]
    state.elapsed_seconds = packed["elapsed_seconds"]
    state.epoch = OpenEpoch.unpack(packed.get("epoch", {}), next(state.network.parameters()).device)
    state.reports = [EpochReport.from_dict(report) for report in packed["reports"]]
    state.micro_batch_size = packed.get("micro_batch_size")  # missing in older checkpoints
