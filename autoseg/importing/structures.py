"""Datasets with a folder per case, and in it a mask per structure: TotalSegmentator's layout.

    s0001/ct.nii.gz                       the image; of several channels ct_0000.nii.gz, ct_0001.nii.gz, ...
    s0001/segmentations/liver.nii.gz      a mask of each structure; what has none was not looked for in this case

Masks may overlap; they become a label map of their combinations (see `combinations`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import CHANNEL_SUFFIX, Case
from autoseg.errors import DatasetError
from autoseg.imaging.files import read_label_map
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import Combination, combine
from autoseg.imaging.targets import Numbers
from autoseg.importing import pairing

MASK_FOLDERS = ("segmentations", "segmentation", "masks", "labels", "structures")
MOST_COMBINATIONS = 10_000  # Decision: far more than anatomy has; a number of each must fit into 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Structures:
    """What the masks of all cases are.

    Attributes:
        names: Of the structures, in order.
        numbers: Number of each combination that occurs; the empty one has 0.
    """

    names: tuple[str, ...]
    numbers: dict[Combination, int]

    @property
    def overlap(self) -> bool:
        """Whether a voxel of some case belongs to several."""
        return any(len(combination) > 1 for combination in self.numbers)

    def labels(self) -> dict[str, int | Numbers]:
        """Name to the numbers of all combinations that a structure is in, for dataset.json."""
        found: dict[str, int | Numbers] = {"background": 0}
        for place, name in enumerate(self.names):
            found[name] = tuple(number for combination, number in self.numbers.items() if place in combination)
        return found if self.overlap else {name: np.ravel(numbers)[0].item() for name, numbers in found.items()}


def find_case_folders(source: Path) -> list[Path]:
    """The folders below `source` that hold an image, and a folder of masks; empty if the layout is another."""
    return [folder for folder in sorted(source.iterdir()) if folder.is_dir() and _mask_folder(folder) is not None]


def list_cases(folders: Sequence[Path]) -> tuple[Case, ...]:
    """The case of each folder; its label is the folder of its masks.

    Raises:
        DatasetError: A folder holds no image, or several that are no channels.
    """
    cases = []
    for folder in folders:
        images = sorted(pairing.list_images(folder))
        stems = [pairing.stem_of(path) for path in images]
        if not images or (len(images) > 1 and not all(CHANNEL_SUFFIX.search(stem) for stem in stems)):
            found = ", ".join(path.name for path in images) or "none"
            raise DatasetError(
                f"{folder} must hold one image, not these: {found}", "name channels NAME_0000, NAME_0001, ..."
            )
        cases.append(Case(name=folder.name, images=tuple(images), label=_mask_folder(folder)))
    return tuple(cases)


def list_masks(folder: Path) -> dict[str, Path]:
    """The masks of a case: name of the structure to file. A picture among volumes is a preview, and no mask."""
    images = pairing.list_images(folder)
    ending, _ = Counter(map(pairing.ending_of, images)).most_common(1)[0] if images else ("", 0)
    return {pairing.stem_of(path): path for path in images if pairing.ending_of(path) == ending}


def find_combinations(folder: Path, names: Sequence[str]) -> set[Combination]:
    """Which structures voxels of a case belong to together.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids.
    """
    return set(_combine(folder, names)[1])


def number_structures(names: Sequence[str], found: Iterable[set[Combination]], source: Path) -> Structures:
    """Numbers all combinations: single structures in the order of their names, then what overlaps.

    Structures that occur in no case are left out.

    Raises:
        DatasetError: All masks are empty, or there are more combinations than numbers.
    """
    every = set().union(*found) - {()}
    if not every:
        raise DatasetError(f"the masks in {source} are all empty", "check that they are the masks")
    if len(every) > MOST_COMBINATIONS:
        raise DatasetError(
            f"the structures in {source} overlap in {len(every)} ways, more than {MOST_COMBINATIONS}",
            "leave out structures that are drawn without care, or import them as several datasets",
        )
    present = sorted({place for combination in every for place in combination})
    place_of = {old: new for new, old in enumerate(present)}
    ordered = sorted((tuple(place_of[place] for place in combination) for combination in every), key=_order)
    numbers = {(): 0, **{combination: number for number, combination in enumerate(ordered, start=1)}}
    return Structures(names=tuple(names[place] for place in present), numbers=numbers)


def combine_masks(folder: Path, structures: Structures) -> Volume:
    """The label map of a case: at each voxel the number of its combination; see `find_combinations` for errors."""
    codes, combinations = _combine(folder, structures.names)
    numbers = np.array([structures.numbers[combination] for combination in combinations], dtype=np.int32)
    return Volume(array=numbers[codes.array], geometry=codes.geometry)


def find_annotated(cases: Sequence[Case], structures: Structures) -> dict[str, tuple[str, ...]]:
    """For each case that lacks masks: the structures that it has."""
    found = {}
    for case in cases:
        there = list_masks(case.label).keys() if case.label else set()
        names = tuple(name for name in structures.names if name in there)
        if len(names) < len(structures.names):
            found[case.name] = names
    return found


def _order(combination: Combination) -> tuple[int, Combination]:
    return len(combination), combination


def _mask_folder(folder: Path) -> Path | None:
    below = [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name.lower() in MASK_FOLDERS]
    return below[0] if len(below) == 1 and pairing.list_images(below[0]) else None


def _combine(folder: Path, names: Sequence[str]) -> tuple[Volume, list[Combination]]:
    """Codes of all voxels, and the combination that each code stands for."""
    files = list_masks(folder)
    present = [(place, files[name]) for place, name in enumerate(names) if name in files]
    if not present:
        raise DatasetError(f"{folder} holds no mask of a known structure", "add masks, or remove the case")
    grid = read_label_map(present[0][1]).geometry

    def read_each() -> Iterator[tuple[int, NDArray[np.integer]]]:
        for place, path in present:
            mask = read_label_map(path)
            if (difference := grid.difference(mask.geometry)) is not None:
                raise DatasetError(f"the masks in {folder} lie on different grids: {difference}", "put all on one grid")
            yield place, mask.array

    codes, combinations = combine(read_each(), grid.shape)
    return Volume(array=codes, geometry=grid), combinations
