"""Networks of the literature in torch: modules with the layers that a page draws."""

from collections.abc import Mapping

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from autoseg.networks.architecture import Architecture, Section
from autoseg.networks.blocks import channels_last
from autoseg.networks.spec import NetworkSpec
from autoseg.networks.torch_layers import draw_weights, make_layer
from autoseg.networks.torch_ops import TorchOps


class TorchNetwork(nn.Module):
    """A network of the literature, whose page says what it does with an image.

    Its layers are submodules by the names that the page gives them: "encoder0.1.conv" is that of `encoder0[1]`.

    Args:
        spec: The network.
        architecture: Of which the numbers of channels and dimensions are taken.
        settings: The page's own, complete.
    """

    def __init__(self, spec: NetworkSpec, architecture: Architecture, settings: Section) -> None:
        super().__init__()
        self.spec = spec
        self.classes = architecture.out_channels
        self.settings = settings
        given = settings.model_dump(mode="json")
        size = spec.smallest_patch(given, architecture.dimensions)
        self.layers = spec.count(given, architecture, size).layers
        for name, layer in self.layers.items():
            *parents, last = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.add_module(last, make_layer(layer))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image (n, in_channels, *size) to logits (n, out_channels, *size), or to those of its middle.

        In training mode to a list that starts with these; further outputs follow. Which sizes it takes, and how much of
        them it predicts, `NetworkSpec.patches` says.
        """
        x = channels_last(image) if image.device.type == "cpu" else image
        logits = self.spec.draw(TorchOps(self), x, self.classes, self.settings)
        return logits if self.training else logits[0]


def build_torch_network(
    spec: NetworkSpec, architecture: Architecture, settings: Mapping[str, JsonValue], /
) -> TorchNetwork:
    """Builds a network of the literature with fresh weights, in training mode, on the CPU.

    Weights are drawn from torch's own generator, as `layers.draw_weights` says.

    Args:
        spec: The network.
        architecture: The plan's.
        settings: The plan's.

    Raises:
        ValueError: A setting is impossible, or the network does not take such images.
    """
    complete = spec.read(settings)
    with torch.device("meta"):  # without this, each layer would first draw weights of its own
        network = TorchNetwork(spec, architecture, complete)
    network = network.to_empty(device="cpu")
    for name, layer in network.layers.items():
        draw_weights(network.get_submodule(name), layer)
    return network
