"""What a preprocessed case follows from, so that a case of yesterday is told from one of today."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.targets import Numbers
from autoseg.planning.plan import ConfigurationName, Normalization, Plan, Spacing
from autoseg.runtime.artifact import state_of_files


class PreprocessingSettings(BaseModel):
    """What the plan and dataset.json say about the voxels of all cases of one configuration.

    Patch size, batch size and all else of training change no voxel and are left out. Files are cut into chunks of the
    patch size of their time; another one makes reading slower at most.

    Attributes:
        axis_order, spacing_mm, normalization: See `Plan` and `Configuration`.
        channels: Of each image.
        structures: Numbers of each structure in a label map; their places are listed.
        ignore: See `Targets`.
        orientation: See `DatasetInfo`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis_order: tuple[int, int, int]
    spacing_mm: Spacing
    normalization: tuple[Normalization, ...]
    channels: int
    structures: tuple[Numbers, ...]
    ignore: int | None = None
    orientation: str | None = None

    @classmethod
    def of(cls, plan: Plan, name: ConfigurationName, info: DatasetInfo) -> Self:
        """The recipe of a configuration."""
        configuration = plan.configurations[name]
        return cls(
            axis_order=plan.axis_order,
            spacing_mm=configuration.spacing_mm,
            normalization=configuration.normalization,
            channels=info.channels,
            structures=tuple(info.targets.structures.values()),
            ignore=info.targets.ignore,
            orientation=info.orientation,
        )


class Provenance(BaseModel):
    """All that the voxels of one case follow from. A later run takes a case over if this is the same.

    Attributes:
        recipe: See there. Training asks for no more than this.
        program: Version of this program.
        files: Of the image and of the label map, see `state_of_files`; a copied workspace has others, so training does
            not look at them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: PreprocessingSettings
    program: str
    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, case: Case, recipe: PreprocessingSettings) -> Self:
        """The origin of a case that is prepared now."""
        return cls(recipe=recipe, program=__version__, files=state_of_files(case.files))
