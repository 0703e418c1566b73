"""Networks in ONNX that ask for more memory than there is are refused before a runtime opens them."""

import numpy as np
import onnx
import pytest
from exported_networks import small_graph
from onnx import TensorProto, helper

from autoseg.errors import ModelError
from autoseg.models import onnx_checks
from autoseg.models.onnx_checks import check_onnx, find_problem
from autoseg.models.onnx_memory import find_peak_bytes

SHAPE = (1, 1, 8, 8, 8)
PATCH_BYTES = 4 * 8**3
FLOAT = TensorProto.FLOAT


def constant(name, values, kind=TensorProto.INT64):
    """A stored tensor."""
    return helper.make_tensor(name, kind, [len(values)], values)


def network(nodes, *constants):
    """A network of some operators, which pass "image" on to "logits"."""

    def change(model):
        del model.graph.node[:]
        model.graph.node.extend(helper.make_node(*node[:3], **(node[3] if node[3:] else {})) for node in nodes)
        model.graph.initializer.extend(constants)

    model = small_graph(change)
    assert find_problem(model) is None
    return model


def test_the_peak_is_that_of_maps_that_are_held_together():
    """Two maps are added, and the first is not needed afterwards; weights are no maps."""
    model = network([("Mul", ["image", "weight"], ["a"]), ("Add", ["a", "image"], ["b"]), ("Relu", ["b"], ["logits"])])
    assert find_peak_bytes(model, SHAPE) == 2 * PATCH_BYTES


HUGE = [10**5, 10**5, 10**5]


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("ConstantOfShape", ["shape"], ["logits"])], [constant("shape", HUGE)]),
        ([("Expand", ["weight", "shape"], ["logits"])], [constant("shape", HUGE)]),
        ([("Pad", ["image", "pads"], ["logits"])], [constant("pads", [10**5] * 10)]),
        ([("Resize", ["image", "", "scales"], ["logits"])], [constant("scales", [1, 1, 1e5, 1e5, 1e5], FLOAT)]),
        (
            [("Shape", ["image"], ["s"]), ("Mul", ["s", "factor"], ["t"]), ("ConstantOfShape", ["t"], ["logits"])],
            [constant("factor", [10**4] * 5)],
        ),
        (
            [
                ("Expand", ["weight", "a"], ["x"]),
                ("Expand", ["weight", "b"], ["y"]),
                ("MatMul", ["x", "y"], ["logits"]),
            ],
            [constant("a", [10**7, 1]), constant("b", [1, 10**7])],
        ),
    ],
    ids=["ConstantOfShape", "Expand", "Pad", "Resize", "calculated", "MatMul"],
)
def test_a_small_file_that_makes_huge_maps_is_refused(tmp_path, nodes, constants):
    """The line says how much it takes."""
    model = network(nodes, *constants)
    assert find_peak_bytes(model, SHAPE) > 10**14
    onnx.save(model, str(tmp_path / "network.onnx"))
    assert check_onnx(tmp_path / "network.onnx")
    with pytest.raises(ModelError, match=r"needs \d+\.\d GB for the maps of a patch of shape \(8, 8, 8\)"):
        check_onnx(tmp_path / "network.onnx", SHAPE)


def test_a_shape_that_the_image_decides_is_refused(tmp_path):
    """Its brightest voxel would be a number of voxels."""
    nodes = [
        ("ReduceMax", ["image"], ["largest"], {"keepdims": 0}),
        ("Cast", ["largest"], ["number"], {"to": TensorProto.INT64}),
        ("Reshape", ["number", "one"], ["shape"]),
        ("ConstantOfShape", ["shape"], ["logits"]),
    ]
    onnx.save(network(nodes, constant("one", [1])), str(tmp_path / "network.onnx"))
    with pytest.raises(ModelError, match="whose shapes cannot be told"):
        check_onnx(tmp_path / "network.onnx", SHAPE)


def test_shapes_that_are_calculated_from_shapes_are_found():
    """As the export of an upsampling writes them, by parts and joined again."""
    nodes = [
        ("Shape", ["image"], ["s"]),
        ("Slice", ["s", "zero", "two"], ["head"]),
        ("Slice", ["s", "two", "five"], ["tail"]),
        ("Shape", ["tail"], ["count"]),
        ("ConstantOfShape", ["count"], ["filled"], {"value": constant("twos", [2])}),
        ("Mul", ["tail", "filled"], ["twice"]),
        ("Concat", ["head", "twice"], ["sizes"], {"axis": 0}),
        ("Resize", ["image", "", "", "sizes"], ["logits"]),
    ]
    constants = [constant(name, [value]) for name, value in (("zero", 0), ("two", 2), ("five", 5))]
    small = 8 * (5 + 2 + 3 + 3 + 3 + 5)
    assert 8 * PATCH_BYTES <= find_peak_bytes(network(nodes, *constants), SHAPE) <= 8 * PATCH_BYTES + small


def test_broadcasting_of_constants_takes_no_memory():
    """Values that decide shapes are few, also if three constants would make a billion of them."""
    edges = [helper.make_tensor(name, TensorProto.INT64, dims, np.ones(1024, np.int64).tobytes(), raw=True)
             for name, dims in (("a", [1024, 1, 1]), ("b", [1, 1024, 1]), ("c", [1, 1, 1024]))]  # fmt: skip
    nodes = [("Max", ["a", "b", "c"], ["many"]), ("Cast", ["many"], ["logits"], {"to": FLOAT})]
    assert find_peak_bytes(network(nodes, *edges), SHAPE) == (8 + 4) * 1024**3


def test_where_the_system_does_not_say_what_is_free_there_is_a_limit_too(tmp_path, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(onnx_checks, "free_memory_bytes", lambda: None)
    onnx.save(network([("Expand", ["weight", "shape"], ["logits"])], constant("shape", [2**35])), tmp_path / "n.onnx")
    with pytest.raises(ModelError, match=r"137\.4 GB"):
        check_onnx(tmp_path / "n.onnx", SHAPE)
