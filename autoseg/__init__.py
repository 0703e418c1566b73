"""Self-configuring segmentation of medical images: point it at scans and masks, get a model back.

    import autoseg

    autoseg.plan_and_preprocess(4)
    autoseg.train(4, "3d_fullres", [0])
    autoseg.predict("scans", "masks", number=4)
    mask = autoseg.load_model("results/Dataset004_Hippocampus/3d_fullres").predict("scan.nii.gz")

The names below load their modules when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoseg._version import __version__

if TYPE_CHECKING:
    from autoseg.bundle import export_model, install_model
    from autoseg.dataset import Dataset
    from autoseg.decisions import plan_configurations
    from autoseg.errors import AutosegError
    from autoseg.extensions import register_loss, register_network, register_transform
    from autoseg.inspection import extract_fingerprint
    from autoseg.model import Model, load_model
    from autoseg.nnunet.exporting import export_nnunet
    from autoseg.pipeline import evaluate, find_best, plan_and_preprocess, predict, preprocess, train
    from autoseg.plan import Plan
    from autoseg.taking_over import install_nnunet

_MODULES = {
    "AutosegError": "errors",
    "Dataset": "dataset",
    "Model": "model",
    "Plan": "plan",
    "evaluate": "pipeline",
    "export_model": "bundle",
    "export_nnunet": "nnunet.exporting",
    "extract_fingerprint": "inspection",
    "find_best": "pipeline",
    "install_model": "bundle",
    "install_nnunet": "taking_over",
    "load_model": "model",
    "plan_and_preprocess": "pipeline",
    "plan_configurations": "decisions",
    "predict": "pipeline",
    "preprocess": "pipeline",
    "register_loss": "extensions",
    "register_network": "extensions",
    "register_transform": "extensions",
    "train": "pipeline",
}

__all__ = [
    "AutosegError",
    "Dataset",
    "Model",
    "Plan",
    "__version__",
    "evaluate",
    "export_model",
    "export_nnunet",
    "extract_fingerprint",
    "find_best",
    "install_model",
    "install_nnunet",
    "load_model",
    "plan_and_preprocess",
    "plan_configurations",
    "predict",
    "preprocess",
    "register_loss",
    "register_network",
    "register_transform",
    "train",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
    return getattr(import_module(f"autoseg.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names whether they are loaded or not, for completion and help."""
    return sorted({*globals(), *__all__})
