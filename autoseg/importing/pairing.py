"""Foreign images and masks, joined by the names of their files; no file is opened here."""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from itertools import product
from pathlib import Path

from autoseg.datasets.dataset import CHANNEL_SUFFIX, Case
from autoseg.errors import DatasetError
from autoseg.imaging.formats import PLANE_ENDINGS, READABLE_ENDINGS, split_ending
from autoseg.runtime.reporting import Reporter, list_names

KEPT_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".gipl", ".png", ".bmp")  # one file, no loss
MASK_SUFFIX = re.compile(r"[_-](masks?|seg|segmentation|labels?|gt)$", re.IGNORECASE)
NAMES_COMPARED = 50  # when nothing fits and the nearest names are looked for


def list_images(folder: Path, ending: str | None = None) -> list[Path]:
    """The image files of a folder, hidden ones left out; empty if there is no such folder.

    Args:
        folder: To look in.
        ending: Only files with this ending; None takes every known one.
    """
    if not folder.is_dir():
        return []
    wanted = (ending.lower(),) if ending else READABLE_ENDINGS
    paths = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in paths if ending_of(path) in wanted)


def masks_by_image(folder: Path, images: Sequence[Path]) -> dict[str, Path]:
    """Mask files by the name of their image: "a_mask.png" belongs to "a.png" unless there is an image "a_mask.png".

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


def pair_by_name(images: Sequence[Path], masks: dict[str, Path], folder: Path, reporter: Reporter) -> tuple[Case, ...]:
    """Joins images and masks; what stays alone, and cases with a gap in their channels, are left out and said.

    "liver_01_0000.nii.gz" belongs to the mask of "liver_01_0000" if there is one, else to that of "liver_01".

    Args:
        images: Image files.
        masks: Mask files by the name of their image.
        folder: Of the source, for errors.
        reporter: Is told what is left out.

    Raises:
        DatasetError: No image has a mask, or two files are the same channel of one case.
    """
    groups = _group(images, lambda stem: stem in masks)
    paired = {name: files for name, files in groups.items() if name in masks}
    if not paired:
        raise _nothing_to_pair(images, masks, folder)
    say_left_out("Images without a mask", groups.keys() - paired.keys(), reporter)
    say_left_out("Masks without an image", masks.keys() - paired.keys(), reporter)
    complete = _without_gaps(paired, reporter)
    if not complete:
        raise DatasetError(
            f"{folder}: every case lacks a channel", "number the channels _0000, _0001, ... without gaps"
        )
    return tuple(Case(name=name, images=files, label=masks[name]) for name, files in complete.items())


def group_tests(paths: Sequence[Path], files_per_case: int, reporter: Reporter) -> tuple[Case, ...]:
    """Groups scans without labels as the training images are grouped; incomplete ones are left out and said.

    Without masks to go by, a number at the end of a name counts channels if training cases have several files, or if
    every scan has the number 0; else it belongs to the name.
    """
    suffixed = files_per_case > 1 or all(stem_of(path).endswith("_0000") for path in paths)
    complete = _without_gaps(_group(paths, lambda _: not suffixed), reporter)
    whole = {name: files for name, files in complete.items() if len(files) == files_per_case}
    say_left_out("Test scans with another number of files", complete.keys() - whole.keys(), reporter)
    return tuple(Case(name=name, images=files) for name, files in whole.items())


def common_ending(cases: Iterable[Case]) -> str:
    """The ending that the files share if it can stay; else ".png" for pictures and ".nii.gz" for all other files."""
    endings = {ending_of(path) for case in cases for path in (*case.images, case.label) if path}
    if len(endings) == 1 and endings <= set(KEPT_ENDINGS):
        return endings.pop()
    return ".png" if endings <= set(PLANE_ENDINGS) else ".nii.gz"


def ending_of(path: Path) -> str:
    """The known ending of an image file, in lower case; empty for any other file."""
    return split_ending(path)[1].lower()


def stem_of(path: Path) -> str:
    """The name of a file without its ending."""
    return split_ending(path)[0]


def say_left_out(what: str, names: Iterable[str], reporter: Reporter) -> None:
    """Says that some things are left out, if there are any; names the first few."""
    names = sorted(names)
    if names:
        reporter.say(f"Left out: {what[0].lower()}{what[1:]}: {list_names(names)}")


def _group(paths: Sequence[Path], is_whole_name: Callable[[str], bool]) -> dict[str, dict[int, Path]]:
    """Case name to its files by channel number."""
    groups: dict[str, dict[int, Path]] = {}
    for path in paths:
        stem = stem_of(path)
        match = None if is_whole_name(stem) else CHANNEL_SUFFIX.search(stem)
        name, channel = (stem[: match.start()], int(match[1])) if match else (stem, 0)
        files = groups.setdefault(name, {})
        if channel in files:
            raise DatasetError(f"{files[channel]} and {path} are the same channel of {name!r}", "remove one of them")
        files[channel] = path
    return groups


def _without_gaps(groups: dict[str, dict[int, Path]], reporter: Reporter) -> dict[str, tuple[Path, ...]]:
    gaps = {name for name, files in groups.items() if sorted(files) != list(range(len(files)))}
    say_left_out("Cases that lack a channel", gaps, reporter)
    return {
        name: tuple(files[channel] for channel in sorted(files))
        for name, files in sorted(groups.items())
        if name not in gaps
    }


def _nothing_to_pair(images: Sequence[Path], masks: dict[str, Path], folder: Path) -> DatasetError:
    if not images or not masks:
        what = f"{folder}: found {len(images)} images and {len(masks)} masks"
        return DatasetError(what, f"bring files that end in one of {', '.join(READABLE_ENDINGS)}")
    stems = [stem_of(path) for path in images[:NAMES_COMPARED]]
    pairs = sorted(product(stems, sorted(masks)[:NAMES_COMPARED]), key=_similarity, reverse=True)
    nearest = ", ".join(f"{image!r} and {mask!r}" for image, mask in pairs[:3])
    return DatasetError(
        f"{folder}: no image has a mask of its name (nearest: {nearest})", "give each mask the name of its image"
    )


def _similarity(pair: tuple[str, str]) -> float:
    return SequenceMatcher(None, *pair).ratio()
