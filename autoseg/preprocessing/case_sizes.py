"""Cases that the spacing of the plan would make too large for the memory, found before any is read."""

from collections.abc import Sequence
from itertools import product

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Vector
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.preprocessing.target_grid import check_memory, resampled_shape, target_spacing
from autoseg.workspace import DatasetFolders


def find_too_large(all_settings: Sequence[PreprocessingSettings], folders: DatasetFolders) -> dict[str, str]:
    """Finds the cases that would not fit into the free memory at the spacing of the plan.

    Args:
        all_settings: The settings of each configuration.
        folders: The folders of the dataset, whose fingerprint says how large each case is.

    Returns:
        Name of each such case to a line that states the size that it would get, and what to do; empty if the
        fingerprint was imported from nnU-Net, which names no cases.
    """
    lines: dict[str, str] = {}
    cases = Fingerprint.load(folders.fingerprint).cases if folders.fingerprint.is_file() else ()
    for facts, settings in product(cases, all_settings):
        order = settings.axis_order
        z, y, x = (facts.shape_after_crop[axis] for axis in order)
        before_mm: Vector = (facts.spacing_mm[order[0]], facts.spacing_mm[order[1]], facts.spacing_mm[order[2]])
        after_mm = target_spacing(settings.spacing_mm, before_mm)
        try:
            check_memory(settings.channels, resampled_shape((z, y, x), before_mm, after_mm), after_mm, order)
        except ImageError as error:
            leave_out = f"or leave the case out with 'plan_and_preprocess --skip {facts.name}'"
            lines[facts.name] = f"case {facts.name!r}: {error.what}; {error.fix}, {leave_out}"
    return lines
