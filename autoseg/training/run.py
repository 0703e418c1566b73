"""What a training run is about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from autoseg.data.loader import Batches
from autoseg.settings import TrainingSettings
from autoseg.training.losses import Loss
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.stopping import NEVER, StopRequest

NoteMemory = Callable[[Mapping[int, int]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What stays the same from the first step of a fold to the last.

    Attributes:
        settings: From the plan, with the length that the user asked for.
        training: Augmented batches of the training cases.
        validation: Plain batches of the held-out cases, or of the training cases if none is held out; the same ones
            after every epoch.
        loss: What is minimized; knows what the outputs of the network stand for.
        device: Where the network is.
        workers: Threads that make batches.
        stop: Whether somebody asked the run to end before its time.
        ranks: The processes that share the batches.
        note_memory: Called when the memory of the device ran out: patches at once, to the bytes that a step with them
            was found to take at least, weights included; of a device that does not tell, nothing.
    """

    settings: TrainingSettings
    training: Batches
    validation: Batches
    loss: Loss
    device: torch.device
    workers: int
    stop: StopRequest = NEVER
    ranks: Ranks = ALONE
    note_memory: NoteMemory = lambda _: None
