"""START HERE. Every command of the program as a function, in which each line is a stage.

    raw scans and masks
      -> fingerprint   what the data look like                      fingerprint.json
      -> plan          how to segment them, and why                 plan.json
      -> preprocess    crop, normalize, resample each case          preprocessed cases
      -> train         learn a fold, score it on held-out cases     checkpoint.pt, summary.json
      -> find_best     compare what was trained, alone and in pairs best.json
      -> predict       segment new scans with what was learned      masks

Stages are functions from values to values. The files between them are read and written by these functions, and by the
rooms below: `datasets`, `planning`, `preprocessing`, `training`, `model_selection` and `inference`.

    raw_datasets.py    import_dataset, check
    datasets.py        plan_and_preprocess, or its parts: extract_fingerprint, plan_configurations, preprocess
    networks.py        list_networks
    patch_pictures.py  draw_augmentations
    training.py        train, stop
    prediction.py      predict
    scores.py          find_best, evaluate, compare
    sharing.py         export_model, install_model, export_nnunet, install_nnunet
    doctor.py          examine_machine
    demo.py            make_demo_dataset

``from autoseg.pipeline import train`` loads the module of `train` only. Up to preprocessing nothing needs torch, which
takes a second to load, so training, prediction and `find_best` import it inside the function that uses it; `doctor`,
`patch_pictures` and `sharing` need it from the start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.pipeline.datasets import extract_fingerprint, plan_and_preprocess, plan_configurations, preprocess
    from autoseg.pipeline.demo import make_demo_dataset
    from autoseg.pipeline.doctor import examine_machine
    from autoseg.pipeline.networks import list_networks
    from autoseg.pipeline.patch_pictures import draw_augmentations
    from autoseg.pipeline.prediction import predict
    from autoseg.pipeline.raw_datasets import check, import_dataset
    from autoseg.pipeline.scores import compare, evaluate, find_best
    from autoseg.pipeline.sharing import export_model, export_nnunet, install_model, install_nnunet
    from autoseg.pipeline.training import stop, train

MODULES = {
    "check": "raw_datasets",
    "compare": "scores",
    "draw_augmentations": "patch_pictures",
    "evaluate": "scores",
    "examine_machine": "doctor",
    "export_model": "sharing",
    "export_nnunet": "sharing",
    "extract_fingerprint": "datasets",
    "find_best": "scores",
    "import_dataset": "raw_datasets",
    "install_model": "sharing",
    "install_nnunet": "sharing",
    "list_networks": "networks",
    "make_demo_dataset": "demo",
    "plan_and_preprocess": "datasets",
    "plan_configurations": "datasets",
    "predict": "prediction",
    "preprocess": "datasets",
    "stop": "training",
    "train": "training",
}
"""The module of this folder that defines each command."""

__all__ = [
    "check",
    "compare",
    "draw_augmentations",
    "evaluate",
    "examine_machine",
    "export_model",
    "export_nnunet",
    "extract_fingerprint",
    "find_best",
    "import_dataset",
    "install_model",
    "install_nnunet",
    "list_networks",
    "make_demo_dataset",
    "plan_and_preprocess",
    "plan_configurations",
    "predict",
    "preprocess",
    "stop",
    "train",
]


def __getattr__(name: str) -> Any:
    """Loads a command when it is first used."""
    if name not in MODULES:
        raise AttributeError(f"module 'autoseg.pipeline' has no attribute {name!r}")
    return getattr(import_module(f"autoseg.pipeline.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the commands whether they are loaded or not, for completion and help."""
    return sorted({*globals(), *__all__})
