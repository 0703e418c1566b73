"""Reading of nnU-Net's checkpoints without running any code from them.

The file is the container of `torch.save`: a zip that holds a pickle and a file with the numbers of each storage. The
pickle is read by `pickles`; then only the numbers that belong to weights are read.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import ModelError
from autoseg.nnunet.pickles import (
    CHECKPOINT_NAMES,
    DAMAGED,
    LARGEST_BYTES,
    UNTRUSTED,
    StoredNumbers,
    StoredTensor,
    read_pickle,
)
from autoseg.nnunet.weight_names import Weights, is_duplicate, unwrap
from autoseg.workspace import Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetCheckpoint:
    """The content of a checkpoint that is used.

    Attributes:
        trainer: Name of the trainer class.
        configuration: Name of the configuration in plans.json.
        fold: Fold; None if it is not stored.
        epochs: Number of epochs of training; None if it is not stored.
        mirror_axes: Axes of a patch that may be flipped in prediction.
        weights: Weights by nnU-Net's main names, each once.
    """

    trainer: str
    configuration: str
    fold: Fold | None
    epochs: int | None
    mirror_axes: tuple[int, ...]
    weights: Weights


def read_nnunet_checkpoint(path: Path) -> NnunetCheckpoint:
    """Reads a checkpoint to the CPU.

    Raises:
        ModelError: The file is damaged, is no checkpoint of nnU-Net v2, or holds more than tensors and plain values,
            which the text then names.
    """
    with _opened(path) as container:
        content = read_pickle(container.read_description(), CHECKPOINT_NAMES, str(path))
        tensors = content.get("network_weights") if isinstance(content, dict) else None
        settings = content.get("init_args") if isinstance(content, dict) else None
        if not isinstance(tensors, dict) or not isinstance(settings, dict):
            raise ModelError(f"{path} is no checkpoint of nnU-Net v2", "check the path")
        epochs = content.get("current_epoch")
        return NnunetCheckpoint(
            trainer=_text(content.get("trainer_name"), path),
            configuration=_text(settings.get("configuration"), path),
            fold=_fold(settings.get("fold")),
            epochs=epochs if type(epochs) is int else None,
            mirror_axes=_axes(content.get("inference_allowed_mirroring_axes"), path),
            weights=_read_weights(tensors, container),
        )


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise ModelError(f"{path} does not name its trainer and configuration", "check the path")
    return value


def _fold(value: object) -> Fold | None:
    """Returns a number, which nnU-Net may have stored as text, or "all"; None for anything else.

    >>> _fold("3"), _fold(3), _fold("all"), _fold(None)
    (3, 3, 'all', None)
    """
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int or value == "all" else None


def _axes(value: object, path: Path) -> tuple[int, ...]:
    """Returns the axes of mirroring; None, which means no mirroring in nnU-Net, becomes no axes."""
    axes = () if value is None else value
    if not isinstance(axes, tuple | list) or any(type(axis) is not int for axis in axes):
        raise ModelError(f"{path} mirrors along axes that are no numbers", DAMAGED)
    return tuple(axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    """The zip that `torch.save` writes.

    Attributes:
        path: Path of the file, for errors.
        archive: The opened zip.
        root: Folder in the zip that holds all files.
    """

    path: Path
    archive: zipfile.ZipFile
    root: str

    def read_description(self) -> bytes:
        """Reads the pickle."""
        entry = self.archive.getinfo(f"{self.root}/data.pkl")
        if entry.file_size > LARGEST_BYTES:
            raise ModelError(f"{self.path} describes itself in {entry.file_size} bytes", UNTRUSTED)
        return self.archive.read(entry)

    def read_numbers(self, numbers: StoredNumbers) -> torch.Tensor:
        """Reads a storage as a tensor of shape (length,).

        Raises:
            ValueError: Its length differs from its description.
        """
        dtype = getattr(torch, numbers.dtype)
        entry = self.archive.getinfo(f"{self.root}/data/{numbers.key}")
        if entry.file_size != numbers.length * dtype.itemsize:
            raise ValueError("a tensor has other numbers than are stored")
        return torch.frombuffer(bytearray(self.archive.read(entry)), dtype=dtype)


@contextmanager
def _opened(path: Path) -> Iterator[_Container]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield _Container(path=path, archive=archive, root=_check_container(archive, path))
    except ModelError:
        raise
    except Exception as error:  # zipfile and torch raise errors of many kinds for crafted files
        raise ModelError(f"{path} is damaged or no checkpoint", DAMAGED) from error


def _check_container(archive: zipfile.ZipFile, path: Path) -> str:
    """Checks that a zip is an uncompressed container of torch, and returns the folder in it that holds all files."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or len(names) < len(entries) or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ModelError(f"{path} is packed in a way that no checkpoint is", UNTRUSTED)
    roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ModelError(f"{path} is no checkpoint of torch's", "check the path")
    order = f"{roots[0]}/byteorder"
    if order in names and archive.read(order) != b"little":
        raise ModelError(f"{path} was written by a machine with another order of bytes", "convert it there")
    return roots[0]


def _read_weights(tensors: dict[Any, Any], container: _Container) -> Weights:
    """Reads each weight once, and each storage once, even if several weights share it."""
    weights: Weights = {}
    storages: dict[StoredNumbers, torch.Tensor] = {}
    for wrapped, value in tensors.items():
        name = unwrap(_text(wrapped, container.path))
        if is_duplicate(name):
            continue
        if not isinstance(value, StoredTensor):
            raise ModelError(f"{container.path} holds {name!r}, which is no tensor", DAMAGED)
        if value.numbers not in storages:
            storages[value.numbers] = container.read_numbers(value.numbers)
        weights[name] = _view(storages[value.numbers], value).clone()
    return weights


def _view(storage: torch.Tensor, tensor: StoredTensor) -> torch.Tensor:
    """Returns a tensor as a view of its storage.

    Raises:
        ValueError: The tensor repeats numbers of the storage, or goes beyond its end.
    """
    if prod(tensor.size) > storage.numel() or len(tensor.size) != len(tensor.stride):
        raise ValueError("a tensor has more numbers than are stored")
    return storage.as_strided(tensor.size, tensor.stride, tensor.offset)
