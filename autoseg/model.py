"""A trained model from Python: load it once, segment images one after the other.

model = autoseg.load_model("results/Dataset004_Hippocampus")     # what find_best chose; or .../3d_fullres
label_map = model.predict("scan.nii.gz")                         # SimpleITK image, on the scan's grid
label_map = model.predict(array, spacing_mm=(3.0, 0.8, 0.8))     # array (z, y, x), as given
label_map = model.predict(nibabel.load("scan.nii.gz"))           # image of nibabel, with the same affine

found = model.analyse("scan.nii.gz")
found.volumes_ml, found.agreement, found.remarks, found.probabilities("liver")
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from autoseg.bundle import locate_model, opened_model
from autoseg.checkpoint import load_checkpoint
from autoseg.choice import Choice, digest_weights
from autoseg.device import resolve_device
from autoseg.errors import ModelError, UsageError
from autoseg.expectation import Expectation
from autoseg.geometry import Volume
from autoseg.image_kinds import ImagePath, TakenImage, take_image
from autoseg.inference.case import Segmenter, make_segmenter
from autoseg.inference.joint import AnyPrediction, AnySegmenter, make_joint, with_disagreement
from autoseg.info import BACKGROUND
from autoseg.postprocessing import NO_RULES, PostprocessingRules, voxel_mm3
from autoseg.remarks import Look, make_remarks, measure_volumes
from autoseg.workspace import Fold, ModelFolder, list_folds

if TYPE_CHECKING:
    import SimpleITK as sitk
    import torch

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that a model says of an image. Maps are of the kind of the image, as `Model.predict` returns it.

    Attributes:
        segmentation: See `Model.predict`.
        volumes_ml: Name of each structure to its volume in the segmentation; a plane counts as 1 mm thick.
        agreement: Name of each structure to how far folds and mirror images agree about it: the mean Dice, 0 to 1, of
            what each of them found with what they found together, before postprocessing. NaN if that is nothing, or
            if the model is one fold that was trained without mirroring.
        remarks: Short sentences about what looks unlike training, in the image or in the result; mostly none.
    """

    segmentation: Any
    volumes_ml: dict[str, float]
    agreement: dict[str, float]
    remarks: list[str]
    _prediction: AnyPrediction
    _give_back: Callable[[Volume], Any]

    def probabilities(self, label: str) -> Any:
        """The probability of a label, 0 to 1, before postprocessing; also that of "background" if labels exclude it.

        Raises:
            UsageError: The model has no such label.
        """
        targets = self._prediction.targets
        known = ({BACKGROUND: 0} if targets.exclusive else {}) | targets.output_of
        if label not in known:
            raise UsageError(f"the model has no label {label!r}", f"choose from {', '.join(known)}")
        [found] = self._prediction.probabilities([known[label]])
        return self._give_back(found)

    def disagreement(self) -> Any:
        """The share, 0 to 1, of folds and mirror images that would have decided otherwise; None if there is but one."""
        found = self._prediction.disagreement()
        return None if found is None else self._give_back(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Trained configurations in memory, mostly one. Predictions do not change them: threads may share a model."""

    segmenter: AnySegmenter

    @property
    def labels(self) -> dict[str, int | tuple[int, ...]]:
        """Name to number of every label, the background included; to several numbers for a region."""
        return dict(self.segmenter.info.labels)

    @overload
    def predict(self, image: NDArray[np.generic], *, spacing_mm: Sequence[float]) -> NDArray[np.integer]: ...
    @overload
    def predict(self, image: "ImagePath | Sequence[ImagePath] | sitk.Image | Any") -> "sitk.Image | Any": ...

    def predict(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Any:
        """Segments one image.

        A volume whose axes lead elsewhere than those of all training cases is turned for the networks, and its result
        turned back.

        Args:
            image: A path; one path per channel; an image of SimpleITK (channels as vector components) or of nibabel
                (channels as fourth axis); or an array of shape (z, y, x) or (c, z, y, x), for a plane (y, x) or
                (c, 1, y, x), whose axes lead where those of the training cases do.
            spacing_mm: Of an array: distance between voxels along (z, y, x), or (y, x) for a plane.

        Returns:
            Label map: an array of shape (z, y, x), or (y, x), for an array; an image of nibabel with the same affine
            for one of nibabel; else an image of SimpleITK in the place of the input. A model whose structures may
            overlap gives a mask for each, in the order of `labels`: an array with one axis more, the first; an image of
            nibabel with one axis more, the last; or an image with as many components.

        Raises:
            ImageError: The image cannot be read, has the wrong number of channels or dimensions, or holds NaN; or an
                array came without the spacing of each axis.
        """
        taken = self._take(image, spacing_mm)
        return taken.give_back(self.segmenter.segment(taken.volume))

    def analyse(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Analysis:
        """Segments one image, and says what it measures, how sure that is, and what looks odd; see `predict`."""
        taken = self._take(image, spacing_mm)
        prediction = with_disagreement(self.segmenter).predict(taken.volume)
        segmentation, expectation = prediction.segmentation(), self.segmenter.expectation
        look = None if expectation is None else Look.at(taken.volume, expectation)
        volumes_mm3 = measure_volumes(segmentation, prediction.targets, voxel_mm3(segmentation.geometry))
        agreement = prediction.agreement.structures
        return Analysis(
            segmentation=taken.give_back(segmentation),
            volumes_ml={name: volume / 1000 for name, volume in volumes_mm3.items()},
            agreement=agreement,
            remarks=make_remarks(expectation, look, volumes_mm3, agreement),
            _prediction=prediction,
            _give_back=taken.give_back,
        )

    def _take(self, image: Any, spacing_mm: Sequence[float] | None) -> TakenImage:
        expectation = self.segmenter.expectation
        return take_image(image, spacing_mm, None if expectation is None else expectation.orientation)


def load_model(path: ImagePath, *, folds: Fold | Sequence[Fold] | None = None, device: str = "auto") -> Model:
    """Loads a trained configuration, or those that `find_best` chose.

    Args:
        path: A model folder, such as ``results/Dataset004_Hippocampus/3d_fullres``; or a folder of several in which
            best.json says which of them predict, such as ``results/Dataset004_Hippocampus``. If a fold changed since
            that was written, a warning says so. Or a bundle, ``model.zip``, or the name of an installed model.
        folds: Which to average. By default all numbers that are trained to their end, or, if none is, those that are
            begun; for "cv" both. A model of "all" cases is taken if it is asked for, or the only one.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ModelError: There is no trained fold, or not the one asked for, or a checkpoint is damaged.
        ArtifactError: postprocessing.json or best.json is damaged.
        UsageError: The device is not there, or folds are given beside best.json, which names them.
    """

    def warn(line: str) -> None:
        warnings.warn(line, stacklevel=5)  # whoever called this function

    folder = ModelFolder(path=locate_model(path))
    return Model(segmenter=load_segmenter(folder, folds=folds, device=device, say=lambda _: None, warn=warn))


def load_segmenter(
    folder: ModelFolder, *, folds: Fold | Sequence[Fold] | None, device: str, say: Say, warn: Say
) -> AnySegmenter:
    """Loads the ensemble of some folds of a model folder, or what was chosen among several; see `load_model`.

    Args:
        folder: Of a configuration, or of several and a best.json; or the place of a bundle.
        folds: See `load_model`.
        device: Likewise.
        say: Is told what was chosen, and why, if best.json says it.
        warn: Is told if a fold is no longer what was chosen.
    """
    with opened_model(folder.path) as opened:
        loader = _Loader(device=resolve_device(device))
        if not opened.choice.is_file():
            asked = [] if folds is None else list_folds(folds)
            return loader.load(opened, asked, only_finished=not asked)
        if folds is not None:
            what = f"{folder.choice} says which folds predict"
            raise UsageError(what, "leave out -f, or choose a configuration as well, with -c or by its folder")
        choice = Choice.load(opened.choice)
        segmenter = _load_chosen(opened, choice, loader, warn)
        say(f"as {opened.choice.name} chose: {choice.describe()}")
        return segmenter


def _load_chosen(folder: ModelFolder, choice: Choice, loader: "_Loader", warn: Say) -> AnySegmenter:
    """Loads the configurations that were chosen."""
    missing = [name for name in choice.configurations if not folder.member(name).trained_folds()]
    if missing:
        what = f"{folder.choice} chose {choice.name}, but {folder.member(missing[0]).path} holds no trained fold"
        raise ModelError(what, "restore it, run 'autoseg find_best' again, or choose another with -c")
    members = []
    for name in choice.configurations:
        chosen = {one.fold: one.weights for one in choice.folds[name]}
        members.append(loader.load(folder.member(name), list(chosen), only_finished=True))
        present = loader.digests[folder.member(name).path]
        changed = [str(fold) for fold, weights in chosen.items() if present.get(fold) != weights]
        if changed:
            which = f"fold{'s' * (len(changed) > 1)} {' '.join(changed)} of {name} changed"
            warn(f"{which} since {folder.choice.name} was written; 'autoseg find_best' chooses anew")
    return make_joint(members, choice.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """Loads configurations, each once.

    Attributes:
        device: Where to put the networks.
        known: What is loaded already, by folder.
        digests: Fold to `digest_weights`, by folder; of the folds that predict.
    """

    device: "torch.device"
    known: dict[Path, Segmenter] = field(default_factory=dict)
    digests: dict[Path, dict[Fold, str]] = field(default_factory=dict)

    def load(self, folder: ModelFolder, folds: Sequence[Fold], *, only_finished: bool) -> Segmenter:
        """Loads folds of one configuration, and of that which it follows.

        Args:
            folder: Of the configuration.
            folds: Which; see `_choose_folds`.
            only_finished: A fold whose training goes on has no say, unless there is no other.
        """
        rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        every = {fold: load_checkpoint(folder.checkpoint(fold)) for fold in _choose_folds(folder, folds)}
        finished = {fold: checkpoint for fold, checkpoint in every.items() if checkpoint.finished}
        loaded = finished if only_finished and finished else every
        checkpoints = list(loaded.values())
        former = checkpoints[0].configuration.previous
        previous = None
        if former is not None:
            beside = ModelFolder(path=folder.path.with_name(former))
            if not beside.trained_folds():
                what = f"{folder.path} is a cascade, which needs the model of {former} beside it"
                raise ModelError(what, f"copy or train {beside.path}")
            previous = self.known.get(beside.path) or self.load(beside, (), only_finished=True)
        segmenter = make_segmenter(checkpoints, rules, self.device, previous=previous)
        if folder.expectation.is_file():
            segmenter = replace(segmenter, expectation=Expectation.load(folder.expectation))
        self.known[folder.path] = segmenter
        self.digests[folder.path] = {fold: digest_weights(one.weights) for fold, one in loaded.items()}
        return segmenter


def _choose_folds(folder: ModelFolder, asked: Sequence[Fold]) -> list[Fold]:
    """The folds that are meant, all of which are trained; see `load_model`."""
    trained = folder.trained_folds()
    if not trained:
        raise ModelError(f"{folder.path} holds no trained fold", "train one with 'autoseg train', or check the path")
    numbers = [fold for fold in trained if fold != "all"] or trained
    chosen = numbers if not asked or "cv" in asked else list(dict.fromkeys(asked))
    missing = [fold for fold in chosen if fold not in trained]
    if missing:
        present = ", ".join(map(str, trained))
        raise ModelError(f"fold {missing[0]} of {folder.path} is not trained (there: {present})", "choose with -f")
    return chosen
