"""Pickles of strangers, read as plain values.

A pickle is a small program that calls whatever it names. Here its names are looked up in a closed table, whose entries
only note down what they are given; any other name is refused, and nothing of it is imported or called. A checkpoint of
nnU-Net's holds weights and the state of its optimizer, numbers of NumPy, a device, and dictionaries: of these, tensors
become notes of where their numbers lie, and numbers of NumPy and devices, which nobody asks for, become `UNREAD`.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Never

from autoseg.errors import ModelError

UNTRUSTED = "do not use it; get another from somebody you trust"
DAMAGED = "get a sound copy from where it came"

LARGEST_BYTES = 64 * 2**20
"""Of a pickle, weights not included. Decision: those of a thousand epochs are a hundredth of that."""

OPCODES = frozenset(
    re.findall(
        r"\w+",
        """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 FLOAT BINFLOAT UNICODE
        BINUNICODE SHORT_BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE
        TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
        MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID""",
    )
)
"""What pickles of plain values are made of; those that make instances of classes, or are out of use, are left out."""

NUMERIC = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU]\d{1,6})")
"""Kinds of NumPy's values that are numbers or texts, and not objects."""


class StorageKind(NamedTuple):
    """The type of the numbers of a tensor, as `torch` calls it."""

    dtype: str


class StoredNumbers(NamedTuple):
    """Numbers that lie in a file beside the pickle."""

    dtype: str
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A view of such numbers."""

    numbers: StoredNumbers
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Unread:
    """A value that nobody asks for; it forgets all that it is told."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Forgets it."""


UNREAD = Unread()


class _Mapping(dict[Any, Any]):
    """A dictionary that remembers its entries alone."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Forgets what was noted beside the entries."""


class Note:
    """What a name in a pickle stands for: it may be called, and not changed.

    Args:
        make: Makes a value of what it is called with, and does nothing else.
    """

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *given: Any) -> Any:
        """Makes the value."""
        return self._make(*given)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuses what only a crafted pickle asks for."""
        raise pickle.UnpicklingError("it changes what it was given")

    def __setstate__(self, state: object) -> Never:
        """Likewise."""
        raise pickle.UnpicklingError("it changes what it was given")


Names = Mapping[tuple[str, str], Any]
"""Module and name to what it stands for."""


def _note_tensor(numbers: object, offset: object, size: object, stride: object, *_: object) -> StoredTensor:
    given = [offset, *_list(size), *_list(stride)]
    if not isinstance(numbers, StoredNumbers) or any(type(one) is not int or one < 0 for one in given):
        raise pickle.UnpicklingError("a tensor is made of something else")
    return StoredTensor(numbers, given[0], tuple(_list(size)), tuple(_list(stride)))


def _list(value: object) -> list[Any]:
    if not isinstance(value, tuple):
        raise pickle.UnpicklingError("the size of a tensor is something else")
    return list(value)


def _note_parameter(tensor: object, *_: object) -> object:
    return tensor


def _note_kind(code: object, *_: object) -> Unread:
    if not isinstance(code, str) or not NUMERIC.fullmatch(code):
        raise _Refused(f"values of NumPy of the type {_printable(str(code))!r}, which no model needs")
    return UNREAD


def _forget(*_: object) -> Unread:
    return UNREAD


_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

CHECKPOINT_NAMES: Names = {
    ("collections", "OrderedDict"): Note(lambda *_: _Mapping()),
    ("torch._utils", "_rebuild_tensor_v2"): Note(_note_tensor),
    ("torch._utils", "_rebuild_parameter"): Note(_note_parameter),
    ("torch", "device"): Note(_forget),
    ("torch", "Size"): Note(_forget),
    ("_codecs", "encode"): Note(_forget),  # bytes, in pickles that Python 2 could read
    ("numpy", "dtype"): Note(_note_kind),
    ("numpy", "ndarray"): UNREAD,
    **{
        (f"numpy.{core}.multiarray", name): Note(_forget)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    **{("torch", name): StorageKind(dtype) for name, dtype in _STORAGES.items()},
}
"""What stands in checkpoints of nnU-Net v2, from its first version to 2.8.1."""


def read_pickle(content: bytes, names: Names, source: str) -> Any:
    """Reads a pickle as plain values.

    Args:
        content: The pickle.
        names: What it may name.
        source: Where it came from, for errors.

    Raises:
        ModelError: It names or does something else, holds objects, or is damaged.
    """
    if len(content) > LARGEST_BYTES:
        raise ModelError(f"{source} holds a description of {len(content)} bytes, which no model needs", UNTRUSTED)
    try:
        _check_opcodes(content, names)
        return _PlainUnpickler(content, names).load()
    except _Refused as error:
        raise ModelError(f"{source} holds {error}", UNTRUSTED) from None
    except Exception as error:  # what a crafted pickle ends in can be anything
        raise ModelError(f"{source} is damaged, or no plain values", DAMAGED) from error


class _Refused(Exception):  # noqa: N818 - what a pickle holds and should not
    pass


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, names: Names) -> None:
        super().__init__(io.BytesIO(content))
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for here."""
        return _look_up(module, name, self._names)

    def persistent_load(self, pid: Any) -> StoredNumbers:
        """Notes which numbers a tensor is made of: their type, the name of their file, and how many there are."""
        kind, dtype, key, _place, count = pid
        if kind != "storage" or not isinstance(dtype, StorageKind) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a tensor is made of something else")
        return StoredNumbers(dtype.dtype, str(key), count)


def _look_up(module: str, name: str, names: Names) -> Any:
    if (module, name) not in names:
        raise _Refused(f"{_printable(f'{module}.{name}')!r}, which no model needs")
    return names[module, name]


def _check_opcodes(content: bytes, names: Names) -> None:
    """Refuses what no plain value is made of, and places so far away that the way there would fill the memory.

    Names are refused here already where the instruction holds them, before anything is made.
    """
    for opcode, argument, _position in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            _look_up(module, name, names)
        if opcode.name not in OPCODES:
            raise _Refused(f"an instruction {opcode.name}, which no model needs")
        if "PUT" in opcode.name and int(argument or 0) > len(content):
            raise pickle.UnpicklingError("it counts further than it is long")


def _printable(text: str) -> str:
    """A text of unknown origin, without signs that terminals obey, and not endless."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:120])
