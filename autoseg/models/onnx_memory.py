"""How much memory the maps of a network in ONNX take, found from its shapes before a runtime allocates any of them.

A network from a stranger may be a few bytes that ask for terabytes: a map of ones of any size, an image that is padded
or resized without end. A runtime allocates such maps when it opens the network or calculates it, and the system then
ends the process. So the shape of every map is calculated for patches of the size of the plan. What decides a shape may
be calculated from constants and from other shapes, as the export writes it, but not from the values of an image.
"""

import math
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 1024
"""Most numbers of a constant that may decide a shape; a larger one is weights. Decision: shapes have few axes."""

MOST_NUMBERS = 2**20
"""Largest product of the numbers of inputs of which values are calculated; broadcasting returns no more."""

ROUNDS = 50
"""Times that shapes are inferred at most, each with the values that the last one made known. Decision: exports of all
networks of the literature take three."""

SHAPE_OPERATORS = frozenset(
    [
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "Div",
        "Equal",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators by which shapes are calculated, none of which returns more numbers than all its inputs hold together, but
for broadcasting."""

MAKERS = frozenset(["ConstantOfShape", "Expand", "Range", "Tile"])
"""Operators that may return any number of numbers, whose values are calculated only if they are known to be few."""

Values = dict[str, NDArray[Any]]


def find_peak_bytes(model: Any, shape: tuple[int, ...]) -> int | None:
    """Returns the most bytes that the maps of a network take at a time, each from its making to its last use.

    Args:
        model: A message of the package onnx, in which `onnx_checks.find_problem` finds nothing.
        shape: Shape (n, c, *patch) of its input.

    Returns:
        None if the shape of a map cannot be told, because values of an image decide it or the network is wrong.
    """
    light, known = _without_weights(model, shape), _small_constants(model)
    for _ in range(ROUNDS):
        sizes = _infer_bytes(light)
        missing = [node for node in light.graph.node if any(name and name not in sizes for name in node.output)]
        if not missing:
            return _find_peak(light.graph.node, sizes)
        if not _calculate_values(light, known, sizes):
            break
    return None


def _without_weights(model: Any, shape: tuple[int, ...]) -> Any:
    """Returns the network for one shape of its input; constants that are no shapes become inputs, without values."""
    import onnx  # noqa: PLC0415 - it is an extra

    graph = onnx.GraphProto(name="shapes")
    graph.node.extend(model.graph.node)
    kind = model.graph.input[0].type.tensor_type.elem_type
    graph.input.append(onnx.helper.make_tensor_value_info("image", kind, shape))
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph.output.append(onnx.ValueInfoProto(name="logits"))
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def _small_constants(model: Any) -> Values:
    """Returns the values of constants that may decide a shape."""
    from onnx import numpy_helper  # noqa: PLC0415 - it is an extra

    return {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if prod(tensor.dims) <= SMALL
    }


def _infer_bytes(model: Any) -> dict[str, int]:
    """Returns the bytes of each map whose shape can be told; adds to the network what was inferred."""
    import onnx  # noqa: PLC0415 - it is an extra

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)
    sizes = {}
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        kind = info.type.tensor_type
        if kind.HasField("shape") and all(
            axis.HasField("dim_value") and axis.dim_value >= 0 for axis in kind.shape.dim
        ):
            item = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
            sizes[info.name] = item * prod(axis.dim_value for axis in kind.shape.dim)
    return sizes


def _calculate_values(model: Any, known: Values, sizes: dict[str, int]) -> bool:
    """Calculates what can be of the values that decide shapes, and makes them constants; whether there were any."""
    from onnx import numpy_helper  # noqa: PLC0415 - it is an extra

    shapes = {info.name: info.type.tensor_type.shape.dim for info in (*model.graph.value_info, *model.graph.input)}
    found: Values = {}
    for node in model.graph.node:
        if not _decides_shapes(node, sizes) or node.output[0] in known:
            continue
        if node.op_type == "Shape" and node.input[0] in shapes and (node.input[0] in sizes or node.input[0] == "image"):
            axes = np.array([axis.dim_value for axis in shapes[node.input[0]]], np.int64)
            values: list[NDArray[Any]] = [axes] if not node.attribute else []
        elif all(not name or name in known for name in node.input):
            values = _evaluate(node, known, model.opset_import)
        else:
            continue
        small = {name: value for name, value in zip(node.output, values, strict=False) if value.size <= SMALL}
        known |= small
        found |= small
    kept = [node for node in model.graph.node if not found.keys() & set(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in found.items())
    return bool(found)


def _decides_shapes(node: Any, sizes: dict[str, int]) -> bool:
    """Returns whether an operator may calculate shapes, and returns few numbers."""
    is_small = sizes.get(node.output[0], math.inf) <= SMALL
    return node.op_type in SHAPE_OPERATORS or (node.op_type in MAKERS and is_small)


def _evaluate(node: Any, known: Values, opsets: Any) -> list[NDArray[Any]]:
    """Returns the outputs of an operator on known values; none if it cannot calculate them."""
    import onnx  # noqa: PLC0415 - it is an extra
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - likewise

    names = list(dict.fromkeys(name for name in node.input if name))
    if node.op_type != "Concat" and prod(max(1, known[name].size) for name in names) > MOST_NUMBERS:
        return []
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(known[name].dtype), None)
        for name in names
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.GraphProto(name="node", node=[node], input=inputs, output=outputs)
    try:
        single = ReferenceEvaluator(onnx.ModelProto(ir_version=8, opset_import=opsets, graph=graph))
        return [np.asarray(value) for value in single.run(None, {name: known[name] for name in names})]
    except Exception:  # noqa: BLE001 - of many kinds, for operators that are wrong or not supported
        return []


def _find_peak(nodes: Iterable[Any], sizes: dict[str, int]) -> int:
    """Returns the most bytes of maps that are needed at a time, if the operators are calculated in their order."""
    steps = list(nodes)
    last = {name: number for number, node in enumerate(steps) for name in node.input}
    held = peak = 0
    for number, node in enumerate(steps):
        held += sum(sizes[name] for name in node.output if name)
        peak = max(peak, held)
        used = {name for name in (*node.input, *node.output) if name in sizes and last.get(name, number) == number}
        held -= sum(sizes[name] for name in used)
    return peak
