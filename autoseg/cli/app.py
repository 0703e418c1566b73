"""The program: the list of commands, and the options that stand before the command."""

from collections.abc import Callable
from typing import Annotated

import typer

from autoseg._version import __version__
from autoseg.cli import datasets, prediction, raw_datasets, scores, sharing, training
from autoseg.cli.command import Command, Commands
from autoseg.cli.demo import demo
from autoseg.cli.doctor import doctor
from autoseg.cli.guide import guide
from autoseg.cli.networks import networks

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
    "import": raw_datasets.import_dataset,
    "check": raw_datasets.check,
    "plan_and_preprocess": datasets.plan_and_preprocess,
    "train": training.train,
    "find_best": scores.find_best,
    "stop": training.stop,
    "predict": prediction.predict,
    "evaluate": scores.evaluate,
    "compare": scores.compare,
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
for _name, _function in COMMANDS.items():
    app.command(_name, cls=Command)(_function)


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
