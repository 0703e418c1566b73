"""The network of a trained fold in ONNX, compared with torch before anybody relies on it.

The network is traced once. What tracing bakes in silently, such as the number of samples, shows when the result is
calculated for another number of patches, and for patches of another size: so it is, by each runtime that is installed.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.models.build import restore_network
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.fold_description import ExportedFold, Parity
from autoseg.models.onnx_checks import INSTALL_ONNX, check_onnx, find_problem
from autoseg.models.onnx_memory import find_peak_bytes
from autoseg.models.runtimes import ExportedNetwork, list_installed
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import Configuration

OPSET = 17
"""Version of ONNX's operators. Source: the first that has layer norm; all runtimes since 2022 read it."""

LARGEST_RELATIVE_DIFFERENCE, MOST_VOXELS_OTHERWISE = 1e-3, 1e-4
"""Largest difference of two logits, as a part of the largest logit, and share of voxels that may be decided otherwise.

Decision: float32 in another order of sums differs by 1e-6 to 1e-5; the second is what a user sees of it.
"""

OTHER_SAMPLES = 3
"""Number of patches of the second batch; the first has one, and the network is traced with two."""

AXES = ("depth", "height", "width")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A way to export a network.

    Attributes:
        any_size: Whether axes of the patch are left free.
        traced: Size of the patch with which it is traced.
        compared: Size of the patch of each batch that is compared.
    """

    any_size: bool
    traced: tuple[int, ...]
    compared: tuple[tuple[int, ...], tuple[int, ...]]


def export_fold(checkpoint: Checkpoint, path: Path) -> ExportedFold:
    """Writes the network of a fold in ONNX, and compares it with torch.

    Args:
        checkpoint: The fold.
        path: Path of network.onnx.

    Returns:
        The description of the fold.

    Raises:
        UsageError: The network cannot be exported, or a package that this needs is missing.
        ModelError: The exported network calculates something else than torch.
    """
    if not list_installed():
        raise UsageError("an exported network is compared with torch by a runtime, and none is installed", INSTALL_ONNX)
    network, configuration = restore_network(checkpoint).eval(), checkpoint.configuration
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = _list_trials(configuration)
    for number, trial in enumerate(trials, start=1):
        try:
            _export(network, configuration, trial, path)
            parity = _compare(network, checkpoint, trial, path)
            break
        except AutosegError:
            if number == len(trials):
                raise
    _check(parity, checkpoint)
    return ExportedFold(
        plan=checkpoint.plan,
        dataset=checkpoint.info,
        configuration=checkpoint.configuration_name,
        fold=checkpoint.fold,  # type: ignore[arg-type]
        cases=checkpoint.cases,
        weights=digest_weights(checkpoint.weights),
        any_size=trial.any_size,
        parity=parity,
    )


def _list_trials(configuration: Configuration) -> list[_Trial]:
    """Returns the ways to export a network: with free axes if it takes several sizes, else with those of the plan."""
    planned = configuration.patch_size
    fixed = _Trial(any_size=False, traced=planned, compared=(planned, planned))
    smaller = _choose_other_size(configuration)
    return [fixed] if smaller is None else [_Trial(any_size=True, traced=smaller, compared=(planned, smaller)), fixed]


def _choose_other_size(configuration: Configuration) -> tuple[int, ...] | None:
    """Returns the size of a patch that the network takes beside that of the plan; None if it takes no other."""
    spec, plugin, planned = configuration.spec, configuration.network, configuration.patch_size
    if spec is not None and plugin is not None and spec.fixed_patch(spec.parse(plugin.settings)):
        return None
    patches = configuration.patches
    first = tuple(edge + step for edge, step in zip(patches.smallest, patches.step, strict=True))
    sizes = (first, tuple(edge + step for edge, step in zip(first, patches.step, strict=True)))
    return next((size for size in sizes if size != planned and patches.find_problem(size) is None), None)


def _export(network: nn.Module, configuration: Configuration, trial: _Trial, path: Path) -> None:
    """Traces a network and writes it.

    Decision: torch's exporter by tracing, which takes seconds where the one by `torch.export` takes a minute for free
    axes, and needs one package less.
    """
    free = {0: "samples"}
    if trial.any_size:
        free |= {axis + 2: name for axis, name in enumerate(AXES[-len(trial.traced) :])}
    patches = torch.from_numpy(make_patches(configuration, 2, trial.traced))
    name = describe_network(configuration)
    try:
        import onnx  # noqa: PLC0415 - it is an extra; torch needs it to write the file
    except ModuleNotFoundError as error:
        raise UsageError("an export to ONNX needs the package onnx", INSTALL_ONNX) from error
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the result is compared with torch instead
            torch.onnx.export(
                network,
                (patches,),
                str(path),
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": free, "logits": free},
                opset_version=OPSET,
            )
    except OSError:
        raise
    except Exception as error:  # torch fails in many ways where ONNX lacks an operator
        what = f"{name} cannot be exported to ONNX: {(str(error) or type(error).__name__).splitlines()[0][:200]}"
        raise UsageError(what, "export the model without --runtime") from error
    model = onnx.load(str(path), load_external_data=False)
    problem = find_problem(model)
    if problem is None and find_peak_bytes(model, patches.shape) is None:
        problem = "holds maps whose shapes cannot be told before it is calculated"
    if problem is not None:
        raise UsageError(f"{name} cannot be exported to ONNX: it {problem}", "export the model without --runtime")


def describe_network(configuration: Configuration) -> str:
    """Returns the name of the network of a configuration, for messages."""
    return "the default network" if configuration.network is None else f"the network {configuration.network.name!r}"


def make_patches(configuration: Configuration, samples: int, size: Sequence[int]) -> NDArray[np.float32]:
    """Returns patches of noise with mean 0 and deviation 1, as normalized images have; the same each time."""
    shape = (samples, configuration.architecture.in_channels, *size)
    return np.random.default_rng(samples).standard_normal(shape, dtype=np.float32)


def _compare(network: nn.Module, checkpoint: Checkpoint, trial: _Trial, path: Path) -> Parity:
    """Compares the logits of each runtime that is installed with those of torch.

    Raises:
        UsageError: A runtime cannot calculate the network.
        ModelError: It returns another shape.
    """
    data = check_onnx(path)
    runtimes = [ExportedNetwork(name, data, "the exported network") for name in list_installed()]
    shapes, differences, largest, otherwise = [], [0.0], [0.0], [0.0]
    for samples, size in zip((1, OTHER_SAMPLES), trial.compared, strict=True):
        patches = make_patches(checkpoint.configuration, samples, size)
        with torch.no_grad():
            expected: NDArray[np.float32] = network(torch.from_numpy(patches)).numpy()
        shapes.append(patches.shape)
        largest.append(float(np.abs(expected).max()))
        for runtime in runtimes:
            logits = _calculate(runtime, patches, describe_network(checkpoint.configuration))
            if logits.shape != expected.shape:
                what = f"{describe_network(checkpoint.configuration)} depends on the number or the size of patches"
                raise ModelError(f"{what} when it is exported to ONNX", "export the model without --runtime")
            differences.append(float(np.abs(logits - expected).max()))
            otherwise.append(_count_otherwise(logits, expected, exclusive=checkpoint.info.targets.exclusive))
    return Parity(
        patches=tuple(shapes),
        largest_difference=max(differences),
        largest_logit=max(largest),
        voxels_otherwise=max(otherwise),
    )


def _calculate(runtime: ExportedNetwork, patches: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Returns the logits of an exported network; refuses one that a runtime cannot calculate."""
    try:
        return runtime(patches)
    except ModelError as error:
        raise UsageError(f"{name} cannot be exported to ONNX: {error.what}", "export it without --runtime") from error


def _count_otherwise(logits: NDArray[np.float32], expected: NDArray[np.float32], *, exclusive: bool) -> float:
    """Returns the share of voxels at which two networks decide otherwise."""
    if exclusive:
        return float((logits.argmax(axis=1) != expected.argmax(axis=1)).mean())
    return float(((logits > 0) != (expected > 0)).any(axis=1).mean())


def _check(parity: Parity, checkpoint: Checkpoint) -> None:
    """Refuses a network that calculates something else than torch."""
    if parity.relative_difference <= LARGEST_RELATIVE_DIFFERENCE and parity.voxels_otherwise <= MOST_VOXELS_OTHERWISE:
        return
    what = (
        f"{describe_network(checkpoint.configuration)} of fold {checkpoint.fold} calculates something else in ONNX: "
        f"logits differ by {parity.relative_difference:.1e} of the largest one, "
        f"{100 * parity.voxels_otherwise:.3f} % of voxels are decided otherwise"
    )
    allowed = f"{LARGEST_RELATIVE_DIFFERENCE:.0e} and {100 * MOST_VOXELS_OTHERWISE:.2f} % are allowed"
    raise ModelError(what, f"export the model without --runtime ({allowed})")
