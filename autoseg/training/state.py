"""Exactly what a run needs to go on where it stopped: the one mutable value of the package."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoseg.architecture import Architecture
from autoseg.checkpoint import Weights
from autoseg.network.unet import build_network
from autoseg.plan import TrainingSettings
from autoseg.training.optimization import make_optimizer
from autoseg.training.progress import EpochReport


@dataclass(slots=True, kw_only=True)
class TrainState:
    """A training run between two steps.

    Attributes:
        network: With the weights as the optimizer left them.
        average: The same network with the running average of the weights; the same object if no average is kept.
        optimizer: With its momentum.
        scaler: Scales the loss where gradients are float16; does nothing elsewhere.
        step: Optimizer steps done.
        elapsed_seconds: Spent in training epochs, however often the run was stopped.
        reports: One per finished epoch.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    step: int = 0
    elapsed_seconds: float = 0.0
    reports: list[EpochReport] = field(default_factory=list)

    @property
    def weights(self) -> Weights:
        """The weights that predict, on the CPU."""
        return {name: value.detach().cpu() for name, value in self.average.state_dict().items()}


def start_training(
    architecture: Architecture, settings: TrainingSettings, device: torch.device, seed: int, *, scaled: bool
) -> TrainState:
    """A run before its first step; the same seed gives the same weights."""
    network = build_network(architecture, torch.Generator().manual_seed(seed)).to(device)
    average = network
    if settings.average_decay > 0:
        average = copy.deepcopy(network).requires_grad_(False)
    return TrainState(
        network=network,
        average=average,
        optimizer=make_optimizer(network, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=scaled),
    )


def pack_state(state: TrainState) -> dict[str, Any]:
    """The state as tensors and plain values; the averaged weights are stored apart, as the checkpoint's weights."""
    return {
        "weights": {name: value.detach().cpu() for name, value in state.network.state_dict().items()},
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "elapsed_seconds": state.elapsed_seconds,
        "reports": [report.to_dict() for report in state.reports],
    }


def unpack_state(state: TrainState, packed: dict[str, Any], weights: Weights) -> None:
    """Brings a fresh state to where `pack_state` was called; `weights` are the checkpoint's."""
    state.network.load_state_dict(packed["weights"])
    if state.average is not state.network:
        state.average.load_state_dict(dict(weights))
    state.optimizer.load_state_dict(packed["optimizer"])
    if packed["scaler"]:  # empty if the run was on a device that needs no scaling, and goes on where one does
        state.scaler.load_state_dict(packed["scaler"])
    state.step = packed["step"]
    state.elapsed_seconds = packed["elapsed_seconds"]
    state.reports = [EpochReport.from_dict(report) for report in packed["reports"]]
