"""Scans without labels, prepared for a student: images as of training cases, and where they lie outside."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.scan_images import read_scan
from autoseg.imaging.geometry import Volume
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.store import is_up_to_date, list_unused_files, save_case
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


def prepare_unlabelled(
    scans: Sequence[Case], plan: Plan, name: ConfigurationName, info: DatasetInfo, folder: Path, reporter: Reporter
) -> None:
    """Preprocesses scans that have no labels; those of an earlier run that are up to date are kept.

    Their label maps are 0, and `OUTSIDE` outside the scan; a teacher says what is in them.

    Args:
        scans: The scans.
        plan: How to preprocess them.
        name: Name of the configuration.
        info: Channels and labels of the dataset.
        folder: Where they are stored; scans that are no longer among them are removed.
        reporter: Shows progress.

    Raises:
        ProblemsError: Scans cannot be read or do not suit the plan, with a line for each; all others are prepared.
    """
    configuration = plan.configurations[name]
    settings = PreprocessingSettings.of(plan, name, info).model_copy(update={"structures": ()})

    def prepare(scan: Case) -> None:
        provenance = Provenance.of(scan, settings)
        if is_up_to_date(folder, scan.name, provenance):
            return
        image = read_scan(scan)
        empty = Volume(array=np.zeros(image.geometry.shape, dtype=np.uint8), geometry=image.geometry)
        case = preprocess_case(
            image, empty, axis_order=plan.axis_order, configuration=configuration, orientation=info.orientation
        )
        save_case(folder, scan.name, case, patch_size=configuration.patch_size, provenance=provenance)

    results_or_raise(map_in_threads(prepare, scans, title="preparing scans without labels", reporter=reporter))
    if folder.is_dir():
        for path in list_unused_files(folder, [scan.name for scan in scans]):
            path.unlink(missing_ok=True)
