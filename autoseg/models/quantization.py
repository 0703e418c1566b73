"""Networks in ONNX whose convolutions calculate with 8-bit integers.

Before and after each convolution stands a pair of QuantizeLinear and DequantizeLinear, whose scales were found on
patches of images that the network learned from. A runtime merges a pair with its convolution, which then reads and
writes integers. Scales that are found while a network predicts, as in dynamic quantization, leave the convolutions of
torch and of OpenVINO in floating point, and make those of ONNX Runtime slower than they were.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.models.onnx_checks import INSTALL_ONNX, find_problem
from autoseg.models.runtimes import list_installed, telemetry_off

WEIGHT_BITS = 7
"""Number of bits of each weight, sign included.

Source: the guide to quantization of ONNX Runtime. Processors with AVX2 or AVX-512 but without VNNI add two products of
8 bits in 16, which overflow unless the weights have 7. Decision: a model is passed on to processors that nobody knows
here, so the weights of all have 7 bits.
"""

CONVOLUTION = "Conv"
"""Operator that is calculated in integers. Decision: transposed convolutions stay in float32, since ONNX Runtime has no
kernel of integers for them, and that of OpenVINO is no faster."""


@dataclass(frozen=True, slots=True)
class ConvolutionCount:
    """The convolutions of a network.

    Attributes:
        int8: Number of those whose image and weights are integers.
        float32: Number of the others, transposed ones included.
    """

    int8: int
    float32: int


def check_quantization() -> None:
    """Makes sure that what quantizes networks is installed.

    Raises:
        UsageError: It is not.
    """
    if "onnx" not in list_installed():
        raise UsageError("networks are brought to int8 by ONNX Runtime, which is not installed", INSTALL_ONNX)


def quantize_network(source: Path, target: Path, patches: Iterable[NDArray[np.float32]]) -> ConvolutionCount:
    """Writes a network whose convolutions calculate with 8-bit integers.

    Args:
        source: The network in ONNX, in float32, as `onnx_export.export_fold` writes it.
        target: Path of the new network.
        patches: Patches (1, c, *size) of normalized images, on which the range of each feature map is found.

    Returns:
        The number of convolutions in integers and in float32.

    Raises:
        UsageError: ONNX Runtime is not installed or cannot quantize the network, or this has no convolution.
        ModelError: The result holds what no network may; see `onnx_checks`.
    """
    check_quantization()
    import onnx  # noqa: PLC0415 - it is an extra

    model = onnx.load(str(source))
    _inline_shared_weights(model)
    try:
        with telemetry_off(), _without_advice():
            _quantize(model, target, patches)
    except (AutosegError, OSError):
        raise
    except Exception as error:  # the errors of ONNX Runtime are of its own kinds
        what = f"the network cannot be brought to int8: {(str(error) or type(error).__name__).splitlines()[0][:200]}"
        raise UsageError(what, "export it without --precision") from error
    quantized = onnx.load(str(target))
    problem = find_problem(quantized)
    if problem is not None:
        raise ModelError(f"the network in int8 {problem}", "export it without --precision")
    count = count_convolutions(quantized)
    if not count.int8:
        raise UsageError("the network has no convolution that int8 makes faster", "export it without --precision")
    return count


def count_convolutions(model: Any) -> ConvolutionCount:
    """Counts the convolutions of a network, a message of the package onnx, in integers and in float32."""
    integers = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type in (CONVOLUTION, "ConvTranspose")]
    int8 = sum(set(node.input[:2]) <= integers for node in convolutions)
    return ConvolutionCount(int8, len(convolutions) - int8)


def _quantize(model: Any, target: Path, patches: Iterable[NDArray[np.float32]]) -> None:
    from onnxruntime import quantization  # noqa: PLC0415 - it is an extra
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata  # noqa: PLC0415 - likewise

    class Patches(quantization.CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        """Gives one patch after the other."""

        def __init__(self) -> None:
            self._patches = iter(patches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """Returns the next patch, or None at the end."""
            patch = next(self._patches, None)
            return None if patch is None else {"image": patch}

    add_pre_process_metadata(model)  # it is simplified already
    quantization.quantize_static(
        model,
        target,
        Patches(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=[CONVOLUTION],
        per_channel=True,
        reduce_range=True,  # WEIGHT_BITS
        activation_type=quantization.QuantType.QUInt8,  # with signed weights, what processors multiply fastest
        weight_type=quantization.QuantType.QInt8,
    )


def _inline_shared_weights(model: Any) -> None:
    """Gives each operator weights of its own, where several share equal ones through an Identity.

    ONNX Runtime merges a convolution with what is before and after it only if its bias is a weight.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in list(graph.node):
        if node.op_type != "Identity" or node.input[0] not in weights:
            kept.append(node)
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(weights[node.input[0]])
        tensor.name = node.output[0]
        weights[tensor.name] = tensor
    del graph.node[:]
    graph.node.extend(kept)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps ONNX Runtime's tools from logging advice, and from setting up the program's log for that."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def is_of_others(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in Path(record.pathname).parts

    root.addHandler(handler)
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)
        root.removeHandler(handler)
