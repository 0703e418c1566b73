"""Self-configuring segmentation of medical images: point it at scans and masks, get a model back.

    import autoseg

    autoseg.plan_and_preprocess(4)
    autoseg.train(4, "3d_fullres", [0])
    autoseg.predict("scans", "masks", number=4)
    mask = autoseg.load_model("results/Dataset004_Hippocampus/3d_fullres").predict("scan.nii.gz")

Every command is a function here, defined in `pipeline`. The names load their modules when they are first used, so that
importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoseg._version import __version__
from autoseg.runtime.apple_gpu import let_apple_gpus_fall_back as _let_apple_gpus_fall_back
from autoseg.runtime.waiting_threads import let_waiting_threads_sleep as _let_waiting_threads_sleep

if TYPE_CHECKING:
    from autoseg.datasets.dataset import Dataset
    from autoseg.errors import AutosegError
    from autoseg.inference.model import Model, load_model
    from autoseg.pipeline import (
        check,
        check_dicom,
        check_files,
        compare,
        distil,
        draw_augmentations,
        evaluate,
        examine_machine,
        export_model,
        export_nnunet,
        extract_fingerprint,
        find_best,
        fix,
        import_dataset,
        install_model,
        install_nnunet,
        list_networks,
        list_series,
        listen_dicom,
        make_demo_dataset,
        make_prediction_jobs,
        make_preprocessing_jobs,
        make_training_jobs,
        measure_quality,
        plan_and_preprocess,
        plan_configurations,
        predict,
        preprocess,
        print_jobs,
        pseudo_label,
        pull_dicom,
        push_dicom,
        refine,
        report_data,
        report_model,
        report_scans,
        run,
        run_jobs,
        serve,
        status,
        stop,
        stop_run,
        straighten,
        suggest,
        train,
        watch,
    )
    from autoseg.planning.plan import Plan
    from autoseg.planning.plugins import register_loss, register_network, register_transform

_MODULES = {
    "AutosegError": "errors",
    "Dataset": "datasets.dataset",
    "Model": "inference.model",
    "Plan": "planning.plan",
    "check": "pipeline",
    "check_dicom": "pipeline",
    "check_files": "pipeline",
    "compare": "pipeline",
    "distil": "pipeline",
    "draw_augmentations": "pipeline",
    "evaluate": "pipeline",
    "examine_machine": "pipeline",
    "export_model": "pipeline",
    "export_nnunet": "pipeline",
    "extract_fingerprint": "pipeline",
    "find_best": "pipeline",
    "fix": "pipeline",
    "import_dataset": "pipeline",
    "install_model": "pipeline",
    "install_nnunet": "pipeline",
    "list_networks": "pipeline",
    "list_series": "pipeline",
    "listen_dicom": "pipeline",
    "load_model": "inference.model",
    "make_demo_dataset": "pipeline",
    "make_prediction_jobs": "pipeline",
    "make_preprocessing_jobs": "pipeline",
    "make_training_jobs": "pipeline",
    "measure_quality": "pipeline",
    "plan_and_preprocess": "pipeline",
    "plan_configurations": "pipeline",
    "predict": "pipeline",
    "preprocess": "pipeline",
    "prompt": "pipeline",
    "print_jobs": "pipeline",
    "pseudo_label": "pipeline",
    "pull_dicom": "pipeline",
    "push_dicom": "pipeline",
    "register_loss": "planning.plugins",
    "register_network": "planning.plugins",
    "register_transform": "planning.plugins",
    "refine": "pipeline",
    "report_data": "pipeline",
    "report_model": "pipeline",
    "report_scans": "pipeline",
    "run": "pipeline",
    "run_jobs": "pipeline",
    "serve": "pipeline",
    "status": "pipeline",
    "stop": "pipeline",
    "stop_run": "pipeline",
    "straighten": "pipeline",
    "suggest": "pipeline",
    "train": "pipeline",
    "watch": "pipeline",
}

__all__ = [
    "AutosegError",
    "Dataset",
    "Model",
    "Plan",
    "__version__",
    "check",
    "check_dicom",
    "check_files",
    "compare",
    "distil",
    "draw_augmentations",
    "evaluate",
    "examine_machine",
    "export_model",
    "export_nnunet",
    "extract_fingerprint",
    "find_best",
    "fix",
    "import_dataset",
    "install_model",
    "install_nnunet",
    "list_networks",
    "list_series",
    "listen_dicom",
    "load_model",
    "make_demo_dataset",
    "make_prediction_jobs",
    "make_preprocessing_jobs",
    "make_training_jobs",
    "measure_quality",
    "plan_and_preprocess",
    "plan_configurations",
    "predict",
    "preprocess",
    "print_jobs",
    "prompt",
    "pseudo_label",
    "pull_dicom",
    "push_dicom",
    "refine",
    "register_loss",
    "register_network",
    "register_transform",
    "report_data",
    "report_model",
    "report_scans",
    "run",
    "run_jobs",
    "serve",
    "status",
    "stop",
    "stop_run",
    "straighten",
    "suggest",
    "train",
    "watch",
]

_let_waiting_threads_sleep()  # before anything loads torch
_let_apple_gpus_fall_back()


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
    return getattr(import_module(f"autoseg.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names whether they are loaded or not, for completion and help."""
    return sorted({*globals(), *__all__})
