"""Windows of CT as channels, from dataset.json to masks."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

import autoseg
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError, UsageError
from autoseg.planning.plan import Plan
from autoseg.preprocessing.store import StoredCase

WINDOWS = ((120.0, 240.0), (-1000.0, 400.0))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A trained workspace of CT in two windows and of one further channel; scans may lack either."""
    root = tmp_path_factory.mktemp("windows")
    path = write_volumes(root, channels=2).raw / "dataset.json"
    content = json.loads(path.read_text()) | {
        "channel_names": {"0": "CT", "1": "T2"},
        "normalization": {"0": {"window_hu": WINDOWS}},
        "missing_channels": True,
    }
    path.write_text(json.dumps(content))
    plan_tiny(root, epochs=1)
    autoseg.train(NUMBER, "3d_fullres", 0, workspace=root)
    return root


def scans(root: Path) -> list[Path]:
    """The files of the scan in imagesTs."""
    return sorted((folders_of(root).raw / "imagesTs").iterdir())


def test_prepared_cases_hold_a_channel_for_each_window(workspace):
    """On the grid of the files, each voxel is the definition of its window; the plan says where they come from."""
    folders = folders_of(workspace)
    plan = Plan.load(folders.plan)
    assert any(
        "each of 120 to 240 and -1000 to 400 HU is clipped, and becomes -1 to 1" in sentence for sentence in plan.why
    )
    case = next(
        case
        for case in (StoredCase.open(folders.cases("3d_fullres"), f"case_{number}") for number in (1, 2, 3))
        if case.content.record.box.shape == case.shape
    )
    volume = nibabel.load(folders.raw / "imagesTr" / f"{case.name}_0000.nii.gz").get_fdata().T
    image, _ = case.load()
    assert len(image) == 3
    values = volume.transpose(plan.axis_order)[case.content.record.box.slices]
    for channel, (lower, upper) in zip(image, WINDOWS, strict=False):
        np.testing.assert_allclose(channel, 2 * (values.clip(lower, upper) - lower) / (upper - lower) - 1, atol=1e-5)


def test_files_arrays_and_bundles_give_one_mask(workspace, tmp_path):
    """A bundle needs neither plan.json nor dataset.json; a model without the scan's CT takes zeros for both windows."""
    folders = folders_of(workspace)
    model = autoseg.load_model(folders.model("3d_fullres").path)
    from_files = np.asarray(nibabel.load(autoseg_predict(workspace, tmp_path)).dataobj).T
    images = [nibabel.load(path) for path in scans(workspace)]
    array = np.stack([image.get_fdata().T for image in images]).astype(np.float32)
    spacing_mm = tuple(float(size) for size in images[0].header.get_zooms()[::-1])
    np.testing.assert_array_equal(np.asarray(model.predict(array, spacing_mm=spacing_mm)), from_files)
    autoseg.export_model(NUMBER, tmp_path / "model.zip", workspace=workspace)
    [bundled] = autoseg.predict(scans(workspace)[0].parent, tmp_path / "bundled", model=tmp_path / "model.zip")
    np.testing.assert_array_equal(np.asarray(nibabel.load(bundled).dataobj).T, from_files)
    assert model.predict([None, scans(workspace)[1]]) is not None


def autoseg_predict(root: Path, folder: Path) -> Path:
    """Segments the scan in imagesTs, and returns the path of its mask."""
    [mask] = autoseg.predict(folders_of(root).raw / "imagesTs", folder / "masks", number=NUMBER, workspace=root)
    return mask


def test_nnunet_has_no_several_windows(workspace, tmp_path):
    """The export in its format says so instead of leaving one out."""
    with pytest.raises(ModelError, match="several windows of one channel"):
        autoseg.export_nnunet(NUMBER, tmp_path / "model", workspace=workspace)


def test_windows_written_into_the_plan_need_ct(tmp_path):
    """The line names the configuration and the channel; dataset.json knows what the channel holds."""
    folders = write_volumes(tmp_path)
    plan_tiny(tmp_path)
    content = json.loads(folders.plan.read_text())
    content["configurations"]["3d_fullres"]["normalization"] = [{"window_hu": [0, 80]}]
    folders.plan.write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=r"3d_fullres\.normalization in plan\.json: channel 0 is 'channel_0', and only"
    ):
        autoseg.preprocess(NUMBER, workspace=tmp_path)
    info = DatasetInfo.load(folders.raw / "dataset.json")
    info.model_copy(update={"channel_names": {"0": "CT"}}).save(folders.raw / "dataset.json")
    autoseg.preprocess(NUMBER, configurations=["3d_fullres"], workspace=tmp_path)
    image, _ = StoredCase.open(folders.cases("3d_fullres"), "case_1").load()
    assert image.max() == 1
