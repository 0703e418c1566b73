"""A sound file of a kind that is not read is named as that kind, and not as damaged."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from autoseg.errors import ImageError
from autoseg.imaging.foreign_formats import ENDINGS, recognise_content, recognise_name, unreadable
from autoseg.imaging.formats import READABLE_ENDINGS
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.image_headers import channels_in

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def picture(kind, **options):
    """A picture as Pillow writes it."""
    content = io.BytesIO()
    Image.fromarray(GREY).save(content, kind, **options)
    return content.getvalue()


def nifti(kind=nibabel.Nifti1Image):
    """An image as nibabel writes it into one file."""
    return kind(GREY[np.newaxis].astype(np.int16), np.eye(4)).to_bytes()


def mgh():
    """An image of FreeSurfer."""
    return nibabel.MGHImage(GREY[np.newaxis].astype(np.float32), np.eye(4)).to_bytes()


def analyze():
    """The header of an image of Analyze, which says nothing of NIfTI."""
    return nibabel.AnalyzeImage(GREY[np.newaxis].astype(np.int16), np.eye(4)).header.binaryblock


def packed(write):
    """What an archive holds."""
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def zipped(content):
    """A zip with an image."""
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("scan.nii", nifti())


def tarred(content):
    """A tar with an image."""
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("scan.nii")
        entry.size = len(nifti())
        archive.addfile(entry, io.BytesIO(nifti()))


def complaint_of(read, path):
    """The text of the error, empty if the file is read."""
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return ""


KINDS = {
    "empty": (b"", "empty, a file of no bytes; copy or download it again"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a placeholder of Git LFS"),
    "annex": (b"/annex/objects/SHA256E-s12--00.nii.gz\n", "a placeholder of git-annex"),
    "icloud": (b"bplist00\xd1\x01\x02", "a placeholder of iCloud"),
    "dicom": (bytes(128) + b"DICM" + bytes(100), "a DICOM file"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
    "html": (b"\n<!DOCTYPE html><html><body>log in</body>", "a web page, which a server sent"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "such as a server's answer"),
    "text": (b"not an image", "a text"),
    "zip": (packed(zipped), "a zip archive; unpack it"),
    "tar": (packed(tarred), "a tar archive; unpack it"),
    "tgz": (gzip.compress(packed(tarred)), "packed by gzip, and inside a tar archive"),
    "bz2": (bz2.compress(nifti()), "compressed by bzip2"),
    "xz": (lzma.compress(nifti()), "compressed by xz"),
    "gzip twice": (gzip.compress(gzip.compress(nifti())), "packed by gzip twice; unpack it once"),
    "mgh": (gzip.compress(mgh()), "a FreeSurfer image; convert it with 'mri_convert"),
    "analyze": (analyze(), "a header of Analyze"),
    "gif": (picture("gif"), "a GIF picture"),
    "webp": (picture("webp"), "a WebP picture"),
    "jpeg 2000": (picture("jpeg2000"), "a JPEG 2000 picture"),
    "pgm": (picture("ppm"), "a picture of the PNM family"),
    "radiance": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "a Radiance HDR picture"),
    "numpy": (packed(lambda content: np.save(content, GREY)), "an array of NumPy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(range(50)), "an HDF5 file, as MINC 2"),
    "netcdf": (b"CDF\1" + bytes(range(50)), "as MINC 1"),
    "png": (picture("png"), "a PNG picture with another ending; rename it to .png"),
    "tiff": (picture("tiff"), "a TIFF with another ending; rename it to .tif"),
    "jpeg": (picture("jpeg"), "a JPEG picture with another ending; rename it to .jpg"),
    "bmp": (picture("bmp"), "a BMP picture with another ending; rename it to .bmp"),
}


@pytest.mark.parametrize(("content", "said"), KINDS.values(), ids=KINDS)
def test_content_names_the_kind(tmp_path, content, said):
    """Whatever the ending says, and never as damaged."""
    for name in ("scan.nii.gz", "scan.nrrd"):
        path = tmp_path / name
        path.write_bytes(content)
        assert said in str(unreadable(path))
        for read in (lambda path: read_image((path,)), channels_in):
            assert "damaged" not in complaint_of(read, path)


@pytest.mark.parametrize("bits", [2, 48])
def test_a_bitmap_of_odd_bits_is_named(tmp_path, bits):
    """A bitmap with the usual bits is read, so it gets no such word."""
    path = tmp_path / "mask.bmp"
    Image.fromarray(GREY > 9).save(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 28, bits)
    path.write_bytes(content)
    assert f"is a BMP picture of {bits} bit per pixel; convert it to .png" in str(unreadable(path))
    path.write_bytes(picture("bmp"))
    assert recognise_content(path) is None


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".nii", nifti()),
        (".nii.gz", gzip.compress(nifti())),
        (".nii", nifti(nibabel.Nifti2Image)),
        (".png", picture("png")),
        (".tiff", picture("tiff")),
        (".jpeg", picture("jpeg")),
    ],
)
def test_what_is_damaged_is_called_so(tmp_path, ending, content):
    """A file that begins as its ending says, and cannot be read, is damaged or of an unusual variant."""
    path = tmp_path / f"scan{ending.upper()}"
    path.write_bytes(content)
    assert recognise_content(path) is None
    assert "it is damaged, cut off, or of a variant that is not known here; copy it again" in str(unreadable(path))


def test_a_gzip_that_is_cut_off_is_damaged(tmp_path):
    """Its first bytes cannot be unpacked."""
    path = tmp_path / "scan.nrrd"
    path.write_bytes(gzip.compress(nifti())[:20])
    assert "packed by gzip and cannot be unpacked, as if cut off; copy it again" in str(unreadable(path))


def test_a_header_without_its_voxels_is_named(tmp_path):
    """MetaImage may have them in a file beside it, which was left behind."""
    sitk.WriteImage(sitk.GetImageFromArray(GREY), str(tmp_path / "scan.mhd"))
    assert read_image((tmp_path / "scan.mhd",)).array.shape == (1, 1, 8, 8)
    assert recognise_content(tmp_path / "scan.mhd") is None
    (tmp_path / "scan.raw").unlink()
    with pytest.raises(ImageError, match=r"header whose voxels, scan\.raw, are missing; copy that file beside it"):
        read_image((tmp_path / "scan.mhd",))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("brain.mgz", "FreeSurfer"),
        ("IM.DCM", "DICOM"),
        ("a.nii.zip", "packed NIfTI"),
        ("a.tar.gz", "archive"),
        ("a.b.hdr", "half of a pair"),
        (".scan.nii.gz.icloud", "iCloud"),
    ],
)
def test_endings_name_kinds(tmp_path, name, said):
    """Without opening the file."""
    kind = recognise_name(tmp_path / name)
    assert kind is not None
    assert said in kind.name


@pytest.mark.parametrize("name", ["notes.txt", "dataset.json", "README", "a.nii.gz", "a.png", "zip"])
def test_other_endings_name_none(tmp_path, name):
    """Files that are read, and those that nobody takes for a scan."""
    assert recognise_name(tmp_path / name) is None


def test_no_ending_is_in_both_tables():
    """A format is read, or it is not."""
    assert not ENDINGS.keys() & set(READABLE_ENDINGS)


@pytest.mark.parametrize("mode", ["1", "P", "RGB"])
def test_a_damaged_bitmap_of_a_kind_that_is_read_is_damaged(tmp_path, mode):
    """And is not called a kind that is not read."""
    path = tmp_path / "mask.bmp"
    Image.new("RGB", (9, 9)).convert(mode).save(path)
    path.write_bytes(path.read_bytes()[:40])
    assert "is damaged, cut off, or of a variant" in str(unreadable(path))
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        read_label_map(path)
