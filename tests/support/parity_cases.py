"""Small cases made up for comparison with nnU-Net: what both programs are given, and how each is told what to do.

The live comparison (`tests/parity`) asks nnU-Net about them; the default suite compares with what it said once
(`golden/parity_*`). All values are whole numbers or sixty-fourths, so that they are the same on every machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import IDENTITY, Geometry, Shape, Vector, Volume
from autoseg.networks.architecture import Architecture, Stage
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import PreprocessedCase, preprocess_case, restore_case
from autoseg.preprocessing.probabilities import restore_probabilities

LABELS = DatasetInfo(
    channel_names={"0": "MR", "1": "MR"},
    labels={"background": 0, "one": 1, "two": 2, "three": 3},
    file_ending=".nii.gz",
)
REGIONS = DatasetInfo(
    channel_names={"0": "MR", "1": "MR"},
    labels={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "middle": 3, "ignore": 4},
    regions_class_order=(1, 2, 3),
    file_ending=".nii.gz",
)
CT = Normalization(scheme="ct", lower=-60.0, upper=90.0, mean=12.5, std=41.0)
NONZERO = Normalization(scheme="zscore", only_nonzero=True)
THEIR_SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization"}
RESAMPLING = {
    "resampling_fn_data": (False, 3),
    "resampling_fn_seg": (True, 1),
    "resampling_fn_probabilities": (False, 1),
}
NOTCH = (slice(0, 5), slice(0, 9), slice(0, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallCase:
    """A scan of two channels and four labels in a border of zeros.

    Attributes:
        shape, spacing_mm: Of the file.
        axis_order: Of the plan.
        target_mm: Spacing of the configuration, axes in the order of the plan.
        normalization: Of both channels.
        info: Whether it is of labels or of regions.
        seed: Of what it shows.
    """

    shape: Shape
    spacing_mm: Vector
    axis_order: tuple[int, int, int]
    target_mm: Vector
    normalization: Normalization
    info: DatasetInfo
    seed: int

    @property
    def configuration(self) -> Configuration:
        """How this program is told what to do."""
        stages = tuple(Stage(features=4, kernel=(3, 3, 3), stride=(step,) * 3, convolutions=2) for step in (1, 2))
        network = Architecture(residual="none", in_channels=2, out_channels=self.info.targets.outputs, stages=stages)
        return Configuration(
            spacing_mm=self.target_mm,
            patch_size=(8, 8, 8),
            batch_size=2,
            median_shape=(8, 8, 8),
            normalization=(self.normalization,) * 2,
            batch_dice=False,
            architecture=network,
            estimated_bytes=1,
        )

    @property
    def plans(self) -> dict[str, Any]:
        """How nnU-Net is told the same: its plans.json, without the network."""
        own = self.normalization
        configuration = {
            "data_identifier": "small",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [8, 8, 8],
            "median_image_size_in_voxels": [8, 8, 8],
            "spacing": list(self.target_mm),
            "normalization_schemes": [THEIR_SCHEMES[own.scheme]] * 2,
            "use_mask_for_norm": [own.only_nonzero] * 2,
            "batch_dice": False,
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
        }
        for name, (is_label, order) in RESAMPLING.items():
            options = {"is_seg": is_label, "order": order, "order_z": 0, "force_separate_z": None}
            configuration |= {name: "resample_data_or_seg_to_shape", f"{name}_kwargs": options}
        facts = {"mean": own.mean, "std": own.std, "percentile_00_5": own.lower, "percentile_99_5": own.upper}
        return {
            "dataset_name": "Dataset999_Small",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(self.axis_order),
            "transpose_backward": [self.axis_order.index(axis) for axis in range(3)],
            "configurations": {"3d_fullres": configuration},
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": facts, "1": facts},
        }

    def make(self) -> tuple[Volume, Volume]:
        """Channels (2, z, y, x) and label map, zero in a border of two voxels and in a notch."""
        label = make_label_map(self.shape, self.seed)
        random = np.random.default_rng(self.seed + 1)
        image = np.rint(40.0 * label - 30 + random.normal(0, 12, (2, *self.shape))).astype(np.float32)
        image[image == 0] = 1
        inside = np.zeros(self.shape, dtype=bool)
        inside[2:-2, 2:-2, 2:-2] = True
        inside[NOTCH] = False
        image[:, ~inside] = 0
        geometry = Geometry(shape=self.shape, spacing_mm=self.spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY)
        label = np.where(inside, label, 0).astype(np.uint8)
        return Volume(array=image, geometry=geometry), Volume(array=label, geometry=geometry)

    def preprocess(self) -> PreprocessedCase:
        """As this program does."""
        image, label = self.make()
        return preprocess_case(image, label, axis_order=self.axis_order, configuration=self.configuration)

    def make_logits(self) -> NDArray[np.float32]:
        """Smooth logits on the grid of the preprocessed case, in sixty-fourths."""
        random = np.random.default_rng(self.seed + 2)
        shape = (self.info.targets.outputs, *self.preprocess().record.shape)
        smooth = ndimage.gaussian_filter(random.normal(size=shape), (0, 1.5, 1.5, 1.5))
        return (np.rint(64 * 20 * smooth) / 64).astype(np.float32)

    def compare_preprocessed(self, answer: Mapping[str, NDArray[Any]]) -> float:
        """Makes sure that box and label map are nnU-Net's; returns how far the images are apart at most."""
        case = self.preprocess()
        box = case.record.box
        assert answer["box"].tolist() == [list(edge) for edge in zip(box.start, box.stop, strict=True)]
        np.testing.assert_array_equal(case.label, answer["label"])
        return float(np.abs(case.image - answer["image"]).max())

    def compare_exported(self, answer: Mapping[str, NDArray[Any]]) -> tuple[int, float]:
        """How many voxels of the label map differ from nnU-Net's, and how far probabilities are apart at most."""
        record, targets, logits = self.preprocess().record, self.info.targets, self.make_logits()
        differing = np.count_nonzero(
            restore_case(logits, record, targets.region_class_order).array != answer["segmentation"]
        )
        maps = restore_probabilities(logits, record, exclusive=targets.exclusive)
        pairs = zip(maps, answer["probabilities"], strict=True)
        return differing, max(float(np.abs(ours.array - theirs).max()) for ours, theirs in pairs)

    def question(self) -> dict[str, Any]:
        """What nnU-Net must know of the case to preprocess it, and to export logits of it."""
        record = self.preprocess().record
        box = record.box
        return {
            "plans": self.plans,
            "configuration": "3d_fullres",
            "dataset": describe(self.info),
            "spacing": list(self.spacing_mm),
            "properties": {
                "spacing": list(self.spacing_mm),
                "shape_before_cropping": list(record.grid.shape),
                "bbox_used_for_cropping": [list(edge) for edge in zip(box.start, box.stop, strict=True)],
                "shape_after_cropping_and_before_resampling": list(box.shape),
            },
        }


SMALL_CASES = {
    "thick": SmallCase(
        shape=(9, 30, 26),
        spacing_mm=(5.0, 1.2, 1.0),
        axis_order=(0, 1, 2),
        target_mm=(4.0, 1.0, 1.1),
        normalization=CT,
        info=LABELS,
        seed=1,
    ),
    "across": SmallCase(
        shape=(24, 28, 10),
        spacing_mm=(1.0, 1.2, 5.0),
        axis_order=(2, 0, 1),
        target_mm=(4.0, 1.1, 0.9),
        normalization=NONZERO,
        info=REGIONS,
        seed=4,
    ),
    "cube": SmallCase(
        shape=(20, 22, 18),
        spacing_mm=(1.3, 1.0, 1.1),
        axis_order=(0, 1, 2),
        target_mm=(1.0, 1.0, 1.0),
        normalization=NONZERO,
        info=LABELS,
        seed=7,
    ),
}

TILED_IMAGES = [
    ([110, 110, 110], [64, 64, 64]),
    ([100, 200, 150], [64, 96, 80]),
    ([65, 64, 129], [64, 64, 64]),
    ([40, 56, 40], [40, 56, 40]),
    ([9, 301, 257], [8, 128, 96]),
]
"""Voxels of an image and of a tile."""

SPLIT_COUNTS = (5, 6, 12, 33)
"""Numbers of cases that are dealt into folds."""


def make_label_map(shape: Shape, seed: int) -> NDArray[np.uint8]:
    """Smooth structures of the numbers 0 to 3, no two of which are alike."""
    random = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(random.normal(size=(4, *shape)), (0, 2, 2, 2))
    return fields.argmax(axis=0).astype(np.uint8)


def describe(info: DatasetInfo) -> dict[str, Any]:
    """The content of dataset.json."""
    return {**json.loads(info.model_dump_json(exclude_none=True, exclude_defaults=True)), "numTraining": 1}
