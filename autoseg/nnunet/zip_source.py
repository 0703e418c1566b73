"""Zips of nnU-Net's, which anyone may have made, unpacked without harm.

`nnUNetv2_export_model_to_zip` packs a folder of results: plans, checkpoints, and much that no prediction needs. Only
what is used leaves the zip, by names that are known to be harmless, and no more than `LARGEST_GROWTH` times the bytes
that it takes there; a zip with names that lead elsewhere, links or hidden parts is refused as a whole.
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

NAME = r"[\w.+-]{1,200}"
NEEDED = re.compile(
    rf"({NAME}/){{0,2}}(plans\.json|dataset\.json|inference_information\.json"
    rf"|fold_(\d{{1,3}}|all)/(checkpoint_(final|best)\.pth|validation/summary\.json)"
    rf"|{NAME}/postprocessing\.(json|pkl))",
    re.ASCII,
)
"""What is used of a model."""

LARGEST_TEXT_BYTES = 16 * 2**20
"""Of a file that is no checkpoint. Decision: plans of a thousand labels are a hundredth of that."""

LARGEST_GROWTH = 20
"""How many times its packed size a checkpoint may have. Decision: weights do not get smaller, an optimizer that has not
begun is zeros, and may be as large."""


@contextmanager
def opened_source(path: Path) -> Iterator[Path]:
    """Gives a folder with what is used of a model, while it is open: the folder itself, or what leaves a zip.

    Raises:
        UsageError: There is neither.
        ModelError: The zip is damaged, or was made to do harm.
        WriteError: There is no room to unpack it.
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
            what = f"cannot unpack {path} into {folder}: {error.strerror or error}"
            raise WriteError(what, "free some space, or let TMPDIR name a folder with more") from error
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
                with archive.open(entry) as source, target.open("xb") as file:  # reads no more than the zip says
                    shutil.copyfileobj(source, file)


def _check(entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuses names that lead out of a folder, and whatever is no file or folder."""
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise ModelError(f"{path} holds a file {name[:80]!r}, which leads elsewhere", UNTRUSTED)
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ModelError(f"{path} holds {name[:80]!r} as a link or a device", UNTRUSTED)
    if entry.flag_bits & 0x61:  # encrypted, a patch, strongly encrypted
        raise ModelError(f"{path} is encrypted", "ask for one that is not")


def _check_size(entry: zipfile.ZipInfo, path: Path) -> None:
    largest = LARGEST_GROWTH * entry.compress_size if entry.filename.endswith(".pth") else LARGEST_TEXT_BYTES
    if entry.file_size > largest:
        what = f"{path} holds {entry.filename} of {entry.file_size} bytes in {entry.compress_size}"
        raise ModelError(f"{what}, which no model needs", UNTRUSTED)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{path} holds {entry.filename} packed in an unusual way", FROM_SOURCE)
