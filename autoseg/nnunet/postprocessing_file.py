"""Postprocessing in nnU-Net's words: components beside the largest one, of the structures that are named.

nnU-Net writes postprocessing.json for people, and postprocessing.pkl, which names functions of its own, for programs.
The first holds all of it, and is read; the second is opened only where the first is missing, by `pickles`, and the name
of its function then stands for nothing but itself. Both are written.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.nnunet.pickles import read_pickle
from autoseg.runtime.artifact import atomic_file, read_text

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
"""The only one that nnU-Net uses."""

Step = Mapping[str, Any]


def read_rules(folder: Path, targets: Targets) -> PostprocessingRules | None:
    """The rules of a folder that holds postprocessing.json or postprocessing.pkl; None if it holds neither.

    Raises:
        ModelError: They are damaged, or do something that this program does not.
    """
    path, pickled = folder / "postprocessing.json", folder / "postprocessing.pkl"
    if path.is_file():
        try:
            content = json.loads(read_text(path))
            functions, steps = content["postprocessing_fns"], content["postprocessing_kwargs"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{path} holds no postprocessing", "get a sound copy, or remove it") from error
    elif pickled.is_file():
        path = pickled
        found = read_pickle(path.read_bytes(), {(MODULE, FUNCTION): FUNCTION}, str(path))
        functions, steps = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
    else:
        return None
    return _combine(functions, steps, targets, path)


def _combine(functions: object, steps: object, targets: Targets, path: Path) -> PostprocessingRules:
    """The steps of nnU-Net's as our rules: the foreground as a whole comes first in both."""
    if not isinstance(functions, list) or not isinstance(steps, list) or len(functions) != len(steps):
        raise ModelError(f"{path} holds no postprocessing", "get a sound copy, or remove it")
    structures = [_read_step(name, step, path) for name, step in zip(functions, steps, strict=True)]
    whole = bool(structures) and structures[0] == _foreground(targets)
    return PostprocessingRules(keep_largest_foreground=whole, keep_largest=tuple(structures[whole:]))


def _read_step(name: object, step: object, path: Path) -> tuple[int, ...]:
    """The numbers whose largest common component is kept."""
    if name != FUNCTION:
        raise ModelError(f"{path} asks for {str(name)[:80]!r}, which is unknown here", "remove the file")
    options = dict(step) if isinstance(step, dict) else {}
    if options.pop("background_label", 0) == 0 and options.keys() == {"labels_or_regions"}:
        numbers = _flatten(options["labels_or_regions"])
        if numbers and all(type(number) is int and number > 0 for number in numbers):
            return tuple(sorted(set(numbers)))
    raise ModelError(f"{path} asks for a step with {str(step)[:80]!r}, which is unknown here", "remove the file")


def _flatten(value: object) -> list[Any]:
    """A number, or numbers, or lists of them: nnU-Net joins them all."""
    if isinstance(value, list | tuple):
        return [number for one in value for number in (one if isinstance(one, list | tuple) else [one])]
    return [value]


def _foreground(targets: Targets) -> tuple[int, ...]:
    return tuple(sorted(targets.values - {0, targets.ignore}))


def write_rules(rules: PostprocessingRules, targets: Targets, folder: Path) -> list[str]:
    """Writes both files, if there is a rule that nnU-Net knows.

    Returns:
        A line about each rule that it does not know.
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
    ]


def _pickle(steps: Sequence[Step]) -> bytes:
    """The pickle that nnU-Net reads, which names its function without importing it; in the first, readable protocol."""

    def say(value: object) -> str:
        return f"({''.join(map(say, value))}l" if isinstance(value, list) else f"I{value}\n"

    functions = "".join(f"c{MODULE}\n{FUNCTION}\n" for _ in steps)
    options = "".join(f"(Vlabels_or_regions\n{say(step['labels_or_regions'])}d" for step in steps)
    return f"(({functions}l({options}lt.".encode("ascii")
