"""The pages of the guide that follow from the code: plan.json, dataset.json, networks and commands.

python tests/guide/generated_pages.py writes them; a test asserts that they are as they would be written now.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin

from command_lines import all_commands
from pydantic import BaseModel

from autoseg.datasets.info import DatasetInfo
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.distillation_settings import DistillationSettings
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.patch_growth import PatchStage
from autoseg.planning.plan import Configuration, Plan
from autoseg.planning.plugin_settings import CustomTransform, Plugin
from autoseg.planning.settings import (
    AugmentationSettings,
    MeasuredMemory,
    TrainingSettings,
)

GUIDE = Path(str(files("autoseg"))) / "guide"
SECTIONS: dict[type[BaseModel], tuple[str, str]] = {
    Plan: ("The plan", "the top of the file"),
    Configuration: ("Configuration", "configurations.NAME"),
    Normalization: ("Normalization", "configurations.NAME.normalization[...]"),
    Architecture: ("Architecture", "configurations.NAME.architecture"),
    Stage: ("Stage", "configurations.NAME.architecture.stages[...]"),
    Plugin: ("Network or loss by name", "configurations.NAME.network` and `training.loss.custom"),
    PatchStage: ("Stage of growing patches", "configurations.NAME.patch_growth[...]"),
    MeasuredMemory: ("Measured memory", "configurations.NAME.measured_memory"),
    AugmentationSettings: ("Augmentation", "configurations.NAME.augmentation"),
    CustomTransform: ("Transform by name", "configurations.NAME.augmentation.custom[...]"),
    TrainingSettings: ("Training", "training"),
    LossSettings: ("Loss", "training.loss"),
    DistillationSettings: ("Distillation", "training.distillation"),
}
"""The parts of plan.json in the order of the page: a heading, and where each is in the file."""


def plan_page() -> str:
    """The reference of plan.json."""
    intro = """
        # plan.json

        Lists every field of `plan.json`: its type, its default, and what it means.

        `plan.json` is in `preprocessed/DatasetNNN_Name/`, and is made to be read and edited; the page on
        [planning](planning.md) shows how. Every number carries its unit in the name of its field. Unknown fields and
        impossible values are refused with the name of the field. Axes are in the order that `axis_order` gives, so
        the first one is the coarsest. A field with a default may be left out.
        """
    assert set(models_below(Plan)) == set(SECTIONS)
    sections = [describe_section(section) for section in SECTIONS]
    return "\n\n".join([clean(intro), *sections]) + "\n"


def dataset_page() -> str:
    """The reference of dataset.json."""
    intro = """
        # dataset.json

        Lists every field of `dataset.json`, the file that describes a raw dataset.

        `dataset.json` is in `raw/DatasetNNN_Name/`. It is nnU-Net's file, also in its first version, and unknown fields
        are left alone. `import` writes it. This is a complete one:
        """
    example = """
        ```json
        {
          "channel_names": {"0": "MR"},
          "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
          "file_ending": ".nii.gz"
        }
        ```
        """
    outro = """
        The page on [overlapping labels](overlapping_labels.md) shows regions, the label `ignore`, `annotated` and
        `masks` at work; the page on [folds](folds.md) shows `groups`; and the page on
        [left and right](left_and_right.md) shows `sides`.
        """
    table = describe_fields(DatasetInfo)
    return "\n\n".join([clean(intro), textwrap.dedent(example).strip(), "## Fields", table, clean(outro)]) + "\n"


def networks_page() -> str:
    """The reference of the networks of the literature."""
    intro = """
        # Networks

        Lists the networks that `--network` takes, with their papers, licences and settings.

        Without `--network`, a dataset gets the usual network: a U-Net whose stages add their input to their output, as
        those of V-Net do. The page on [networks of the literature](literature.md) shows how to train one of those
        below, [what they cost](network_costs.md) compares them, and the page on [MONAI](monai.md) shows how to train
        those that MONAI offers. `autoseg networks -d 4` counts their weights for a dataset.
        """
    rows = [
        [f"[`{name}`](#{name})", page.title, page.describe_dimensions(), page.summary]
        for name, page in NETWORKS.items()
    ]
    note = """
        Each of them is one file in `autoseg/networks/literature/`. Settings stand below `network.settings` of a
        configuration in `plan.json`.
        """
    sections = [_network_section(name) for name in NETWORKS]
    overview = table(["`--network`", "network", "images", "what is its own"], rows)
    return "\n\n".join([clean(intro), overview, clean(note), *sections]) + "\n"


def commands_page() -> str:
    """The reference of the command line."""
    intro = """
        # Commands

        Lists all commands of `autoseg` with their options.

        An option that takes several values takes them all at once, as in `-f 0 1 2`. `-h` or `--help` after a command
        shows its options, and `autoseg --version` shows the version.

        The exit code is 0 if the command is done, or was ended by `autoseg stop`; 2 if there is something that you can
        fix, and each error is one line that says what is wrong, where, and what to do about it; 130 after Ctrl-C; and
        143 if a training was ended by SIGTERM. A training is saved to its last step in either case.
        """
    sections = [_command_section(name, command) for name, command in all_commands().items()]
    return "\n\n".join([clean(intro), *sections]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "plan_json": plan_page,
    "dataset_json": dataset_page,
    "networks": networks_page,
    "commands": commands_page,
}


def models_below(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section of a file and all sections below it, each once."""
    models = [model]
    for one in models:
        inner = [section for field in one.model_fields.values() for section in models_in(field.annotation)]
        models += [section for section in dict.fromkeys(inner) if section not in models]
    return models


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All sections that a type names."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def describe_section(section: type[BaseModel]) -> str:
    """A heading, what the section is, and a table of its fields."""
    summary, _ = read_docstring(section)
    heading, place = SECTIONS[section]
    where = "" if section is Plan else f"\n\nIn `{place}`."
    return f"## {heading}\n\n{clean(summary)}{where}\n\n{describe_fields(section)}"


def describe_fields(section: type[BaseModel]) -> str:
    """A row for each field, or for several that are explained together."""
    _, meanings = read_docstring(section)
    explained = [name for names in meanings for name in names]
    assert sorted(explained) == sorted(section.model_fields), f"{section.__name__} explains {explained}"
    properties = section.model_json_schema()
    rows = []
    for names, meaning in meanings.items():
        fields = [properties["properties"][name] for name in names]
        kinds = list(
            dict.fromkeys(
                describe_type(field, section.model_fields[name]) for name, field in zip(names, fields, strict=True)
            )
        )
        defaults = list(dict.fromkeys(describe_default(section, name) for name in names))
        rows.append([", ".join(f"`{name}`" for name in names), "; ".join(kinds), "; ".join(defaults), meaning])
    return table(["field", "type", "default", "meaning"], rows)


def describe_type(schema: dict[str, Any], field: Any = None) -> str:
    """The JSON type of a field, with its bounds, in words."""
    sections = [] if field is None else [one for one in models_in(field.annotation) if one in SECTIONS]
    if sections:
        heading, _ = SECTIONS[sections[0]]
        several = {tuple: "list of ", dict: "by name: "}.get(get_origin(field.annotation), "")
        return f"{several}[{heading.lower()}](#{heading.lower().replace(' ', '-')})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe_type(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        inner = list(dict.fromkeys(map(describe_type, items)))
        count = f"{len(items)} of: " if "prefixItems" in schema else "list of: "
        return count + ", ".join(inner)
    if "$ref" in schema or schema.get("type") == "object":
        return "object"
    names = {"integer": "integer", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    bounds = [
        f"{words} {schema[key]:g}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return " ".join([names.get(schema.get("type", ""), "any"), *bounds])


def describe_default(section: type[BaseModel], name: str) -> str:
    """The value that holds when a field is left out."""
    field = section.model_fields[name]
    if field.is_required():
        return "required"
    value = field.default
    if field.default_factory is not None or isinstance(value, BaseModel):
        return "see there"
    if value is None or value == "":
        return "none"
    shown = str(list(value) if isinstance(value, tuple) else value)
    return f"`{shown.lower() if isinstance(value, bool) else shown}`"


def read_docstring(section: type[BaseModel]) -> tuple[str, dict[tuple[str, ...], str]]:
    """What a section is, and what its fields mean, by its docstring and those of its bases."""
    summary, _, _ = (inspect.getdoc(section) or "").partition("Attributes:\n")
    meanings: dict[tuple[str, ...], str] = {}
    for one in section.__mro__:
        _, _, attributes = (inspect.getdoc(one) or "").partition("Attributes:\n")
        attributes, *_ = re.split(r"\n(?=\S)", attributes)  # up to the next section, such as an example
        for entry in re.split(r"\n(?=    \w)", attributes.rstrip()):
            names = tuple(entry.strip().partition(": ")[0].split(", "))
            if all(name in section.model_fields for name in names):
                meanings.setdefault(names, " ".join(entry.partition(": ")[2].split()))
        if one is BaseModel:
            break
    return summary, meanings


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def clean(text: str) -> str:
    """Paragraphs, each filled to the width of the page."""
    parts = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(part.split()), 120, break_long_words=False, break_on_hyphens=False) for part in parts
    )


def _network_section(name: str) -> str:
    page = NETWORKS[name]
    facts = f"{page.title}: {page.summary}. {page.source}; {page.licence}. Images: {page.describe_dimensions()}."
    patches = f"Patches and images: {page.describe_constraints(page.complete({}))}."
    recipe = [clean(f"Training in the paper: {page.recipe}.")] if page.recipe else []
    published = page.published(page.parse({}))
    if published:
        settings = json.dumps({"training": published}, indent=2)
        recipe += ["To repeat it, write these fields into `plan.json`:", f"```json\n{settings}\n```"]
    return "\n\n".join([f"## {name}", clean(facts), clean(patches), *recipe, describe_fields(page.settings)])


def _command_section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join(
        [f"autoseg {name}", *(one.metavar if one.required else f"[{one.metavar}]" for one in arguments), "[OPTIONS]"]
    )
    paragraphs = [clean(part) for part in inspect.cleandoc(command.help).split("\n\n")]
    rows = [_option_row(one) for one in command.params]
    return "\n\n".join([f"## {name}", f"`{usage}`", *paragraphs, table(["option", "meaning"], rows)])


def _option_row(option: Any) -> list[str]:
    spelled = (
        ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
        if option.param_type_name == "option"
        else f"`{option.metavar}`"
    )
    value = "" if option.param_type_name == "argument" or option.is_flag else f" `{option.metavar}`"
    default = option.default
    shown = "" if default in (None, False, "") or "[default" in option.help else f" [default: {default}]"
    return [spelled + value, option.help + shown + (" Required." if option.required else "")]


if __name__ == "__main__":
    for name, write in PAGES.items():
        (GUIDE / f"{name}.md").write_text(write(), encoding="utf-8")
