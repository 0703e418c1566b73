"""The files of a model bundle, and how they are unpacked safely from a zip that anyone may have made.

A bundle holds what the folder of a model holds, and nothing else:

    manifest.json                          which files there are: sizes and checksums
    MODEL_CARD.md  best.json  scores.json
    3d_fullres/postprocessing.json  3d_fullres/training_statistics.json  3d_fullres/scores.json
    3d_fullres/calibration.json  3d_fullres/quality_costs.json
    3d_fullres/fold_0/checkpoint.pt        or NAME/3d_fullres/..., for a plan with a name
    3d_fullres/fold_0/network.onnx  3d_fullres/fold_0/network.json      instead, for runtimes other than torch

Nothing is written before all of this is certain: every name is one of these; no entry is a link, is encrypted, or is
twice in the zip; weights, which compression would not make smaller, are stored as they are, and texts are short, so
that no zip unpacks to much more than it holds. Then the bytes are counted and their checksums compared while they are
written.
"""

import errno
import json
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from autoseg.errors import ArtifactError, ModelError
from autoseg.models.best_model import MEMBER_PATTERN, MemberName
from autoseg.runtime.artifact import Artifact
from autoseg.workspace import ModelFolder

MANIFEST, CARD, BEST_MODEL, SCORES, RULES, STATISTICS, OLD_STATISTICS, CALIBRATION, QUALITY_COSTS = (
    "manifest.json",
    "MODEL_CARD.md",
    "best.json",
    "scores.json",
    "postprocessing.json",
    "training_statistics.json",
    "expectation.json",  # the same in bundles of version 0.1
    "calibration.json",
    "quality_costs.json",
)
FOLD = rf"({MEMBER_PATTERN})/fold_(?:0|[1-9][0-9]{{0,2}}|all)"
WEIGHTS = re.compile(rf"{FOLD}/(?:checkpoint\.pt|network\.onnx)")
"""Files of weights, of torch or for other runtimes; compression would not make them smaller."""
TEXT = re.compile(
    rf"{MANIFEST}|{CARD}|{BEST_MODEL}|({MEMBER_PATTERN}/)?{SCORES}"
    rf"|{MEMBER_PATTERN}/({RULES}|{STATISTICS}|{OLD_STATISTICS}|{CALIBRATION}|{QUALITY_COSTS})|{FOLD}/network\.json"
)

LARGEST_TEXT_BYTES = 4 * 2**20
"""Largest size of a text. Decision: the scores and rules of a thousand labels are a tenth of that."""

CHUNK_BYTES = 2**20

FROM_SOURCE = "get a sound copy from where it came"
UNTRUSTED = "do not use it; get another from somebody you trust"


class BundledFile(BaseModel):
    """One file of a bundle.

    Attributes:
        size: Number of bytes.
        sha256: SHA-256 of the bytes in hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, path: Path) -> "BundledFile":
        """Measures a file on disk."""
        digest, size = sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return cls(size=size, sha256=digest.hexdigest())


class Manifest(Artifact):
    """The content of a bundle; manifest.json.

    Attributes:
        kind: Distinguishes a bundle from other zips with a file of this name.
        autoseg: Version of the program that wrote it.
        name: Name under which it is installed by default.
        configurations: Configurations that predict: one, or two together. The coarser configuration of a cascade is not
            named here.
        files: Path of each file in the bundle, but this one, to its size and checksum.
    """

    kind: Literal["autoseg model"] = "autoseg model"
    autoseg: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+-]{1,40}$")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,60}$")]
    configurations: Annotated[tuple[MemberName, ...], Field(min_length=1, max_length=2)]
    files: dict[str, BundledFile]

    def find_member(self, root: ModelFolder) -> ModelFolder:
        """Returns the folder to predict with: that of the whole model if it has a best.json, else of its member."""
        return root if root.best_model.is_file() else root.member(self.configurations[0])


def pack(folder: Path, manifest: Manifest, bundle: Path) -> None:
    """Writes the files of a folder that the manifest names into a zip, the manifest first.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     _ = (folder / CARD).write_text("A model that segments livers.")
        ...     files = {CARD: BundledFile.of(folder / CARD)}
        ...     manifest = Manifest(autoseg="1.0", name="liver", configurations=("2d",), files=files)
        ...     pack(folder, manifest, folder / "liver.zip")
        ...     read_manifest(folder / "liver.zip") == manifest
        True
    """
    with zipfile.ZipFile(bundle, "w", allowZip64=True) as archive:
        archive.writestr(MANIFEST, manifest.to_json(), zipfile.ZIP_DEFLATED)
        for name in manifest.files:
            packed = zipfile.ZIP_STORED if WEIGHTS.fullmatch(name) else zipfile.ZIP_DEFLATED
            archive.write(folder / name, name, packed)


def read_manifest(bundle: Path) -> Manifest:
    """Reads the manifest of a file from anyone, after everything was checked that can be without unpacking it.

    Raises:
        ModelError: It is no bundle, a damaged one, one of a newer program, or one that was made to do harm.
    """
    with opened_zip(bundle) as archive:
        return _check(archive, bundle)


def unpack(bundle: Path, folder: Path) -> Manifest:
    """Writes the files of a bundle into an empty folder.

    Args:
        bundle: A file from anyone.
        folder: The empty folder. After an error, what it holds is of no use.

    Raises:
        ModelError: See `read_manifest`.
    """
    with opened_zip(bundle) as archive:
        manifest = _check(archive, bundle)
        manifest.save(folder / MANIFEST)
        for name, expected in manifest.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, (folder / name).open("xb") as target:
                if _copy(source, target, expected.size) != expected:
                    raise _damaged(bundle, name)
    return manifest


def _check(archive: zipfile.ZipFile, bundle: Path) -> Manifest:
    """Checks all that `unpack` can check before the first byte is written."""
    entries = archive.infolist()
    _check_entries(entries, bundle)
    sizes = {entry.filename: entry.file_size for entry in entries if entry.filename != MANIFEST}
    manifest = _parse_manifest(archive.read(MANIFEST), bundle)
    if set(manifest.files) != set(sizes):
        raise ModelError(f"{bundle} holds other files than its manifest says", FROM_SOURCE)
    for name, expected in manifest.files.items():
        if sizes[name] != expected.size:
            raise _damaged(bundle, name)
    return manifest


def _check_entries(entries: list[zipfile.ZipInfo], bundle: Path) -> None:
    """Refuses a zip that `pack` cannot have written, by its table of contents."""
    names = {entry.filename for entry in entries}
    if min((entry.header_offset for entry in entries), default=0) > 0:  # such as a zip inside another file
        raise _no_zip(bundle)
    if MANIFEST not in names:
        raise _describe_other_zip(bundle, names)
    for entry in entries:
        _check_entry(entry, bundle)
    if len(names) < len(entries):
        raise ModelError(f"{bundle} holds two files of one name", UNTRUSTED)
    if sum(entry.compress_size for entry in entries) > bundle.stat().st_size:
        raise ModelError(f"{bundle} says that it holds more than its own size", UNTRUSTED)


@contextmanager
def opened_zip(bundle: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip from anyone; whatever is wrong with it while it is open becomes an error that names the file.

    Raises:
        ModelError: The file is no zip, or a damaged one.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            yield archive
    except ModelError:
        raise
    except Exception as error:  # zipfile meets crafted files with errors of many kinds
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset before the start of the file
            raise
        raise _no_zip(bundle) from error


def _describe_other_zip(bundle: Path, names: set[str]) -> ModelError:
    """Returns an error that says what a zip without a manifest is."""
    if any("nnUNet" in name or name.endswith((".pth", ".model.pkl", ".model")) for name in names):
        return ModelError(f"{bundle} looks like a model of nnU-Net", "use 'autoseg install_nnunet', which reads those")
    if any(name.endswith("/data.pkl") for name in names):
        return ModelError(f"{bundle} is a single checkpoint", "give the model folder that holds its fold_ folder")
    return ModelError(f"{bundle} is no model bundle", "make one with 'autoseg export'")


def _check_entry(entry: zipfile.ZipInfo, bundle: Path) -> None:
    """Refuses an entry that `pack` does not write: another name or type of file, or another compression."""
    name = entry.filename
    is_weights = WEIGHTS.fullmatch(name) is not None
    if entry.orig_filename != name or not (is_weights or TEXT.fullmatch(name)):
        raise ModelError(f"{bundle} holds a file {entry.orig_filename[:80]!r}, which no model needs", UNTRUSTED)
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ModelError(f"{bundle} holds {name} as a link or a device", UNTRUSTED)
    if entry.flag_bits & 0x61:  # encrypted, a patch, strongly encrypted
        raise ModelError(f"{bundle} is encrypted", "ask for one that is not")
    allowed = (zipfile.ZIP_STORED,) if is_weights else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if entry.compress_type not in allowed:
        raise ModelError(f"{bundle} holds {name} packed in a way that 'autoseg export' does not", UNTRUSTED)
    if not is_weights and entry.file_size > LARGEST_TEXT_BYTES:
        raise ModelError(f"{bundle} holds {name} of {entry.file_size} bytes, too large for a text", UNTRUSTED)


def _parse_manifest(content: bytes, bundle: Path) -> Manifest:
    try:
        text = content.decode("utf-8")
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(bundle, MANIFEST) from error
    if not isinstance(plain, dict) or plain.get("kind") != "autoseg model":
        raise ModelError(f"{bundle} is no model bundle", "make one with 'autoseg export'")
    readable, version = Manifest.model_fields["format_version"].default, plain.get("format_version")
    if isinstance(version, int) and version > readable:
        what = f"{bundle} was written by a newer autoseg, in format {version}; this one reads {readable}"
        raise ModelError(what, "update autoseg")
    try:
        return Manifest.parse(text, source=f"{bundle}, {MANIFEST}")
    except ArtifactError as error:
        raise ModelError(error.what, FROM_SOURCE) from error


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> BundledFile:
    """Copies at most `limit` bytes and one more, and returns the size and checksum of what was copied."""
    digest, size = sha256(), 0
    while size <= limit and (chunk := source.read(min(CHUNK_BYTES, limit + 1 - size))):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return BundledFile(size=size, sha256=digest.hexdigest())


def _damaged(bundle: Path, name: str) -> ModelError:
    return ModelError(f"{bundle} is damaged: {name} is not what its manifest says", FROM_SOURCE)


def _no_zip(bundle: Path) -> ModelError:
    return ModelError(f"{bundle} is no zip, or a damaged or cut off one", FROM_SOURCE)
