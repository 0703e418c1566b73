"""Datasets with a folder per case, and in it a mask per structure: TotalSegmentator's layout.

    s0001/ct.nii.gz                       the image; with several channels ct_0000.nii.gz, ct_0001.nii.gz, ...
    s0001/segmentations/liver.nii.gz      the mask of a structure; a structure without a mask was not annotated

Masks may overlap; they become a label map of their combinations (see `imaging.label_combinations`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import CHANNEL_SUFFIX, Case
from autoseg.errors import DatasetError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_combinations import Combination, combine
from autoseg.imaging.targets import Numbers
from autoseg.importing import pairing

MASK_FOLDERS = ("segmentations", "segmentation", "masks", "labels", "structures")
MOST_COMBINATIONS = 10_000  # Decision: far more than anatomy has; all numbers must fit into 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Structures:
    """The structures of all cases, and the label numbers of their combinations.

    Attributes:
        names: Names of the structures, in order.
        numbers: Number of each combination that occurs; a combination lists indices of `names`, and the empty one has
            the number 0.
    """

    names: tuple[str, ...]
    numbers: dict[Combination, int]

    @property
    def overlap(self) -> bool:
        """Whether a voxel of some case belongs to several structures."""
        return any(len(combination) > 1 for combination in self.numbers)

    def labels(self) -> dict[str, int | Numbers]:
        """Returns name to the numbers of all combinations that hold the structure, for dataset.json."""
        labels: dict[str, int | Numbers] = {"background": 0}
        for index, name in enumerate(self.names):
            labels[name] = tuple(number for combination, number in self.numbers.items() if index in combination)
        return labels if self.overlap else {name: np.ravel(numbers)[0].item() for name, numbers in labels.items()}


def find_case_folders(source: Path) -> list[Path]:
    """Returns the subfolders of `source` that hold a folder of masks; empty if the layout is another."""
    return [folder for folder in sorted(source.iterdir()) if folder.is_dir() and _mask_folder(folder) is not None]


def list_cases(folders: Sequence[Path]) -> tuple[Case, ...]:
    """Returns the case of each folder; its label is the folder of its masks.

    Raises:
        DatasetError: A folder holds no image, or several that are not numbered as channels.
    """
    cases = []
    for folder in folders:
        images = sorted(pairing.list_images(folder))
        stems = [pairing.stem_of(path) for path in images]
        if not images or (len(images) > 1 and not all(CHANNEL_SUFFIX.search(stem) for stem in stems)):
            present = ", ".join(path.name for path in images) or "none"
            raise DatasetError(
                f"{folder} must hold one image, not these: {present}", "name channels NAME_0000, NAME_0001, ..."
            )
        cases.append(Case(name=folder.name, images=tuple(images), label=_mask_folder(folder)))
    return tuple(cases)


def list_masks(folder: Path) -> dict[str, Path]:
    """Returns the mask files of a case by structure; a picture among volumes is taken for a preview and left out."""
    images = pairing.list_images(folder)
    ending, _ = Counter(map(pairing.ending_of, images)).most_common(1)[0] if images else ("", 0)
    return {pairing.stem_of(path): path for path in images if pairing.ending_of(path) == ending}


def find_combinations(folder: Path, names: Sequence[str]) -> set[Combination]:
    """Returns the combinations of structures that occur in a case, as indices of `names`.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids.
    """
    return set(_combine(folder, names)[1])


def number_structures(names: Sequence[str], combinations: Iterable[set[Combination]], source: Path) -> Structures:
    """Numbers all combinations: single structures in the order of their names, then those of several structures.

    Structures that occur in no case are left out.

    Args:
        names: Names of all structures.
        combinations: Combinations that occur in each case, as indices of `names`.
        source: Folder of the source, for errors.

    Raises:
        DatasetError: All masks are empty, or there are more combinations than numbers.
    """
    occurring = set().union(*combinations) - {()}
    if not occurring:
        raise DatasetError(f"the masks in {source} are all empty", "check that they are the masks")
    if len(occurring) > MOST_COMBINATIONS:
        raise DatasetError(
            f"the structures in {source} overlap in {len(occurring)} ways, more than {MOST_COMBINATIONS}",
            "leave out structures that are drawn without care, or import them as several datasets",
        )
    present = sorted({index for combination in occurring for index in combination})
    new_index = {old: new for new, old in enumerate(present)}
    ordered = sorted((tuple(new_index[index] for index in combination) for combination in occurring), key=_sort_key)
    numbers = {(): 0, **{combination: number for number, combination in enumerate(ordered, start=1)}}
    return Structures(names=tuple(names[index] for index in present), numbers=numbers)


def combine_masks(folder: Path, structures: Structures) -> Volume:
    """Returns the label map of a case: at each voxel the number of its combination.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids.
    """
    codes, combinations = _combine(folder, structures.names)
    numbers = np.array([structures.numbers[combination] for combination in combinations], dtype=np.int32)
    return Volume(array=numbers[codes.array], geometry=codes.geometry)


def find_annotated(cases: Sequence[Case], structures: Structures) -> dict[str, tuple[str, ...]]:
    """Returns, for each case that lacks masks, the structures that were annotated in it."""
    annotated = {}
    for case in cases:
        masks = list_masks(case.label).keys() if case.label else set()
        names = tuple(name for name in structures.names if name in masks)
        if len(names) < len(structures.names):
            annotated[case.name] = names
    return annotated


def _sort_key(combination: Combination) -> tuple[int, Combination]:
    return len(combination), combination


def _mask_folder(folder: Path) -> Path | None:
    matches = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in MASK_FOLDERS]
    return matches[0] if len(matches) == 1 and pairing.list_images(matches[0]) else None


def _combine(folder: Path, names: Sequence[str]) -> tuple[Volume, list[Combination]]:
    """Returns a code for each voxel, shape (z, y, x), and the combination that each code stands for."""
    files = list_masks(folder)
    present = [(index, files[name]) for index, name in enumerate(names) if name in files]
    if not present:
        raise DatasetError(f"{folder} holds no mask of a known structure", "add masks, or remove the case")
    grid = read_label_map(present[0][1]).geometry

    def read_each() -> Iterator[tuple[int, NDArray[np.integer]]]:
        for index, path in present:
            mask = read_label_map(path)
            if (difference := describe_difference(grid, mask.geometry)) is not None:
                raise DatasetError(f"the masks in {folder} lie on different grids: {difference}", "put all on one grid")
            yield index, mask.array

    codes, combinations = combine(read_each(), grid.shape)
    return Volume(array=codes, geometry=grid), combinations
