"""Datasets with a mask per structure: in a folder per case, as TotalSegmentator has them, or in files of 3D Slicer.

    s0001/ct.nii.gz                       the image; with several channels ct_0000.nii.gz, ct_0001.nii.gz, ...
    s0001/segmentations/liver.nii.gz      the mask of a structure; a structure without a mask was not annotated

    scans/a.nrrd, masks/a.seg.nrrd        a segmentation of 3D Slicer, whose segments are the masks

A mask that holds several values is several structures. Masks may overlap; they become a label map of their combinations
(see `imaging.label_combinations`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.channel_files import CHANNEL_SUFFIX
from autoseg.datasets.dataset import Case
from autoseg.datasets.names import find_lookalikes
from autoseg.errors import DatasetError
from autoseg.imaging.formats import readable_name
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import Combination, combine
from autoseg.imaging.targets import Numbers
from autoseg.importing import pairing
from autoseg.importing.mask_files import MaskFile, list_masks, read_parts
from autoseg.importing.source_folders import MASK_FOLDERS
from autoseg.runtime.reporting import SILENT, Reporter, list_names

Part = tuple[str, int]
"""Name of a mask, and one of its values."""

PartCombination = tuple[Part, ...]
"""The parts of masks that a voxel belongs to."""

MOST_COMBINATIONS = 10_000  # Decision: far more than anatomy has; all numbers must fit into 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Structures:
    """The structures of all cases, and the label numbers of their combinations.

    Attributes:
        names: Names of the structures, in order.
        numbers: Number of each combination that occurs; a combination lists indices of `names`, and the empty one has
            the number 0.
        files: Name of each structure to that of the mask that holds it.
        indices: Name and value of each part of a mask to the index of its structure.
    """

    names: tuple[str, ...]
    numbers: dict[Combination, int]
    files: dict[str, str]
    indices: dict[Part, int]

    def number_of(self, combination: PartCombination) -> int:
        """Returns the number of the voxels that belong to some parts of masks."""
        return self.numbers[tuple(sorted({self.indices[part] for part in combination}))]

    @property
    def overlap(self) -> bool:
        """Whether a voxel of some case belongs to several structures."""
        return any(len(combination) > 1 for combination in self.numbers)

    def describe(self) -> str:
        """Describes in a line how the structures are segmented."""
        count = f"{len(self.names)} structures"
        if self.overlap:
            return f"{count}, of which some overlap: each is segmented as a mask of its own"
        return f"{count}, of which none overlap: they are labels that exclude each other"

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
        cases.append(Case(name=readable_name(folder.name), images=tuple(images), label=_mask_folder(folder)))
    return tuple(cases)


def name_structures(folders: Sequence[Path], reporter: Reporter) -> list[str]:
    """Returns the names of all structures, in order; names that differ in capital letters only are said.

    Decision: "Liver" and "liver" are one structure, by the more usual name, unless a case has masks of both.

    Args:
        folders: Folder of the masks of each case.
        reporter: Is told which names differ in capital letters only.
    """
    stems = [list_masks(folder).keys() for folder in folders]
    counts = Counter(stem for names in stems for stem in names)
    names = set(counts)
    for group in find_lookalikes(counts):
        spelt = " and ".join(map(repr, group))
        if any(len(present & set(group)) > 1 for present in stems):
            reporter.say(f"masks {spelt} differ only in capital letters, and a case has both: they are two structures")
            continue
        usual = max(group, key=lambda name: counts[name])
        names -= set(group) - {usual}
        reporter.say(f"masks {spelt} differ only in capital letters: they are one structure, {usual!r}")
    return sorted(names)


def find_combinations(label: Path, names: Sequence[str]) -> set[PartCombination]:
    """Returns the combinations of masks and their values that occur in a case.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids, or were blurred.
    """
    return set(_combine(label, names)[1])


def number_structures(
    names: Sequence[str], combinations: Sequence[set[PartCombination]], source: Path, reporter: Reporter = SILENT
) -> Structures:
    """Numbers all combinations: single structures in the order of their names, then those of several structures.

    A mask that holds several values in some case is a structure for each value. Structures that occur in no case are
    left out.

    Args:
        names: Names of all masks.
        combinations: Combinations that occur in each case.
        source: Folder of the source, for errors.
        reporter: Is told which masks hold several structures.

    Raises:
        DatasetError: All masks are empty, or there are more combinations than numbers.
    """
    several = _find_several(combinations)
    occurring = set().union(*combinations) - {()}
    if not occurring:
        raise DatasetError(f"the masks in {source} are all empty", "check that they are the masks")
    parts = sorted({part for combination in occurring for part in combination}, key=lambda part: (part[0], part[1]))
    structure_of = {part: _name_part(part, several, names) for part in parts}
    present = list(dict.fromkeys(structure_of.values()))
    for name in several:
        listed = list_names(structure_of[part] for part in parts if part[0] == name)
        reporter.say(f"masks {name!r} hold several values, and each is a structure: {listed}")
    index_of = {part: present.index(structure) for part, structure in structure_of.items()}
    indexed = {tuple(sorted({index_of[part] for part in combination})) for combination in occurring}
    if len(indexed) > MOST_COMBINATIONS:
        raise DatasetError(
            f"the structures in {source} overlap in {len(indexed)} ways, more than {MOST_COMBINATIONS}",
            "leave out structures that are drawn without care, or import them as several datasets",
        )
    numbers = {(): 0, **{combination: number for number, combination in enumerate(sorted(indexed, key=_sort_key), 1)}}
    files = {structure: part[0] for part, structure in structure_of.items()}
    return Structures(names=tuple(present), numbers=numbers, files=files, indices=index_of)


def combine_masks(label: Path, structures: Structures) -> Volume:
    """Returns the label map of a case: at each voxel the number of its combination.

    Args:
        label: Folder of the masks, or a segmentation of 3D Slicer.
        structures: The structures of all cases.

    Raises:
        ImageError: A mask cannot be read.
        DatasetError: Masks lie on different grids.
    """
    codes, combinations = _combine(label, list(dict.fromkeys(structures.files.values())))
    numbers = np.array([structures.number_of(combination) for combination in combinations], dtype=np.int32)
    return Volume(array=numbers[codes.array], geometry=codes.geometry)


def find_annotated(cases: Sequence[Case], structures: Structures) -> dict[str, tuple[str, ...]]:
    """Returns, for each case that lacks masks, the structures that were annotated in it."""
    annotated = {}
    for case in cases:
        files = set(structures.files.values())
        masks = _masks_by_structure(case.label, sorted(files)).keys() if case.label else set()
        names = tuple(name for name in structures.names if structures.files[name] in masks)
        if len(names) < len(structures.names):
            annotated[case.name] = names
    return annotated


def _sort_key(combination: Combination) -> tuple[int, Combination]:
    return len(combination), combination


def _mask_folder(folder: Path) -> Path | None:
    matches = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in MASK_FOLDERS]
    return matches[0] if len(matches) == 1 and pairing.list_images(matches[0]) else None


def _masks_by_structure(label: Path, names: Sequence[str]) -> dict[str, MaskFile]:
    """Returns the mask of each structure that a case has, which may be spelt with other capital letters."""
    files = list_masks(label)
    respelt = {stem.casefold(): mask for stem, mask in files.items() if stem not in names}
    found = {name: files.get(name) or respelt.get(name.casefold()) for name in names}
    return {name: mask for name, mask in found.items() if mask is not None}


def _combine(label: Path, names: Sequence[str]) -> tuple[Volume, list[PartCombination]]:
    """Returns a code for each voxel, shape (z, y, x), and the combination that each code stands for."""
    masks = _masks_by_structure(label, names)
    if not masks:
        raise DatasetError(f"{label} holds no mask of a known structure", "add masks, or remove the case")
    read = read_parts(masks, label)
    first = next(read)
    parts: list[Part] = []

    def number_each() -> Iterator[tuple[int, NDArray[np.generic]]]:
        for part in chain([first], read):
            parts.append((part.name, part.value))
            yield len(parts) - 1, part.voxels.array

    grid = first.voxels.geometry
    codes, combinations = combine(number_each(), grid.shape)
    return Volume(array=codes, geometry=grid), [tuple(parts[index] for index in indices) for indices in combinations]


def _find_several(combinations: Iterable[set[PartCombination]]) -> list[str]:
    """Returns the names of the masks that hold several values in one case, in order."""
    several: set[str] = set()
    for combinations_of_case in combinations:
        parts = {part for combination in combinations_of_case for part in combination}
        counts = Counter(name for name, _ in parts)
        several |= {name for name, count in counts.items() if count > 1}
    return sorted(several)


def _name_part(part: Part, several: Collection[str], names: Collection[str]) -> str:
    """Returns the name of the structure that a value of a mask stands for."""
    name, value = part
    if name not in several:
        return name
    return f"{name}_{value}" if f"{name}_{value}" not in names else f"{name}_value_{value}"
