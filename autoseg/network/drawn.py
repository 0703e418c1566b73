"""Networks of the literature in torch: the layers that a page draws, and the canvas that leads tensors through them."""

# ruff: noqa: ARG002, D102 - a layer knows what it has, so the name alone counts; Canvas says what each operation does

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.architecture import Architecture, Section
from autoseg.network.blocks import Upsampling, channels_last
from autoseg.networks.canvas import Layer
from autoseg.networks.page import Page


@dataclass(frozen=True, slots=True)
class Painting:
    """The canvas of tensors; see `Canvas` for its operations.

    Attributes:
        network: Whose layers are used.
    """

    network: nn.Module

    @property
    def training(self) -> bool:
        """Whether the network is in training mode."""
        return self.network.training

    def conv(self, x: Tensor, features: int, kernel: int, name: str, *, stride: int = 1, bias: bool = True) -> Tensor:
        if x.device.type == "cpu" and x.ndim == 5 and x.shape[2] < kernel:
            # In 16 bits, where the first axis is shorter than the kernel, the gradient of the weights reads memory that
            # is not its own: it is never twice the same, and often NaN (torch 2.13, oneDNN on a CPU with bfloat16).
            with torch.autocast("cpu", enabled=False):
                return self._apply(name, x.float())
        return self._apply(name, x)

    def transposed(self, x: Tensor, features: int, stride: int, name: str, *, bias: bool = True) -> Tensor:
        return self._apply(name, x)

    def batch_norm(self, x: Tensor, name: str, *, affine: bool = True) -> Tensor:
        return self._apply(name, x)

    def prelu(self, x: Tensor, name: str) -> Tensor:
        return self._apply(name, x)

    def relu(self, x: Tensor) -> Tensor:
        return F.relu_(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def pool(self, x: Tensor, factor: int, *, kernel: int | None = None) -> Tensor:
        pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
        return pool(x, kernel or factor, factor, padding=0 if kernel is None else kernel // 2)

    def resize(self, x: Tensor, like: Tensor) -> Tensor:
        return x if x.shape[2:] == like.shape[2:] else _interpolate(x, like.shape[2:])

    def enlarge(self, x: Tensor, factor: int) -> Tensor:
        return _interpolate(x, [length * factor for length in x.shape[2:]])

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=1)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    def mean(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).mean(dim=0)

    def repeat(self, x: Tensor, features: int) -> Tensor:
        present = x.shape[1]
        return x if present == features else torch.cat([x] * -(-features // present), dim=1)[:, :features]

    def features(self, x: Tensor) -> int:
        return x.shape[1]

    def _apply(self, name: str, x: Tensor) -> Tensor:
        return cast(Tensor, self.network.get_submodule(name)(x))


class Drawn(nn.Module):
    """A network of the literature, whose page says what it does with an image.

    Its layers are submodules by the names that the page gives them: "encoder0.1.conv" is that of `encoder0[1]`.

    Args:
        page: The network.
        architecture: Of which the numbers of channels and dimensions are taken.
        settings: The page's own, complete.
    """

    def __init__(self, page: Page, architecture: Architecture, settings: Section) -> None:
        super().__init__()
        self.page = page
        self.classes = architecture.out_channels
        self.settings = settings
        given = settings.model_dump(mode="json")
        layers = page.count(given, architecture, architecture.divisor).layers
        for name, layer in layers.items():
            *parents, last = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.add_module(last, _make_layer(layer))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Maps an image (n, in_channels, *size) to logits (n, out_channels, *size).

        In training mode to a list that starts with these; further outputs follow. Each axis must be divisible as the
        plan's architecture says.
        """
        x = channels_last(image) if image.device.type == "cpu" else image
        logits = self.page.draw(Painting(self), x, self.classes, self.settings)
        return logits if self.training else logits[0]


def build_drawn(page: Page, architecture: Architecture, settings: Mapping[str, JsonValue], /) -> Drawn:
    """Builds a network of the literature with fresh weights, in training mode, on the CPU.

    Weights follow He's normal rule, from torch's own generator; biases are 0, slopes of PReLU 0.25. Source: He et al.
    2015, which most of the papers name; Decision: the same for those that name none.

    Args:
        page: The network.
        architecture: The plan's.
        settings: The plan's.

    Raises:
        ValueError: A setting is impossible, or the network does not take such images.
    """
    complete = page.read(settings)
    with torch.device("meta"):  # without this, each layer would first draw weights of its own
        network = Drawn(page, architecture, complete)
    network = network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | Upsampling):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d | nn.PReLU):
            module.reset_parameters()
    return network


def _make_layer(layer: Layer) -> nn.Module:
    planar = layer.dimensions == 2
    if layer.kind == "batch_norm":
        norm = nn.BatchNorm2d if planar else nn.BatchNorm3d
        return norm(layer.features, affine=layer.bias)
    if layer.kind == "prelu":
        return nn.PReLU(layer.features)
    if layer.kind == "transposed" and layer.bias:
        return Upsampling(layer.in_features, layer.features, (layer.stride,) * layer.dimensions)
    if layer.kind == "transposed":
        up = nn.ConvTranspose2d if planar else nn.ConvTranspose3d
        return up(layer.in_features, layer.features, layer.kernel, layer.stride, bias=False)
    convolution = nn.Conv2d if planar else nn.Conv3d
    padding = (layer.kernel - 1) // 2
    return convolution(layer.in_features, layer.features, layer.kernel, layer.stride, padding, bias=layer.bias)


def _interpolate(x: Tensor, size: Sequence[int]) -> Tensor:
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=list(size), mode=mode, align_corners=False)
