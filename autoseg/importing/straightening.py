"""Copies of files and folders in which sheared images and their masks lie on straight grids."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

from autoseg.errors import ImageError, UsageError
from autoseg.imaging.affine_geometry import is_sheared
from autoseg.imaging.formats import split_ending, writable_ending
from autoseg.imaging.image_files import read_stored, transform_image
from autoseg.imaging.image_headers import count_volumes, read_grid
from autoseg.imaging.straight_grid import straighten
from autoseg.importing.pairing import MASK_SUFFIX
from autoseg.importing.source_folders import LABEL_FOLDERS, MASK_FOLDERS
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

ALL_MASK_FOLDERS = {*LABEL_FOLDERS, *MASK_FOLDERS, "labelsts"}
"""Names of folders whose files are masks."""

BYTES_PER_VOXEL = 40
"""Memory that a voxel takes at most: read in up to 8 bytes, converted, and resampled to a grid up to twice as large.
Decision: an upper estimate, so that several files fit beside each other."""

Kind = Literal["image", "labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StraightenedFile:
    """What became of a file.

    Attributes:
        path: The file that was written.
        kind: How it was resampled: interpolated as an image, or label by label; None if it is a copy.
    """

    path: Path
    kind: Kind | None


def straighten_files(source: Path, output: Path, *, masks: bool, reporter: Reporter) -> list[StraightenedFile]:
    """Copies a file or a folder, and resamples what is sheared; see `pipeline.raw_datasets.straighten`."""
    if source.is_file():
        target = output if split_ending(output)[1] and not output.is_dir() else output / source.name
        if target.resolve() == source.resolve():
            raise UsageError(f"{target} is the file itself", "give another one with -o")
        done = [_straighten_file(source, _writable(target), masks=masks or _is_mask(Path(source.name)))]
        _report(done, reporter)
        return done
    if not source.is_dir():
        raise UsageError(f"{source} does not exist", "give an image, a folder of images, or the folder of a dataset")
    if output.exists():
        raise UsageError(f"{output} exists already", "choose another folder with -o or remove it")
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} lies in {source}", "choose a folder elsewhere with -o")
    files = _list_files(source)
    with atomic_folder(output) as writing:

        def work(path: Path) -> StraightenedFile:
            target = writing / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not split_ending(path)[1]:
                shutil.copy2(path, target)
                return StraightenedFile(path=target, kind=None)
            return _straighten_file(path, _writable(target), masks=masks or _is_mask(path.relative_to(source)))

        done = results_or_raise(
            map_in_threads(work, files, title="straightening", reporter=reporter, bytes_each=_memory_bytes)
        )
        _report(done, reporter)
    return [StraightenedFile(path=output / file.path.relative_to(writing), kind=file.kind) for file in done]


def _memory_bytes(path: Path) -> int:
    """Returns an upper estimate of the memory that the work on a file takes; 0 if it is no image."""
    try:
        shape, _ = read_grid(path) if split_ending(path)[1] else ((0, 0, 0), ())
        return BYTES_PER_VOXEL * prod(shape) * count_volumes(path)
    except ImageError:
        return 0


def _list_files(folder: Path) -> Sequence[Path]:
    """Lists all visible files below a folder.

    Raises:
        UsageError: None of them is an image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not any(split_ending(path)[1] for path in files):
        raise UsageError(f"{folder} holds no images", "give a folder that does")
    return files


def _straighten_file(source: Path, target: Path, *, masks: bool) -> StraightenedFile:
    """Writes a file on a straight grid, or copies it if it is on one already."""
    if not is_sheared(read_stored(source).geometry):
        if split_ending(source)[1].lower() == split_ending(target)[1].lower():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            transform_image(source, target, lambda volume: volume)
        return StraightenedFile(path=target, kind=None)
    kind: Kind = "labels" if masks else "image"
    transform_image(source, target, partial(straighten, kind=kind))
    return StraightenedFile(path=target, kind=kind)


def _writable(path: Path) -> Path:
    """Returns the path of a result, whose ending is that of a format in which one file holds it without loss."""
    stem, ending = split_ending(path)
    return path if writable_ending(ending) == ending else path.with_name(stem + writable_ending(ending))


def _is_mask(path: Path) -> bool:
    """Returns whether a file is a mask by the names of its folders, or by the end of its own."""
    in_mask_folder = any(part.lower() in ALL_MASK_FOLDERS for part in path.parts[:-1])
    return in_mask_folder or MASK_SUFFIX.search(split_ending(path)[0].replace(".", "_")) is not None


def _report(files: Sequence[StraightenedFile], reporter: Reporter) -> None:
    """Says which files were taken for images, and which for masks."""
    if all(file.kind is None for file in files):
        reporter.say("no image is sheared: the files were copied as they are")
    for kind, how in (("image", "as images, linearly"), ("labels", "as masks, by the nearest label")):
        names = [file.path.name for file in files if file.kind == kind]
        if names:
            reporter.say(f"{len(names)} resampled {how}: {list_names(names)}")
