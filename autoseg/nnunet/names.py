"""What nnU-Net calls the weights of a network, and what this program calls them.

Its decoder counts from the coarsest level, ours from the finest. It writes most weights under several names: each
convolution and norm as such and as a place in a sequence, and the encoder once more as a part of the decoder.

    encoder.1.blocks.0.conv.weight          encoder.stages.1.0.convs.0.conv.weight
    encoder.1.0.first.conv.weight           encoder.stages.1.blocks.0.conv1.conv.weight
    decoder.0.blocks.1.norm.bias            decoder.stages.1.convs.1.norm.bias          (of three levels)
    heads.0.weight                          decoder.seg_layers.1.weight

Source: dynamic-network-architectures 0.4.4, PlainConvUNet and ResidualEncoderUNet.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.errors import ModelError
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Architecture
from autoseg.networks.default_unet import UNet

Weights = dict[str, torch.Tensor]

ANOTHER_NETWORK = "predict with nnU-Net, or train its dataset here"
WRAPPINGS = ("module.", "_orig_mod.")
"""What torch puts before names when a network is spread over devices, or compiled."""

_IN_BLOCK = {"first": "conv1", "second": "conv2"}
_IN_DECODER = {"upsampling": "transpconvs", "heads": "seg_layers", "decoder": "stages"}
_IN_SEQUENCE = {"conv": "0", "norm": "1"}


def theirs(name: str, architecture: Architecture) -> str:
    """What nnU-Net calls the weight that has this name here."""
    first, *rest = name.split(".")
    if first == "stem":
        return ".".join(["encoder.stem.convs.0", *rest])
    level = int(rest[0])
    if first in _IN_DECODER:
        place = str(len(architecture.stages) - 2 - level)
        inside = ["convs", *rest[2:]] if first == "decoder" else rest[1:]
        return ".".join(["decoder", _IN_DECODER[first], place, *inside])
    if rest[1] == "blocks":
        return ".".join(["encoder.stages", rest[0], "0.convs", *rest[2:]])
    if rest[2] == "shortcut":
        strides = any(step > 1 for step in architecture.stages[level].stride)
        inside = ["skip", str(int(strides)), *rest[3:]]  # a mean of neighbours comes first
    else:
        inside = [_IN_BLOCK[rest[2]], *rest[3:]]
    return ".".join(["encoder.stages", rest[0], "blocks", rest[1], *inside])


def is_another_name(name: str) -> bool:
    """Whether nnU-Net writes the weight of this name under another one as well, which is the one that is read."""
    return ".all_modules." in name or name.startswith("decoder.encoder.")


def all_names(name: str) -> Iterator[str]:
    """Every name of the weight that `theirs` gave this one."""
    parts = name.split(".")
    places = [name]
    if parts[-2] in _IN_SEQUENCE:
        places.append(".".join([*parts[:-2], "all_modules", _IN_SEQUENCE[parts[-2]], parts[-1]]))
    for place in places:
        yield place
        if place.startswith("encoder."):
            yield f"decoder.{place}"


def unwrap(name: str) -> str:
    """The name without what stands before it; see `WRAPPINGS`."""
    for wrapping in WRAPPINGS:
        name = name.removeprefix(wrapping)
    return name


def take_weights(found: Mapping[str, torch.Tensor], architecture: Architecture, seen: Targets | None) -> Weights:
    """The weights of nnU-Net's network under our names.

    Args:
        found: By nnU-Net's names, without other names of the same weights.
        architecture: Of our network, which must be the same.
        seen: What the former segmentation shows, if the network sees one; see `regroup_input`.

    Raises:
        ModelError: The network is another one: the text names a weight.
    """
    left = dict(found)
    weights = {}
    for name, wanted in _expected(architecture).items():
        own_name = theirs(name, architecture)
        value = left.pop(own_name, None)
        if value is None and name.endswith(("conv.bias", "upsampling.bias")):
            value = torch.zeros(wanted.shape)  # a convolution without bias is one whose bias is zero
        if value is None:
            raise ModelError(f"its weights lack {own_name!r}, which its plan describes", ANOTHER_NETWORK)
        value = value.to(torch.float32)
        if seen is not None and _reads_image(name):
            value = regroup_input(value, seen, architecture.in_channels - len(seen.structures))
        if value.shape != wanted.shape:
            what = f"its weights {own_name!r} have the shape {tuple(value.shape)}, its plan says {tuple(wanted.shape)}"
            raise ModelError(what, ANOTHER_NETWORK)
        weights[name] = value
    if left:
        raise ModelError(f"its weights hold {min(left)[:120]!r}, which no network here has", ANOTHER_NETWORK)
    return weights


def export_weights(own: Mapping[str, torch.Tensor], architecture: Architecture, seen: Targets | None) -> Weights:
    """The weights of our network under all names that nnU-Net gives them; the inverse of `take_weights`.

    Heads of the coarser levels, which nnU-Net always has and predicts without, are zero if ours were not trained.
    """
    weights: Weights = {}
    full = architecture.model_copy(update={"deep_supervision": True})
    for name, wanted in _expected(full).items():
        value = own[name].detach().to(torch.float32).contiguous() if name in own else torch.zeros(wanted.shape)
        if seen is not None and _reads_image(name):
            value = separate_input(value, seen, architecture.in_channels - len(seen.structures))
        weights |= dict.fromkeys(all_names(theirs(name, architecture)), value)
    return weights


def regroup_input(kernel: torch.Tensor, seen: Targets, channels: int) -> torch.Tensor:
    """The same first convolution, which sees a mask of each structure instead of one of each label.

    A cascade of nnU-Net's sees a former segmentation label by label, ours structure by structure; they differ if the
    structures are regions. The mask of a region is the sum of those of its labels, so the convolution is the same if
    the kernels of all regions that hold a label add up to the kernel of that label. With the regions 1 2 3, 2 3 and 3
    they are k1, k2 - k1 and k3 - k2.

    Args:
        kernel: Shape (features, channels + labels, *size).
        seen: The structures.
        channels: Of the image, which come first.

    Raises:
        ModelError: There is no such kernel, since labels differ that no region tells apart.
    """
    labels_of = _memberships(seen)
    rest = kernel[:, channels:]
    if rest.shape[1] != labels_of.shape[1] or _is_identity(labels_of):
        return kernel
    solved, *_ = np.linalg.lstsq(labels_of.T, np.eye(labels_of.shape[1]), rcond=None)
    if not np.allclose(labels_of.T @ solved, np.eye(labels_of.shape[1])):
        what = "its cascade sees labels of the former segmentation that belong to the same regions"
        raise ModelError(what, "predict with nnU-Net")
    return torch.cat([kernel[:, :channels], _mix(solved, rest)], dim=1)


def separate_input(kernel: torch.Tensor, seen: Targets, channels: int) -> torch.Tensor:
    """The inverse of `regroup_input`, which always exists."""
    labels_of = _memberships(seen)
    if _is_identity(labels_of):
        return kernel
    return torch.cat([kernel[:, :channels], _mix(labels_of.T, kernel[:, channels:])], dim=1)


def _mix(matrix: NDArray[np.floating], kernels: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,fj...->fi...", torch.from_numpy(matrix).double(), kernels.double()).float()


def _memberships(targets: Targets) -> NDArray[np.floating]:
    """Which structure (row) has which label (column), the labels in order."""
    labels: Sequence[int] = sorted({number for numbers in targets.structures.values() for number in numbers})
    return np.array([[float(label in numbers) for label in labels] for numbers in targets.structures.values()])


def _is_identity(matrix: NDArray[np.floating]) -> bool:
    """Whether structures are labels, in order."""
    return bool(matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(matrix.shape[0])))


def _reads_image(name: str) -> bool:
    return name in ("stem.conv.weight", "encoder.0.blocks.0.conv.weight")


def _expected(architecture: Architecture) -> Weights:
    """Weights of the right shapes, which take no memory."""
    with torch.device("meta"):
        return UNet(architecture).state_dict()
