"""A segmenter of exported networks, which a runtime other than torch calculates."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.inference.averaged_networks import Networks, check_folds
from autoseg.inference.prediction_quality import BEST, PredictionQuality
from autoseg.inference.predictor import Predictor
from autoseg.inference.segmenter import Segmenter, assemble_segmenter
from autoseg.models.fold_description import ExportedFold
from autoseg.models.fold_files import load_exported
from autoseg.models.onnx_checks import check_onnx
from autoseg.models.runtimes import ExportedNetwork, choose_runtime
from autoseg.planning.plan import Configuration
from autoseg.runtime.arrays import Array, NumpyDevice
from autoseg.runtime.machine import retain_freed_memory
from autoseg.workspace import Fold, ModelFolder

TIMED_VOXELS = 2**18
"""Number of voxels of the patch with which runtimes are timed. Decision: 64 x 64 x 64, which takes half a second."""

PATCHES_AT_ONCE = 1
"""Decision: OpenVINO takes 1.7 to 2.1 times less than torch for one patch, and no less than that for each of eight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedPredictor(Predictor):
    """An exported network as a predictor.

    Attributes:
        network: The network in a runtime.
        outputs: Number of outputs that the labels of the model need.
        configuration: Says which size the logits of a patch have.
    """

    network: ExportedNetwork
    outputs: int
    configuration: Configuration

    def __call__(self, patches: Array) -> Array:
        """Returns the logits of patches.

        Raises:
            ModelError: The network returns another number of logits than its plan says.
        """
        logits = self.network(patches)
        size = self.configuration.patches.centre(patches.shape[2:])
        if logits.shape != (len(patches), self.outputs, *size):
            what = f"the network returned logits of shape {logits.shape} for patches of shape {patches.shape}"
            raise ModelError(what, "export the model again")
        return logits


def make_exported_segmenter(
    folder: ModelFolder,
    folds: Sequence[Fold],
    rules: PostprocessingRules,
    *,
    runtime: str = "auto",
    quality: PredictionQuality = BEST,
    previous: Segmenter | None = None,
) -> Segmenter:
    """Builds the ensemble of some exported folds of one configuration.

    Args:
        folder: The folder of the configuration.
        folds: Its folds, at least one.
        rules: Postprocessing of each segmentation.
        runtime: Name of the runtime, or "auto" for the fastest one.
        quality: See `torch_segmenter.make_segmenter`.
        previous: For a cascade, the coarser configuration.

    Raises:
        ModelError: A fold is missing or damaged, or the folds follow different plans.
        UsageError: The runtime is not installed.
    """
    retain_freed_memory()  # between tiles, whose arrays are as large as those of torch
    exported = [load_exported(folder, fold) for fold in folds]
    check_folds([fold.description for fold in exported])
    shape = shape_of_patches(exported[0].description.configuration)
    data = [check_onnx(folder.exported_network(fold), shape) for fold in folds]
    chosen = choose_runtime(runtime, data[0], choose_timed_shape(exported[0]))
    networks = open_networks(exported, data, chosen)
    exact = all(fold.int8 is None for fold in exported)
    return assemble_segmenter(networks, rules, quality=quality, exact=exact, previous=previous)


def open_networks(exported: Sequence[ExportedFold], data: Sequence[bytes], runtime: str) -> Networks:
    """Opens the exported networks of some folds of one configuration.

    Args:
        exported: Description of each fold.
        data: Network of each fold in ONNX, checked by `onnx_checks.check_onnx`.
        runtime: Name of a runtime that is installed.

    Raises:
        ModelError: The runtime cannot open a network.
    """
    predictors = [
        ExportedPredictor(
            network=ExportedNetwork(runtime, content, f"the network of fold {fold.fold}"),
            outputs=fold.dataset.targets.outputs,
            configuration=fold.description.configuration,
        )
        for fold, content in zip(exported, data, strict=True)
    ]
    return Networks(
        folds=[fold.description for fold in exported],
        predictors=predictors,
        digests=[f"{fold.weights} exported{' int8' if fold.int8 else ''}" for fold in exported],
        device=NumpyDevice(),
        at_once=PATCHES_AT_ONCE,
    )


def shape_of_patches(configuration: Configuration) -> tuple[int, ...]:
    """Returns the shape (n, c, *patch) in which a network gets the patches of a configuration."""
    return (PATCHES_AT_ONCE, configuration.architecture.in_channels, *configuration.patch_size)


def choose_timed_shape(fold: ExportedFold) -> tuple[int, ...]:
    """Returns the shape (1, c, *patch) for timing: of the plan's patch, smaller if the network takes smaller ones."""
    configuration = fold.description.configuration
    patches = configuration.patches
    size: tuple[int, ...] = configuration.patch_size
    while fold.any_size and prod(size) > TIMED_VOXELS:
        smaller = patches.cover([edge / 2 for edge in patches.centre(size)])
        if prod(smaller) >= prod(size) or patches.find_problem(smaller) is not None:
            break
        size = smaller
    return (1, configuration.architecture.in_channels, *size)
