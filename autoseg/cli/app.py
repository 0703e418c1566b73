"""The program: the list of commands, and the options that stand before the command."""

from collections.abc import Callable
from typing import Annotated

import typer

from autoseg._version import __version__
from autoseg.cli import (
    datasets,
    few_labels,
    jobs,
    pacs,
    prediction,
    prompting,
    raw_datasets,
    reports,
    scores,
    serving,
    sharing,
    training,
)
from autoseg.cli.command import Command, Commands
from autoseg.cli.demo import demo
from autoseg.cli.distillation import distil
from autoseg.cli.doctor import doctor
from autoseg.cli.guide import guide
from autoseg.cli.networks import networks
from autoseg.cli.refinement import refine
from autoseg.cli.run import run
from autoseg.cli.series_list import series

app = typer.Typer(
    name="autoseg",
    help="Self-configuring segmentation of medical images: point it at scans and masks, get a model back.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {  # in the order in which people need them
    "run": run,
    "import": raw_datasets.import_dataset,
    "series": series,
    "check": raw_datasets.check,
    "straighten": raw_datasets.straighten,
    "plan_and_preprocess": datasets.plan_and_preprocess,
    "train": training.train,
    "refine": refine,
    "find_best": scores.find_best,
    "distil": distil,
    "status": jobs.status,
    "watch": jobs.watch,
    "stop": training.stop,
    "predict": prediction.predict,
    "pseudo_label": few_labels.pseudo_label,
    "suggest": few_labels.suggest,
    "serve": serving.serve,
    "prompt": prompting.prompt,
    "dicom pull": pacs.pull,
    "dicom push": pacs.push,
    "dicom listen": pacs.listen,
    "evaluate": scores.evaluate,
    "compare": scores.compare,
    "report data": reports.report_data,
    "report model": reports.report_model,
    "report scans": reports.report_scans,
    "export": sharing.export,
    "install": sharing.install,
    "install_nnunet": sharing.install_nnunet,
    "fingerprint": datasets.fingerprint,
    "plan": datasets.plan,
    "preprocess": datasets.preprocess,
    "networks": networks,
    "augmentations": datasets.augmentations,
    "demo": demo,
    "doctor": doctor,
    "guide": guide,
}
GROUPS = {
    "dicom": "Exchanges DICOM with an archive (PACS).",
    "report": "Writes pages to look at in a browser.",
}
"""First words of commands of two words, and what these commands have in common."""

_groups = {name: typer.Typer(name=name, help=text, cls=Commands, no_args_is_help=True) for name, text in GROUPS.items()}
for _name, _function in COMMANDS.items():
    *_first, _last = _name.split()
    (_groups[_first[0]] if _first else app).command(_last, cls=Command)(_function)
    if _first and _groups[_first[0]] not in [group.typer_instance for group in app.registered_groups]:
        app.add_typer(_groups[_first[0]])


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"autoseg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Accepts the options that stand before the command; each acts by its callback."""
