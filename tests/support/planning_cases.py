"""Fingerprints for the tests of planning: the golden ones, and small ones made up on the spot."""

import math
from pathlib import Path
from statistics import median

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.imaging.geometry import Shape, Vector
from autoseg.planning.plan import Plan
from autoseg.planning.planner import PlanningOptions, make_plan

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"
GOLDEN_NAMES = ("ACDC", "Hippo", "LiverCT", "Nat2D", "Promise12", "ProstateMSD")

CHANNEL = ChannelFacts(
    mean=40.0, median=42.0, std=15.0, minimum=-1000.0, maximum=3000.0, percentile_00_5=-90.0, percentile_99_5=210.0
)


def fingerprint_of(
    shapes: list[Shape], spacings: list[Vector], *, channels: int = 1, kept_share: float = 1.0
) -> Fingerprint:
    """A fingerprint of cases of these shapes and spacings, of which cropping kept a share of the first axis."""
    cases = tuple(
        CaseFacts(
            name=f"case_{number:03d}",
            shape=(round(shape[0] / kept_share), *shape[1:]),
            shape_after_crop=shape,
            spacing_mm=spacing,
        )
        for number, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True))
    )
    shares = [math.prod(case.shape_after_crop) / math.prod(case.shape) for case in cases]
    return Fingerprint(
        cases=cases, channels=(CHANNEL,) * channels, median_relative_size_after_crop=median(shares or [1.0])
    )


def info_of(*channel_names: str, classes: int = 3) -> DatasetInfo:
    """The dataset.json of channels with these names."""
    labels = {"background": 0} | {f"organ_{number}": number for number in range(1, classes)}
    return DatasetInfo(
        channel_names={str(number): name for number, name in enumerate(channel_names)},
        labels=labels,
        file_ending=".nii.gz",
    )


def golden_fingerprint(name: str) -> Fingerprint:
    """The fingerprint from which the reference method made a golden plan."""
    return read_fingerprint(GOLDEN / name / "dataset_fingerprint.json")


def golden_info(name: str) -> DatasetInfo:
    """The dataset.json from which the reference method made a golden plan."""
    return DatasetInfo.load(GOLDEN / name / "dataset.json")


def plan_of(fingerprint: Fingerprint, info: DatasetInfo, *, gigabytes: float = 8, preset: str | None = "8gb") -> Plan:
    """A plan by this project's rules."""
    budget = int(gigabytes * 1e9)
    return make_plan(
        fingerprint, info, PlanningOptions(dataset="Dataset001_Any", memory_budget_bytes=budget, preset=preset)
    )
