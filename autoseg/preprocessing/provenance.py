"""What case.json says of a preprocessed case: what its voxels depend on, and how it was made.

So cases of an earlier plan or of earlier files are recognised.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.targets import Numbers
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import ConfigurationName, Plan, Spacing
from autoseg.preprocessing.case import PreprocessRecord
from autoseg.runtime.artifact import Artifact, state_of_files


class PreprocessingSettings(BaseModel):
    """What the plan and dataset.json say about the voxels of all cases of one configuration.

    Patch size, batch size and all other settings of training change no voxel and are left out. Files are cut into
    chunks of the patch size at the time of writing; another patch size makes reading slower at most.

    Attributes:
        axis_order, spacing_mm, normalization: See `Plan` and `Configuration`.
        channels: Number of channels of each image.
        structures: The numbers of each structure in a label map; some voxels of each are listed, see `Foreground`.
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
        """Returns the settings of a configuration."""
        configuration = plan.configurations[name]
        return cls(
            axis_order=plan.axis_order,
            spacing_mm=configuration.spacing_mm,
            normalization=configuration.normalization,
            channels=configuration.image_channels,
            structures=tuple(info.targets.structures.values()),
            ignore=info.targets.ignore,
            orientation=info.orientation,
        )


class Provenance(BaseModel):
    """All that the voxels of one case depend on. A later run keeps a case if its provenance is the same.

    Attributes:
        recipe: Settings of preprocessing. Training compares only these.
        program: Version of this program.
        files: State of image and label map, see `state_of_files`. It differs in a copied workspace, so training does
            not look at it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: PreprocessingSettings
    program: str
    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, case: Case, settings: PreprocessingSettings) -> Self:
        """Returns the provenance of a case that is preprocessed now."""
        return cls(recipe=settings, program=__version__, files=state_of_files(case.files))


class CaseContent(Artifact):
    """Content of case.json.

    Attributes:
        origin: What the voxels depend on; None if it was not given.
        record: How the case was made, for the way back.
        channels: Number of channels of the image; 0 if only a label map is stored.
        foreground: Number of listed voxels of each structure; see `Foreground`.
        labelled: Number of listed voxels among all that were annotated.
    """

    format_version: int = 3  # version 2 had a file for each part

    origin: Provenance | None
    record: PreprocessRecord
    channels: int
    foreground: tuple[int, ...]
    labelled: int

    @property
    def foreground_shape(self) -> tuple[int, int]:
        """Shape of the list of voxels."""
        return sum(self.foreground) + self.labelled, 3
