"""Checkpoints: a trained fold in one file, weights and everything that describes them; read without running its code.

The file is torch's own container, read with `weights_only=True`: tensors and plain values only, so that a file from a
stranger can be refused but can do no harm. It is mapped into memory first, where no tensor can reach beyond what is
stored; the sizes of its tensors are compared with the size of the file before memory of that size is allocated.
"""

import copy
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import AutosegError, ModelError
from autoseg.models.fold_description import FoldDescription
from autoseg.models.monai_networks import count_monai
from autoseg.networks.monai_names import is_monai
from autoseg.planning.plan import Plan
from autoseg.runtime.artifact import atomic_file
from autoseg.workspace import EXPORTED_NETWORK, Fold

FORMAT_VERSION = 2
ANEW = "get a sound copy, or train that fold anew with --restart"

NAMELESS = {"groups": None, "annotated": None, "machine_labelled": None}
"""Fields of a dataset's description that may name patients, and their values in a model that is passed on."""

LARGEST_GROWTH = 2
"""How many times as many weights as are stored a network may have before it is refused without being built. Decision:
below that, the layers that do not fit are worth a message of their own."""

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(FoldDescription):
    """The content of a checkpoint.

    Attributes:
        weights: Weights of the network that predicts, by name.
        training: What resuming needs, in tensors and plain values; see `training.state`. Empty in a model that was
            passed on.
    """

    weights: Weights
    training: dict[str, Any]

    def to_pass_on(self) -> "Checkpoint":
        """Returns the checkpoint with what prediction needs, and without names of patients."""
        return replace(self, info=self.info.model_copy(update=NAMELESS), training={})


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint, atomically: after a crash in between, the file is as it was before.

    Raises:
        ArtifactError: The disk is full or the folder cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "plan": checkpoint.plan.model_dump_json(),
        "dataset": checkpoint.info.model_dump_json(),
        "configuration": checkpoint.configuration_name,
        "fold": checkpoint.fold,
        "cases": checkpoint.cases,
        "weights": dict(checkpoint.weights),
        "finished": checkpoint.finished,
        "training": checkpoint.training,
    }
    with atomic_file(path) as writing:
        try:
            torch.save(content, writing)
        except RuntimeError as error:  # torch's own writer says so when the disk is full
            raise OSError(None, f"writing failed, the disk may be full ({_first_line(error)})") from error


def load_checkpoint(path: Path, *, mapped: bool = False) -> Checkpoint:
    """Reads a checkpoint to the CPU.

    Args:
        path: Path of the checkpoint.
        mapped: Whether the tensors stay mapped to the file, which takes no memory of their size. They must be dropped
            before the file can change; without it, they are copied and last.

    Raises:
        ModelError: The file is missing, damaged, holds more than tensors and plain values, or is of another version;
            its weights are not finite; or its plan describes a network that is far larger than they are.
    """
    if path.with_name(EXPORTED_NETWORK).is_file() and not path.is_file():
        what = f"{path.parent} holds a network for other runtimes, and no checkpoint, which this needs"
        raise ModelError(what, "get the model that was exported without --runtime onnx")
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "train that fold first")
    _check_container(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _check_tensors(content)
        content = content if mapped else copy.deepcopy(content)  # what is mapped would change with the file
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} is damaged or holds more than weights", ANEW) from error
    except Exception as error:  # what torch makes of a file that someone crafted can be anything
        raise ModelError(f"{path} is damaged or no checkpoint", ANEW) from error
    checkpoint = _from_content(content, path)
    _check_plan(checkpoint, path)
    return checkpoint


def check_resumable(checkpoint: Checkpoint, path: Path) -> None:
    """Makes sure that a checkpoint can be trained on.

    Raises:
        ModelError: It is of a model that was passed on.
    """
    if not checkpoint.training:
        what = f"{path} was passed on without what training needs to go on"
        raise ModelError(what, "begin with its weights in another folder by --init, or add --restart to train it anew")


def _check_container(path: Path) -> None:
    """Refuses a file that torch would unpack to more bytes than it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except Exception as error:  # zipfile meets crafted files with errors of many kinds
        raise ModelError(f"{path} is damaged or no checkpoint", ANEW) from error
    if "manifest.json" in {part.filename for part in parts}:
        raise ModelError(f"{path} is a model bundle, no checkpoint", "unpack it with 'autoseg install'")
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if packed or sum(part.file_size for part in parts) > path.stat().st_size:
        raise ModelError(f"{path} is packed in a way that no checkpoint is", ANEW)


def _check_tensors(content: Any) -> None:
    """Refuses tensors without stored values, or that repeat stored values: a copy of them could be of any size.

    Raises:
        TypeError: There is such a tensor.
    """
    for tensor in _find_tensors(content):
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not plain or tensor.device.type != "cpu" or tensor.is_quantized:
            raise TypeError("it holds tensors of an unusual kind")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise TypeError("it holds tensors that are larger than what is stored of them")


def _find_tensors(content: Any) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _find_tensors(value)
    elif isinstance(content, list | tuple | set):
        for value in content:
            yield from _find_tensors(value)


def _from_content(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or "format_version" not in content:
        raise ModelError(f"{path} is no checkpoint of this program", "check the path")
    if content["format_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {content['format_version']!r}, this program reads {FORMAT_VERSION}",
            "use the version of autoseg that wrote it",
        )
    try:
        return Checkpoint(
            plan=Plan.parse(content["plan"], source=str(path)),
            info=DatasetInfo.parse(content["dataset"], source="its dataset.json"),
            configuration_name=content["configuration"],
            fold=_read_fold(content["fold"]),
            cases=str(content["cases"]),
            weights=_read_weights(content["weights"]),
            finished=bool(content["finished"]),
            training=dict(content["training"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AutosegError) as error:
        raise ModelError(f"{path} is damaged: {_first_line(error)}", ANEW) from error


def _read_fold(fold: Any) -> Fold:
    if fold != "all" and (type(fold) is not int or fold < 0):
        raise ValueError("its fold is no number")
    return fold  # type: ignore[no-any-return]


def _read_weights(weights: Any) -> Weights:
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise TypeError("its weights are no tensors")
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"its weights {name!r} are infinite or no numbers")
    return weights


def _check_plan(checkpoint: Checkpoint, path: Path) -> None:
    """Refuses a plan without the configuration, or with a network far larger than its weights, before it is built.

    The size of a network that an installed package builds is not known; MONAI's are counted, if MONAI is installed.
    """
    name = checkpoint.configuration_name
    if not isinstance(name, str) or name not in checkpoint.plan.configurations:
        raise ModelError(f"{path} is of an unknown configuration {name!r}", "check the path")
    weights, network = checkpoint.configuration.weights, checkpoint.configuration.network
    if network is not None and is_monai(network.name):
        weights = count_monai(checkpoint.configuration)
    if weights is None:
        return
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in checkpoint.weights.values()}
    stored = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in storages.values())
    if weights > LARGEST_GROWTH * stored:
        what = f"{path} holds {stored} weights, less than a part of the network that its plan describes"
        raise ModelError(what, ANEW)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
