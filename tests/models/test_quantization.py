"""Networks in int8: each convolution calculates with integers in both runtimes, and nothing else is changed."""

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from exported_networks import small_graph, with_configuration
from onnx import numpy_helper
from small_models import small_checkpoint, small_configuration

from autoseg.errors import UsageError
from autoseg.models import quantization
from autoseg.models.build import restore_network
from autoseg.models.onnx_checks import check_onnx
from autoseg.models.onnx_export import export_fold, make_patches
from autoseg.models.quantization import WEIGHT_BITS, count_convolutions, quantize_network
from autoseg.models.runtimes import ExportedNetwork, telemetry_off

INTEGER_KERNELS = ("u8", "i8")


def patches_of(checkpoint, count=4):
    """Patches of noise for calibration."""
    size = checkpoint.configuration.patch_size
    return [make_patches(checkpoint.configuration, number + 1, size)[:1] for number in range(count)]


@pytest.fixture(scope="module", params=[3, 2], ids=["3d", "2d"])
def networks(request, tmp_path_factory):
    """A fold, its network in float32, and in int8."""
    folder = tmp_path_factory.mktemp("networks")
    checkpoint = small_checkpoint() if request.param == 3 else with_configuration(small_configuration(2))
    source, target = folder / "float32.onnx", folder / "int8.onnx"
    export_fold(checkpoint, source)
    count = quantize_network(source, target, patches_of(checkpoint))
    assert (count.int8, count.float32) == (5, 1)
    return checkpoint, source, target


def openvino_kernels(path):
    """The kinds of numbers that OpenVINO reads in each convolution, transposed ones left out."""
    with telemetry_off():
        import openvino
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    texts = [{name: str(getattr(fact, "value", fact)) for name, fact in entry.items()} for entry in facts]
    return [entry["runtimePrecision"] for entry in texts if entry["layerType"] == "Convolution"]


def onnxruntime_operators(path, folder):
    """The operators that ONNX Runtime makes of a network."""
    with telemetry_off():
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def test_convolutions_are_integers_in_openvino(networks):
    """All of them, where none was before."""
    _, source, target = networks
    assert not set(openvino_kernels(source)) & set(INTEGER_KERNELS)
    kernels = openvino_kernels(target)
    assert len(kernels) == 5
    assert set(kernels) <= set(INTEGER_KERNELS)


def test_convolutions_are_integers_in_onnx_runtime(networks, tmp_path):
    """Each is merged with the pairs around it into one operator of integers."""
    operators = onnxruntime_operators(networks[2], tmp_path)
    assert operators.count("QLinearConv") == 5
    assert not {"Conv", "FusedConv"} & set(operators)


def test_each_convolution_stands_between_pairs(networks):
    """Its image, its weights and its result are dequantized integers; the counts of the function are these."""
    _, source, target = networks
    graph = onnx.load(target).graph
    made_by = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:
        assert all(made_by[name].op_type == "DequantizeLinear" for name in node.input)
        assert readers[node.output[0]].op_type == "QuantizeLinear"
    assert len(convolutions) == 5
    assert count_convolutions(onnx.load(source)).int8 == 0


def test_weights_have_seven_bits(networks):
    """With which no processor overflows; each feature has a scale of its own."""
    graph = onnx.load(networks[2]).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            weights, scales, _ = (tensors[name] for name in made_by[node.input[1]].input)
            assert weights.dtype == np.int8
            assert np.abs(weights.astype(int)).max() == 2 ** (WEIGHT_BITS - 1)
            assert scales.shape == weights.shape[:1]


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_logits_stay_near(networks, runtime):
    """On patches that calibration has not seen, and of another number; the network passes the check for harm."""
    checkpoint, source, target = networks
    patches = make_patches(checkpoint.configuration, 9, checkpoint.configuration.patch_size)
    expected = ExportedNetwork(runtime, check_onnx(source), "the network")(patches)
    logits = ExportedNetwork(runtime, check_onnx(target), "the network")(patches)
    assert 0 < np.std(logits - expected) < 0.15 * np.std(expected)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.85  # fresh weights decide for little


def test_dynamic_quantization_leaves_convolutions_in_float32(networks, tmp_path):
    """In torch its modules stay what they were, and OpenVINO calculates its integers as floating point."""
    checkpoint, source, _ = networks
    network = restore_network(checkpoint).eval()
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        dynamic = torch.ao.quantization.quantize_dynamic(network, set(kinds), dtype=torch.qint8)
    before, after = (
        [type(module) for module in found.modules() if isinstance(module, kinds)] for found in (network, dynamic)
    )
    assert before == after
    assert len(after) == 5
    with telemetry_off(), quantization._without_advice():
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(source, tmp_path / "dynamic.onnx")
    kernels = openvino_kernels(tmp_path / "dynamic.onnx")
    assert kernels
    assert not set(kernels) & set(INTEGER_KERNELS)


def test_logging_stays_as_it_was(networks, tmp_path, caplog):
    """The advice of ONNX Runtime's tools is not shown, and the root logger gets no handler of theirs."""
    checkpoint, source, _ = networks
    before = list(logging.getLogger().handlers)
    quantize_network(source, tmp_path / "again.onnx", patches_of(checkpoint, 1))
    assert logging.getLogger().handlers == before
    assert not logging.getLogger().filters
    assert not [record for record in caplog.records if "onnxruntime" in record.pathname]


def test_a_network_without_convolutions_is_refused(tmp_path):
    """There is nothing to make faster."""
    path = tmp_path / "network.onnx"
    path.write_bytes(small_graph(lambda _: None).SerializeToString())
    with pytest.raises(UsageError, match="no convolution that int8 makes faster; export it without --precision"):
        quantize_network(path, tmp_path / "int8.onnx", [np.ones((1, 1, 4), np.float32)])


def test_without_onnx_runtime_it_is_one_line(monkeypatch, tmp_path):
    """With what to install."""
    monkeypatch.setattr(quantization, "list_installed", lambda: ["openvino"])
    with pytest.raises(UsageError, match=r"ONNX Runtime, which is not installed; pip install 'autoseg\[onnx\]'"):
        quantize_network(tmp_path / "network.onnx", tmp_path / "int8.onnx", [])
