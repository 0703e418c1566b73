"""From model files on disk to a segmenter: the folds of one configuration, or configurations that predict together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.errors import ModelError, UsageError
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference.coarse_model import check_coarse, check_margin
from autoseg.inference.cropped_segmenter import AnySegmenter, CroppedSegmenter
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.exported_segmenter import make_exported_segmenter
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.prediction_quality import PredictionQuality, choose_quality
from autoseg.inference.segmenter import Segmenter
from autoseg.models.calibration import load_calibration
from autoseg.models.fold_files import is_exported, load_exported
from autoseg.models.model_source import ModelMember, ResolvedModel, opened_model, select_folds
from autoseg.models.runtimes import RUNTIMES, check_runtime
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import CONFIGURATION_NAMES
from autoseg.runtime.forks import watch_forks
from autoseg.workspace import Fold, ModelFolder

OnMessage = Callable[[str], None]


def ignore_message(line: str) -> None:
    """Ignores a message, for callers who show none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOptions:
    """How a model predicts.

    Attributes:
        folds: Folds whose predictions are averaged. By default all numbered folds that are trained to their end, or, if
            none is, those whose training has begun; "cv" means both. A model that was trained on "all" cases is taken
            if it is asked for, or if there is no other.
        device: "auto", "cpu", "cuda" or "mps".
        quality: "fast", "balanced" or "best"; see `prediction_quality`.
        mirroring: Whether to average over all mirror images; None leaves it to the quality.
        exact: Whether to calculate in float32, even where a lower precision is faster.
        postprocessing: Whether the rules that `find_best` or nnU-Net chose are applied to segmentations. They always
            are to the segmentation of the coarser configuration that a cascade sees, as in its training.
        missing_channels: Whether scans may lack channels although those of training could not.
        runtime: What calculates the networks: "torch" for checkpoints; "onnx" or "openvino" for networks that were
            exported; "auto" for what the model needs, and the fastest one that is installed.
        crop_by: The coarse model around whose structures images are segmented: the name of a configuration beside the
            model, such as "3d_lowres", or the path of another model; see `coarse_model.find_coarse_model`.
        crop_margin_mm: Margin around these structures; None for `crop.MARGIN_VOXELS` of the coarse model.
    """

    folds: Fold | Sequence[Fold] | None = None
    device: str = "auto"
    quality: str = "best"
    mirroring: bool | None = None
    exact: bool = False
    postprocessing: bool = True
    missing_channels: bool = False
    runtime: str = "auto"
    crop_by: str | Path | None = None
    crop_margin_mm: float | None = None

    @property
    def chosen_quality(self) -> PredictionQuality:
        """The quality with the mirror images that were asked for.

        Raises:
            UsageError: There is no such quality.
        """
        return choose_quality(self.quality, mirroring=self.mirroring)


def load_segmenter(
    path: Path, options: PredictionOptions, *, say: OnMessage = ignore_message, warn: OnMessage = ignore_message
) -> ImageSegmenter:
    """Loads some folds of a configuration, or the configurations that best.json names, as one segmenter.

    Args:
        path: The folder of a configuration, the folder of several with a best.json, an installed model, or a bundle.
        options: How the model predicts.
        say: Called with a line about what `find_best` chose and why, if there is a best.json.
        warn: Called with a line if the weights of a fold changed since best.json was written.

    Raises:
        ModelError, ArtifactError, UsageError: See `model.load_model`.
    """
    check_runtime(options.runtime)
    choose_quality(options.quality)
    margin_mm = check_margin(options.crop_by, options.crop_margin_mm)
    watch_forks()
    with opened_model(path, options.folds) as model:
        loader = _Loader(options=options)
        segmenter = _load_members(model, loader, say, warn)
        if options.crop_by is None:
            return segmenter
        coarse = _load_coarse(model, loader, options.crop_by)
    check_coarse(segmenter.info, coarse.info, say)
    return CroppedSegmenter(segmenter=segmenter, coarse=coarse, margin_mm=margin_mm)


def _load_members(model: ResolvedModel, loader: "_Loader", say: OnMessage, warn: OnMessage) -> AnySegmenter:
    """Loads the configurations of a model that predict, as one segmenter; see `load_segmenter`."""
    postprocessing = loader.options.postprocessing
    if model.best_model is None:
        [member] = model.members
        single = loader.load(member.folder, member.folds, only_finished=not member.folds)
        return single if postprocessing else replace(single, rules=NO_RULES)
    members = [loader.load_chosen(member, warn) for member in model.members]
    segmenter = make_ensemble(members, model.best_model.rules if postprocessing else NO_RULES)
    say(f"as {model.folder.best_model.name} chose: {model.best_model.describe()}")
    return segmenter


def _load_coarse(model: ResolvedModel, loader: "_Loader", crop_by: str | Path) -> AnySegmenter:
    """Loads the model that decides where another one looks.

    Decision: it is predicted fast, since only a box around its structures counts; unless it is the coarser
    configuration of a cascade, which predicts as it always does, and once.

    Args:
        model: The finer model.
        loader: What loaded it.
        crop_by: See `PredictionOptions`.

    Raises:
        ModelError: It is missing or damaged.
        UsageError: It is the finer model itself.
    """
    fast = replace(loader.options, folds=None, quality="fast", mirroring=None, crop_by=None, crop_margin_mm=None)
    if crop_by not in CONFIGURATION_NAMES:
        with opened_model(Path(crop_by)) as coarse:
            other_loader = _Loader(options=replace(fast, runtime="auto"))
            return _load_members(coarse, other_loader, ignore_message, ignore_message)
    folder = ModelFolder(path=model.members[0].folder.path.with_name(str(crop_by)))
    if folder.path in [member.folder.path for member in model.members]:
        what = f"{crop_by} is what is predicted, so it cannot say first where to look"
        raise UsageError(what, "name a coarser configuration or another model with --crop-by")
    if not folder.trained_folds():
        what = f"{folder.path}, which is to say where to look, holds no trained fold"
        raise ModelError(what, f"train {crop_by}, or name another model with --crop-by")
    return loader.loaded.get(folder.path) or _Loader(options=fast).load(folder, (), only_finished=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """Loads configurations, each once.

    Attributes:
        options: How the model predicts.
        loaded: Folder of a configuration to its segmenter.
        weight_digests: Folder of a configuration to the `digest_weights` of each fold that predicts.
    """

    options: PredictionOptions
    loaded: dict[Path, Segmenter] = field(default_factory=dict)
    weight_digests: dict[Path, dict[Fold, str]] = field(default_factory=dict)

    def load_chosen(self, member: ModelMember, warn: OnMessage) -> Segmenter:
        """Loads a configuration that best.json names, and warns if its weights changed since that was written."""
        segmenter = self.load(member.folder, member.folds, only_finished=True)
        present = self.weight_digests[member.folder.path]
        changed = [str(fold) for fold, digest in member.weight_digests.items() if present.get(fold) != digest]
        if changed:
            which = f"fold{'s' * (len(changed) > 1)} {' '.join(changed)} of {member.name} changed"
            warn(f"{which} since best.json was written; 'autoseg find_best' chooses anew")
        return segmenter

    def load(self, folder: ModelFolder, folds: Sequence[Fold], *, only_finished: bool) -> Segmenter:
        """Loads folds of one configuration, and for a cascade its coarser configuration too.

        Args:
            folder: The folder of the configuration.
            folds: Folds that were asked for; see `select_folds`.
            only_finished: Whether to leave out folds whose training goes on, unless there is no other.
        """
        rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        selected = select_folds(folder, folds)
        load = self._load_exported if all(is_exported(folder, fold) for fold in selected) else self._load_checkpoints
        segmenter = load(folder, selected, rules, only_finished=only_finished)
        calibration, info = load_calibration(folder), segmenter.info
        if self.options.missing_channels:
            info = info.model_copy(update={"missing_channels": True})
        segmenter = replace(
            segmenter,
            statistics=load_training_statistics(folder),
            info=info,
            temperatures=None if calibration is None else calibration.temperatures_of(info.targets),
        )
        self.loaded[folder.path] = segmenter
        return segmenter

    def _load_exported(
        self, folder: ModelFolder, folds: Sequence[Fold], rules: PostprocessingRules, **_: object
    ) -> Segmenter:
        """Loads exported folds, which are all finished."""
        if self.options.device not in ("auto", "cpu"):
            what = f"the networks of {folder.path} were exported for the CPU, not for {self.options.device}"
            raise UsageError(what, "leave out --device, or get the model that was exported without --runtime")
        exported = {fold: load_exported(folder, fold) for fold in folds}
        if self.options.exact and any(content.int8 for content in exported.values()):
            what = f"the networks of {folder.path} were exported in int8, and do not calculate in float32"
            raise UsageError(what, "leave out --exact, or get the model that was exported without --precision")
        self.weight_digests[folder.path] = {fold: content.weights for fold, content in exported.items()}
        return make_exported_segmenter(
            folder,
            folds,
            rules,
            runtime=self.options.runtime,
            quality=self.options.chosen_quality,
            previous=self._load_previous(folder, exported[folds[0]].description.configuration.previous),
        )

    def _load_checkpoints(
        self, folder: ModelFolder, folds: Sequence[Fold], rules: PostprocessingRules, *, only_finished: bool
    ) -> Segmenter:
        """Loads the checkpoints of folds, for torch."""
        from autoseg.inference.torch_segmenter import make_segmenter  # noqa: PLC0415 - it needs torch
        from autoseg.models.checkpoint import load_checkpoint  # noqa: PLC0415 - likewise
        from autoseg.runtime.device import resolve_device  # noqa: PLC0415 - likewise

        if self.options.runtime in RUNTIMES:
            what = f"{folder.path} holds checkpoints, which torch calculates, not {self.options.runtime}"
            raise UsageError(what, "export it by 'autoseg export --runtime onnx', and predict with that bundle")
        device = resolve_device(self.options.device)
        every = {fold: load_checkpoint(folder.checkpoint(fold)) for fold in folds}
        finished = {fold: checkpoint for fold, checkpoint in every.items() if checkpoint.finished}
        selected = finished if only_finished and finished else every
        checkpoints = list(selected.values())
        self.weight_digests[folder.path] = {
            fold: digest_weights(checkpoint.weights) for fold, checkpoint in selected.items()
        }
        return make_segmenter(
            checkpoints,
            rules,
            device,
            quality=self.options.chosen_quality,
            exact=self.options.exact,
            previous=self._load_previous(folder, checkpoints[0].configuration.previous),
        )

    def _load_previous(self, folder: ModelFolder, name: str | None) -> Segmenter | None:
        """Loads the coarser configuration of a cascade from the folder beside it."""
        if name is None:
            return None
        coarser = ModelFolder(path=folder.path.with_name(name))
        if not coarser.trained_folds():
            what = f"{folder.path} is a cascade, which needs the model of {name} beside it"
            raise ModelError(what, f"copy or train {coarser.path}")
        return self.loaded.get(coarser.path) or self.load(coarser, (), only_finished=True)
