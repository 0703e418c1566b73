"""Renaming of all weights of a network between nnU-Net's names and those of this package; see `models.nnunet_names`."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.errors import ModelError
from autoseg.imaging.targets import Targets
from autoseg.models.nnunet_names import all_names, to_nnunet_name
from autoseg.networks.architecture import Architecture
from autoseg.networks.default_unet import UNet

Weights = dict[str, torch.Tensor]

ANOTHER_NETWORK = "predict with nnU-Net, or train its dataset here"


def import_weights(
    nnunet_weights: Mapping[str, torch.Tensor], architecture: Architecture, coarse_targets: Targets | None
) -> Weights:
    """Renames the weights of a network of nnU-Net to the names of this package.

    Args:
        nnunet_weights: Weights by nnU-Net's main names, without duplicates.
        architecture: The same network as this package describes it.
        coarse_targets: Structures of the coarse segmentation, if the network is the second stage of a cascade; see
            `regroup_input`.

    Raises:
        ModelError: The network is a different one; the text names a weight.
    """
    remaining = dict(nnunet_weights)
    weights = {}
    for name, expected in _expected(architecture).items():
        nnunet_name = to_nnunet_name(name, architecture)
        value = remaining.pop(nnunet_name, None)
        if value is None and name.endswith(("conv.bias", "upsampling.bias")):
            value = torch.zeros(expected.shape)  # a convolution without bias equals one whose bias is zero
        if value is None:
            raise ModelError(f"its weights lack {nnunet_name!r}, which its plan describes", ANOTHER_NETWORK)
        value = value.to(torch.float32)
        if coarse_targets is not None and _reads_image(name):
            value = regroup_input(value, coarse_targets, architecture.in_channels - len(coarse_targets.structures))
        if value.shape != expected.shape:
            shapes = f"{tuple(value.shape)}, its plan says {tuple(expected.shape)}"
            raise ModelError(f"its weights {nnunet_name!r} have the shape {shapes}", ANOTHER_NETWORK)
        weights[name] = value
    if remaining:
        raise ModelError(f"its weights hold {min(remaining)[:120]!r}, which no network here has", ANOTHER_NETWORK)
    return weights


def export_weights(
    weights: Mapping[str, torch.Tensor], architecture: Architecture, coarse_targets: Targets | None
) -> Weights:
    """Renames the weights of a network to all names of nnU-Net; the inverse of `import_weights`.

    The heads of the coarser levels, which nnU-Net always has and does not use for prediction, are zero if the network
    was trained without them.

    >>> from autoseg.networks.architecture import Stage
    >>> from autoseg.networks.default_unet import build_network
    >>> stages = (Stage(features=2, kernel=(3, 3), stride=(1, 1), convolutions=1, blocks=1),
    ...           Stage(features=4, kernel=(3, 3), stride=(2, 2), convolutions=1, blocks=1))
    >>> architecture = Architecture(residual="none", in_channels=1, out_channels=2, stages=stages)
    >>> weights = build_network(architecture, torch.Generator()).state_dict()
    >>> exported = export_weights(weights, architecture, None)
    >>> from autoseg.models.nnunet_names import is_duplicate
    >>> main = {name: value for name, value in exported.items() if not is_duplicate(name)}
    >>> imported = import_weights(main, architecture, None)
    >>> all(torch.equal(imported[name], value) for name, value in weights.items())
    True

    Args:
        weights: Weights by the names of this package.
        architecture: The network.
        coarse_targets: Structures of the coarse segmentation, if the network is the second stage of a cascade.
    """
    exported: Weights = {}
    full = architecture.model_copy(update={"deep_supervision": True})
    for name, expected in _expected(full).items():
        value = (
            weights[name].detach().to(torch.float32).contiguous() if name in weights else torch.zeros(expected.shape)
        )
        if coarse_targets is not None and _reads_image(name):
            value = separate_input(value, coarse_targets, architecture.in_channels - len(coarse_targets.structures))
        exported |= dict.fromkeys(all_names(to_nnunet_name(name, architecture)), value)
    return exported


def regroup_input(kernel: torch.Tensor, coarse_targets: Targets, channels: int) -> torch.Tensor:
    """Converts the first convolution of a cascade from one input mask per label to one input mask per structure.

    The second stage of a cascade takes the coarse segmentation as one mask per label in nnU-Net, and as one mask per
    structure here; they differ if the structures are regions. The mask of a region is the sum of the masks of its
    labels. The convolution is therefore the same if the kernels of all regions with a label add up to the kernel of
    that label. For the regions 1 2 3, 2 3 and 3 they are k1, k2 - k1 and k3 - k2.

    >>> regions = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
    >>> kernel = torch.tensor([[[[5.0]], [[1.0]], [[3.0]]]])  # the image, label 1, label 2
    >>> regrouped = regroup_input(kernel, regions, channels=1)
    >>> regrouped.round().flatten().tolist()
    [5.0, 1.0, 2.0]
    >>> torch.allclose(separate_input(regrouped, regions, channels=1), kernel)
    True

    Args:
        kernel: Shape (features, channels + labels, *kernel size).
        coarse_targets: Structures of the coarse segmentation.
        channels: Number of image channels, which come first.

    Raises:
        ModelError: There is no such kernel, since the kernels of labels differ that belong to the same regions.
    """
    membership = _find_membership(coarse_targets)
    label_kernels = kernel[:, channels:]
    if label_kernels.shape[1] != membership.shape[1] or _is_identity(membership):
        return kernel
    inverse, *_ = np.linalg.lstsq(membership.T, np.eye(membership.shape[1]), rcond=None)
    if not np.allclose(membership.T @ inverse, np.eye(membership.shape[1])):
        what = "its cascade sees labels of the coarse segmentation that belong to the same regions"
        raise ModelError(what, "predict with nnU-Net")
    return torch.cat([kernel[:, :channels], _mix(inverse, label_kernels)], dim=1)


def separate_input(kernel: torch.Tensor, coarse_targets: Targets, channels: int) -> torch.Tensor:
    """Converts the first convolution of a cascade back to one input mask per label; inverse of `regroup_input`.

    This inverse always exists.
    """
    membership = _find_membership(coarse_targets)
    if _is_identity(membership):
        return kernel
    return torch.cat([kernel[:, :channels], _mix(membership.T, kernel[:, channels:])], dim=1)


def _mix(matrix: NDArray[np.floating], kernels: torch.Tensor) -> torch.Tensor:
    """Multiplies the input channels of kernels, shape (features, inputs, *kernel size), by a matrix."""
    return torch.einsum("ij,fj...->fi...", torch.from_numpy(matrix).double(), kernels.double()).float()


def _find_membership(targets: Targets) -> NDArray[np.floating]:
    """Returns a matrix that is 1 where a structure (row) contains a label (column); labels are in order."""
    labels: Sequence[int] = sorted({number for numbers in targets.structures.values() for number in numbers})
    return np.array([[float(label in numbers) for label in labels] for numbers in targets.structures.values()])


def _is_identity(matrix: NDArray[np.floating]) -> bool:
    """Tells whether the structures are the labels, in order."""
    return bool(matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(matrix.shape[0])))


def _reads_image(name: str) -> bool:
    return name in ("stem.conv.weight", "encoder.0.blocks.0.conv.weight")


def _expected(architecture: Architecture) -> Weights:
    """Returns weights of the expected names and shapes, without memory."""
    with torch.device("meta"):
        return UNet(architecture).state_dict()
