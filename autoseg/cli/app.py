"""The command line, put together: which commands there are, and the options that stand before them."""

from collections.abc import Callable
from typing import Annotated

import typer

from autoseg._version import __version__
from autoseg.cli import bundles, commands, pictures, planning, scores
from autoseg.cli.command import Command, Commands
from autoseg.cli.demonstration import demo
from autoseg.cli.guide import guide
from autoseg.cli.networks import networks
from autoseg.cli.selection import find_best

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
# In the order in which people need them.
COMMANDS: dict[str, Callable[..., None]] = {
    "import": commands.import_dataset,
    "check": commands.check,
    "plan_and_preprocess": planning.plan_and_preprocess,
    "train": commands.train,
    "find_best": find_best,
    "stop": commands.stop,
    "predict": commands.predict,
    "evaluate": scores.evaluate,
    "compare": scores.compare,
    "export": bundles.export,
    "install": bundles.install,
    "install_nnunet": bundles.install_nnunet,
    "fingerprint": planning.fingerprint,
    "plan": planning.plan,
    "preprocess": planning.preprocess,
    "networks": networks,
    "augmentations": pictures.augmentations,
    "demo": demo,
    "doctor": commands.doctor,
    "guide": guide,
}
for _name, _function in COMMANDS.items():
    app.command(_name, cls=Command)(_function)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autoseg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Takes the options that stand before the command."""
