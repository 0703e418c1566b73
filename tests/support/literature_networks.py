"""The networks of the literature in small forms, for tests."""

import torch

from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.torch_network import build_torch_network


def build(name, dimensions=None, channels=1, classes=2, seed=0, **given):
    """A network, narrow unless its settings say more."""
    spec = NETWORKS[name]
    settings = spec.complete(narrow(name, **given))
    architecture = spec.make_architecture(
        settings, dimensions or spec.dimensions[-1], in_channels=channels, out_channels=classes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_torch_network(spec, architecture, settings)


def image_for(network, times=2, channels=1, samples=2, seed=1):
    """Noise of so many times the smallest patch along each axis, or of the only patch that it takes."""
    spec, given = network.spec, network.settings.model_dump(mode="json")
    dimensions = next(one.dimensions for one in network.layers.values() if one.kind == "conv")
    smallest = spec.smallest_patch(given, dimensions)
    patch = smallest if spec.fixed_patch(network.settings) else [times * edge for edge in smallest]
    return torch.randn(samples, channels, *patch, generator=torch.Generator().manual_seed(seed))


NARROW: dict[str, dict[str, object]] = {
    "unet_3plus": {"classification": True},
    "high_resolution": {"rounds": 1},
    "cotr": {"layers": 2},
    "transunet": {"features": 8, "blocks": [1, 1, 2], "layers": 2, "patch": [64, 64]},
    "nnformer": {
        "features": 8,
        "token": [2, 2, 2],
        "windows": [[2, 2, 2], [2, 2, 2], [4, 4, 4], [2, 2, 2]],
        "head_features": 4,
        "decoder_head_features": 2,
    },
    "swin_unet": {"head_features": 2},
}


def narrow(name: str, **given: object) -> dict[str, object]:
    """Settings of a small form of a network; those that are given count more."""
    return {"features": 4, **NARROW.get(name, {}), **given}
