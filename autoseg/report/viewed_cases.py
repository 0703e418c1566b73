"""The cases of a dataset as the viewer shows them."""

from collections.abc import Collection
from dataclasses import replace

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import load_case
from autoseg.imaging.geometry import Volume
from autoseg.report.viewed_volumes import number_structures
from autoseg.report.viewer import ViewedCase, ViewedVolumes


def view_dataset(dataset: Dataset, sound: Collection[str]) -> list[ViewedCase]:
    """Returns the cases of a dataset that can be shown, each with its label map.

    Args:
        dataset: The dataset.
        sound: Names of the cases without problems.
    """
    return [view_case(case, dataset.info) for case in dataset.cases if case.name in sound]


def view_case(case: Case, info: DatasetInfo) -> ViewedCase:
    """Returns a case with its label map; it is read when it is shown, and must be sound."""

    def read() -> ViewedVolumes:
        image, label = load_case(case, info)
        return ViewedVolumes(images=split_channels(image), masks=(number_structures(label, info.targets),))

    return ViewedCase(name=case.name, images=tuple(info.channel_names.values()), masks=("label",), read=read)


def split_channels(image: Volume) -> tuple[Volume, ...]:
    """Returns each channel of an image (c, z, y, x) as a volume (z, y, x) of the same memory."""
    return tuple(replace(image, array=channel) for channel in image.array)
