"""Checks of networks, losses and transforms that are not built in, when the training of a fold begins.

The interface that each must keep to is documented in `planning.plugins`. Errors that they raise themselves are not
caught.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from autoseg.dataloading.augmentation import apply_custom_transform
from autoseg.dataloading.batchgenerators_transforms import resolve_transform
from autoseg.errors import UsageError
from autoseg.models.build import check_network
from autoseg.models.monai_networks import first_line
from autoseg.networks.default_unet import UNet
from autoseg.networks.monai_names import is_monai
from autoseg.planning.plan import Configuration
from autoseg.planning.plugins import find_loss
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.device import autocast, random_state, restore_random_state
from autoseg.training.state import Run, TrainState

PATCHES = 2
"""Number of patches in the batch of a check: some norms need more than one."""

FIX_PACKAGE = "mend that package"
OTHER_SETTINGS = "change its settings in plan.json, or choose another network"


def check_presence(configuration: Configuration, settings: TrainingSettings) -> None:
    """Makes sure that the network, the loss and the transforms that a plan names are installed.

    Raises:
        UsageError: Something is not installed, cannot be loaded, or has no such settings.
    """
    if configuration.network is not None:
        check_network(configuration.network)
    if settings.loss.custom is not None:
        find_loss(settings.loss.custom.name)
    for transform in configuration.augmentation.custom:
        resolve_transform(transform)


def describe_limits(configuration: Configuration, settings: TrainingSettings) -> Iterator[str]:
    """Yields a line for each setting of the plan that has no effect on a network that is not built in."""
    if configuration.network is not None:
        name = configuration.network.name
        if configuration.is_foreign:
            yield f"the network {name!r} is not the built-in one: no estimate of memory in plan.json applies to it"
        if settings.recompute_activations:
            yield f"recompute_activations has no effect on the network {name!r}"


def try_out(network: nn.Module, run: Run) -> None:
    """Calls each network, loss and transform that is not built in with a patch of noise; changes nothing.

    Raises:
        UsageError: One of them does not keep to its interface.
    """
    configuration = run.training.configuration
    with _random_state_restored(run.device):
        torch.manual_seed(0)
        if configuration.network is not None:
            _try_network(network, configuration, run.device)
        if run.settings.loss.custom is not None:
            _try_loss(run)
        _try_transforms(run)


def seed_layers(state: TrainState, run: Run) -> None:
    """Seeds torch's own generator, from which layers such as dropout draw, by fold, step and rank.

    So a run that was stopped goes on with the same draws. The built-in network and losses draw nothing.
    """
    if not isinstance(state.network, UNet) or run.settings.loss.custom is not None:
        sequence = np.random.SeedSequence((*run.training.seed, state.step, run.ranks.number))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def find_idle(network: nn.Module, run: Run) -> list[str]:
    """Returns the names of weights that the loss does not depend on, such as those of the coarsest logits."""
    trial, configuration = copy.deepcopy(network).train(), run.training.configuration
    with _random_state_restored(run.device):
        outputs = trial(_noise(configuration, run.device))
        weights = run.loss.weigh(outputs)
        total = sum(output.float().mean() for output, weight in zip(outputs, weights, strict=True) if weight > 0)
        trained = {name: value for name, value in trial.named_parameters() if value.requires_grad}
        gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]


@contextmanager
def _random_state_restored(device: torch.device) -> Iterator[None]:
    """Returns a context after which torch's own generators are as they were before."""
    before = random_state(device)
    try:
        yield
    finally:
        restore_random_state(device, before)


def _noise(configuration: Configuration, device: torch.device) -> torch.Tensor:
    channels = configuration.architecture.in_channels
    return torch.randn((PATCHES, channels, *configuration.patch_size)).to(device)


def _predict_noise(
    trial: nn.Module, configuration: Configuration, device: torch.device, name: str
) -> tuple[object, object]:
    """Returns the outputs of a network for noise, in training and in evaluation mode."""
    image = _noise(configuration, device)
    try:
        with autocast(device):
            return trial.train()(image), trial.eval()(image)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if not is_monai(name):
            raise  # the author of the network needs the traceback
        edges = " x ".join(map(str, configuration.patch_size))
        what = f"the network {name!r} cannot look at patches of {edges} voxels: {first_line(error)}"
        raise UsageError(what, "change patch_size or the settings of the network in plan.json") from error


@torch.no_grad()
def _try_network(network: nn.Module, configuration: Configuration, device: torch.device) -> None:
    name = "" if configuration.network is None else configuration.network.name
    who, fix = f"the network {name!r}", OTHER_SETTINGS if is_monai(name) else FIX_PACKAGE
    if not any(weights.requires_grad for weights in network.parameters()):
        raise UsageError(f"{who} has no weights to train", fix)
    if not all(isinstance(value, torch.Tensor) for value in network.state_dict().values()):
        raise UsageError(f"the state_dict of {who} holds more than tensors, which no checkpoint keeps", fix)
    outputs, logits = _predict_noise(copy.deepcopy(network), configuration, device, name)
    if not isinstance(outputs, list | tuple) or not outputs:
        raise UsageError(f"{who} gives a {type(outputs).__name__} in training, not a list of logits", fix)
    whole = (PATCHES, configuration.architecture.out_channels, *configuration.centre_size)
    _check_logits(logits, whole, f"{who} in evaluation mode", fix)
    _check_logits(outputs[0], whole, f"{who} in training", fix)
    for coarser in outputs[1:]:
        _check_logits(coarser, whole, f"{who} at a coarser resolution", fix, exact=False)


def _check_logits(logits: object, shape: Sequence[int], who: str, fix: str, *, exact: bool = True) -> None:
    """Makes sure that logits are finite and have a shape; unless `exact`, axes of their size may be shorter."""
    if not isinstance(logits, torch.Tensor):
        raise UsageError(f"{who} gives a {type(logits).__name__}, not a tensor of logits", fix)
    actual = tuple(logits.shape)
    fits = actual == tuple(shape) if exact else len(actual) == len(shape) and actual[:2] == tuple(shape[:2])
    if not fits or any(size > whole for size, whole in zip(actual, shape, strict=True)):
        raise UsageError(f"{who} gives logits of shape {actual}, not {'' if exact else 'at most '}{tuple(shape)}", fix)
    if not bool(logits.isfinite().all()):
        raise UsageError(f"{who} gives logits that are infinite or NaN for a patch of noise", fix)


def _try_loss(run: Run) -> None:
    custom, configuration, targets = run.settings.loss.custom, run.training.configuration, run.loss.targets
    name = "" if custom is None else custom.name
    size = [min(16, length) for length in configuration.patch_size]
    logits = torch.randn((PATCHES, targets.outputs, *size)).to(run.device).requires_grad_()
    labels = torch.tensor(sorted(targets.values))[torch.randint(len(targets.values), (PATCHES, *size))].to(run.device)
    loss = run.loss.at_one_resolution(logits, labels)
    if not bool(loss.isfinite()):
        raise UsageError(f"the loss {name!r} of noise is {loss.item()}", FIX_PACKAGE)
    gradient = torch.autograd.grad(loss, logits, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None or not bool(gradient.isfinite().all()):
        raise UsageError(f"no gradient, or one that is no number, flows through the loss {name!r}", FIX_PACKAGE)


def _try_transforms(run: Run) -> None:
    configuration = run.training.configuration
    labels = torch.tensor(sorted(run.loss.targets.values), dtype=torch.int16)
    for transform in configuration.augmentation.custom:
        image = torch.randn((sum(configuration.inputs_of_scan), *configuration.patch_size))
        label = labels[torch.randint(len(labels), configuration.patch_size)]
        changed, _ = apply_custom_transform(transform, image, label, seed=0)
        if not bool(changed.isfinite().all()):
            raise UsageError(f"the transform {transform.name!r} makes voxels that are infinite or NaN", FIX_PACKAGE)
