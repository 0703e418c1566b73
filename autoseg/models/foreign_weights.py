"""Reading of checkpoints of other programs without running any code from them.

The file is the container of `torch.save`: a zip that holds a pickle and a file with the numbers of each storage. The
pickle is read by `pickles`; then only the numbers that belong to weights are read. Or it is a .safetensors file, see
`safetensors_file`.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import AutosegError, ModelError
from autoseg.models.pickles import (
    CHECKPOINT_NAMES,
    DAMAGED,
    LARGEST_BYTES,
    UNTRUSTED,
    StoredNumbers,
    StoredTensor,
    read_pickle,
)
from autoseg.models.safetensors_file import SafetensorsFile, is_safetensors, open_safetensors

WRAPPINGS = ("module.", "_orig_mod.")
"""Prefixes that torch adds to the names when a network is wrapped for several devices, or compiled."""

WEIGHTS_KEYS = ("network_weights", "state_dict", "model_state_dict", "model")
"""Names under which programs store the weights beside other things: nnU-Net, Lightning and MONAI, torch's tutorials,
and MedSAM."""


OLD_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of files that torch wrote before it took zips: a pickle of a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
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

    def read_content(self) -> Any:
        """Reads the pickle as tensors and plain values."""
        return read_pickle(self.read_description(), CHECKPOINT_NAMES, str(self.path))

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


WeightsFile = Container | SafetensorsFile


def open_weights(path: Path) -> AbstractContextManager[WeightsFile]:
    """Opens a file of weights of another program, of either kind.

    Raises:
        ModelError: It is damaged or no such file; also for errors of any kind while it is open.
    """
    return open_safetensors(path) if is_safetensors(path) else open_container(path)


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Opens a file that `torch.save` has written.

    Raises:
        ModelError: It is damaged or no such file; also for errors of any kind while it is open.
    """
    try:
        _refuse_old_format(path)
        with zipfile.ZipFile(path) as archive:
            yield Container(path=path, archive=archive, root=_check_container(archive, path))
    except AutosegError:
        raise
    except Exception as error:  # zipfile and torch raise errors of many kinds for crafted files
        raise ModelError(f"{path} is damaged or no checkpoint", DAMAGED) from error


def _refuse_old_format(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(OLD_MAGIC)) == OLD_MAGIC:
            what = f"{path} was written by torch before version 1.6, in a format that cannot be read safely"
            raise ModelError(what, "load it with a newer torch, if you trust it, and save it again")


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


def read_foreign_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads the weights in a checkpoint of any program, or in a .safetensors file, to the CPU.

    The file holds a dictionary of tensors, or has one under a name of `WEIGHTS_KEYS`. Everything else is left out, such
    as the state of an optimizer; so are prefixes that torch adds to names, see `unwrap`.

    Returns:
        Name to tensor, in the number type of the file.

    Raises:
        ModelError: The file is missing, damaged or no checkpoint, or holds more than tensors and plain values, which
            the text then names.

    Example:
        >>> torch.save({"model": {"module.scale": torch.ones(2)}, "epoch": 3}, "checkpoint.pth")
        >>> read_foreign_weights(Path("checkpoint.pth"))
        {'scale': tensor([1., 1.])}
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "check the path")
    with open_weights(path) as container:
        return read_weights(find_weights(container.read_content(), path), container)


def find_weights(content: Any, path: Path, key: str | None = None) -> dict[Any, Any]:
    """Returns the dictionary of tensors in the content of a checkpoint, or what stands under a key of it.

    Raises:
        ModelError: There is none.
    """
    if key is not None:
        weights = content.get(key) if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise ModelError(f"{path} holds no weights under {key!r}", "correct the key, or get the right file")
        return dict(weights)
    nested = [content] if isinstance(content, dict) else []
    nested += [content[key] for key in WEIGHTS_KEYS if nested and isinstance(content.get(key), dict)]
    for weights in nested:
        if any(isinstance(value, StoredTensor) for value in weights.values()):
            return dict(weights)
    raise ModelError(f"{path} holds no weights", f"give a dictionary of tensors, or one under {WEIGHTS_KEYS[1]!r}")


def read_weights(
    tensors: Mapping[Any, Any], container: WeightsFile, is_duplicate: Callable[[str], bool] = lambda _: False
) -> dict[str, torch.Tensor]:
    """Reads each weight once, and each storage once, even if several weights share it.

    Args:
        tensors: Name to description, as the pickle has them.
        container: The opened file.
        is_duplicate: Says of a name that its weight is read under another name as well.

    Raises:
        ModelError: A name is no text, or a value no tensor.
        ValueError: A tensor goes beyond what is stored.
    """
    weights: dict[str, torch.Tensor] = {}
    storages: dict[StoredNumbers, torch.Tensor] = {}
    for wrapped, value in tensors.items():
        name = unwrap(_name(wrapped, container.path))
        if is_duplicate(name):
            continue
        if not isinstance(value, StoredTensor):
            raise ModelError(f"{container.path} holds {name!r}, which is no tensor", DAMAGED)
        if value.numbers not in storages:
            storages[value.numbers] = container.read_numbers(value.numbers)
        weights[name] = _view(storages[value.numbers], value).clone()
    return weights


def unwrap(name: str) -> str:
    """Removes the prefixes `WRAPPINGS` from a name.

    >>> unwrap("module.encoder.stem.convs.0.conv.weight")
    'encoder.stem.convs.0.conv.weight'
    """
    for wrapping in WRAPPINGS:
        name = name.removeprefix(wrapping)
    return name


def _name(value: object, path: Path) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise ModelError(f"{path} holds a weight without a name", DAMAGED)
    return value


def _view(storage: torch.Tensor, tensor: StoredTensor) -> torch.Tensor:
    """Returns a tensor as a view of its storage.

    Raises:
        ValueError: The tensor repeats numbers of the storage, or goes beyond its end.
    """
    if prod(tensor.size) > storage.numel() or len(tensor.size) != len(tensor.stride):
        raise ValueError("a tensor has more numbers than are stored")
    return storage.as_strided(tensor.size, tensor.stride, tensor.offset)
