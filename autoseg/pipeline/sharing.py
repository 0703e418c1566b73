"""Models passed on: in one file from user to user, and from and to nnU-Net."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoseg.errors import UsageError
from autoseg.models import bundle
from autoseg.models.bundle import install_model
from autoseg.models.model_source import find_model
from autoseg.nnunet.dataset_install import install_nnunet
from autoseg.nnunet.export import export_nnunet
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold

__all__ = ["export_model", "export_nnunet", "install_model", "install_nnunet"]

PRECISIONS = ("float32", "int8")


def export_model(
    source: int | str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    licence: str = "",
    about: str = "",
    runtime: str = "torch",
    precision: str = "float32",
    largest_dice_loss: float | None = None,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Packs a trained model into one file for others.

    It holds what prediction needs, mean scores, and a card that explains the model. It holds neither names of cases,
    pictures or segmentations of them, nor what training needs to go on.

    Args:
        source: A model folder; the folder of several with a best.json; the name of an installed model; or the number
            of a dataset: what `find_best` chose for it, else its only trained configuration.
        file: Path of the bundle, which ends in .zip.
        configuration: Configuration to pack, if several are trained, instead of what `find_best` chose.
        folds: Folds to pack; by default all that are trained to their end.
        licence: Licence under which others may use the model, for the card.
        about: Text for the card: authors, paper, purpose.
        runtime: "torch" packs the weights as they are. "onnx" exports the networks, so that ONNX Runtime or OpenVINO
            calculate them, and prediction needs no torch; each is compared with torch first.
        precision: In what exported networks calculate: "float32", or "int8" for their convolutions, which takes less
            time and room. int8 is calibrated on training cases, and each fold is judged on the cases that it held out,
            so the dataset must be beside the model.
        largest_dice_loss: Mean Dice over the held-out cases of a fold that a label may lose by int8 in any runtime that
            is installed; by default `int8_export.LARGEST_DICE_LOSS`, 0.002.
        plan_name: Name of the plan that was trained, if it is not the usual one.
        workspace: See `find_workspace`.
        reporter: Shows the progress of int8, and is told what it changes.

    Returns:
        Path of the bundle.

    Raises:
        ModelError: There is no such model, or a fold of it is missing, damaged or not trained to its end; or its
            exported network calculates something else than torch; or a label loses more by int8 than it may.
        UsageError: It is not clear which model is meant, there is no such runtime or precision, a network cannot be
            exported, or int8 has no cases to be judged on.
        WriteError: The file cannot be written.

    Example:
        The model that `find_best` chose for dataset 4, as it is, and for laptops::

            autoseg.export_model(4, "Hippocampus.zip", licence="CC BY 4.0", about="Who made it, for what.")
            autoseg.export_model(4, "Hippocampus_int8.zip", runtime="onnx", precision="int8")
    """
    write = partial(
        bundle.export_model,
        source,
        file,
        configuration=configuration,
        folds=folds,
        licence=licence,
        about=about,
        runtime=runtime,
        plan_name=plan_name,
        workspace=workspace,
    )
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r}", f"choose from {', '.join(PRECISIONS)}")
    if precision == "float32":
        if largest_dice_loss is not None:
            raise UsageError("without int8 no label loses Dice", "add --precision int8, or leave out the largest loss")
        return write()
    if runtime != "onnx":
        raise UsageError(f"models for {runtime} are not packed in int8", "add --runtime onnx, or leave out --precision")
    from autoseg.model_selection.int8_export import LARGEST_DICE_LOSS, Int8Quantizer, check_int8

    allowed = LARGEST_DICE_LOSS if largest_dice_loss is None else largest_dice_loss
    check_int8(find_model(source, configuration, plan_name=plan_name, workspace=workspace), allowed)
    return write(quantizer=Int8Quantizer(largest_loss=allowed, reporter=reporter))
