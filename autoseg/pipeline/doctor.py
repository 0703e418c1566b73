"""Checks of the machine: versions, devices, memory, folders, and the speed of a convolution.

Nothing is printed here and nothing is changed; each finding says what to do about it.
"""

import os
import platform
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

from autoseg.errors import UsageError
from autoseg.models.runtimes import describe_choice
from autoseg.models.speed import describe_use, measure_speed, time_fastest
from autoseg.pipeline.convolution_trial import Trial, try_convolutions
from autoseg.planning.plugins import GROUPS, Kind, find_plugin, list_available
from autoseg.planning.presets import LADDER, PRESETS
from autoseg.runtime.device import autocast, gpu_memory_bytes, precision, resolve_device
from autoseg.runtime.machine import count_cores
from autoseg.runtime.os_errors import advise_writing, reason_of
from autoseg.runtime.processor import describe_instructions
from autoseg.workspace import Workspace, find_workspace

State = Literal["ok", "warning", "failure"]

DEPENDENCIES = (
    "torch", "numpy", "array-api-compat", "SimpleITK", "scikit-image", "batchgenerators", "pandas",
    "scipy", "blosc2", "threadpoolctl", "pydantic", "typer", "rich", "matplotlib", "jinja2", "pillow", "tifffile",
)  # fmt: skip
GIB = 1024**3
ENOUGH_RAM_GIB = 8.0  # Decision: a CT of 512 x 512 x 600 voxels, 0.6 GiB in float32, several times over
ENOUGH_DISK_GIB = 20.0  # Decision: a hundred CT scans of about 100 MB, raw and preprocessed
SECONDS_PER_PRECISION = 1.5
PATCH = {"cuda": 96, "mps": 64, "cpu": 32}
FEATURES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        title: Subject of the check, such as "memory".
        value: What was found, such as "15.6 GiB".
        state: "failure" stops some command, "warning" slows it down or may surprise.
        advice: What to do; empty if nothing is to be done.
    """

    title: str
    value: str
    state: State = "ok"
    advice: str = ""


def examine_machine(workspace: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Looks for what could go wrong on this machine; takes about ten seconds, most of them for convolutions.

    Args:
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.

    Returns:
        A finding for each version, device and folder that was examined; nothing is raised.

    Example:
        All that needs the user's attention::

            [finding for finding in autoseg.examine_machine() if finding.state != "ok"]
    """
    return [
        *examine_versions(),
        *examine_torch(torch.__version__),
        examine_runtimes(),
        *examine_extensions(),
        examine_cores(),
        examine_memory(),
        *examine_devices(),
        examine_convolution(resolve_device("auto")),
        examine_gradients(),
        examine_speed(resolve_device("auto")),
        *examine_folders(find_workspace(workspace)),
    ]


def examine_versions() -> list[Finding]:
    """Returns the versions of Python and of each dependency; a missing dependency is a failure."""
    findings = [Finding(title="python", value=f"{platform.python_version()} on {platform.platform()}")]
    for package in DEPENDENCIES:
        try:
            findings.append(Finding(title=package, value=metadata.version(package)))
        except metadata.PackageNotFoundError:
            advice = f"pip install {package}"
            findings.append(Finding(title=package, value="is missing", state="failure", advice=advice))
    return findings


def examine_torch(version: str) -> list[Finding]:
    """Returns the known faults of this version of torch; empty if there is none.

    Source: pytorch issue 166122: in 2.9, 3D convolutions in mixed precision run several times slower.
    """
    if version.split(".")[:2] != ["2", "9"]:
        return []
    advice = "install any other version: pip install 'torch!=2.9.*'"
    value = f"{version} runs 3D convolutions in mixed precision several times slower"
    return [Finding(title="known trap", value=value, state="failure", advice=advice)]


def examine_runtimes() -> Finding:
    """Returns what calculates the networks of models, as --runtime auto chooses it."""
    return Finding(title="runtimes", value=describe_choice())


def examine_extensions() -> list[Finding]:
    """Returns the networks, losses and transforms of installed packages; one that cannot be loaded is a failure."""
    return [_examine_offer(kind, name, source) for kind in GROUPS for name, source in list_available(kind).items()] or [
        Finding(title="extensions", value="no package offers networks, losses or transforms")
    ]


def _examine_offer(kind: Kind, name: str, source: str) -> Finding:
    try:
        find_plugin(kind, name)
    except UsageError as error:
        return Finding(title=f"{kind} {name}", value=error.what, state="failure", advice=error.fix)
    return Finding(title=f"{kind} {name}", value=f"of {source}")


def examine_cores() -> Finding:
    """Returns the number of cores that this process may use, which can be fewer than the machine has."""
    return Finding(title="cores", value=f"{count_cores()} of {os.cpu_count() or 1} usable")


def examine_memory() -> Finding:
    """Returns the size of the main memory; a warning if it is small."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (AttributeError, ValueError, OSError):  # not on Windows
        return Finding(title="memory", value="unknown on this system")
    if total < ENOUGH_RAM_GIB:
        advice = "expect trouble with large scans"
        return Finding(title="memory", value=f"{total:.1f} GiB", state="warning", advice=advice)
    return Finding(title="memory", value=f"{total:.1f} GiB")


def examine_devices() -> list[Finding]:
    """Returns the GPUs with their memory; a warning if there is none."""
    if torch.cuda.is_available():
        return [_examine_gpu(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [Finding(title="device", value="Apple GPU (mps), shares the main memory")]
    if shutil.which("nvidia-smi"):
        advice = "install the CUDA build of torch that fits the driver, see pytorch.org"
        value = f"an NVIDIA driver is here, but torch {torch.__version__} does not see a GPU"
        return [Finding(title="device", value=value, state="warning", advice=advice)]
    advice = "plans suit this machine by themselves; for a GPU elsewhere, plan with --memory 24GB"
    return [Finding(title="device", value="CPU only", state="warning", advice=advice)]


def examine_convolution(device: torch.device) -> Finding:
    """Times a 3D convolution, forward and backward, in float32 and in the precision that training uses here."""
    title = f"convolution on {device.type}"
    name = str(precision(device)).removeprefix("torch.")
    try:
        full_ms = _time_convolution(device, nullcontext())
        mixed_ms = full_ms if name == "float32" else _time_convolution(device, autocast(device))
    except RuntimeError as error:
        advice = "stop other programs that use the device, else reinstall torch for this machine"
        return Finding(title=title, value=str(error).splitlines()[0], state="failure", advice=advice)
    if name == "float32":
        return Finding(title=title, value=f"float32 {full_ms:.1f} ms; training takes float32 here")
    return judge_convolution(title, f"float32 {full_ms:.1f} ms, {name} {mixed_ms:.1f} ms", mixed_ms / full_ms)


def judge_convolution(title: str, value: str, slowdown: float) -> Finding:
    """Returns a warning if mixed precision takes longer than float32.

    Args:
        title: Title of the finding.
        value: The measured times, in words.
        slowdown: Time in mixed precision divided by the time in float32.
    """
    if slowdown <= 1:
        return Finding(title=title, value=value)
    return Finding(
        title=title,
        value=f"{value}: mixed precision is {slowdown:.1f} times slower",
        state="warning",
        advice="install another version of torch",
    )


def examine_gradients() -> Finding:
    """Tries convolutions whose gradients some versions of torch calculate wrongly on some CPUs."""
    title, advice = (
        "gradients on cpu",
        "run doctor again when the machine is idle, else install another version of torch",
    )
    try:
        trial = try_convolutions()
    except RuntimeError as error:
        value = f"unknown, because the process that tries convolutions failed: {error}"
        return Finding(title=title, value=value, state="warning", advice=advice)
    return judge_gradients(title, trial, own_networks=bool(list_available("network")))


def judge_gradients(title: str, trial: Trial, *, own_networks: bool) -> Finding:
    """Returns a failure if the program's own convolutions are wrong, and tells whether torch's are.

    Args:
        title: Title of the finding.
        trial: Which convolutions are wrong.
        own_networks: Whether packages offer networks, which may call torch's convolutions by themselves.
    """
    if trial.ours:
        value = f"wrong, or the program crashes: {' and '.join(trial.ours)}"
        return Finding(title=title, value=value, state="failure", advice="install another version of torch")
    if not trial.torch:
        return Finding(title=title, value="right")
    value = f"right; torch {torch.__version__} has a fault in {' and '.join(trial.torch)}, which autoseg avoids"
    if not own_networks:
        return Finding(title=title, value=value)
    advice = "in networks of packages use nn.Conv2d and nn.Conv3d, not subclasses or F.conv2d; see the page on plugins"
    return Finding(title=title, value=value, state="warning", advice=advice)


def examine_speed(device: torch.device) -> Finding:
    """Returns what the machine is good for: on a CUDA GPU by its memory, else by the speed that a probe measures."""
    memory = gpu_memory_bytes(device)
    if memory is not None:
        preset = [name for name in LADDER if PRESETS[name].memory_bytes <= memory or name == LADDER[0]][-1]
        return Finding(title="good for", value=f"plans up to preset {preset}, by the memory of the GPU")
    instructions = describe_instructions() if device.type == "cpu" else device.type
    return Finding(title="good for", value=f"{describe_use(measure_speed(device))} ({instructions})")


def examine_folders(workspace: Workspace) -> list[Finding]:
    """Returns for each folder of the workspace whether it can be written, and the free space there."""
    folders = (workspace.root, workspace.raw, workspace.preprocessed, workspace.results)
    return [_examine_folder("workspace" if path == workspace.root else path.name, path) for path in folders]


def _examine_gpu(index: int) -> Finding:
    free, total = torch.cuda.mem_get_info(index)
    value = f"{torch.cuda.get_device_name(index)}, {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
    if free < total / 2:
        advice = "another program uses it; stop that or plan with less --memory"
        return Finding(title=f"GPU {index}", value=value, state="warning", advice=advice)
    return Finding(title=f"GPU {index}", value=value)


def _time_convolution(device: torch.device, context: AbstractContextManager[None]) -> float:
    """Returns the milliseconds of the fastest of several passes.

    Args:
        device: Device on which the convolution runs.
        context: Context of the forward pass; it is entered once per pass.
    """
    random = torch.Generator().manual_seed(0)
    side = PATCH[device.type]
    image = torch.randn((2, FEATURES, side, side, side), generator=random).to(device)
    layer = torch.nn.Conv3d(FEATURES, FEATURES, 3, padding=1).to(device)

    def run() -> None:
        with context:
            output = layer(image)
        output.sum().backward()

    return time_fastest(run, device, enough_seconds=SECONDS_PER_PRECISION) * 1000


def _examine_folder(title: str, path: Path) -> Finding:
    path = path.resolve()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    where = str(path) if path.exists() else f"{path} (will be made)"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free / GIB
    except OSError as error:
        advice = f"{advise_writing(error)}, or another folder with -w"
        value = f"{where} cannot be written: {reason_of(error)}"
        return Finding(title=title, value=value, state="failure", advice=advice)
    value = f"{where}, {free:.0f} GiB free"
    if free < ENOUGH_DISK_GIB:
        return Finding(title=title, value=value, state="warning", advice="free some space before you preprocess")
    return Finding(title=title, value=value)
