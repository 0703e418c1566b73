"""The image files of a folder, grouped by case: which number in a name is a channel, and which belongs to the name."""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.formats import COLOUR_ENDINGS, readable_name, split_ending

CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


def group_channels(folder: Path, info: DatasetInfo, case_names: Iterable[str] = ()) -> dict[str, tuple[Path, ...]]:
    """Lists the images of a folder and groups them by case.

    "liver_0001.nii.gz" is channel 1 of "liver" in a dataset of two channels. In a dataset of one channel it is the case
    "liver_0001", and so is "liver_0000" beside it the case "liver_0000"; alone, "liver_0000" is the case "liver",
    unless `case_names` lists "liver_0000". In a dataset of colour pictures, "frame_0000.png" to "frame_0099.png" are a
    hundred cases: if the numbers are not those of the channels, they belong to the names.

    Args:
        folder: Folder with one file per case and channel.
        info: States the number of channels and the file ending, which counts in capitals, too.
        case_names: Names of cases that are certain, such as those of the label files.

    Returns:
        Case name to its files, ordered by channel number; missing channels are left out, and two files of one channel,
        such as "liver.nii.gz" and "liver_0000.nii.gz", are both listed. Empty if the folder is missing or holds no
        image.
    """
    stems, certain = list_stems(folder, info.file_ending), set(case_names)
    whole_names = certain | _numbered_names(stems, info, certain)
    groups: dict[str, list[tuple[int, Path]]] = {}
    for stem in stems:
        match = CHANNEL_SUFFIX.search(stem)
        channel = int(match[1]) if match else 0
        suffixed = match is not None and stem not in whole_names and (info.channels > 1 or channel == 0)
        name = stem[: match.start()] if match and suffixed else stem
        groups.setdefault(name, []).append((channel if suffixed else 0, stems[stem]))
    return {name: tuple(path for _, path in sorted(files)) for name, files in sorted(groups.items())}


def find_missing_channels(name: str, images: Sequence[Path], channels: int) -> tuple[int, ...]:
    """Returns the channels of which a case has no file, by the numbers of its files; empty if none is missing.

    It is empty, too, if the files are not numbered as channels are. A file "liver_0000.nii.gz" alone may turn out to
    hold all channels, which its header tells.

    Args:
        name: Name of the case.
        images: Files of the case.
        channels: Number of channels of the dataset.

    Example:
        >>> find_missing_channels("liver", [Path("liver_0000.nii.gz"), Path("liver_0002.nii.gz")], channels=3)
        (1,)
    """
    names = {f"{name}_{channel:04d}": channel for channel in range(channels)}
    numbers = [names.get(readable_name(split_ending(path)[0])) for path in images]
    if not numbers or None in numbers or len(set(numbers)) != len(numbers):
        return ()
    return tuple(channel for channel in range(channels) if channel not in numbers)


def list_stems(folder: Path, ending: str) -> dict[str, Path]:
    """Returns the visible files with this ending by name without it, in the order of the names.

    The ending may be written in capitals. Names are `readable_name`s. Of two files whose names read the same, spelt
    differently or with an ending in other letters, one stays as it is spelt, so that both are listed.
    """
    if not folder.is_dir():
        return {}
    lower, length = ending.lower(), len(ending)
    files = (path for path in folder.iterdir() if path.name.lower().endswith(lower) and not path.name.startswith("."))
    spelt = sorted((path.name[-length:] != ending, path.name[:-length], path) for path in files)
    stems = {stem: path for is_other, stem, path in spelt if not is_other and stem == readable_name(stem)}
    placed = set(stems.values())
    for is_other, stem, path in spelt:
        if path not in placed:
            read = readable_name(stem)
            stems[read if read not in stems else path.name if is_other else stem] = path
    return dict(sorted(stems.items()))


def _numbered_names(stems: Iterable[str], info: DatasetInfo, certain: Collection[str]) -> set[str]:
    """Returns the stems whose number is part of the case name.

    That are the pictures of a dataset in which each picture holds all colours, and the images of a dataset of one
    channel whose numbers go on from 0, unless the name without its number is certain.
    """
    numbers: dict[str, dict[int, str]] = {}
    for stem in stems:
        if match := CHANNEL_SUFFIX.search(stem):
            numbers.setdefault(stem[: match.start()], {})[int(match[1])] = stem
    if info.channels == 1:
        numbers = {name: files for name, files in numbers.items() if name not in certain}
    elif info.file_ending.lower() not in COLOUR_ENDINGS:
        return set()
    channel_files = (set(range(info.channels)), {0})
    groups = (files for files in numbers.values() if files.keys() not in channel_files)
    return {stem for files in groups for stem in files.values()}
