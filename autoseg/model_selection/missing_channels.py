"""How much a fold needs each channel: the Dice of its held-out cases without it; missing_channels.json."""

import math
from dataclasses import replace

from autoseg.dataloading.augmentation_parameters import number_repeated
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.held_out_cases import load_preprocessed, measure_dice
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.training_statistics import name_channels
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.runtime.artifact import Artifact, Score
from autoseg.runtime.reporting import Reporter
from autoseg.training.fold_job import FoldJob
from autoseg.training.stopping import NEVER, StopRequest

FILE_NAME = "missing_channels.json"


class MissingChannelScores(Artifact):
    """Dice of the held-out cases of a fold with one channel less, before postprocessing.

    Attributes:
        dice: Key of a channel, see `name_channels`, to the name of each case that has it, to the Dice of each structure
            without it; NaN where a structure is neither there nor found, or was not annotated.
    """

    dice: dict[str, dict[str, dict[str, Score]]]

    def mean(self, channel: str) -> float:
        """Returns the mean Dice without a channel: over structures of the means over cases.

        Example:
            >>> MissingChannelScores(dice={"T1": {"a": {"liver": 0.5}, "b": {"liver": 0.7}}}).mean("T1")
            0.6
        """
        cases = self.dice[channel].values()
        names = dict.fromkeys(name for scores in cases for name in scores)
        return mean_of_defined(mean_of_defined(scores[name] for scores in cases) for name in names)


def score_missing_channels(
    job: FoldJob, checkpoint: Checkpoint, reporter: Reporter, stop: StopRequest = NEVER
) -> dict[str, float]:
    """Segments the held-out cases of a fold without each of their channels in turn, and saves the Dice.

    Nothing is done if training let no channel be missing, or if the scores are there.

    Args:
        job: The fold, which is validated already.
        checkpoint: Its weights.
        reporter: Shows progress.
        stop: The request to stop.

    Returns:
        The mean Dice without each channel; empty if nothing was done.

    Raises:
        Stopped: The run was asked to stop; the next run begins this anew.
    """
    path = job.model.validation(job.fold) / FILE_NAME
    if not job.configuration.augmentation.missing_channels_probability or path.is_file():
        return {}
    segmenter = make_segmenter([checkpoint], NO_RULES, job.device)
    info, cases = job.dataset.info, job.dataset.only(job.split.validation).cases
    channels = name_channels(tuple(info.channel_names.values()))
    dice: dict[str, dict[str, dict[str, float]]] = {channel: {} for channel in channels}
    with reporter.task("validating without each channel", len(cases) * len(channels)) as task:
        for case in cases:
            preprocessed = load_preprocessed(case.name, info.targets, job.cases_folder, job.cascade_labels_folder)
            for number, channel in enumerate(channels):
                stop.check_alone()
                if number not in preprocessed.record.missing_channels:
                    left_out = number_repeated([number], [entry.channels for entry in job.configuration.normalization])
                    prediction = segmenter.predict_preprocessed(leave_out(preprocessed, left_out))
                    unannotated = dict.fromkeys(info.unannotated_in(case.name), math.nan)
                    dice[channel][case.name] = measure_dice(case, prediction) | unannotated
                task.advance()
    scores = MissingChannelScores(dice=dice)
    scores.save(path)
    return {channel: scores.mean(channel) for channel in channels if dice[channel]}


def leave_out(case: PreprocessedCase, channels: list[int]) -> PreprocessedCase:
    """Returns a preprocessed case without some channels, which are 0 everywhere then."""
    image = case.image.copy()
    image[channels] = 0
    return replace(case, image=image)
