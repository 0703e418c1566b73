"""A checkpoint of nnU-Net's, opened without running any code of it.

The file is torch's container: a zip that holds a pickle and, each in a file of its own, the numbers of the tensors. The
pickle is read by `pickles`; then those numbers are taken that belong to weights, and nothing else.
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
from autoseg.nnunet.names import Weights, is_another_name, unwrap
from autoseg.nnunet.pickles import (
    CHECKPOINT_NAMES,
    DAMAGED,
    LARGEST_BYTES,
    UNTRUSTED,
    StoredNumbers,
    StoredTensor,
    read_pickle,
)
from autoseg.workspace import Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetCheckpoint:
    """What is used of a checkpoint.

    Attributes:
        trainer: Name of the class that trained it.
        configuration: Name of the configuration in plans.json.
        fold: Which; None if that is not noted.
        epochs: How many it was trained for; None if that is not noted.
        mirror_axes: Axes of a patch that may be flipped in prediction.
        weights: By nnU-Net's names, each once.
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
        ModelError: The file is damaged, is no checkpoint of nnU-Net v2, or holds more than tensors and plain values:
            then the text names what.
    """
    with _opened(path) as container:
        content = read_pickle(container.read_description(), CHECKPOINT_NAMES, str(path))
        found = content.get("network_weights") if isinstance(content, dict) else None
        settings = content.get("init_args") if isinstance(content, dict) else None
        if not isinstance(found, dict) or not isinstance(settings, dict):
            raise ModelError(f"{path} is no checkpoint of nnU-Net v2", "check the path")
        epochs = content.get("current_epoch")
        return NnunetCheckpoint(
            trainer=_text(content.get("trainer_name"), path),
            configuration=_text(settings.get("configuration"), path),
            fold=_fold(settings.get("fold")),
            epochs=epochs if type(epochs) is int else None,
            mirror_axes=_axes(content.get("inference_allowed_mirroring_axes"), path),
            weights=_read_weights(found, container),
        )


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise ModelError(f"{path} does not name its trainer and configuration", "check the path")
    return value


def _fold(value: object) -> Fold | None:
    """A number, which nnU-Net may have kept as it was typed, or "all"."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int or value == "all" else None


def _axes(value: object, path: Path) -> tuple[int, ...]:
    """None, which nnU-Net reads as no mirroring, is no axes."""
    axes = () if value is None else value
    if not isinstance(axes, tuple | list) or any(type(axis) is not int for axis in axes):
        raise ModelError(f"{path} mirrors along axes that are no numbers", DAMAGED)
    return tuple(axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    """The zip that torch writes.

    Attributes:
        path: For errors.
        archive: The zip.
        root: The folder inside that holds all.
    """

    path: Path
    archive: zipfile.ZipFile
    root: str

    def read_description(self) -> bytes:
        entry = self.archive.getinfo(f"{self.root}/data.pkl")
        if entry.file_size > LARGEST_BYTES:
            raise ModelError(f"{self.path} describes itself in {entry.file_size} bytes", UNTRUSTED)
        return self.archive.read(entry)

    def read_numbers(self, numbers: StoredNumbers) -> torch.Tensor:
        """One long row of numbers.

        Raises:
            ValueError: There are fewer than the description says, or more.
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
    except Exception as error:  # zipfile and torch meet crafted files with errors of many kinds
        raise ModelError(f"{path} is damaged or no checkpoint", DAMAGED) from error


def _check_container(archive: zipfile.ZipFile, path: Path) -> str:
    """The folder inside that holds all, of a zip that unpacks to no more than it holds."""
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


def _read_weights(found: dict[Any, Any], container: _Container) -> Weights:
    """Takes each weight once, and its numbers too, if several share them."""
    weights: Weights = {}
    rows: dict[StoredNumbers, torch.Tensor] = {}
    for wrapped, value in found.items():
        name = unwrap(_text(wrapped, container.path))
        if is_another_name(name):
            continue
        if not isinstance(value, StoredTensor):
            raise ModelError(f"{container.path} holds {name!r}, which is no tensor", DAMAGED)
        if value.numbers not in rows:
            rows[value.numbers] = container.read_numbers(value.numbers)
        weights[name] = _view(rows[value.numbers], value).clone()
    return weights


def _view(row: torch.Tensor, tensor: StoredTensor) -> torch.Tensor:
    """The tensor in its row of numbers; one that repeats them, or goes beyond, is refused with ValueError."""
    if prod(tensor.size) > row.numel() or len(tensor.size) != len(tensor.stride):
        raise ValueError("a tensor has more numbers than are stored")
    return row.as_strided(tensor.size, tensor.stride, tensor.offset)
