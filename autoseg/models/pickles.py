"""Safe reading of pickles from untrusted sources as plain values.

A pickle is a small program that imports and calls whatever it names. Here its names are looked up in a closed table of
harmless replacements. Any other name is refused, and nothing is imported or called. A checkpoint of another program,
such as nnU-Net, holds weights, the state of its optimizer, NumPy scalars, a device, and dictionaries. Of these, tensors
become descriptions of where their numbers are stored, and NumPy scalars and devices, which are not needed, become
`IGNORED`.
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
"""Largest size of a pickle, without weights. Decision: a checkpoint after a thousand epochs has a hundredth of it."""

OPCODES = frozenset(
    re.findall(
        r"\w+",
        """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 FLOAT BINFLOAT UNICODE
        BINUNICODE SHORT_BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE
        TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
        MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID""",
    )
)
"""Opcodes of pickles of plain values. Opcodes that make instances of classes, and obsolete ones, are left out."""

NUMERIC = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU]\d{1,6})")
"""Codes of NumPy dtypes that are numbers or texts, and not objects."""


class StorageKind(NamedTuple):
    """Data type of a tensor's storage, by its name in `torch`."""

    dtype: str


class StoredNumbers(NamedTuple):
    """A storage of a tensor: numbers in a file of the container, beside the pickle."""

    dtype: str
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor as a view of a storage: element offset, shape and strides."""

    numbers: StoredNumbers
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Ignored:
    """A value that is not needed. It discards its content."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Discards the content."""


IGNORED = Ignored()


class _Mapping(dict[Any, Any]):
    """A dictionary that keeps its entries and discards its attributes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Discards the attributes."""


class SafeCallable:
    """Replacement of a function or class that a pickle names. It can be called, and not modified.

    Args:
        make: Function that makes a value from the arguments, without any other effect.
    """

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        """Makes the value."""
        return self._make(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuses a change, which only a crafted pickle attempts."""
        raise pickle.UnpicklingError("it changes what it was given")

    def __setstate__(self, state: object) -> Never:
        """Refuses a change, which only a crafted pickle attempts."""
        raise pickle.UnpicklingError("it changes what it was given")


Names = Mapping[tuple[str, str], Any]
"""Module and name of a function or class to its replacement."""


def _make_tensor(numbers: object, offset: object, size: object, stride: object, *_: object) -> StoredTensor:
    integers = [offset, *_list(size), *_list(stride)]
    if not isinstance(numbers, StoredNumbers) or any(type(value) is not int or value < 0 for value in integers):
        raise pickle.UnpicklingError("a tensor is made of something else")
    return StoredTensor(numbers, integers[0], tuple(_list(size)), tuple(_list(stride)))


def _list(value: object) -> list[Any]:
    if not isinstance(value, tuple):
        raise pickle.UnpicklingError("the size of a tensor is something else")
    return list(value)


def _make_parameter(tensor: object, *_: object) -> object:
    return tensor


def _check_dtype(code: object, *_: object) -> Ignored:
    if not isinstance(code, str) or not NUMERIC.fullmatch(code):
        raise _Refused(f"values of NumPy of the type {_printable(str(code))!r}, which no model needs")
    return IGNORED


def _ignore(*_: object) -> Ignored:
    return IGNORED


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
    ("collections", "OrderedDict"): SafeCallable(lambda *_: _Mapping()),
    ("torch._utils", "_rebuild_tensor_v2"): SafeCallable(_make_tensor),
    ("torch._utils", "_rebuild_parameter"): SafeCallable(_make_parameter),
    ("torch", "device"): SafeCallable(_ignore),
    ("torch", "Size"): SafeCallable(_ignore),
    ("_codecs", "encode"): SafeCallable(_ignore),  # bytes, in pickles that Python 2 could read
    ("numpy", "dtype"): SafeCallable(_check_dtype),
    ("numpy", "ndarray"): IGNORED,
    **{
        (f"numpy.{core}.multiarray", name): SafeCallable(_ignore)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    **{("torch", name): StorageKind(dtype) for name, dtype in _STORAGES.items()},
}
"""The names in checkpoints of weights and plain values, among them those of nnU-Net v2 up to 2.8.1."""


def read_pickle(content: bytes, names: Names, source: str) -> Any:
    """Reads a pickle as plain values.

    >>> read_pickle(pickle.dumps({"epochs": 3, "loss": [0.5, 0.25]}), {}, "example")
    {'epochs': 3, 'loss': [0.5, 0.25]}
    >>> read_pickle(pickle.dumps(print), {}, "example")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    autoseg.errors.ModelError: example holds 'builtins.print', which no model needs; do not use it...

    Args:
        content: The pickle.
        names: The functions and classes that it may name, and their replacements.
        source: Where it came from, for errors.

    Raises:
        ModelError: It names something else, has other opcodes, holds objects, or is damaged.
    """
    if len(content) > LARGEST_BYTES:
        raise ModelError(f"{source} holds a description of {len(content)} bytes, which no model needs", UNTRUSTED)
    try:
        _check_opcodes(content, names)
        return _PlainUnpickler(content, names).load()
    except _Refused as error:
        raise ModelError(f"{source} holds {error}", UNTRUSTED) from None
    except Exception as error:  # a crafted pickle can end in any error
        raise ModelError(f"{source} is damaged, or no plain values", DAMAGED) from error


class _Refused(Exception):  # noqa: N818 - its text is the content that is refused
    pass


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, names: Names) -> None:
        super().__init__(io.BytesIO(content))
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a function or class."""
        return _look_up(module, name, self._names)

    def persistent_load(self, pid: Any) -> StoredNumbers:
        """Returns the description of a storage: its data type, the key of its file, and its length."""
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, StorageKind) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a tensor is made of something else")
        return StoredNumbers(dtype.dtype, str(key), count)


def _look_up(module: str, name: str, names: Names) -> Any:
    if (module, name) not in names:
        raise _Refused(f"{_printable(f'{module}.{name}')!r}, which no model needs")
    return names[module, name]


def _check_opcodes(content: bytes, names: Names) -> None:
    """Refuses opcodes that no plain value needs, and memo indices so large that the memo would fill the memory.

    Names that are part of an opcode are refused here already, before any value is made.
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
    """Returns a text of unknown origin without control characters, and of limited length.

    >>> _printable(chr(27) + "[31mred")
    '?[31mred'
    """
    return "".join(character if character.isprintable() else "?" for character in text[:120])
