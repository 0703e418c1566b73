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

    whole_run.py       run: all of the following; stop_run
    raw_datasets.py    import_dataset, straighten, check, check_files, fix
    dicom_series.py    list_series, check_dicom
    datasets.py        plan_and_preprocess, or its parts: extract_fingerprint, plan_configurations, preprocess
    networks.py        list_networks
    patch_pictures.py  draw_augmentations
    training.py        train, stop
    training_jobs.py   make_training_jobs
    refinement.py      refine
    array_jobs.py      make_preprocessing_jobs, make_prediction_jobs
    jobs.py            run_jobs, print_jobs
    job_states.py      status
    watching.py        watch
    prediction.py      predict
    prompting.py       prompt
    pacs.py            pull_dicom, push_dicom, listen_dicom
    few_labels.py      pseudo_label, suggest
    distillation.py    distil
    scores.py          find_best, measure_quality, evaluate, compare
    reports.py         report_data, report_model, report_scans
    serving.py         serve
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
    from autoseg.pipeline.array_jobs import make_prediction_jobs, make_preprocessing_jobs
    from autoseg.pipeline.datasets import extract_fingerprint, plan_and_preprocess, plan_configurations, preprocess
    from autoseg.pipeline.demo import make_demo_dataset
    from autoseg.pipeline.dicom_series import check_dicom, list_series
    from autoseg.pipeline.distillation import distil
    from autoseg.pipeline.doctor import examine_machine
    from autoseg.pipeline.few_labels import pseudo_label, suggest
    from autoseg.pipeline.job_states import status
    from autoseg.pipeline.jobs import print_jobs, run_jobs
    from autoseg.pipeline.networks import list_networks
    from autoseg.pipeline.pacs import listen_dicom, pull_dicom, push_dicom
    from autoseg.pipeline.patch_pictures import draw_augmentations
    from autoseg.pipeline.prediction import predict
    from autoseg.pipeline.prompting import prompt
    from autoseg.pipeline.raw_datasets import check, check_files, fix, import_dataset, straighten
    from autoseg.pipeline.refinement import refine
    from autoseg.pipeline.reports import report_data, report_model, report_scans
    from autoseg.pipeline.scores import compare, evaluate, find_best, measure_quality
    from autoseg.pipeline.serving import serve
    from autoseg.pipeline.sharing import export_model, export_nnunet, install_model, install_nnunet
    from autoseg.pipeline.training import stop, train
    from autoseg.pipeline.training_jobs import make_training_jobs
    from autoseg.pipeline.watching import watch
    from autoseg.pipeline.whole_run import run, stop_run

MODULES = {
    "check": "raw_datasets",
    "check_dicom": "dicom_series",
    "check_files": "raw_datasets",
    "compare": "scores",
    "distil": "distillation",
    "draw_augmentations": "patch_pictures",
    "evaluate": "scores",
    "examine_machine": "doctor",
    "export_model": "sharing",
    "export_nnunet": "sharing",
    "extract_fingerprint": "datasets",
    "find_best": "scores",
    "fix": "raw_datasets",
    "import_dataset": "raw_datasets",
    "install_model": "sharing",
    "install_nnunet": "sharing",
    "list_networks": "networks",
    "list_series": "dicom_series",
    "listen_dicom": "pacs",
    "make_demo_dataset": "demo",
    "make_prediction_jobs": "array_jobs",
    "make_preprocessing_jobs": "array_jobs",
    "make_training_jobs": "training_jobs",
    "measure_quality": "scores",
    "plan_and_preprocess": "datasets",
    "plan_configurations": "datasets",
    "predict": "prediction",
    "preprocess": "datasets",
    "print_jobs": "jobs",
    "prompt": "prompting",
    "pseudo_label": "few_labels",
    "pull_dicom": "pacs",
    "push_dicom": "pacs",
    "refine": "refinement",
    "report_data": "reports",
    "report_model": "reports",
    "report_scans": "reports",
    "run": "whole_run",
    "run_jobs": "jobs",
    "serve": "serving",
    "status": "job_states",
    "stop": "training",
    "stop_run": "whole_run",
    "straighten": "raw_datasets",
    "suggest": "few_labels",
    "train": "training",
    "watch": "watching",
}
"""The module of this folder that defines each command."""

__all__ = [
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


def __getattr__(name: str) -> Any:
    """Loads a command when it is first used."""
    if name not in MODULES:
        raise AttributeError(f"module 'autoseg.pipeline' has no attribute {name!r}")
    return getattr(import_module(f"autoseg.pipeline.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the commands whether they are loaded or not, for completion and help."""
    return sorted({*globals(), *__all__})
