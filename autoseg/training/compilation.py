"""How a step calls the network: wrapped for gradients that are averaged over the ranks, and compiled if that pays."""

from typing import cast

from autoseg.networks.default_unet import UNet
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.compiler import compile_quietly
from autoseg.runtime.device import compiles_well
from autoseg.training.cuda_graphs import captures_graphs
from autoseg.training.plugin_checks import find_idle
from autoseg.training.state import Forward, Run, TrainState

LONG_SECONDS, LONG_STEPS = 600, 2500
"""Shortest training for which a network is compiled. Decision: compiling takes about a minute, a tenth of that; the
steps are those of ten usual epochs."""


def wrap_network(state: TrainState, run: Run) -> Forward:
    """Returns the network, or with several ranks a wrapper of it that averages its gradients over them."""
    if not run.ranks.alone and not isinstance(state.network, UNet):
        return cast(Forward, run.ranks.wrap_ddp(state.network, find_idle(state.network, run)))
    architecture = run.training.configuration.architecture
    coarsest = len(architecture.stages) - 2
    idle = [f"heads.{coarsest}"] if architecture.deep_supervision and coarsest > 0 else []  # its loss weighs nothing
    return cast(Forward, run.ranks.wrap_ddp(state.network, idle))


def choose_forward(plain: Forward, run: Run) -> Forward:
    """Returns the network as it is, or compiled for patches of one size, which leaves its weights and names alone.

    Args:
        plain: The network, from `wrap_network`.
        run: Its settings say whether to compile: "on", "graphs" (see `cuda_graphs`), "off", or "auto", which compiles
            where the device gains from it and the training is long enough.
    """
    setting = run.settings.compile
    if setting in ("on", "graphs") or (setting == "auto" and compiles_well(run.device) and _is_long(run.settings)):
        return compile_quietly(plain, graphs=captures_graphs(run))
    return plain


def _is_long(settings: TrainingSettings) -> bool:
    """Whether a training lasts so long that the minute of compiling is soon made up for."""
    if settings.budget_seconds is not None:
        return settings.budget_seconds >= LONG_SECONDS
    return settings.epochs * settings.steps_per_epoch >= LONG_STEPS
