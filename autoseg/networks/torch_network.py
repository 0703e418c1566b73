"""Networks of the literature as torch modules."""

from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from autoseg.networks.architecture import Architecture, Section
from autoseg.networks.instance_norm import channels_last
from autoseg.networks.spec import NetworkSpec
from autoseg.networks.torch_layers import initialize_weights, make_layer
from autoseg.networks.torch_ops import TorchOps


class TorchNetwork(nn.Module):
    """A network of the literature, whose specification has the forward pass.

    Its layers are submodules with the names of the specification: "encoder0.1.conv" is the layer `conv` of
    `encoder0[1]`.

    Args:
        spec: The specification of the network.
        architecture: Gives the numbers of channels and dimensions.
        settings: The parsed settings of the network.
    """

    def __init__(self, spec: NetworkSpec, architecture: Architecture, settings: Section) -> None:
        super().__init__()
        self.spec = spec
        self.classes = architecture.out_channels
        self.settings = settings
        values = settings.model_dump(mode="json")
        patch_size = spec.smallest_patch(values, architecture.dimensions)
        self.layers = spec.count(values, architecture, patch_size).layers
        for name, layer in self.layers.items():
            *parents, last = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.add_module(last, make_layer(layer))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image (n, in_channels, *size) to logits (n, out_channels, *size), or to the logits of its centre.

        In training mode returns a list of outputs, these logits first. `NetworkSpec.patches` gives the sizes that the
        network takes and the margin that it does not predict.
        """
        x = channels_last(image) if image.device.type == "cpu" else image
        logits = self.spec.forward(TorchOps(self), x, self.classes, self.settings)
        return logits if self.training else logits[0]


def build_torch_network(
    spec: NetworkSpec, architecture: Architecture, settings: Mapping[str, JsonValue], /
) -> TorchNetwork:
    """Builds a network of the literature with fresh weights, in training mode, on the CPU.

    Weights are drawn from torch's global generator; see `torch_layers.initialize_weights`.

    Args:
        spec: The network.
        architecture: The plan's.
        settings: The plan's.

    Raises:
        ValueError: A setting is impossible, or the network does not take such images.
    """
    parsed = spec.parse(settings)
    with torch.device("meta"):  # without this, each layer would first draw weights of its own
        network = TorchNetwork(spec, architecture, parsed)
    network = network.to_empty(device="cpu")
    for name, layer in network.layers.items():
        initialize_weights(network.get_submodule(name), layer)
    return network
