"""Folders of nnU-Net's results: the model folder of one configuration, or the folder of a dataset with several.

Dataset004_Hippocampus/
    inference_information.json                    the choice of nnU-Net's find_best_configuration
    nnUNetTrainer__nnUNetPlans__3d_fullres/       a model folder
        plans.json  dataset.json
        fold_0/checkpoint_final.pth               or checkpoint_best.pth, if training was stopped
        fold_0/validation/                        held-out cases, see `held_out`
        crossval_results_folds_0_1_2_3_4/postprocessing.json
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.runtime.json_text import read_json_text
from autoseg.workspace import Fold

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
INFORMATION = "inference_information.json"
POOLED = "crossval_results_folds_"

_FOLD = re.compile(r"fold_(all|0|[1-9]\d{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetFolder:
    """The model folder of one trained configuration.

    Attributes:
        path: Path of the folder.
    """

    path: Path

    @property
    def origin(self) -> tuple[str, str]:
        """Names of the trainer and of the plans, from the name of the folder; both stages of a cascade share them.

        >>> NnunetFolder(path=Path("nnUNetTrainer__nnUNetPlans__3d_fullres")).origin
        ('nnUNetTrainer', 'nnUNetPlans')
        """
        trainer, _, rest = self.path.name.partition("__")
        return (trainer, rest.rpartition("__")[0]) if "__" in rest else ("", "")

    @property
    def checkpoints(self) -> dict[Fold, Path]:
        """Fold to its final checkpoint, or else its best one; numbers in ascending order, then "all"."""
        checkpoints: dict[Fold, Path] = {}
        for path in self.path.iterdir():
            match = _FOLD.fullmatch(path.name)
            files = [path / name for name in CHECKPOINTS if (path / name).is_file()]
            if match is not None and files:
                checkpoints[match[1] if match[1] == "all" else int(match[1])] = files[0]
        return dict(sorted(checkpoints.items(), key=lambda item: (item[0] == "all", item[0])))

    @property
    def unfinished(self) -> list[Path]:
        """Folders named like a fold that hold no final checkpoint, or whose name is no fold."""
        paths = [path for path in sorted(self.path.glob("fold_*")) if path.is_dir()]
        return [path for path in paths if not (_FOLD.fullmatch(path.name) and (path / CHECKPOINTS[0]).is_file())]

    @property
    def pooled(self) -> Path | None:
        """Folder of the pooled results of several folds, the one of the most folds; None if there is none."""
        folders = sorted(self.path.glob(f"{POOLED}*"), key=lambda path: (len(path.name), path.name))
        return folders[-1] if folders else None


def find_folders(root: Path) -> list[NnunetFolder]:
    """Finds the model folders in a folder.

    Args:
        root: A model folder, the folder of a dataset with model folders, or a folder with one such dataset.

    Raises:
        ModelError: There is no model folder.
        UsageError: There are several datasets, or the configurations are of several trainers or plans.
    """
    if _is_model_folder(root):
        return [NnunetFolder(path=root)]
    folders = _list_model_folders(root)
    if not folders:
        datasets = [path for path in sorted(root.iterdir()) if path.is_dir() and _list_model_folders(path)]
        if len(datasets) > 1:
            raise UsageError(f"{root} holds the models of {len(datasets)} datasets", f"give one, such as {datasets[0]}")
        folders = [folder for path in datasets for folder in _list_model_folders(path)]
    if not folders:
        what = f"{root} holds no model of nnU-Net: no folder with plans.json and fold_0/{CHECKPOINTS[0]}"
        raise ModelError(what, "check the path")
    origins = sorted({"__".join(folder.origin) for folder in folders})
    if len(origins) > 1:
        raise UsageError(f"{root} holds models of {' and of '.join(origins)}", f"give one, such as {folders[0].path}")
    return folders


def find_sibling(folder: NnunetFolder, configuration: str) -> NnunetFolder | None:
    """Finds the model folder of another configuration of the same trainer and plans in the same folder."""
    path = folder.path.resolve().with_name("__".join([*folder.origin, configuration]))
    return NnunetFolder(path=path) if _is_model_folder(path) else None


def _is_model_folder(path: Path) -> bool:
    """Tells whether a folder holds plans.json and a checkpoint."""
    return (path / "plans.json").is_file() and bool(NnunetFolder(path=path).checkpoints)


def _list_model_folders(root: Path) -> list[NnunetFolder]:
    return [NnunetFolder(path=path) for path in sorted(root.iterdir()) if path.is_dir() and _is_model_folder(path)]


def read_choice(folders: Sequence[NnunetFolder]) -> list[str]:
    """Reads the names of the configurations that nnU-Net chose among these; empty if it chose none or others."""
    path = folders[0].path.parent / INFORMATION
    if len(folders) < 2 or not path.is_file():
        return []
    try:
        chosen = json.loads(read_json_text(path))["best_model_or_ensemble"]["selected_model_or_models"]
        origins = {(str(model["trainer"]), str(model["plans_identifier"])) for model in chosen}
        names = [str(model["configuration"]) for model in chosen]
    except (AutosegError, ValueError, KeyError, TypeError, RecursionError):
        return []  # then a single configuration predicts, as if the file were missing
    return names if origins == {folders[0].origin} and 1 <= len(names) <= 2 else []


def find_choice_rules(folders: Sequence[NnunetFolder], names: Sequence[str]) -> Path | None:
    """Finds the folder with the postprocessing of an ensemble of two configurations."""
    trainer, plans = folders[0].origin
    ensemble = "___".join("__".join((trainer, plans, name)) for name in names)
    candidates = sorted(folders[0].path.parent.glob(f"ensembles/ensemble___{ensemble}___*"))
    return candidates[-1] if candidates else None
