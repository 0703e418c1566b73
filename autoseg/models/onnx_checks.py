"""Networks in ONNX from anyone, checked before a runtime opens them.

A runtime would read other files that a network names as the place of its weights, run operators of libraries, and
repeat parts of the network for ever. So a network is refused unless it holds all of its weights, only operators that
the export writes, and neither functions nor parts that are repeated.
"""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from autoseg.errors import ModelError, UsageError
from autoseg.models.onnx_memory import find_peak_bytes
from autoseg.runtime.machine import free_memory_bytes
from autoseg.runtime.units import describe_memory

INSTALL_ONNX = "pip install 'autoseg[onnx]'"

OPERATORS = frozenset(
    [
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "Div",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Greater",
        "GreaterOrEqual",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators of networks that are exported here; none of them reads files, repeats a part, or draws random numbers."""

LARGEST_BYTES = 2**31 - 1
"""Largest size of a network. Source: protocol buffers, in which ONNX is written, hold no more."""

MOST_BYTES = 2**36
"""Most bytes of maps where the system does not say how much memory is free. Decision: what large machines have."""

UNTRUSTED = "do not use it; get another from somebody you trust"


def check_onnx(path: Path, shape: Sequence[int] | None = None) -> bytes:
    """Reads a network and makes sure that no runtime can be harmed by it.

    Args:
        path: The file network.onnx.
        shape: Shape (n, c, *patch) of the patches that it will get, for which its maps must fit into the free memory;
            None leaves that open.

    Returns:
        The bytes of the file.

    Raises:
        ModelError: The file is missing, damaged, or holds more than a network needs.
        UsageError: The package onnx is not installed.
    """
    try:
        import onnx  # noqa: PLC0415 - it is an extra
    except ModuleNotFoundError as error:
        raise UsageError("the network of this model is in ONNX, which the package onnx reads", INSTALL_ONNX) from error
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        raise ModelError(f"{path} is missing or larger than any network", "get a sound copy of the model")
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protocol buffers meet crafted files with errors of many kinds
        raise ModelError(f"{path} is damaged or no network in ONNX", "get a sound copy of the model") from error
    problem = find_problem(model)
    if problem is not None:
        raise ModelError(f"{path} {problem}, which no network needs that 'autoseg export' writes", UNTRUSTED)
    if shape is not None:
        _check_memory(path, model, tuple(shape))
    return data


def _check_memory(path: Path, model: Any, shape: tuple[int, ...]) -> None:
    """Refuses a network whose maps take more memory than is free, or whose shapes only the image decides."""
    peak, free = find_peak_bytes(model, shape), free_memory_bytes()
    if peak is None:
        raise ModelError(f"{path} holds maps whose shapes cannot be told before it is calculated", UNTRUSTED)
    if peak > (MOST_BYTES if free is None else free):
        what = f"{path} needs {describe_memory(peak)} for the maps of a patch of shape {shape[2:]}, more than is free"
        raise ModelError(what, "if it is from somebody you trust, close other programs, or take a machine with more")


def find_problem(model: Any) -> str | None:
    """Returns what a network, a message of the package onnx, holds that it may not; None if all is well."""
    return next(_find_problems(model), None)


def _find_problems(model: Any) -> Iterator[str]:
    """Yields what a network may not hold."""
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        yield "holds functions, training or sparse weights"
    if {entry.domain for entry in model.opset_import} - {"", "ai.onnx"}:
        yield "names operators of other libraries"
    if [value.name for value in graph.output] != ["logits"] or [value.name for value in graph.input] != ["image"]:
        yield "has other inputs or outputs than an image and logits"
    tensors = list(graph.initializer)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            yield f"holds the operator {node.op_type[:40]!r}"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                yield "holds a network within the network"
            tensors += [attribute.t] if attribute.HasField("t") else []
            tensors += attribute.tensors
    yield from _find_bad_tensors(tensors)


def _find_bad_tensors(tensors: Any) -> Iterator[str]:
    """Yields what is wrong with tensors: each must hold its values itself."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - it is an extra

    for tensor in tensors:
        if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
            yield "has weights in another file"
            return
        try:
            size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, TypeError, ValueError):
            yield "has weights of an unknown kind"
            return
        stored = len(tensor.raw_data) or 8 * sum(len(values) for values in _values(tensor))
        if any(edge < 0 for edge in tensor.dims) or prod(tensor.dims) * size > stored:
            yield "has weights that are larger than what is stored of them"


def _values(tensor: Any) -> tuple[Any, ...]:
    """Returns the fields of a tensor that hold values one by one."""
    return tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data
