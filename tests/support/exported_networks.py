"""Networks that are exported to ONNX, and a program in which torch cannot be imported."""

from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper
from small_models import small_checkpoint

from autoseg.models.build import make_network

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in LEFT_OUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

from autoseg.cli.command import LEFT_OUT
sys.meta_path.insert(0, Blocked())
from autoseg.__main__ import main
main()
"""


def with_configuration(configuration):
    """A fold with fresh weights."""
    checkpoint = small_checkpoint()
    name = "2d" if len(configuration.patch_size) == 2 else "3d_fullres"
    plan = checkpoint.plan.model_copy(update={"configurations": {name: configuration}})
    network = make_network(configuration, seed=0)
    return replace(checkpoint, plan=plan, configuration_name=name, weights=network.state_dict())


def small_graph(change):
    """A network of one operator, after a change."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1], np.ones(1, np.float32).tobytes(), raw=True)
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "logits"))
    node = helper.make_node("Mul", ["image", "weight"], ["logits"])
    graph = helper.make_graph([node], "g", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    change(model)
    return model
