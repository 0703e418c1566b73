"""Files of nnU-Net's postprocessing, which keeps the largest component of some structures.

nnU-Net writes postprocessing.json for people, and postprocessing.pkl, which names nnU-Net's functions, for programs.
The first is complete and is read. The second is read only if the first is missing, safely by `pickles`: the name of its
function is replaced by a text. Both are written.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.models.pickles import read_pickle
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.json_text import read_json_text

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
"""The only function that nnU-Net uses."""

Step = Mapping[str, Any]


def read_rules(folder: Path, targets: Targets) -> PostprocessingRules | None:
    """Reads the rules from postprocessing.json, or else from postprocessing.pkl.

    Args:
        folder: Folder of the files.
        targets: Structures of the dataset.

    Returns:
        The rules; None if the folder holds neither file.

    Raises:
        ModelError: The file is damaged, or holds a step that this package lacks.
    """
    path, pickled = folder / "postprocessing.json", folder / "postprocessing.pkl"
    if path.is_file():
        try:
            content = json.loads(read_json_text(path))
            functions, steps = content["postprocessing_fns"], content["postprocessing_kwargs"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{path} holds no postprocessing", "get a sound copy, or remove it") from error
    elif pickled.is_file():
        path = pickled
        content = read_pickle(path.read_bytes(), {(MODULE, FUNCTION): FUNCTION}, str(path))
        functions, steps = content if isinstance(content, tuple) and len(content) == 2 else (None, None)
    else:
        return None
    return _combine(functions, steps, targets, path)


def _combine(functions: object, steps: object, targets: Targets, path: Path) -> PostprocessingRules:
    """Converts the steps of nnU-Net to rules. A step for the whole foreground comes first in both."""
    if not isinstance(functions, list) or not isinstance(steps, list) or len(functions) != len(steps):
        raise ModelError(f"{path} holds no postprocessing", "get a sound copy, or remove it")
    structures = [_read_step(name, step, path) for name, step in zip(functions, steps, strict=True)]
    foreground_first = bool(structures) and structures[0] == _foreground(targets)
    return PostprocessingRules(
        keep_largest_foreground=foreground_first, keep_largest=tuple(structures[foreground_first:])
    )


def _read_step(name: object, step: object, path: Path) -> tuple[int, ...]:
    """Returns the label numbers whose largest common component a step keeps."""
    if name != FUNCTION:
        raise ModelError(f"{path} asks for {str(name)[:80]!r}, which is unknown here", "remove the file")
    options = dict(step) if isinstance(step, dict) else {}
    if options.pop("background_label", 0) == 0 and options.keys() == {"labels_or_regions"}:
        numbers = _flatten(options["labels_or_regions"])
        if numbers and all(type(number) is int and number > 0 for number in numbers):
            return tuple(sorted(set(numbers)))
    raise ModelError(f"{path} asks for a step with {str(step)[:80]!r}, which is unknown here", "remove the file")


def _flatten(value: object) -> list[Any]:
    """Returns a number, or a list of numbers and lists of numbers, as a flat list, as nnU-Net joins them.

    >>> _flatten(2), _flatten([1, [2, 3]])
    ([2], [1, 2, 3])
    """
    if isinstance(value, list | tuple):
        return [number for item in value for number in (item if isinstance(item, list | tuple) else [item])]
    return [value]


def _foreground(targets: Targets) -> tuple[int, ...]:
    """Returns all label numbers of the foreground."""
    return tuple(sorted(targets.values - {0, targets.ignore}))


def write_rules(rules: PostprocessingRules, targets: Targets, folder: Path) -> list[str]:
    """Writes both files, if there is a rule that nnU-Net has.

    >>> from tempfile import TemporaryDirectory
    >>> targets = Targets.of_labels({"liver": 1, "tumour": 2})
    >>> rules = PostprocessingRules(keep_largest_foreground=True, keep_largest=((2,),))
    >>> with TemporaryDirectory() as folder:
    ...     losses = write_rules(rules, targets, Path(folder))
    ...     read_rules(Path(folder), targets) == rules, losses
    (True, [])

    Args:
        rules: The rules.
        targets: Structures of the dataset.
        folder: Folder of the files.

    Returns:
        A line about each rule that nnU-Net lacks.
    """
    kept: list[Sequence[int]] = [_foreground(targets)] if rules.keep_largest_foreground else []
    kept += rules.keep_largest
    if kept:
        steps = [{"labels_or_regions": numbers[0] if len(numbers) == 1 else list(numbers)} for numbers in kept]
        content = {"postprocessing_fns": [FUNCTION] * len(kept), "postprocessing_kwargs": steps}
        with atomic_file(folder / "postprocessing.json") as writing:
            writing.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        with atomic_file(folder / "postprocessing.pkl") as writing:
            writing.write_bytes(_pickle(steps))
    return [
        f"lost: components of {', '.join(map(str, rule.structure))} below {rule.mm3:g} mm3 are not removed there"
        for rule in rules.smallest
    ] + [f"lost: {step} is no step there" for step in rules.describe_morphology()]


def _pickle(steps: Sequence[Step]) -> bytes:
    """Returns the pickle that nnU-Net reads, in text protocol 0. It names nnU-Net's function without importing it."""

    def encode(value: object) -> str:
        return f"({''.join(map(encode, value))}l" if isinstance(value, list) else f"I{value}\n"

    functions = "".join(f"c{MODULE}\n{FUNCTION}\n" for _ in steps)
    options = "".join(f"(Vlabels_or_regions\n{encode(step['labels_or_regions'])}d" for step in steps)
    return f"(({functions}l({options}lt.".encode("ascii")
