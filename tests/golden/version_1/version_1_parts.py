"""A network, a loss and a transform that an installed package would offer; plans and checkpoints here name them."""

import torch
import torch.nn.functional as F
from torch import nn


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, architecture, features):
        super().__init__()
        self.first = nn.Conv3d(architecture.in_channels, features, 3, padding=1)
        self.second = nn.Conv3d(features, features, 3, padding=1)
        self.head = nn.Conv3d(features, architecture.out_channels, 1)

    def forward(self, image):
        """A list of logits in training, else the logits."""
        logits = self.head(F.leaky_relu(self.second(F.leaky_relu(self.first(image)))))
        return [logits] if self.training else logits


def build_small(architecture, settings):
    """Builds the network."""
    return Small(architecture, settings["features"])


def cross_entropy(logits, truth, settings):
    """The mean cross entropy of exclusive structures."""
    present = truth.present.float()
    everything = torch.cat([1 - present.amax(dim=1, keepdim=True), present], dim=1)
    return -settings["factor"] * (everything * logits.log_softmax(dim=1)).sum(dim=1).mean()


def brighten(image, label, random, settings):
    """Adds a random constant to the image."""
    return image + random.uniform(0, settings["most"]), label


def describe_package(folder):
    """Writes the metadata that pip would write, so that the functions are found as those of an installed package."""
    described = folder / "version_1_parts-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: version-1-parts\nVersion: 1.0\n")
    offers = {"networks": "build_small", "losses": "cross_entropy", "transforms": "brighten"}
    lines = [f"[autoseg.{group}]\nversion_1_{name} = version_1_parts:{name}\n" for group, name in offers.items()]
    (described / "entry_points.txt").write_text("\n".join(lines))
