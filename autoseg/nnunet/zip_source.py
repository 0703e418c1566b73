"""Safe unpacking of nnU-Net's model zips from untrusted sources.

`nnUNetv2_export_model_to_zip` packs a folder of results: plans, checkpoints, and much that prediction does not need.
Only the files that are used are unpacked, by names that are known to be harmless, and to at most `LARGEST_GROWTH` times
their packed size. A zip with paths outside its folder, links or hidden parts is refused as a whole.
"""

import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from autoseg.errors import ModelError, UsageError, WriteError
from autoseg.models.bundle_format import FROM_SOURCE, UNTRUSTED, opened_zip
from autoseg.runtime.os_errors import advise_writing, reason_of

NAME = r"[\w.+-]{1,200}"
NEEDED = re.compile(
    rf"({NAME}/){{0,2}}(plans\.json|dataset\.json|inference_information\.json"
    rf"|fold_(\d{{1,3}}|all)/(checkpoint_(final|best)\.pth|validation/summary\.json)"
    rf"|{NAME}/postprocessing\.(json|pkl))",
    re.ASCII,
)
"""Paths of the files of a model that are used."""

LARGEST_TEXT_BYTES = 16 * 2**20
"""Largest size of a file that is no checkpoint. Decision: plans with a thousand labels have a hundredth of it."""

LARGEST_GROWTH = 20
"""Largest ratio of the size of a checkpoint to its packed size. Decision: weights can hardly be compressed, but the
state of an optimizer that has not started is all zeros and may be as large."""


@contextmanager
def opened_source(path: Path) -> Iterator[Path]:
    """Gives a folder with the files of a model: the folder itself, or a temporary folder with the unpacked zip.

    Args:
        path: A folder or a zip.

    Raises:
        UsageError: The path does not exist.
        ModelError: The zip is damaged or malicious.
        WriteError: There is no space to unpack it.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "give a model folder of nnU-Net's, or a zip of one")
    with TemporaryDirectory(prefix="autoseg_") as folder:
        try:
            _unpack(path, Path(folder))
        except OSError as error:
            what = f"cannot unpack {path} into {folder}: {reason_of(error)}"
            raise WriteError(what, f"{advise_writing(error)}, or let TMPDIR name another folder") from error
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    with opened_zip(path) as archive:
        entries = archive.infolist()
        for entry in entries:
            _check(entry, path)
        if len({entry.filename for entry in entries}) < len(entries):
            raise ModelError(f"{path} holds two files of one name", UNTRUSTED)
        if sum(entry.compress_size for entry in entries) > path.stat().st_size:
            raise ModelError(f"{path} says that it holds more than its own size", UNTRUSTED)
        for entry in entries:
            if NEEDED.fullmatch(entry.filename):
                _check_size(entry, path)
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with (
                    archive.open(entry) as source,
                    target.open("xb") as file,
                ):  # reads at most the size stated in the zip
                    shutil.copyfileobj(source, file)


def _check(entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuses paths that lead out of the folder, and entries that are neither a file nor a folder."""
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise ModelError(f"{path} holds a file {name[:80]!r}, which leads elsewhere", UNTRUSTED)
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ModelError(f"{path} holds {name[:80]!r} as a link or a device", UNTRUSTED)
    if entry.flag_bits & 0x61:  # encrypted, a patch, strongly encrypted
        raise ModelError(f"{path} is encrypted", "ask for one that is not")


def _check_size(entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuses files that are too large or compressed in an unusual way."""
    largest = LARGEST_GROWTH * entry.compress_size if entry.filename.endswith(".pth") else LARGEST_TEXT_BYTES
    if entry.file_size > largest:
        what = f"{path} holds {entry.filename} of {entry.file_size} bytes in {entry.compress_size}"
        raise ModelError(f"{what}, which no model needs", UNTRUSTED)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{path} holds {entry.filename} packed in an unusual way", FROM_SOURCE)
