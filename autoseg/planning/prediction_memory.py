"""The memory that the prediction of one image takes on a CPU, estimated before there is any network."""

from collections.abc import Sequence
from math import prod

from autoseg.planning.plan import Configuration

PROGRAM_BYTES = 700_000_000
"""Python with torch and its libraries, and a network of a few million weights."""
FLOAT_BYTES = 4
MAPS_AT_ONCE = 4
"""Number of feature maps of full resolution that a network holds at its peak: two that are concatenated, the result of
the next convolution, and the skip connection."""
TILES_AT_ONCE = 2
"""Tiles that go through the network together on two cores; see `inference.network_predictor.count_at_once`."""
FILE_BYTES = 12
"""Bytes for each voxel of the file, for each channel and for masks: as read, as float32, and normalized; see
`preprocessing.dataset.estimate_bytes`."""


def prediction_bytes(configuration: Configuration, shape: Sequence[float], file_voxels: float) -> int:
    """Estimates the memory in bytes that the prediction of an image takes at most.

    The image is preprocessed, then predicted in tiles, then brought back to its grid; each of the three has its own
    peak, and what the first leaves behind is freed before the third begins.

    Args:
        configuration: The configuration of the network.
        shape: Shape (z, y, x) of the image at the spacing of the configuration.
        file_voxels: Number of voxels of the image in its file.
    """
    channels, outputs = configuration.image_channels, configuration.architecture.out_channels
    widest, voxels = configuration.architecture.stages[0].features, prod(shape)
    preprocessing = FILE_BYTES * (channels + 1) * file_voxels + 3 * FLOAT_BYTES * channels * voxels
    tile = TILES_AT_ONCE * FLOAT_BYTES * (MAPS_AT_ONCE * widest + outputs) * configuration.patch_voxels
    predicting = FLOAT_BYTES * channels * file_voxels + FLOAT_BYTES * (channels + outputs) * voxels + tile
    return round(PROGRAM_BYTES + max(preprocessing, predicting))
