"""Pairs foreign images and masks by their file names; no file is opened."""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from itertools import product
from pathlib import Path

from autoseg.datasets.channel_files import CHANNEL_SUFFIX
from autoseg.datasets.dataset import Case
from autoseg.errors import DatasetError
from autoseg.imaging.formats import PLANE_ENDINGS, READABLE_ENDINGS, split_ending
from autoseg.runtime.reporting import Reporter, list_names

KEPT_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".gipl", ".png", ".bmp")  # one file, no loss
MASK_SUFFIX = re.compile(r"[._-](masks?|seg|segmentation|labels?|gt)$", re.IGNORECASE)
NAMES_COMPARED = 50  # if no name matches and the most similar ones are looked for


def list_images(folder: Path, ending: str | None = None) -> list[Path]:
    """Lists the image files of a folder, without hidden ones; empty if there is no such folder.

    Args:
        folder: The folder.
        ending: File ending; None takes every supported one.
    """
    if not folder.is_dir():
        return []
    endings = (ending.lower(),) if ending else READABLE_ENDINGS
    paths = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in paths if ending_of(path) in endings)


def masks_by_image(folder: Path, images: Sequence[Path]) -> dict[str, Path]:
    """Returns the mask files by the name of their image.

    "a_mask.png" and "a.seg.nrrd" belong to "a.png" and "a.nrrd", unless there is an image "a_mask.png".

    Raises:
        DatasetError: Two masks belong to one image.
    """
    stems = {stem_of(path) for path in images}
    stems |= {CHANNEL_SUFFIX.sub("", stem) for stem in stems}
    masks: dict[str, Path] = {}
    for path in list_images(folder):
        stem = stem_of(path)
        name = stem if stem in stems else MASK_SUFFIX.sub("", stem)
        if name in masks:
            raise DatasetError(f"{masks[name]} and {path} are both masks of {name!r}", "remove one of them")
        masks[name] = path
    return masks


def pair_by_name(
    images: Sequence[Path], masks: dict[str, Path], folder: Path, reporter: Reporter, *, with_gaps: bool = False
) -> tuple[Case, ...]:
    """Pairs images and masks; unpaired files are left out and reported, and so are cases that lack a channel.

    "liver_01_0000.nii.gz" belongs to the mask of "liver_01_0000" if there is one, else to that of "liver_01".

    Args:
        images: Image files.
        masks: Mask files by the name of their image.
        folder: Folder of the source, for errors.
        reporter: Is told what is left out.
        with_gaps: Whether cases that lack a channel are kept.

    Raises:
        DatasetError: No image has a mask, or two files are the same channel of one case.
    """
    groups = _group(images, lambda stem: stem in masks)
    paired = {name: files for name, files in groups.items() if name in masks}
    if not paired:
        raise _nothing_to_pair(images, masks, folder)
    report_left_out("Images without a mask", groups.keys() - paired.keys(), reporter)
    report_left_out("Masks without an image", masks.keys() - paired.keys(), reporter)
    complete = _order_channels(paired) if with_gaps else _order_channels(_without_gaps(paired, reporter))
    if not complete:
        raise DatasetError(
            f"{folder}: every case lacks a channel", "number the channels _0000, _0001, ... without gaps"
        )
    return tuple(Case(name=name, images=files, label=masks[name]) for name, files in complete.items())


def group_tests(
    paths: Sequence[Path], files_per_case: int, reporter: Reporter, *, with_gaps: bool = False
) -> tuple[Case, ...]:
    """Groups scans without labels by case; incomplete ones are left out and reported, unless they are to be kept.

    Without masks to compare with, a number at the end of a name is the channel if training cases have several files,
    or if every scan has the number 0; else it belongs to the name.

    Args:
        paths: Image files.
        files_per_case: Number of files of a training case.
        reporter: Is told what is left out.
        with_gaps: Whether scans that lack a channel are kept.
    """
    suffixed = files_per_case > 1 or all(stem_of(path).endswith("_0000") for path in paths)
    groups = _group(paths, lambda _: not suffixed)
    if with_gaps:
        return tuple(Case(name=name, images=files) for name, files in _order_channels(groups).items())
    complete = _order_channels(_without_gaps(groups, reporter))
    matching = {name: files for name, files in complete.items() if len(files) == files_per_case}
    report_left_out("Test scans with another number of files", complete.keys() - matching.keys(), reporter)
    return tuple(Case(name=name, images=files) for name, files in matching.items())


def common_ending(cases: Iterable[Case]) -> str:
    """Returns the ending that all files share, if it is supported; else ".png" for pictures and ".nii.gz" otherwise."""
    endings = {ending_of(path) for case in cases for path in (*case.images, case.label) if path}
    if len(endings) == 1 and endings <= set(KEPT_ENDINGS):
        return endings.pop()
    return ".png" if endings <= set(PLANE_ENDINGS) else ".nii.gz"


def ending_of(path: Path) -> str:
    """Returns the supported ending of an image file, in lower case; empty for any other file.

    Example:
        >>> ending_of(Path("liver_01.NII.GZ")), stem_of(Path("liver_01.nii.gz"))
        ('.nii.gz', 'liver_01')
    """
    return split_ending(path)[1].lower()


def stem_of(path: Path) -> str:
    """Returns the name of a file without its ending."""
    return split_ending(path)[0]


def report_left_out(what: str, names: Iterable[str], reporter: Reporter) -> None:
    """Reports the names of files or cases that are left out, if there are any; lists the first few."""
    names = sorted(names)
    if names:
        reporter.say(f"Left out: {what[0].lower()}{what[1:]}: {list_names(names)}")


def _group(paths: Sequence[Path], is_case_name: Callable[[str], bool]) -> dict[str, dict[int, Path]]:
    """Returns the files of each case by channel number."""
    groups: dict[str, dict[int, Path]] = {}
    for path in paths:
        stem = stem_of(path)
        match = None if is_case_name(stem) else CHANNEL_SUFFIX.search(stem)
        name, channel = (stem[: match.start()], int(match[1])) if match else (stem, 0)
        files = groups.setdefault(name, {})
        if channel in files:
            raise DatasetError(f"{files[channel]} and {path} are the same channel of {name!r}", "remove one of them")
        files[channel] = path
    return groups


def _without_gaps(groups: dict[str, dict[int, Path]], reporter: Reporter) -> dict[str, dict[int, Path]]:
    """Returns the files of the cases that lack no channel up to their last one; the others are reported."""
    gaps = {name for name, files in groups.items() if sorted(files) != list(range(len(files)))}
    report_left_out("Cases that lack a channel", gaps, reporter)
    return {name: files for name, files in groups.items() if name not in gaps}


def _order_channels(groups: dict[str, dict[int, Path]]) -> dict[str, tuple[Path, ...]]:
    """Returns the files of each case in the order of the channels."""
    return {name: tuple(files[channel] for channel in sorted(files)) for name, files in sorted(groups.items())}


def _nothing_to_pair(images: Sequence[Path], masks: dict[str, Path], folder: Path) -> DatasetError:
    """Makes the error that no image has a mask; it names the most similar names."""
    if not images or not masks:
        what = f"{folder}: found {len(images)} images and {len(masks)} masks that are read here"
        return DatasetError(what, f"bring files that end in one of {', '.join(READABLE_ENDINGS)}")
    stems = [stem_of(path) for path in images[:NAMES_COMPARED]]
    pairs = sorted(product(stems, sorted(masks)[:NAMES_COMPARED]), key=_similarity, reverse=True)
    nearest = ", ".join(f"{image!r} and {mask!r}" for image, mask in pairs[:3])
    return DatasetError(
        f"{folder}: no image has a mask of its name (nearest: {nearest})", "give each mask the name of its image"
    )


def _similarity(pair: tuple[str, str]) -> float:
    return SequenceMatcher(None, *pair).ratio()
