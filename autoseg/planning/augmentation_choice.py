"""Chooses the random augmentation of the training patches by their shape."""

from collections import Counter

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import COLOURS, DatasetInfo
from autoseg.networks.architecture import Axes
from autoseg.planning.settings import AugmentationSettings

# Source: the reference method (nnU-Net v2.8.1, trainer).
THICK_PATCH_RATIO = 3
"""Ratio of the longest to the first edge of a 3D patch above which it is rotated in-plane only."""
LONG_PLANE_RATIO = 1.5
"""Ratio of the longest to the shortest edge of a 2D patch above which it is rotated by small angles only."""

MISSING_CHANNELS = 0.4
"""Probability that a patch lacks channels, if scans may. Source: arXiv 2602.20218, where 35 to 50 % of patches did."""


def may_lack_channels(fingerprint: Fingerprint, info: DatasetInfo) -> bool:
    """Returns whether scans may lack channels: dataset.json says so, or some training cases lack one that others have.

    Colours are never missing.
    """
    titles = list(info.channel_names.values())
    if len(titles) < 2 or info.missing_channels:
        return len(titles) > 1
    lacking = Counter(number for case in fingerprint.cases for number in case.missing_channels)
    return any(
        titles[number].casefold() != COLOURS and count < len(fingerprint.cases) for number, count in lacking.items()
    )


def choose_augmentation(patch_size: Axes) -> AugmentationSettings:
    """Chooses by which angles patches are rotated, and mirrors them along all their axes.

    A rotated patch reaches beyond its own borders, so elongated 2D patches are rotated by small angles, and 3D patches
    that are flat along the first axis are rotated within their slices only. Source: the reference method (nnU-Net
    v2.8.1, trainer).

    >>> choose_augmentation((20, 256, 256)).rotation_axes
    (0,)

    Args:
        patch_size: Voxels along each axis, in the plan's axis order.
    """
    longest = max(patch_size)
    if len(patch_size) == 2:
        degrees = 15 if longest / min(patch_size) > LONG_PLANE_RATIO else 180
        return AugmentationSettings(rotation_degrees=degrees, rotation_axes=(0,), mirror_axes=(0, 1))
    if longest / patch_size[0] > THICK_PATCH_RATIO:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,))
    return AugmentationSettings()
