"""The networks of the literature, as a list."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.spec import NetworkSpec
from autoseg.workspace import find_workspace

DEFAULT_CHANNELS, DEFAULT_OUTPUTS = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedNetwork:
    """A network of the literature, with the settings of its paper.

    Attributes:
        name: Name that ``--network`` takes.
        title: Name in the paper.
        summary: What is special about it.
        source: The paper.
        licence: Licence of the code that its authors published.
        patches: Constraints on the patch size, in words.
        weights: Number of trainable weights by the number of image axes, 2 or 3; None if the network cannot take so
            many channels.
    """

    name: str
    title: str
    summary: str
    source: str
    licence: str
    patches: str
    weights: dict[int, int | None]


def list_networks(number: int | None = None, *, workspace: str | os.PathLike[str] | None = None) -> list[ListedNetwork]:
    """Lists the networks of the literature, which `plan_configurations` takes by their names.

    Args:
        number: Number of the dataset for whose channels and labels the weights are counted; by default they are counted
            for one channel and two classes.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.

    Returns:
        The networks in the order of the guide.

    Raises:
        DatasetError: There is no such dataset, or its dataset.json is wrong.

    Example:
        >>> import autoseg
        >>> unet = autoseg.list_networks()[0]
        >>> unet.name, unet.weights
        ('unet', {2: 31030658})
    """
    channels, outputs = DEFAULT_CHANNELS, DEFAULT_OUTPUTS
    if number is not None:
        info = DatasetInfo.load(info_file(find_workspace(workspace).dataset(number).raw))
        channels, outputs = info.image_channels, info.targets.outputs
    return [
        ListedNetwork(
            name=name,
            title=spec.title,
            summary=spec.summary,
            source=spec.source,
            licence=spec.licence,
            patches=spec.describe_constraints(spec.complete({})),
            weights=dict(_count_weights(spec, channels, outputs)),
        )
        for name, spec in NETWORKS.items()
    ]


def _count_weights(spec: NetworkSpec, channels: int, outputs: int) -> Iterator[tuple[int, int | None]]:
    """Yields each number of axes that the network takes, and the number of its weights then."""
    settings = spec.complete({})
    for axes in spec.dimensions:
        try:
            architecture = spec.make_architecture(settings, axes, in_channels=channels, out_channels=outputs)
        except ValueError:
            yield axes, None
            continue
        yield axes, spec.count(settings, architecture, spec.smallest_patch(settings, axes)).weights
