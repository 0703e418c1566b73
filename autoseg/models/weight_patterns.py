"""The file of names of `--init-names`: how the weights of a foreign network are called in the network of the plan.

    {
        "weights": "state_dict",
        "names": {
            "backbone.stem.conv.*": "stem.conv.*",
            "backbone.layer*.**": "encoder.*.**"
        }
    }

The names of weights consist of parts between dots. In a pattern `*` stands for any text within a part, and the part
`**` for one part or more. The name on the right has the same signs in the same order, each for the same text. The first
pattern that a name matches counts. Decision: no regular expressions, since a crafted one takes hours.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoseg.errors import UsageError
from autoseg.runtime.json_text import first_mistake, read_json_text

ONE, SEVERAL = "*", "**"
LONGEST_NAME = 300
"""Decision: three times the longest name of a weight in MONAI's networks."""

Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class WeightPatterns(BaseModel):
    """The content of a file of names.

    Attributes:
        weights: Key of the file under which its weights are, such as "state_dict"; left out where it is clear.
        names: Pattern of the foreign name, to the name in the network of the plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    names: Annotated[dict[Pattern, Pattern], Field(min_length=1)]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file of names.

        Raises:
            ArtifactError: The file is missing or no JSON.
            UsageError: It holds something else; the text names the field.
        """
        try:
            return cls.model_validate_json(read_json_text(path))
        except ValidationError as error:
            what = f"{path}: {first_mistake(error)}"
            raise UsageError(what, 'write {"names": {"foreign name": "name in the network"}}') from error

    @model_validator(mode="after")
    def _signs_agree(self) -> Self:
        for pattern, name in self.names.items():
            if any(part.count("*") > (2 if part == SEVERAL else 1) for part in pattern.split(".")):
                raise ValueError(f"{pattern!r} has more than one * in a part between dots")
            if pattern.split(".").count(SEVERAL) > 1:
                raise ValueError(f"{pattern!r} has ** more than once")
            if list(_find_signs(pattern)) != list(_find_signs(name)):
                raise ValueError(f"{name!r} needs the signs * and ** of {pattern!r}, in their order")
        return self

    def translate(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Returns for each name in the network the foreign names that stand for it."""
        found: dict[str, list[str]] = {}
        for foreign in names:
            name = self.rename(foreign)
            if name is not None:
                found.setdefault(name, []).append(foreign)
        return found

    def rename(self, foreign: str) -> str | None:
        """Returns the name in the network of a foreign weight; None if no pattern matches.

        Example:
            >>> patterns = WeightPatterns(names={"net.layer*.**": "encoder.*.**", "bias": "heads.0.bias"})
            >>> patterns.rename("net.layer3.conv.weight"), patterns.rename("net.fc.weight")
            ('encoder.3.conv.weight', None)
        """
        for pattern, name in self.names.items():
            texts = match_pattern(pattern, foreign)
            if texts is not None:
                return _fill(name, texts)
        return None

    def list_idle(self, names: Iterable[str]) -> list[str]:
        """Returns the patterns that match none of some foreign names."""
        foreign = list(names)
        return [pattern for pattern in self.names if all(match_pattern(pattern, name) is None for name in foreign)]


def match_pattern(pattern: str, name: str) -> list[str] | None:
    """Returns the texts that the signs of a pattern stand for in a name; None if it does not match.

    Example:
        >>> match_pattern("layer*.**.weight", "layer2.0.conv.weight"), match_pattern("layer*", "layer2.0")
        (['2', '0.conv'], None)
    """
    wanted, parts = pattern.split("."), name.split(".")
    if SEVERAL in wanted:
        at, longer = wanted.index(SEVERAL), len(parts) - len(wanted)
        if longer < 0:
            return None
        parts = [*parts[:at], ".".join(parts[at : at + longer + 1]), *parts[at + longer + 1 :]]
    if len(wanted) != len(parts):
        return None
    texts = []
    for want, part in zip(wanted, parts, strict=True):
        if ONE not in want:
            if want != part:
                return None
            continue
        before, after = ("", "") if want == SEVERAL else want.split(ONE)
        if len(part) <= len(before) + len(after) or not (part.startswith(before) and part.endswith(after)):
            return None
        texts.append(part[len(before) : len(part) - len(after)])
    return texts


def _find_signs(text: str) -> Iterator[str]:
    for part in text.split("."):
        if part == SEVERAL:
            yield SEVERAL
        else:
            yield from ONE * part.count(ONE)


def _fill(name: str, texts: list[str]) -> str:
    """Returns a name with its signs replaced by texts."""
    remaining = iter(texts)
    parts = []
    for part in name.split("."):
        if part == SEVERAL:
            parts.append(next(remaining))
        elif ONE in part:
            before, after = part.split(ONE)
            parts.append(before + next(remaining) + after)
        else:
            parts.append(part)
    return ".".join(parts)
