"""Brings foreign data into the workspace as a raw dataset, and says what it could not use.

Four kinds of source are recognised by what lies in them:

    dataset.json with "modality"         a Medical Segmentation Decathlon folder
    dataset.json with "channel_names"    a raw folder of nnU-Net
    a folder of images, one of masks     paired by file name
    a folder per case                    an image, and a folder of one mask per structure (see `structures`)

Files are copied byte for byte if their format can stay; all others are converted. Hard links would be quicker, but then
an edit of the imported file would change the source too.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.artifact import atomic_folder, read_text
from autoseg.combinations import Combination
from autoseg.dataset import CHANNEL_SUFFIX, PLANE_ENDINGS, Case, Dataset
from autoseg.errors import DatasetError, ImageError, UsageError
from autoseg.imageio import channels_in, convert_image, read_label_map, write_label_map
from autoseg.importing import pairing
from autoseg.importing.masks import MaskValues, number_values, read_values, renumber, stay
from autoseg.importing.structures import (
    Structures,
    combine_masks,
    find_annotated,
    find_case_folders,
    find_combinations,
    list_cases,
    list_masks,
    number_structures,
)
from autoseg.info import DatasetInfo
from autoseg.parallel import all_sound, work_on_each
from autoseg.reporting import SILENT, Reporter
from autoseg.workspace import Workspace, dataset_folder_name

IMAGE_FOLDERS = ("images", "imagestr", "image")
KIND_UNKNOWN = (
    "The kind of image is not known and counts as MR (z-score); for CT, write 'CT' as the channel's name into "
    "dataset.json"
)
LABEL_FOLDERS = ("labels", "labelstr", "masks", "mask", "label")

# Keys of a foreign dataset.json that the new one states anew; the others, such as the licence, travel with the data.
RESTATED = {*DatasetInfo.model_fields, "modality", "training", "test", "numTraining", "numTest", "tensorImageSize"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What will be written.

    Attributes:
        info: The new dataset.json.
        cases: Training cases, of files as they lie in the source.
        tests: Scans without labels.
        numbers: Mask value to label number; empty if dataset.json says it.
        structures: If the label of a case is a folder of masks: what these are.
        notes: Further keys of the new dataset.json.
    """

    info: DatasetInfo
    cases: tuple[Case, ...]
    tests: tuple[Case, ...]
    numbers: dict[int, int] = field(default_factory=dict)
    structures: Structures | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def import_dataset(
    source: Path | tuple[Path, Path],
    *,
    workspace: Workspace,
    number: int,
    name: str | None = None,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Brings a dataset into the workspace, whole or not at all.

    Images without a mask are left out and named to `reporter`, and so are masks without an image. Scans in a folder
    "imagesTs" come along as test scans. Masks whose values are not 0, 1, 2, ... are renumbered.

    Args:
        source: A folder of one of the kinds in the module's text, or the folder of images and the folder of masks.
        workspace: Where to put it.
        number: The new dataset's number, 1 to 999; it must be free.
        name: The new dataset's name; None takes the one that the source states, or that of its folder.
        reporter: Gets progress and remarks.

    Raises:
        UsageError: The source is of no known kind, the number is taken or the name is impossible.
        DatasetError: The source contradicts itself, or no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ArtifactError: The workspace cannot be written.
    """
    if taken := workspace.names(number):
        raise UsageError(f"{workspace.raw} already holds {taken[0]}", "choose another number with -d or remove it")
    found = _recognise(source, reporter)
    name = name or _default_name(found.info, source)
    folder = workspace.raw / dataset_folder_name(number, name)
    _write(replace(found, info=found.info.model_copy(update={"name": name})), folder, reporter)
    dataset = Dataset.open(folder)
    reporter.say(f"{dataset.name}: {len(dataset.cases)} training cases, {len(found.tests)} test scans")
    return dataset


def _recognise(source: Path | tuple[Path, Path], reporter: Reporter) -> Source:
    for folder in source if isinstance(source, tuple) else (source,):
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder", "check the path")
    if isinstance(source, tuple):
        return _from_folders(*source, None, reporter)
    if (source / "dataset.json").is_file():
        return _from_description(source, reporter)
    if folders := find_case_folders(source):
        return _from_case_folders(source, folders, reporter)
    images, masks = _subfolder(source, IMAGE_FOLDERS), _subfolder(source, LABEL_FOLDERS)
    if images is None or masks is None:
        what = f"{source} holds neither dataset.json nor a folder of images beside one of masks, nor folders of cases"
        raise UsageError(what, "give the images as SOURCE and the masks with --labels")
    return _from_folders(images, masks, _subfolder(source, ("imagests",)), reporter)


def _from_description(folder: Path, reporter: Reporter) -> Source:
    """A folder of the Decathlon or of nnU-Net: dataset.json says what the files are."""
    path = folder / "dataset.json"
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}", "mend the file") from error
    if not isinstance(content, dict) or not {"channel_names", "modality"} & content.keys():
        raise DatasetError(f"{path} has neither 'channel_names' nor 'modality'", "add the names of the image channels")
    ending = str(content.get("file_ending") or "") or None
    images = pairing.list_images(folder / "imagesTr", ending)
    masks = _listed_masks(folder, content) or pairing.masks_by_image(folder / "labelsTr", images)
    cases = pairing.pair_by_name(images, masks, folder, reporter)
    described = {**_first_label_named(content), "file_ending": pairing.common_ending(cases)}
    info = DatasetInfo.parse(json.dumps(described), source=str(path))
    cases = _keep_complete(cases, _count_channels(cases, info.channels, reporter), info.channels, reporter)
    notes = {key: value for key, value in content.items() if key not in RESTATED}
    tests = pairing.group_tests(pairing.list_images(folder / "imagesTs", ending), len(cases[0].images), reporter)
    return Source(info=info, cases=cases, tests=tests, notes=notes)


def _first_label_named(content: dict[str, Any]) -> dict[str, Any]:
    """Gives label 0 the name "background", whatever the Decathlon folder calls it."""
    labels = content.get("labels")
    if isinstance(labels, dict) and "0" in labels:
        return {**content, "labels": {**labels, "0": "background"}}
    return content


def _listed_masks(folder: Path, content: dict[str, Any]) -> dict[str, Path]:
    """The labels of the Decathlon's list, by the stem of the image that they belong to."""
    entries = content.get("training")
    if not isinstance(entries, list):
        return {}
    pairs = [(entry.get("image"), entry.get("label")) for entry in entries if isinstance(entry, dict)]
    named = [(image, folder / label) for image, label in pairs if isinstance(image, str) and isinstance(label, str)]
    return {pairing.stem_of(folder / image): label for image, label in named if label.is_file()}


def _from_folders(images_folder: Path, labels_folder: Path, tests_folder: Path | None, reporter: Reporter) -> Source:
    """Two folders: the files alone say what they are."""
    images = pairing.list_images(images_folder)
    cases = pairing.pair_by_name(images, pairing.masks_by_image(labels_folder, images), images_folder, reporter)
    counts, values = _look_inside(cases, reporter)
    cases = _keep_complete(cases, counts, None, reporter)
    channels = counts[cases[0].name]
    colours = channels == 3 and len(cases[0].images) == 1 and pairing.ending_of(cases[0].images[0]) in PLANE_ENDINGS
    numbers = number_values([values[case.name] for case in cases], labels_folder, reporter)
    if not colours:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(index): "rgb_to_0_1" if colours else f"channel_{index}" for index in range(channels)},
        labels={"background" if value == 0 else f"label_{value}": number for value, number in numbers.items()},
        file_ending=pairing.common_ending(cases),
    )
    scans = pairing.list_images(tests_folder) if tests_folder else []
    tests = pairing.group_tests(scans, len(cases[0].images), reporter)
    return Source(info=info, cases=cases, tests=tests, numbers=numbers)


def _from_case_folders(source: Path, folders: list[Path], reporter: Reporter) -> Source:
    """A folder per case, with masks of structures that may overlap."""
    cases = list_cases(folders)
    masks = [case.label for case in cases if case.label is not None]
    names = sorted({name for folder in masks for name in list_masks(folder)})
    counts = dict(zip((case.name for case in cases), map(_channels, cases), strict=True))
    cases = _keep_complete(cases, counts, None, reporter)

    def find(folder: Path) -> set[Combination]:
        return find_combinations(folder, names)

    found = all_sound(work_on_each(find, masks, title="reading masks", reporter=reporter))
    structures = number_structures(names, found, source)
    reporter.say(
        f"{len(structures.names)} structures, of which some overlap: each is segmented as a mask of its own"
        if structures.overlap
        else f"{len(structures.names)} structures, of which none overlap: they are labels that exclude each other"
    )
    channels = counts[cases[0].name]
    is_ct = channels == 1 and all(pairing.stem_of(case.images[0]).lower() == "ct" for case in cases)
    if not is_ct:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(channel): "CT" if is_ct else f"channel_{channel}" for channel in range(channels)},
        labels=structures.labels(),
        file_ending=pairing.common_ending(replace(case, label=None) for case in cases),
        masks=structures.overlap,
        annotated=find_annotated(cases, structures) or None,
    )
    return Source(info=info, cases=cases, tests=(), structures=structures)


def _look_inside(cases: tuple[Case, ...], reporter: Reporter) -> tuple[dict[str, int], dict[str, MaskValues]]:
    """The number of channels and the mask values of each case, by name; every file that cannot be read is named."""
    masks = [case.label for case in cases if case.label]
    counts = work_on_each(_channels, cases, title="reading headers", reporter=reporter)
    values = work_on_each(read_values, masks, title="reading masks", reporter=reporter)
    all_sound([*counts, *values])
    names = [case.name for case in cases]
    return dict(zip(names, all_sound(counts), strict=True)), dict(zip(names, all_sound(values), strict=True))


def _count_channels(cases: tuple[Case, ...], expected: int, reporter: Reporter) -> dict[str, int]:
    """The number of channels of each case, by name; a single file is believed to be the single channel expected."""
    unknown = [case for case in cases if expected > 1 or len(case.images) > 1]
    counts = all_sound(work_on_each(_channels, unknown, title="reading headers", reporter=reporter))
    return {case.name: 1 for case in cases} | dict(zip((case.name for case in unknown), counts, strict=True))


def _keep_complete(
    cases: tuple[Case, ...], counts: Mapping[str, int], expected: int | None, reporter: Reporter
) -> tuple[Case, ...]:
    """Leaves out cases with another number of channels than expected, or than most cases have."""
    usual = expected or Counter(counts.values()).most_common(1)[0][0]
    kept = tuple(case for case in cases if counts[case.name] == usual)
    if not kept:
        raise DatasetError(f"no case has {usual} channels", "correct channel_names in dataset.json")
    pairing.say_left_out(
        f"Cases that do not have {usual} channels", counts.keys() - {case.name for case in kept}, reporter
    )
    return kept


def _channels(case: Case) -> int:
    return len(case.images) if len(case.images) > 1 else channels_in(case.images[0])


def _write(source: Source, folder: Path, reporter: Reporter) -> None:
    with atomic_folder(folder) as writing:

        def write(case: Case) -> None:
            if case.label is None:
                _write_images(case, writing / "imagesTs", source.info)
            else:
                _write_images(case, writing / "imagesTr", source.info)
                target = writing / "labelsTr" / (case.name + source.info.file_ending)
                if source.structures is not None:
                    write_label_map(target, combine_masks(case.label, source.structures))
                else:
                    _write_label(case.label, target, source.numbers)

        for name in ("imagesTr", "labelsTr", *(("imagesTs",) if source.tests else ())):
            (writing / name).mkdir()
        all_sound(work_on_each(write, source.cases + source.tests, title="importing", reporter=reporter))
        source.info.save(writing / "dataset.json", {"numTraining": len(source.cases), **source.notes})


def _write_images(case: Case, folder: Path, info: DatasetInfo) -> None:
    ending = info.file_ending
    if len(case.images) == 1 and ending in PLANE_ENDINGS and info.channels > 1:  # one picture holds all colours
        numbered = CHANNEL_SUFFIX.search(pairing.stem_of(case.images[0]))
        targets = [folder / f"{case.name}{'_0000' if numbered else ''}{ending}"]
    else:
        targets = [folder / f"{case.name}_{channel:04d}{ending}" for channel in range(info.channels)]
    if len(targets) != len(case.images):
        convert_image(case.images[0], tuple(targets))
        return
    for path, target in zip(case.images, targets, strict=True):
        _bring(path, target)


def _write_label(path: Path, target: Path, numbers: dict[int, int]) -> None:
    if stay(numbers) and pairing.ending_of(path) == pairing.ending_of(target):
        _bring(path, target)
        return
    volume = read_label_map(path)
    if not stay(numbers):
        volume = replace(volume, array=renumber(volume.array, numbers))
    write_label_map(target, volume)


def _bring(path: Path, target: Path) -> None:
    if pairing.ending_of(path) != pairing.ending_of(target):
        convert_image(path, (target,))
        return
    try:
        shutil.copy2(path, target)
    except OSError as error:
        if error.filename != str(path) or error.filename2 is not None:  # both are named if the copying fails
            raise
        raise ImageError(f"cannot read {path}: {error.strerror}", "check that you may read it") from error


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in names)
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise UsageError(f"{folder} holds {both}", "give the images as SOURCE and the masks with --labels")
    return found[0] if found else None


def _default_name(info: DatasetInfo, source: Path | tuple[Path, Path]) -> str:
    folder = source[0].resolve().parent if isinstance(source, tuple) else source.resolve()
    words = re.sub(r"^(Task|Dataset)\d+_", "", info.name or folder.name)
    return re.sub(r"\W+", "_", words).strip("_-")
