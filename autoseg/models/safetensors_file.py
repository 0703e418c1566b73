"""Reading of .safetensors files, in which weights are often published. Nothing in them can run.

    8 bytes           length of the header, little-endian
    header            JSON: name of each tensor to {"dtype": "F32", "shape": [8, 1, 3, 3], "data_offsets": [0, 288]},
                      and under "__metadata__" texts of the one who wrote it
    numbers           of all tensors, one after the other, without gaps

Source: the description of the format by its authors (huggingface/safetensors, README). Decision: the file is read here
and by no package, since it takes so little. The header is read only if it is of a sensible size, and everything in it
is compared with the size of the file before memory is taken for numbers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from autoseg.errors import AutosegError, ModelError
from autoseg.models.pickles import DAMAGED, LARGEST_BYTES, UNTRUSTED, StoredNumbers, StoredTensor
from autoseg.runtime.printable import printable

LENGTH_BYTES = 8
METADATA = "__metadata__"
MOST_AXES = 8
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Number types by their names in the header. Those of 8 and less bits per weight are no start of a training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsFile:
    """An opened file.

    Attributes:
        path: Path of the file, for errors.
        file: The file.
        start: Where its numbers begin.
        tensors: Name to description. Each tensor has numbers of its own, whose key is where they begin.
    """

    path: Path
    file: IO[bytes]
    start: int
    tensors: dict[str, StoredTensor]

    def read_content(self) -> dict[str, StoredTensor]:
        """Returns the descriptions of all tensors by name."""
        return self.tensors

    def read_numbers(self, numbers: StoredNumbers) -> torch.Tensor:
        """Reads the numbers of a tensor, as a tensor of shape (length,)."""
        dtype = getattr(torch, numbers.dtype)
        if numbers.length == 0:
            return torch.empty(0, dtype=dtype)
        self.file.seek(self.start + int(numbers.key))
        return torch.frombuffer(bytearray(self.file.read(numbers.length * dtype.itemsize)), dtype=dtype)


def is_safetensors(path: Path) -> bool:
    """Returns whether a file begins as one of this format: with the length of a header that fits, and a brace."""
    try:
        with path.open("rb") as file:
            length, brace = int.from_bytes(file.read(LENGTH_BYTES), "little"), file.read(1)
        return brace == b"{" and LENGTH_BYTES + length <= path.stat().st_size
    except OSError:
        return False


@contextmanager
def open_safetensors(path: Path) -> Iterator[SafetensorsFile]:
    """Opens a file and checks its header.

    Raises:
        ModelError: It is damaged, or claims more than it holds; also for errors of any kind while it is open.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(_read_header(file, path), object_pairs_hook=_without_duplicates)
            start = file.tell()
            tensors = _describe(header, path.stat().st_size - start, path)
            yield SafetensorsFile(path=path, file=file, start=start, tensors=tensors)
    except AutosegError:
        raise
    except Exception as error:  # JSON and torch raise errors of many kinds for crafted files
        raise ModelError(f"{path} is damaged or no .safetensors file", DAMAGED) from error


def _read_header(file: IO[bytes], path: Path) -> str:
    """Reads the header of a file from its start."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > LARGEST_BYTES:
        raise ModelError(f"{path} describes itself in {length} bytes", UNTRUSTED)
    return file.read(length).decode("utf-8")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _describe(header: Any, size: int, path: Path) -> dict[str, StoredTensor]:
    """Returns the descriptions of the tensors in a header.

    Args:
        header: The parsed header.
        size: Number of bytes that follow it.
        path: Path of the file, for errors.

    Raises:
        ValueError, TypeError, KeyError: A description is wrong, or the tensors do not fill these bytes one after the
            other.
        ModelError: A tensor has a number type that is not known.
    """
    tensors = {
        name: _describe_tensor(entry, f"{path}: the tensor {printable(name[:100])!r}")
        for name, entry in header.items()
        if name != METADATA
    }
    end = 0
    for begin, stop in sorted(place for _, place in tensors.values()):
        if begin != end:
            raise ValueError("tensors overlap, or leave gaps")
        end = stop
    if end != size:
        raise ValueError("the file is longer or shorter than its tensors")
    return {name: tensor for name, (tensor, _) in tensors.items()}


def _describe_tensor(entry: Any, title: str) -> tuple[StoredTensor, tuple[int, int]]:
    """Returns the description of a tensor, and the bytes that its numbers take; raises like `_describe`."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if len(shape) > MOST_AXES or any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("a size or place is no whole number")
    if entry["dtype"] not in DTYPES:
        what = f"{title} holds numbers of the type {printable(str(entry['dtype'])[:20])!r}"
        raise ModelError(what, f"give weights of {', '.join(DTYPES)}")
    dtype = DTYPES[entry["dtype"]]
    if end - begin != prod(shape) * getattr(torch, dtype).itemsize:
        raise ValueError("a tensor has other numbers than are stored")
    numbers = StoredNumbers(dtype=dtype, key=str(begin), length=prod(shape))
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StoredTensor(numbers=numbers, offset=0, size=tuple(shape), stride=strides), (begin, end)
