"""Names files of formats that are not read, by what they hold, and says what to do with them.

A file that no library here reads is seldom damaged: mostly it is a sound file of another format, a placeholder of a
cloud, or a page that a server sent in its place. Source of the signatures: the descriptions of the formats.
"""

import gzip
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import ImageError
from autoseg.imaging.volume_files.nifti_header import GZIP_START, parse_header
from autoseg.runtime.printable import printable

HEAD_BYTES = 1024
"""Number of bytes in which every format of the tables shows itself."""

VOLUME = "convert it to .nii.gz"
PICTURE = "convert it to .png"
UNPACK = "unpack it, and give the files in it"
MICROSCOPE = "export it as .tif with its own program or Fiji"
FREESURFER = "convert it with 'mri_convert brain.mgz brain.nii.gz'"
PAIR = "join header and voxels into .nii.gz, for example by opening it with nibabel and saving it"
DOWNLOAD = "download it again, and look at what the server sends"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFormat:
    """A format that is not read here.

    Attributes:
        name: Name of the format with its article, such as "a JPEG 2000 picture".
        fix: What to do with such a file, as an imperative.
    """

    name: str
    fix: str


DICOM = ForeignFormat(name="a DICOM file", fix="put DICOM files into a folder of their own, and give that")

SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (128, b"DICM", DICOM.name, DICOM.fix),
    (0, b"version https://git-lfs", "a placeholder of Git LFS", "run 'git lfs pull' where it came from"),
    (0, b"/annex/objects/", "a placeholder of git-annex", "run 'git annex get' where it came from"),
    (0, b"../.git/annex/", "a placeholder of git-annex", "run 'git annex get' where it came from"),
    (0, b"bplist00", "a placeholder of iCloud or a property list", "download the file itself in the Finder"),
    (0, b"%PDF", "a PDF document", "give the images themselves"),
    (0, b"PK\3\4", "a zip archive", UNPACK),
    (0, b"PK\5\6", "an empty zip archive", "pack it again"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"BZh", "compressed by bzip2", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ", "compressed by xz", "unpack it with unxz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it with unzstd"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", PICTURE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", PICTURE),
    (0, b"\xff\xd8\xff\xf7", "a JPEG-LS picture", PICTURE),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", PICTURE),
    (0, b"\xff\x0a", "a JPEG XL picture", PICTURE),
    (4, b"ftypheic", "an HEIC picture, as phones take it", PICTURE),
    (4, b"ftypavif", "an AVIF picture", PICTURE),
    (4, b"ftyp", "a film or a picture of the MP4 family", "extract single pictures as .png"),
    (8, b"WEBP", "a WebP picture", PICTURE),
    (8, b"AVI ", "a film", "extract single pictures as .png"),
    (0, b"GIF8", "a GIF picture", PICTURE),
    (0, b"8BPS", "a Photoshop picture", PICTURE),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", "convert it to .tif, which holds its numbers"),
    (0, b"#?RADIANCE", "a Radiance HDR picture", "convert it to .tif, which holds its numbers"),
    (0, b"#?RGBE", "a Radiance HDR picture", "convert it to .tif, which holds its numbers"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as MINC 2 and Imaris use it", VOLUME),
    (0, b"CDF\1", "a NetCDF file, as MINC 1 uses it", VOLUME),
    (0, b"CDF\2", "a NetCDF file, as MINC 1 uses it", VOLUME),
    (0, b"MATRIX7", "an ECAT file", VOLUME),
    (0, b"ZISRAWFILE", "a CZI file of a microscope", MICROSCOPE),
    (0, b"\xda\xce\xbe\x0a", "an ND2 file of a microscope", MICROSCOPE),
    (0, b"# vtk DataFile", "a VTK file", VOLUME),
    (0, b"\x93NUMPY", "an array of NumPy", "save it as .nii.gz, with its spacing"),
    (0, b"MATLAB 5.0", "a file of MATLAB", "save it as .nii.gz, with its spacing"),
    (0, b"SIMPLE  =", "a FITS file", "convert it to .tif"),
)
"""Offset and bytes that show a format, its name, and what to do; the first that fits counts."""

READ_HERE: tuple[tuple[int, bytes, str, tuple[str, ...]], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", (".png",)),
    (0, b"\xff\xd8\xff", "a JPEG picture", (".jpg", ".jpeg")),
    (0, b"BM", "a BMP picture", (".bmp",)),
    (0, b"II*\0", "a TIFF", (".tif", ".tiff")),
    (0, b"MM\0*", "a TIFF", (".tif", ".tiff")),
    (0, b"II+\0", "a TIFF", (".tif", ".tiff")),
    (0, b"MM\0+", "a TIFF", (".tif", ".tiff")),
    (0, b"NRRD000", "an NRRD image", (".nrrd",)),
    (344, b"n+1\0", "a NIfTI image", (".nii", ".nii.gz")),
    (4, b"n+2\0", "a NIfTI image", (".nii", ".nii.gz")),
    (0, b"ObjectType", "a MetaImage", (".mha", ".mhd")),
    (0, b"NDims", "a MetaImage", (".mha", ".mhd")),
)
"""Signatures of formats that are read, and the endings of which a file of them needs one."""

ENDINGS: dict[str, ForeignFormat] = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), DICOM),
    **dict.fromkeys((".mgz", ".mgh"), ForeignFormat(name="a FreeSurfer image", fix=FREESURFER)),
    **dict.fromkeys((".hdr", ".img", ".hdr.gz", ".img.gz"), ForeignFormat(name="a half of a pair .hdr/.img", fix=PAIR)),
    **dict.fromkeys((".nii.zip", ".nii.bz2", ".nii.xz"), ForeignFormat(name="a packed NIfTI image", fix=UNPACK)),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"), ForeignFormat(name="an archive", fix=UNPACK)),
    **dict.fromkeys((".mnc", ".mnc.gz"), ForeignFormat(name="a MINC image", fix="convert it with mnc2nii")),
    ".nhdr": ForeignFormat(name="an NRRD header", fix="save it as .nrrd, in one file"),
    **dict.fromkeys((".par", ".rec"), ForeignFormat(name="a Philips PAR/REC image", fix=f"{VOLUME} with dcm2niix")),
    **dict.fromkeys((".vti", ".vtk"), ForeignFormat(name="a VTK image", fix=VOLUME)),
    ".mif": ForeignFormat(name="an MRtrix image", fix="convert it with 'mrconvert'"),
    **dict.fromkeys((".jp2", ".j2k"), ForeignFormat(name="a JPEG 2000 picture", fix=PICTURE)),
    **dict.fromkeys((".gif", ".webp", ".heic", ".ppm", ".pgm"), ForeignFormat(name="a picture", fix=PICTURE)),
    **dict.fromkeys((".npy", ".npz"), ForeignFormat(name="an array of NumPy", fix="save it as .nii.gz")),
    **dict.fromkeys((".h5", ".hdf5"), ForeignFormat(name="an HDF5 file", fix=VOLUME)),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".svs"), ForeignFormat(name="a file of a microscope", fix=MICROSCOPE)),
    ".icloud": ForeignFormat(name="a placeholder of iCloud", fix="download the file itself in the Finder"),
}
"""Formats by the ending of a name; those with two dots come before those with one."""


def unreadable(path: Path) -> ImageError:
    """Returns the error of a file that no library reads: what it is, if that shows, and what to do with it."""
    try:
        foreign = recognise_content(path)
    except OSError:
        foreign = None
    if foreign is not None:
        return ImageError(f"{path} cannot be read as an image: it is {foreign.name}", foreign.fix)
    what = f"{path} cannot be read as an image: it is damaged, cut off, or of a variant that is not known here"
    return ImageError(what, "copy it again, or open it with the program that wrote it and save it in another way")


def recognise_content(path: Path) -> ForeignFormat | None:
    """Returns what a file is that is not read under its name; None if that does not show.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(GZIP_START):
        return _recognise_packed(path)
    return _recognise(head, path)


def recognise_name(path: Path) -> ForeignFormat | None:
    """Returns the format that the ending of a name stands for, if it is one that is not read here."""
    parts = path.name.lower().split(".")
    endings = ("." + ".".join(parts[-count:]) for count in (2, 1) if len(parts) > count)
    return next((ENDINGS[ending] for ending in endings if ending in ENDINGS), None)


def _recognise(head: bytes, path: Path) -> ForeignFormat | None:
    if not head:
        return ForeignFormat(name="empty, a file of no bytes", fix="copy or download it again")
    for offset, signature, name, fix in SIGNATURES:
        if head[offset:].startswith(signature):
            return ForeignFormat(name=name, fix=fix)
    if not head.strip(b"\0"):
        name = "nothing but zeros where its header should be, as a placeholder of a cloud or a broken download"
        return ForeignFormat(name=name, fix="open it in its cloud once, so that it comes, or download it again")
    own = _recognise_bitmap(head) or _recognise_own(head, path)
    return own if _is_own(head) else _recognise_header(head) or _recognise_text(head)


def _recognise_packed(path: Path) -> ForeignFormat | None:
    """Returns what a file packed by gzip holds."""
    try:
        with gzip.open(path) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return ForeignFormat(name="packed by gzip and cannot be unpacked, as if cut off", fix="copy it again")
    if head.startswith(GZIP_START):
        return ForeignFormat(name="packed by gzip twice", fix="unpack it once with gunzip")
    if head.startswith(b"\0\0\0\1") and len(head) >= 284:
        return ForeignFormat(name="a FreeSurfer image", fix=FREESURFER)
    inner = _recognise(head, path.with_suffix(""))
    return inner and ForeignFormat(name=f"packed by gzip, and inside {inner.name}", fix=inner.fix)


BITMAP_BITS, BITMAP_PACKINGS = (1, 4, 8, 16, 24, 32), (0, 1, 2, 3)
"""Bits per pixel and kinds of packing of bitmaps that are read: none, runs of 8 or 4 bits, and masks of colours."""


def _recognise_bitmap(head: bytes) -> ForeignFormat | None:
    """Returns a bitmap of few bits per pixel, or packed by a rule that is not read."""
    if not head.startswith(b"BM") or len(head) < 34:
        return None
    bits, packing = struct.unpack_from("<H", head, 28)[0], struct.unpack_from("<I", head, 30)[0]
    if bits in BITMAP_BITS and packing in BITMAP_PACKINGS:
        return None  # it is damaged
    return ForeignFormat(name=f"a BMP picture of {bits} bit per pixel" + (", packed" if packing else ""), fix=PICTURE)


def _recognise_header(head: bytes) -> ForeignFormat | None:
    """Returns a header of Analyze, or of a NIfTI pair, whose voxels are in another file."""
    header = parse_header(head)
    if header is None:
        return None
    return ForeignFormat(name="a header of Analyze or of a NIfTI pair, whose voxels are in an .img file", fix=PAIR)


def _recognise_text(head: bytes) -> ForeignFormat | None:
    """Returns a text: a web page, a picture in numbers, or any other."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return ForeignFormat(name="a web page, which a server sent in place of the file", fix=DOWNLOAD)
    if re.match(rb"p[1-6]\s", start):
        return ForeignFormat(name="a picture of the PNM family", fix=PICTURE)
    if start.startswith((b"{", b"[", b"<?xml")):
        return ForeignFormat(name="a text (JSON or XML), such as a server's answer", fix=DOWNLOAD)
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return ForeignFormat(name="a text", fix="put the image in its place") if is_text else None


def _recognise_own(head: bytes, path: Path) -> ForeignFormat | None:
    """Returns what hinders a file of a format that is read: a wrong ending, or voxels that are elsewhere."""
    data = re.search(rb"^ElementDataFile\s*=\s*(\S+)", head, re.MULTILINE)
    raw = printable(data[1].decode(errors="replace"))[:100] if data else "LOCAL"
    if raw not in ("LOCAL", "LIST") and "%" not in raw and not (path.parent / raw).exists():
        return ForeignFormat(
            name=f"a MetaImage header whose voxels, {raw}, are missing", fix="copy that file beside it"
        )
    for offset, signature, kind, endings in READ_HERE:
        if head[offset:].startswith(signature) and not path.name.lower().endswith(endings):
            return ForeignFormat(name=f"{kind} with another ending", fix=f"rename it to {endings[0]}")
    return None


def _is_own(head: bytes) -> bool:
    return any(head[offset:].startswith(signature) for offset, signature, *_ in READ_HERE)
