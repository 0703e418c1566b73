"""Files of safetensors are read as they are described, and refused where they claim what they do not hold."""

import json
import struct

import numpy as np
import pytest
import torch
from pretrained_files import drawn_weights
from small_nnunet import residual_configuration

from autoseg.errors import ModelError
from autoseg.models.foreign_weights import read_foreign_weights
from autoseg.models.pickles import LARGEST_BYTES
from autoseg.models.pretrained_weights import is_foreign, match_foreign_weights
from autoseg.models.safetensors_file import DTYPES, is_safetensors

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pack(header, numbers=b""):
    """Returns the bytes of a file with a header, of text or of a value."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def pack_weights(weights):
    """Returns the bytes of a file of weights."""
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, value in weights.items():
        raw = value.contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else value.numpy().tobytes()
        places = [len(numbers), len(numbers) + len(raw)]
        dtype = NAMES[str(value.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": places}
        numbers += raw
    return pack(header, numbers)


def test_all_number_types_are_read(tmp_path):
    """Values, shapes and types come back; a tensor without axes and one without numbers too."""
    generator = np.random.default_rng(0)
    weights = {
        f"module.{dtype}": torch.from_numpy(generator.integers(0, 2, (2, 3, 4))).to(getattr(torch, dtype))
        for dtype in DTYPES.values()
    }
    weights |= {"scalar": torch.tensor(3.5), "nothing": torch.zeros(0, 4)}
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pack_weights(weights))
    found = read_foreign_weights(path)
    assert set(found) == {name.removeprefix("module.") for name in weights}
    for name, value in weights.items():
        assert torch.equal(found[name.removeprefix("module.")], value)
        assert found[name.removeprefix("module.")].dtype == value.dtype


def test_weights_begin_a_network(tmp_path):
    """As those of a file of torch do: by the names of the network."""
    configuration = residual_configuration()
    weights = drawn_weights(configuration)
    path = tmp_path / "renamed.bin"  # its content tells what it is
    path.write_bytes(pack_weights({**weights, "teacher": torch.ones(3)}))
    assert is_foreign(path)
    found = match_foreign_weights(path, list(weights), configuration.architecture)
    assert found.kind == "weights by the names of the network"
    assert found.unused == ("teacher",)
    assert all(torch.equal(found.weights[name], value) for name, value in weights.items())
    torch.save(weights, tmp_path / "weights.pth")
    assert not is_safetensors(tmp_path / "weights.pth")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EIGHT = bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        pack({"a": ENTRY}, bytes(7)),
        pack({"a": ENTRY}, bytes(9)),
        pack({"a": {**ENTRY, "shape": [3]}}, EIGHT),
        pack({"a": {**ENTRY, "shape": [2**62, 2**62]}}, EIGHT),
        pack({"a": {**ENTRY, "shape": [1] * 9 + [2]}}, EIGHT),
        pack({"a": {**ENTRY, "shape": [-2]}}, EIGHT),
        pack({"a": {**ENTRY, "shape": [2.0]}}, EIGHT),
        pack({"a": {**ENTRY, "shape": [True, 2]}}, EIGHT),
        pack({"a": {**ENTRY, "data_offsets": [8, 16]}}, bytes(16)),
        pack({"a": {**ENTRY, "data_offsets": [0]}}, EIGHT),
        pack({"a": ENTRY, "b": ENTRY}, EIGHT),
        pack({"a": {"dtype": "F32"}}, EIGHT),
        pack({"a": 3}, EIGHT),
        pack('{"a": ' + json.dumps(ENTRY) + ', "a": ' + json.dumps(ENTRY) + "}", EIGHT),
        pack("{" + '"a": {' * 100_000, EIGHT),
        pack("{\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), EIGHT),
        pack({"__metadata__": {"a": "b"}}),
        struct.pack("<Q", LARGEST_BYTES + 1) + b"{" + bytes(20),
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    """Each by one line, before memory is taken for what they claim."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        read_foreign_weights(path)


def test_long_header_is_not_read(tmp_path):
    """A file may be larger than the largest header; its size is no reason to read that."""
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_BYTES + 1) + b"{")
        file.truncate(LARGEST_BYTES + 100)  # sparse
    with pytest.raises(ModelError, match=rf"describes itself in {LARGEST_BYTES + 1} bytes"):
        read_foreign_weights(path)


def test_number_types_of_few_bits_are_named(tmp_path):
    """With the tensor, and what may be given."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pack({"layer": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, EIGHT))
    with pytest.raises(
        ModelError, match=r"weights\.safetensors: the tensor 'layer' holds numbers of the type 'F8_E4M3'.*F64, F32"
    ):
        read_foreign_weights(path)
