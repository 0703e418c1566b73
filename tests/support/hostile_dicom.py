"""DICOM files that are broken or hostile, and a program that reads each of them and says what came of it.

    python hostile_dicom.py FOLDER

prints for each subfolder of FOLDER a line of JSON: its name, the seconds it took, the error in one line, and the memory
of the process in megabytes so far.
"""

import json
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dicom_files import make_enhanced, make_series, random_voxels
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

SHAPE = (3, 16, 16)


def make_file(folder: Path, change: Callable[[Dataset], None] | None = None, *, enhanced: bool = False) -> bytes:
    """Returns the bytes of a sound file after a change of its data set."""
    slices = make_series(random_voxels(SHAPE))
    data = make_enhanced(slices) if enhanced else slices[0]
    if change is not None:
        change(data)
    path = folder.with_suffix(".tmp")
    data.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    path.unlink()
    return content


def set_raw(keyword: str, text: str) -> Callable[[Dataset], None]:
    """Returns a change that writes any text as the value of an element."""

    def change(data: Dataset) -> None:
        del data[keyword]
        data.add_new(keyword, "LO", text)

    return change


def set_value(keyword: str, value: object) -> Callable[[Dataset], None]:
    """Returns a change of one element."""
    return lambda data: setattr(data, keyword, value)


def compressed(syntax: UID, frame: bytes, **values: object) -> Callable[[Dataset], None]:
    """Returns a change to compressed pixels."""

    def change(data: Dataset) -> None:
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = encapsulate([frame])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        for keyword, value in values.items():
            setattr(data, keyword, value)

    return change


def before_pixels(content: bytes, inserted: bytes) -> bytes:
    """Inserts elements before the pixels."""
    place = content.rindex(b"\xe0\x7f\x10\x00")
    return content[:place] + inserted + content[place:]


def element(group: int, number: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    """Returns an element of a long value representation."""
    return struct.pack("<HH2sHI", group, number, vr, 0, length) + value


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ENDLESS = 0xFFFFFFFF


def deflate_bomb(content: bytes) -> bytes:
    """Returns a deflated file of two gigabytes of zeros."""
    meta_end = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**22)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * 512 + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    uid = b"1.2.840.10008.1.2.1\0"
    meta = content[:meta_end].replace(struct.pack("<HH2sH", 2, 16, b"UI", 20) + uid, b"")
    meta += struct.pack("<HH2sH", 2, 16, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    length = len(meta) - 144
    return meta[:140] + struct.pack("<I", length) + meta[144:] + packed


def make_hostile(folder: Path) -> dict[str, bytes]:
    """Returns the content of each file by its name."""
    sound = make_file(folder)
    pixels = sound.rindex(b"\xe0\x7f\x10\x00")
    items = 400_000
    files = {
        "only a preamble": bytes(128) + b"DICM",
        "random bytes": bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000),
        "zeros": bytes(128) + b"DICM" + bytes(5000),
        "cut off in its first group": sound[:160],
        "cut off in its header": sound[: len(sound) // 3],
        "cut off before its size": sound[: sound.index(struct.pack("<HH", 0x28, 0x10))],
        "cut off before its pixels": sound[:pixels],
        "cut off after the tag of its pixels": sound[: pixels + 4],
        "cut off in its pixels": sound[:-100],
        "pixels of 4 GB": sound[: pixels + 8] + struct.pack("<I", 0xFFFFFFF0) + sound[pixels + 12 :],
        "pixels of no length": sound[: pixels + 8] + struct.pack("<I", 0) + sound[pixels + 12 :],
        "pixels without an end": sound[: pixels + 8] + struct.pack("<I", ENDLESS) + sound[pixels + 12 :],
        "an element of 4 GB": before_pixels(sound, element(0x40, 0x9096, b"OB", 0xFFFFFFF0, b"abc")),
        "an endless sequence": before_pixels(sound, element(0x40, 0x9096, b"SQ", ENDLESS, ITEM * items)),
        "nested sequences": before_pixels(
            sound, (element(0x40, 0x9096, b"SQ", ENDLESS) + OPEN_ITEM) * 20_000 + (ITEM_END + SEQUENCE_END) * 20_000
        ),
        "items of frames that are not there": before_pixels(
            make_file(folder, enhanced=True), element(0x5200, 0x9230, b"SQ", 8 * items, ITEM * items)
        ),
        "a deflated bomb": deflate_bomb(sound),
        "another byte order": sound.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
    }
    changes = {
        "4 billion voxels": {"Rows": 65535, "Columns": 65535},
        "no rows": {"Rows": 0},
        "2 billion frames": {"NumberOfFrames": 2**31 - 1},
        "100,000 frames": {"NumberOfFrames": 100_000},
        "no frames": {"NumberOfFrames": -3},
        "voxels of 7 bits": {"BitsAllocated": 7},
        "voxels of more bits than there are": {"BitsStored": 60},
        "colours without end": {"SamplesPerPixel": 200},
        "pixels of no size": {"PixelSpacing": [0, 0]},
        "pixels of negative size": {"PixelSpacing": [-1, 1]},
        "directions of no length": {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        "directions that are the same": {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        "a slope without bounds": {"RescaleSlope": "1e300", "RescaleIntercept": 0},
        "a type of many values": {"ImageType": ["X"] * 20_000},
    }
    for name, values in changes.items():

        def change(data: Dataset, values: dict[str, object] = values) -> None:
            for keyword, value in values.items():
                setattr(data, keyword, value)

        files[name] = make_file(folder, change)
    for name, (keyword, text) in {
        "a number that is a word": ("SeriesNumber", "twelve"),
        "a position that is a word": ("ImagePositionPatient", "here"),
        "a position that is no number": ("ImagePositionPatient", "nan\\nan\\nan"),
        "a position of two numbers": ("ImagePositionPatient", "1\\2"),
        "an infinite position": ("ImagePositionPatient", "inf\\0\\0"),
        "a spacing that is no number": ("PixelSpacing", "nan\\nan"),
        "a slope that is no number": ("RescaleSlope", "nan"),
    }.items():
        files[name] = make_file(folder, set_raw(keyword, text) if keyword != "RescaleSlope" else _slope(text))
    for name, change in {
        "RLE that ends early": compressed(RLELossless, bytes([2, 0, 0, 0, 64, 0, 0, 0]) + bytes(80)),
        "RLE of 4 billion voxels": compressed(RLELossless, bytes(200), Rows=65535, Columns=65535),
        "JPEG 2000 that is none": compressed(JPEG2000Lossless, b"\xff\x4f\xff\x51" + bytes(100)),
        "JPEG 2000 of a giant": compressed(JPEG2000Lossless, _giant_jpeg_2000()),
        "JPEG-LS that is none": compressed(JPEGLSLossless, b"\xff\xd8\xff\xf7" + bytes(100)),
        "lossless JPEG that is none": compressed(JPEGLosslessSV1, b"\xff\xd8\xff\xc3" + bytes(100)),
        "lossless JPEG of random bytes": compressed(JPEGLosslessSV1, np.random.default_rng(1).bytes(500)),
        "a film": compressed(UID("1.2.840.10008.1.2.4.100"), bytes(100)),
    }.items():
        files[name] = make_file(folder, change)
    return files


def _slope(text: str) -> Callable[[Dataset], None]:
    return lambda data: data.add_new("RescaleSlope", "LO", text)


def _giant_jpeg_2000() -> bytes:
    """Returns the beginning of a JPEG 2000 stream of 60,000 x 60,000 pixels."""
    sizes = struct.pack(">HIIIIIIIIH", 0, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0, 1) + bytes([15, 1, 1])
    coding = b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(sizes) + 2) + sizes + coding + bytes(100)


def read(folder: Path) -> str:
    """Finds and reads all series of a folder; returns the error."""
    from autoseg.dicom.masks import describe_mask
    from autoseg.dicom.pixels import read_series
    from autoseg.dicom.search import find_series
    from autoseg.errors import AutosegError

    try:
        found = find_series(folder)
        for header in found.masks:
            describe_mask(header)
        if found.damaged:
            raise found.damaged[0]
        for series in found.series:
            read_series(series)
    except AutosegError as error:
        return str(error)
    return ""


def read_peak_memory() -> int:
    """Returns the most bytes that this program has used; getrusage counts the process that started it as well."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def main() -> None:
    """Reads each subfolder."""
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        started = time.perf_counter()
        error = read(folder)
        used = read_peak_memory() // 1024**2
        print(json.dumps([folder.name, time.perf_counter() - started, error, used]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
