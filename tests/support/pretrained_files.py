"""Files of weights as other programs write them: pretrained encoders of nnssl, and plain state dicts."""

from pathlib import Path
from typing import Any

import torch

from autoseg.models.build import make_network
from autoseg.nnunet.weight_names import export_weights
from autoseg.planning.plan import Configuration


def drawn_weights(configuration: Configuration, seed: int = 3) -> dict[str, torch.Tensor]:
    """Weights of the network of a plan by its own names, all of them random."""
    generator = torch.Generator().manual_seed(seed)
    network = make_network(configuration, seed).state_dict()
    return {name: torch.randn(value.shape, generator=generator) for name, value in network.items()}


def nnssl_content(configuration: Configuration, *, seed: int = 3, prefix: str = "", **changes: Any) -> dict[str, Any]:
    """What nnssl saves of a network: all of nnU-Net's names, equal tensors shared, and how to take the encoder over."""
    weights = drawn_weights(configuration, seed)
    named = export_weights(weights, configuration.architecture, None)
    return {
        "network_weights": {prefix + name: value for name, value in named.items()},
        "citations": [{"type": "Architecture", "name": "ResEnc", "apa_citations": ["Author, A. (2024). A title."]}],
        "nnssl_adaptation_plan": {
            "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
            "pretrain_plan": {"configurations": {"onemmiso": {"patch_size": (160, 160, 160), "spacing": [1, 1, 1]}}},
            "pretrain_num_input_channels": 1,
            "recommended_downstream_patchsize": (160, 160, 160),
            "key_to_encoder": f"{prefix}encoder.stages",
            "key_to_stem": f"{prefix}encoder.stem",
            "keys_to_in_proj": (f"{prefix}encoder.stem.convs.0.conv", f"{prefix}encoder.stem.convs.0.all_modules.0"),
            "key_to_lpe": None,
            **changes,
        },
    }


def write_nnssl(path: Path, configuration: Configuration, **changes: Any) -> Path:
    """Writes a file of nnssl, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(nnssl_content(configuration, **changes), path)
    return path
