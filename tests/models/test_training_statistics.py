"""What a model expects of an image: ranges and counts of the training cases, and no names."""

import json

import pytest
from tiny_workspaces import folders_of

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.label_facts import LabelFacts
from autoseg.errors import ArtifactError
from autoseg.models.training_statistics import Spread, TrainingStatistics, save_training_statistics

CENTER = (0.5, 0.5, 0.5)
CHANNEL = ChannelFacts(
    mean=5.0, median=4.0, std=1.0, minimum=0.0, maximum=9.0, percentile_00_5=1.0, percentile_99_5=8.0
)


def facts(number: int, voxels: dict[int, int], orientation: str | None = "SPL") -> CaseFacts:
    """A case whose slices are as thick as its number."""
    labels = tuple(LabelFacts(label=label, voxels=count, center=CENTER) for label, count in voxels.items())
    return CaseFacts(
        name=f"patient_{number}",
        shape=(10, 20, 30),
        shape_after_crop=(8, 18, 28),
        spacing_mm=(float(number), 0.5, 0.5),
        orientation=orientation,
        intensities=((-number, 100.0),),
        labels=labels,
    )


def statistics_of(cases: list[CaseFacts], **info) -> TrainingStatistics:
    """Of a dataset with a whole that has a core."""
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        **info,
    }
    fingerprint = Fingerprint(cases=tuple(cases), channels=(CHANNEL,), median_relative_size_after_crop=1.0)
    return TrainingStatistics.of(fingerprint, DatasetInfo.model_validate(described))


def test_ranges_and_counts_by_hand():
    """Sizes are those of whole files, volumes in mm3, and a region has the voxels of all its numbers."""
    found = statistics_of([facts(1, {1: 8, 2: 4}), facts(2, {1: 8}), facts(3, {})])
    assert (found.cases, found.empty_cases, found.orientations) == (3, 1, {"SPL": 3})
    assert found.orientation == "SPL"
    assert found.spacing_mm[0] == Spread(lowest=1.0, low=1.1, median=2.0, high=2.9, highest=3.0)
    assert [size.median for size in found.size_mm] == [20.0, 10.0, 15.0]
    assert (found.channels["CT"].lowest.lowest, found.channels["CT"].width.highest) == (-3.0, 103.0)
    assert found.channels["CT"].foreground == (1.0, 4.0, 8.0)
    whole, core = found.structures["whole"], found.structures["core"]
    assert (whole.known_in, whole.present_in, core.present_in) == (3, 2, 1)
    assert (whole.volume_mm3.lowest, whole.volume_mm3.highest, core.volume_mm3.median) == (3.0, 4.0, 1.0)


def test_channels_of_one_name_are_kept_apart():
    """Colours, or CT and PET that are both called CT: each has its own range, in the order of the channels."""
    case = facts(1, {1: 8}).model_copy(update={"intensities": ((0.0, 9.0), (-5.0, 5.0), (1.0, 2.0))})
    info = {"channel_names": {"0": "CT", "1": "PET", "2": "CT"}, "labels": {"background": 0, "whole": 1}}
    described = DatasetInfo.model_validate({**info, "file_ending": ".nii.gz"})
    fingerprint = Fingerprint(cases=(case, case), channels=(CHANNEL,) * 3, median_relative_size_after_crop=1.0)
    channels = TrainingStatistics.of(fingerprint, described).channels
    assert {name: channel.lowest.median for name, channel in channels.items()} == {
        "CT (channel 0)": 0.0,
        "PET": -5.0,
        "CT (channel 2)": 1.0,
    }


def test_cases_that_were_not_looked_at_for_a_structure_do_not_count():
    """Where nobody looked for the core, it is not missing."""
    found = statistics_of([facts(1, {1: 8, 2: 4}), facts(2, {1: 8})], annotated={"patient_2": ["whole"]})
    assert (found.structures["core"].known_in, found.structures["core"].present_in) == (1, 1)


def test_pictures_and_mixed_cases_have_no_orientation():
    """A plane counts as 1 mm thick; cases that lie in different ways have none in common."""
    planes = statistics_of([facts(7, {1: 8}, orientation=None)])
    assert planes.orientation is None
    assert planes.structures["whole"].volume_mm3.median == 2.0
    mixed = statistics_of([facts(1, {}), facts(2, {}, orientation="SAR")])
    assert (mixed.orientation, mixed.orientations) == (None, {"SAR": 1, "SPL": 1})


def test_training_leaves_it_in_the_model_folder_without_names(trained_volumes):
    """It is what the fingerprint says, and reads back the same."""
    path = folders_of(trained_volumes).model("3d_fullres").training_statistics
    found = TrainingStatistics.load(path)
    assert (found.cases, found.orientation, list(found.structures)) == (3, "SPL", ["bright", "dark"])
    assert "case_" not in path.read_text()


def test_nothing_is_kept_without_a_fingerprint(tmp_path):
    """A model that was trained without one is as good; it only has no remarks."""
    info = DatasetInfo(channel_names={"0": "CT"}, labels={"background": 0, "one": 1}, file_ending=".nii.gz")
    save_training_statistics(tmp_path / "fingerprint.json", info, tmp_path / "training_statistics.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [("orientations", {"UVW": 3}, "three letters"), ("cases", 0, "cases"), ("names", ["patient"], "names")],
)
def test_what_a_stranger_wrote_is_checked(tmp_path, field, value, text):
    """An orientation that is none, no cases, or more than belongs there is refused."""
    content = json.loads(statistics_of([facts(1, {1: 8})]).to_json())
    path = tmp_path / "training_statistics.json"
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(ArtifactError, match=text):
        TrainingStatistics.load(path)
