"""Where the parts of a model of nnU-Net's lie: one configuration, or the results of a dataset with several.

Dataset004_Hippocampus/
    inference_information.json                    what nnU-Net's find_best_configuration chose
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
from autoseg.runtime.artifact import read_text
from autoseg.workspace import Fold

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
INFORMATION = "inference_information.json"
POOLED = "crossval_results_folds_"

_FOLD = re.compile(r"fold_(all|0|[1-9]\d{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetFolder:
    """The folder of one trained configuration."""

    path: Path

    @property
    def origin(self) -> tuple[str, str]:
        """Names of trainer and plans, as the name of the folder tells them; the same for the parts of a cascade."""
        trainer, _, rest = self.path.name.partition("__")
        return (trainer, rest.rpartition("__")[0]) if "__" in rest else ("", "")

    @property
    def checkpoints(self) -> dict[Fold, Path]:
        """The last checkpoint of each fold, else the best one: numbers in order, then "all"."""
        found: dict[Fold, Path] = {}
        for path in self.path.iterdir():
            match = _FOLD.fullmatch(path.name)
            files = [path / name for name in CHECKPOINTS if (path / name).is_file()]
            if match is not None and files:
                found[match[1] if match[1] == "all" else int(match[1])] = files[0]
        return dict(sorted(found.items(), key=lambda one: (one[0] == "all", one[0])))

    @property
    def unfinished(self) -> list[Path]:
        """Folders that are called like a fold and are none that was trained to its end."""
        paths = [path for path in sorted(self.path.glob("fold_*")) if path.is_dir()]
        return [path for path in paths if not (_FOLD.fullmatch(path.name) and (path / CHECKPOINTS[0]).is_file())]

    @property
    def pooled(self) -> Path | None:
        """The folder of the results of several folds, of most of them if there is a choice."""
        found = sorted(self.path.glob(f"{POOLED}*"), key=lambda path: (len(path.name), path.name))
        return found[-1] if found else None


def find_folders(root: Path) -> list[NnunetFolder]:
    """The configurations in a folder: itself, those in it, or those in the only dataset in it.

    Raises:
        ModelError: There is none.
        UsageError: There are several datasets, or the configurations are of several trainers or plans.
    """
    if _is_one(root):
        return [NnunetFolder(path=root)]
    folders = _list_ones(root)
    if not folders:
        datasets = [path for path in sorted(root.iterdir()) if path.is_dir() and _list_ones(path)]
        if len(datasets) > 1:
            raise UsageError(f"{root} holds the models of {len(datasets)} datasets", f"give one, such as {datasets[0]}")
        folders = [folder for path in datasets for folder in _list_ones(path)]
    if not folders:
        what = f"{root} holds no model of nnU-Net: no folder with plans.json and fold_0/{CHECKPOINTS[0]}"
        raise ModelError(what, "check the path")
    origins = sorted({"__".join(folder.origin) for folder in folders})
    if len(origins) > 1:
        raise UsageError(f"{root} holds models of {' and of '.join(origins)}", f"give one, such as {folders[0].path}")
    return folders


def beside(folder: NnunetFolder, configuration: str) -> NnunetFolder | None:
    """The folder of another configuration of the same trainer and plans, if it lies beside this one."""
    path = folder.path.resolve().with_name("__".join([*folder.origin, configuration]))
    return NnunetFolder(path=path) if _is_one(path) else None


def _is_one(path: Path) -> bool:
    return (path / "plans.json").is_file() and bool(NnunetFolder(path=path).checkpoints)


def _list_ones(root: Path) -> list[NnunetFolder]:
    return [NnunetFolder(path=path) for path in sorted(root.iterdir()) if path.is_dir() and _is_one(path)]


def read_choice(folders: Sequence[NnunetFolder]) -> list[str]:
    """Names of the configurations that nnU-Net chose among these; none if it did not, or chose others."""
    path = folders[0].path.parent / INFORMATION
    if len(folders) < 2 or not path.is_file():
        return []
    try:
        chosen = json.loads(read_text(path))["best_model_or_ensemble"]["selected_model_or_models"]
        origins = {(str(one["trainer"]), str(one["plans_identifier"])) for one in chosen}
        names = [str(one["configuration"]) for one in chosen]
    except (AutosegError, ValueError, KeyError, TypeError, RecursionError):
        return []  # without it, one of the configurations predicts, which is what its absence means, too
    return names if origins == {folders[0].origin} and 1 <= len(names) <= 2 else []


def find_choice_rules(folders: Sequence[NnunetFolder], names: Sequence[str]) -> Path | None:
    """The folder that holds the postprocessing of two configurations together."""
    trainer, plans = folders[0].origin
    together = "___".join("__".join((trainer, plans, name)) for name in names)
    found = sorted(folders[0].path.parent.glob(f"ensembles/ensemble___{together}___*"))
    return found[-1] if found else None
