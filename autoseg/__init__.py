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
    from autoseg.datasets.dataset import Dataset
    from autoseg.errors import AutosegError
    from autoseg.inference.model import Model, load_model
    from autoseg.models.bundle import export_model, install_model
    from autoseg.nnunet.dataset_install import install_nnunet
    from autoseg.nnunet.export import export_nnunet
    from autoseg.pipeline.datasets import extract_fingerprint, plan_and_preprocess, plan_configurations, preprocess
    from autoseg.pipeline.prediction import predict
    from autoseg.pipeline.scores import evaluate, find_best
    from autoseg.pipeline.training import train
    from autoseg.planning.plan import Plan
    from autoseg.planning.plugins import register_loss, register_network, register_transform

_MODULES = {
    "AutosegError": "errors",
    "Dataset": "datasets.dataset",
    "Model": "inference.model",
    "Plan": "planning.plan",
    "evaluate": "pipeline.scores",
    "export_model": "models.bundle",
    "export_nnunet": "nnunet.export",
    "extract_fingerprint": "pipeline.datasets",
    "find_best": "pipeline.scores",
    "install_model": "models.bundle",
    "install_nnunet": "nnunet.dataset_install",
    "load_model": "inference.model",
    "plan_and_preprocess": "pipeline.datasets",
    "plan_configurations": "pipeline.datasets",
    "predict": "pipeline.prediction",
    "preprocess": "pipeline.datasets",
    "register_loss": "planning.plugins",
    "register_network": "planning.plugins",
    "register_transform": "planning.plugins",
    "train": "pipeline.training",
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
