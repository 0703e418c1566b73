"""How a plan refers to a plugin: the name of a network, loss or transform, and the settings that it gets."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AliasChoices, Field, JsonValue, field_validator

from autoseg.networks.architecture import Section
from autoseg.networks.monai_names import NAME_PATTERN as MONAI_PATTERN

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
PLAN_PATTERN = rf"{NAME_PATTERN}|^{MONAI_PATTERN}$"
"""Pattern of the names that a plan may contain, including networks of MONAI."""

BATCHGENERATORS = "batchgenerators:"
"""What the name of a transform of batchgenerators begins with in a plan."""

TRANSFORM_PATTERN = rf"{NAME_PATTERN}|^{BATCHGENERATORS}[A-Z][A-Za-z0-9_]*$"
"""Pattern of the names of transforms, including those of batchgenerators."""

CUSTOM = AliasChoices("custom", "own")  # Plans of version 0.1 say "own".

Settings = Mapping[str, JsonValue]


class Plugin(Section):
    """A network of the literature or of MONAI, or a network or loss of an installed package, by its name.

    Attributes:
        name: The name: of a network of the literature; "monai:" and the name of a class of MONAI; or the name under
            which an installed package, or the running program, provides the network, loss or transform.
        settings: Settings that are passed to the network, loss or transform, as plain JSON values.
    """

    name: Annotated[str, Field(pattern=PLAN_PATTERN)]
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("settings")
    @classmethod
    def _are_plain(cls, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(settings, allow_nan=False)  # infinities and NaN would come back from a file as something else
        return settings

    @property
    def read_only_settings(self) -> Settings:
        """The settings as functions get them: read-only, since they are a part of the plan."""
        return MappingProxyType(self.settings)


class CustomTransform(Plugin):
    """A transform of batchgenerators or of an installed package, which augments training patches at random.

    Attributes:
        name: "batchgenerators:" and the name of a class of its transforms; or the name under which an installed
            package, or the running program, provides the transform.
        probability: Probability that a patch is transformed.
    """

    name: Annotated[str, Field(pattern=TRANSFORM_PATTERN)]
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
