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
    exported = [load_exported(folder, fold) for fold in folds]
    descriptions = [fold.description for fold in exported]
    check_folds(descriptions)
    first = descriptions[0]
    data = [check_onnx(folder.exported_network(fold)) for fold in folds]
    channels = first.configuration.architecture.in_channels
    chosen = choose_runtime(runtime, data[0], (1, channels, *_choose_timed_patch(exported[0], first.configuration)))
    predictors = [
        ExportedPredictor(
            network=ExportedNetwork(chosen, content, f"the network of fold {fold}"),
            outputs=first.info.targets.outputs,
            configuration=first.configuration,
        )
        for fold, content in zip(folds, data, strict=True)
    ]
    networks = Networks(
        folds=descriptions,
        predictors=predictors,
        digests=[f"{fold.weights} exported" for fold in exported],
        device=NumpyDevice(),
        at_once=PATCHES_AT_ONCE,
    )
    return assemble_segmenter(networks, rules, quality=quality, exact=True, previous=previous)


def _choose_timed_patch(fold: ExportedFold, configuration: Configuration) -> tuple[int, ...]:
    """Returns the size of the patch for timing: that of the plan, smaller if the network takes smaller ones."""
    patches = configuration.patches
    size: tuple[int, ...] = configuration.patch_size
    while fold.any_size and prod(size) > TIMED_VOXELS:
        smaller = patches.cover([edge / 2 for edge in patches.centre(size)])
        if prod(smaller) >= prod(size) or patches.find_problem(smaller) is not None:
            break
        size = smaller
    return size
