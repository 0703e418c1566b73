"""Series and segmentations of scanners and other programs, which lie beside the checkout."""

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
from dicom_comparison import assert_same, read_by_dcm2niix

from autoseg.dicom.masks import describe_mask, read_mask
from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason="no real scans beside the checkout"),
]


@pytest.mark.parametrize("folder", ["dicom/prostate_t2", "totalseg/example_ct_dicom"])
def test_series_are_read_as_by_dcm2niix(folder):
    """An oblique series of a prostate, and a CT."""
    [series] = find_series(DATA / folder).series
    assert_same(read_series(series), read_by_dcm2niix(DATA / folder), rtol=1e-5)


def test_a_missing_slice_is_named():
    """Of a diffusion series."""
    [series] = find_series(DATA / "dicom" / "missing_slice").series
    assert series.defect is not None
    assert series.defect.what.startswith("1 slice is missing between 1-07.dcm")


def test_segments_are_read_as_by_highdicom():
    """Of one segment, and of five that overlap."""
    files = find_series(DATA / "dicom" / "ct_3slices_with_seg")
    [series] = files.series
    for header in files.masks:
        segmentation = highdicom.seg.segread(header.path)
        uids = [frame.sop_uid for frame in series.frames]
        expected = segmentation.get_pixels_by_source_instance(uids, ignore_spatial_locations=True)
        read = list(read_mask(describe_mask(header), series.grid()))
        assert len(read) == expected.shape[-1]
        for number, (_, mask) in enumerate(read):
            assert np.array_equal(mask, expected[..., number] > 0)


def test_a_label_lies_on_the_series():
    """The mask of another program, whose rows run the other way, is on the same grid."""
    [series] = find_series(DATA / "totalseg" / "example_ct_dicom").series
    volume = read_series(series)
    label = nibabel.as_closest_canonical(nibabel.load(DATA / "totalseg" / "example_seg_dicom.nii.gz"))
    canonical = volume.reoriented("SAR")
    assert label.shape == canonical.array.shape[:0:-1]
    body = canonical.array[0].T[np.asarray(label.dataobj) > 0]
    assert body.mean() > -200  # organs, not air
