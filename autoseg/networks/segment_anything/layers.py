"""Layers that several parts of the network share."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.torch_layers import LayerNorm

EPSILON = 1e-6
"""What norms of images add to the variance. Source: the published implementation; norms of tokens have torch's 1e-5."""


def map_norm(features: int) -> LayerNorm:
    """Returns a layer norm over the features of each pixel of maps (n, features, rows, columns)."""
    return LayerNorm(features, eps=EPSILON)


class Perceptron(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        features: Features of input and output.
        hidden: Features in between.
        activation: The activation.
    """

    def __init__(self, features: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(features, hidden)
        self.lin2 = nn.Linear(hidden, features)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., features) to the same."""
        result: Tensor = self.lin2(self.act(self.lin1(x)))
        return result


class Perceptrons(nn.Module):
    """Any number of linear layers, with ReLU after all but the last.

    Args:
        features: Features of the input.
        hidden: Features in between.
        outputs: Features of the output.
        count: Number of layers.
    """

    def __init__(self, features: int, hidden: int, outputs: int, count: int) -> None:
        super().__init__()
        widths = [features, *[hidden] * (count - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., features) to (..., outputs)."""
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        result: Tensor = last(x)
        return result
