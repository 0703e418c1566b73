"""Held-out cases of a fold that a validation which was stopped has segmented already, kept for the next run.

They lie in a folder of their own until all cases are segmented: each segmentation, and its scores in .judged/CASE.json.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.errors import ArtifactError
from autoseg.evaluation.summary import CaseResult
from autoseg.model_selection.calibration_voxels import FOLDER as VOXELS
from autoseg.model_selection.held_out_cases import label_file
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.artifact import Artifact, state_of_files
from autoseg.training.fold_job import FoldJob

RECORDS = ".judged"


class KeptCase(Artifact):
    """A held-out case that was segmented and scored.

    Attributes:
        model: Digest of the model that segmented it; see `Segmenter.digest`.
        files: Names, sizes and times of change of the files that the result depends on.
        result: The scores.
    """

    model: str
    files: tuple[tuple[str, int, int], ...]
    result: CaseResult


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCases:
    """The kept cases of a fold.

    Attributes:
        job: The fold.
        model: Digest of the model that segments the cases now.
    """

    job: FoldJob
    model: str

    @property
    def folder(self) -> Path:
        """The folder of the segmentations."""
        return self.job.model.unfinished_validation(self.job.fold)

    def load(self, cases: Sequence[Case]) -> dict[str, CaseResult]:
        """Loads what the same model made of the same files, and removes all else from the folder.

        Returns:
            The name of each case that is segmented, to its scores.
        """
        results: dict[str, CaseResult] = {}
        for case in cases:
            with suppress(ArtifactError):  # the file is missing, or was written by another version
                kept = KeptCase.load(self._record(case))
                is_current = kept.model == self.model and kept.files == self._state_of(case)
                if is_current and (self.folder / kept.result.prediction_file).exists():
                    results[case.name] = kept.result
        self.folder.mkdir(parents=True, exist_ok=True)
        used = {result.prediction_file for result in results.values()} | {RECORDS, VOXELS}
        for path in [path for path in self.folder.iterdir() if path.name not in used]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return results

    def save(self, case: Case, result: CaseResult) -> None:
        """Notes that a case is segmented and scored."""
        KeptCase(model=self.model, files=self._state_of(case), result=result).save(self._record(case))

    def move_to(self, folder: Path) -> None:
        """Moves the segmentations, and what lies beside them, to their place, once all cases are segmented.

        Args:
            folder: Path of that place; a folder that is there is removed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self.folder.rename(folder)
        shutil.rmtree(folder / RECORDS)

    def _record(self, case: Case) -> Path:
        return self.folder / RECORDS / f"{case.name}.json"

    def _state_of(self, case: Case) -> tuple[tuple[str, int, int], ...]:
        folders = [self.job.cases_folder, self.job.cascade_labels_folder]
        stored = [StoredCase.open(folder, case.name).path for folder in folders if folder is not None]
        return state_of_files([label_file(case), *stored])
