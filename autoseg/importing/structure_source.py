"""Sources with a mask per structure: their cases, structures and description."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.importing import pairing
from autoseg.importing.recognised_source import KIND_UNKNOWN, Source, count_channels_of, select_complete
from autoseg.importing.structures import (
    PartCombination,
    find_annotated,
    find_combinations,
    name_structures,
    number_structures,
)
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


def read_structures(cases: tuple[Case, ...], source: Path, reporter: Reporter, tests: Sequence[Path] = ()) -> Source:
    """Reads cases with masks of structures that may overlap.

    Args:
        cases: The cases; the label of each is a folder of masks, or a segmentation of 3D Slicer.
        source: Folder of the source, for errors.
        reporter: Shows progress, and is told what is left out.
        tests: Files of scans without labels.

    Raises:
        DatasetError: All masks are empty, lie on different grids, or overlap in too many ways.
        ImageError: A file cannot be read.
    """
    masks = [case.label for case in cases if case.label is not None]
    names = name_structures(masks, reporter)
    counts = dict(zip((case.name for case in cases), map(count_channels_of, cases), strict=True))
    cases = select_complete(cases, counts, None, reporter)

    def find(folder: Path) -> set[PartCombination]:
        return find_combinations(folder, names)

    combinations = results_or_raise(map_in_threads(find, masks, title="reading masks", reporter=reporter))
    structures = number_structures(names, combinations, source, reporter)
    reporter.say(structures.describe())
    annotated = find_annotated(cases, structures)
    if annotated:
        count = f"{len(annotated)} of {len(cases)} cases"
        reporter.say(f"{count} lack masks of some structures, which count as not annotated there (see dataset.json)")
    channels = counts[cases[0].name]
    is_ct = channels == 1 and all(pairing.stem_of(case.images[0]).lower() == "ct" for case in cases)
    if not is_ct and not cases[0].series:
        reporter.say(KIND_UNKNOWN)
    info = DatasetInfo(
        channel_names={str(channel): "CT" if is_ct else f"channel_{channel}" for channel in range(channels)},
        labels=structures.labels(),
        file_ending=pairing.common_ending(replace(case, label=None) for case in cases),
        masks=structures.overlap,
        annotated=annotated or None,
    )
    scans = pairing.group_tests(tests, len(cases[0].images), reporter)
    return Source(info=info, cases=cases, tests=scans, structures=structures)
