"""Remarks: none about usual scans and results, one about each thing that is not."""

import random
from dataclasses import replace

import numpy as np
import pytest
from phantoms import REALDATA

from autoseg.datasets.fingerprint import draws_per_case, fingerprint_case, fingerprint_dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.targets import Targets
from autoseg.inference.quality_checks import (
    ImageProperties,
    check_image,
    check_quality,
    check_segmentation,
    measure_volumes,
)
from autoseg.models.training_statistics import ChannelStatistics, Spread, StructureStatistics, TrainingStatistics

HIPPOCAMPUS = REALDATA / "Task04_Hippocampus"


def spread(lowest: float, highest: float) -> Spread:
    """Even, between two ends."""
    return Spread.of(np.linspace(lowest, highest, 21).tolist())


EXPECTED = TrainingStatistics(
    cases=200,
    empty_cases=0,
    orientations={"SPL": 200},
    spacing_mm=(spread(1, 5), spread(0.5, 1), spread(0.5, 1)),
    size_mm=(spread(100, 300), spread(300, 500), spread(300, 500)),
    channels={
        "CT": ChannelStatistics(lowest=spread(-1024, -1000), width=spread(2000, 4000), foreground=(-20.0, 90.0, 200.0))
    },
    structures={
        "liver": StructureStatistics(known_in=200, present_in=199, volume_mm3=spread(8e5, 2.5e6)),
        "tumor": StructureStatistics(known_in=200, present_in=90, volume_mm3=spread(50, 1e5)),
        "cyst": StructureStatistics(known_in=200, present_in=0, volume_mm3=None),
    },
)
USUAL = ImageProperties(
    spacing_mm=(2.5, 0.7, 0.7), size_mm=(200.0, 360.0, 360.0), orientation="SPL", intensities=((-1024.0, 2500.0),)
)
FOUND = {"liver": 1.5e6, "tumor": 900.0, "cyst": 0.0}
SURE = {"liver": 0.97, "tumor": 0.8, "cyst": float("nan")}


def test_usual_scans_and_results_have_no_remarks():
    """Not even without a tumor, which half of the cases had not."""
    assert check_image(EXPECTED, USUAL) == check_segmentation(EXPECTED, FOUND, SURE) == []
    assert check_segmentation(EXPECTED, {**FOUND, "tumor": 0.0}, {**SURE, "tumor": float("nan")}) == []


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"spacing_mm": (8.0, 0.7, 0.7)}, "spacing along z is 8 mm, in training 1 to 5 mm"),
        ({"size_mm": (200.0, 120.0, 360.0)}, "size along y is 120 mm, in training 300 to 500 mm"),
        ({"orientation": "SAR"}, "its axes lead SAR, those of training SPL; it was turned for the model"),
        ({"intensities": ((-1.024, 2.5),)}, "width of the intensities of CT is 3.524, in training 2000 to 4000"),
        ({"intensities": ((0.0, 3500.0),)}, "lowest intensity of CT is 0, in training -1024 to -1000"),
        ({"intensities": ((7.0, 7.0),)}, "channel CT has the value 7 everywhere"),
    ],
)
def test_unusual_scans_are_remarked_on(change, remark):
    """The text names what it is, and what it was in training."""
    assert check_image(EXPECTED, replace(USUAL, **change))[0] == remark


def test_another_scale_is_remarked_on():
    """A thousand times as bright, and a thousandth."""
    for factor in (1e3, 1e-3):
        scaled = replace(USUAL, intensities=tuple((low * factor, high * factor) for low, high in USUAL.intensities))
        assert any("intensities of CT" in line for line in check_image(EXPECTED, scaled))


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        ({"liver": 0.0, "tumor": 0.0, "cyst": 0.0}, "nothing was found"),
        ({**FOUND, "liver": 0.0}, "no liver was found, which 199 of 200 training cases had"),
        ({**FOUND, "liver": 1.5e5}, "liver is implausibly small: 150 ml, in training 800 to 2500 ml"),
        ({**FOUND, "tumor": 1e6}, "tumor is implausibly large: 1e+03 ml, in training 0.05 to 100 ml"),
    ],
)
def test_unlikely_results_are_remarked_on(found, remark):
    """One remark, in ml."""
    assert check_segmentation(EXPECTED, found, SURE) == [remark]


def test_empty_results_are_usual_where_cases_were_empty():
    """If a tenth of the training cases had nothing, so may a scan."""
    assert check_segmentation(EXPECTED.model_copy(update={"empty_cases": 20}), dict.fromkeys(FOUND, 0.0), {}) == []


def test_low_agreement_is_remarked_on_whatever_is_known():
    """Also by a model that has no statistics."""
    line = "tumor: folds and mirror images agree little, 0.41"
    assert check_segmentation(EXPECTED, FOUND, {**SURE, "tumor": 0.41}) == [line]
    assert check_segmentation(None, FOUND, {**SURE, "tumor": 0.41}) == [line]


def test_a_range_of_few_cases_is_widened_more():
    """The same scan stands out beside 200 cases, and not beside 4."""
    large = replace(USUAL, size_mm=(200.0, 360.0, 900.0))
    assert check_image(EXPECTED, large)
    assert not check_image(EXPECTED.model_copy(update={"cases": 4, "orientations": {"SPL": 4}}), large)


def test_scans_of_training_that_lay_in_several_ways():
    """One that lies as any of them did is usual; another is named, and nothing was turned."""
    mixed = EXPECTED.model_copy(update={"orientations": {"SPL": 100, "SAR": 100}})
    assert check_image(mixed, replace(USUAL, orientation="SAR")) == []
    [line] = check_image(mixed, replace(USUAL, orientation="PSL"))
    assert line == "its axes lead PSL, as in no training case (SPL, SAR)"


def test_looking_at_a_turned_scan_measures_it_as_training_cases_lie():
    """Slices along the last axis are compared with the slices of training; intensities are of each channel."""
    array = np.zeros((2, 30, 20, 10), np.float32)
    array[0, 0, 0, 0], array[1, 1, 1, 1] = -5, 7
    image = Volume(array=array, geometry=Geometry(shape=(30, 20, 10), spacing_mm=(0.5, 0.6, 4.0)).permute((0, 1, 2)))
    lying = image.reoriented("LPS")
    look = ImageProperties.of(lying, EXPECTED)
    assert look.orientation == "LPS"
    assert (look.spacing_mm, look.size_mm) == ((0.5, 0.6, 4.0), (15.0, 12.0, 40.0))
    assert look.intensities == ((-5.0, 0.0), (0.0, 7.0))


def test_planes_are_not_judged_by_their_thickness():
    """Nobody knows it."""
    plane = replace(USUAL, orientation=None, spacing_mm=(99.0, 0.7, 0.7), size_mm=(99.0, 360.0, 360.0))
    assert check_image(EXPECTED, plane) == []


def test_volumes_of_label_maps_regions_and_masks():
    """Voxels times the volume of one; a region has the voxels of all its numbers, a mask those that it holds."""
    label = np.array([[[0, 1, 1, 2]]], np.uint8)
    geometry = Geometry(shape=(1, 1, 4), spacing_mm=(1.0, 1.0, 2.0))
    regions = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
    assert measure_volumes(Volume(array=label, geometry=geometry), regions, 2.0) == {"whole": 6.0, "core": 2.0}
    masks = Volume(array=np.stack([label > 0, label > 1]), geometry=geometry)
    assert measure_volumes(masks, replace(regions, region_class_order=()), 2.0) == {"whole": 6.0, "core": 2.0}


def test_a_segmentation_is_measured_and_checked_with_its_image():
    """Volumes in ml, and remarks about the image before those about the segmentation; without statistics fewer."""
    label = np.zeros((10, 10, 10), np.uint8)
    label[0, 0, :5] = 1
    segmentation = Volume(array=label, geometry=Geometry(shape=(10, 10, 10), spacing_mm=(10.0, 10.0, 2.0)))
    targets, agreement = Targets.of_labels({"liver": 1}), {"liver": 0.5}
    wide = replace(USUAL, spacing_mm=(8.0, 0.7, 0.7))
    check = check_quality(segmentation, targets, agreement, EXPECTED, wide)
    assert check.volumes_ml == {"liver": 1.0}
    low = "liver: folds and mirror images agree little, 0.50"
    assert check.remarks == (
        "spacing along z is 8 mm, in training 1 to 5 mm",
        "liver is implausibly small: 1 ml, in training 800 to 2500 ml",
        low,
    )
    assert check_quality(segmentation, targets, agreement, None, None).remarks == (low,)


@pytest.mark.realdata
@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="no real scans beside the checkout")
def test_few_real_scans_are_flagged_for_no_reason():
    """Of 60 scans that were left out, at most three beside the 200 others; all of them if they are mirrored."""
    info = DatasetInfo(
        channel_names={"0": "MR"}, labels={"background": 0, "front": 1, "back": 2}, file_ending=".nii.gz"
    )
    names = sorted(path.name for path in (HIPPOCAMPUS / "imagesTr").glob("hippocampus_*.nii.gz"))
    random.Random(0).shuffle(names)
    draws = draws_per_case(200)
    known = {}
    for name in names[:200]:
        image, label = read_image((HIPPOCAMPUS / "imagesTr" / name,)), read_label_map(HIPPOCAMPUS / "labelsTr" / name)
        known[name] = fingerprint_case(name, image, label, draws=draws)
    fingerprint = fingerprint_dataset(
        [summary for summary, _ in known.values()],
        draws=draws,
        read_draws=lambda name, channel: known[name][1][channel],
    )
    statistics = TrainingStatistics.of(fingerprint, info)
    looks, volumes = [], []
    for name in names[200:]:
        looks.append(ImageProperties.of(read_image((HIPPOCAMPUS / "imagesTr" / name,)), statistics))
        volumes.append(measure_volumes(read_label_map(HIPPOCAMPUS / "labelsTr" / name), info.targets, 1.0))
    flagged = [
        check_image(statistics, look) + check_segmentation(statistics, volume, {})
        for look, volume in zip(looks, volumes, strict=True)
    ]
    assert sum(map(bool, flagged)) <= 3
    assert all(check_image(statistics, replace(look, orientation="SPL")) for look in looks)
    assert check_segmentation(statistics, dict.fromkeys(info.targets.names, 0.0), {}) == ["nothing was found"]


PET = ChannelStatistics(lowest=spread(0, 1), width=spread(10, 20), foreground=(1.0, 5.0, 15.0))


def test_each_channel_is_compared_with_its_own():
    """Two channels of one name, as CT and PET both called CT, keep their numbers."""
    channels = {"CT (channel 0)": EXPECTED.channels["CT"], "CT (channel 1)": PET}
    both = EXPECTED.model_copy(update={"channels": channels})
    usual = replace(USUAL, intensities=((-1024.0, 2500.0), (0.5, 15.0)))
    assert check_image(both, usual) == []
    remarks = check_image(both, replace(usual, intensities=((-1024.0, 2500.0), (0.5, 150.0))))
    assert remarks == ["width of the intensities of CT (channel 1) is 149.5, in training 10 to 20"]


def test_old_statistics_with_a_channel_for_each_name_are_left_alone():
    """Version 0.1 kept the last of the channels that have a name, so its numbers belong to none."""
    assert check_image(EXPECTED, replace(USUAL, intensities=((0.0, 9.0), (0.0, 9.0), (0.0, 9.0)))) == []


def test_a_channel_that_training_lacked_too_is_no_remark():
    """The third colour of two dyes is 0 everywhere, in every training case or in some."""
    empty = ChannelStatistics(lowest=spread(0, 0), width=spread(0, 40), foreground=(0.0, 0.0, 0.0))
    expected = EXPECTED.model_copy(update={"channels": {"blue": empty}})
    assert check_image(expected, replace(USUAL, intensities=((0.0, 0.0),))) == []
