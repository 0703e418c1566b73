"""Batches, made ahead of the training loop by threads.

Every batch follows from the seed and its own number alone. So the order of threads, their number, or a stop and a
resume in between change nothing. Threads share the memory of the process: nothing is copied between processes, and
there is no worker process that could die silently or hang.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

import numpy as np
import torch

from autoseg.data.augmentation import augment
from autoseg.data.sampling import (
    InMemoryCase,
    PatchSource,
    choose_start,
    count_forced,
    draw_affine,
    read_patch,
)
from autoseg.data.store import MEMORY_FOR_CASES_BYTES, StoredCase
from autoseg.errors import AutosegError
from autoseg.geometry import Shape
from autoseg.machine import count_cores
from autoseg.plan import Configuration
from autoseg.preprocessing.case import OUTSIDE

STALL_SECONDS = 300
"""A batch that takes longer means that the disk has gone. Decision: a hundred times a slow network drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's worth of patches.

    Attributes:
        images: Shape (n, c, *patch), float32.
        labels: Shape (n, *patch), int64, 0 for background and for all that lies outside the case.
    """

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """An endless, numbered supply of batches.

    Attributes:
        cases: Preprocessed cases; each patch comes from one drawn evenly.
        configuration: Says patch and batch size, and how to augment.
        foreground_fraction: Share of patches centred on foreground.
        seed: Of all draws; batches of two supplies with one seed are equal.
        augmented: Whether patches are changed by chance.
    """

    cases: Sequence[PatchSource]
    configuration: Configuration
    foreground_fraction: float
    seed: tuple[int, ...]
    augmented: bool

    def make(self, number: int) -> Batch:
        """Makes one batch."""
        random = np.random.default_rng((*self.seed, number))
        forced = count_forced(self.configuration.batch_size, self.foreground_fraction)
        ordinary = self.configuration.batch_size - forced
        patches = [self._draw_patch(index >= ordinary, random) for index in range(self.configuration.batch_size)]
        images = torch.stack([image for image, _ in patches])
        labels = torch.stack([label for _, label in patches])
        if self.augmented:
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            images, labels = augment(images, labels, self.configuration.augmentation, generator)
        masked = [channel.only_nonzero for channel in self.configuration.normalization]
        if any(masked):  # what augmentation put where these channels are zero by definition
            images[:, masked] *= (labels != OUTSIDE).unsqueeze(1)
        return Batch(images=images, labels=labels.clamp_min(0))

    def _draw_patch(self, forced: bool, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws one patch: image (c, *patch) and label map (*patch)."""
        case = self.cases[int(random.integers(len(self.cases)))]
        size = self.configuration.patch_size
        patch: Shape = size if len(size) == 3 else (1, *size)
        start = choose_start(case, patch, forced=forced, random=random)
        affine = draw_affine(self.configuration.augmentation, len(size), random) if self.augmented else None
        image, label = read_patch(case, start, patch, affine)
        return (image, label) if len(size) == 3 else (image[:, 0], label[0])

    def ahead(self, numbers: range, *, workers: int) -> Iterator[Batch]:
        """Gives the batches of `numbers` in order, while threads make the next ones.

        Args:
            numbers: Which batches.
            workers: Threads; 0 makes each batch when it is asked for.

        Raises:
            AutosegError: A batch did not come within `STALL_SECONDS`.
        """
        if workers == 0:
            yield from map(self.make, numbers)
            return
        usual_threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batch", initializer=torch.set_num_threads, initargs=(1,))
        waiting: deque[Future[Batch]] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(self.make, number))
                if len(waiting) > 2 * workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(usual_threads)  # torch took the 1 of these threads for that of all threads to come


def open_cases(cases: Sequence[StoredCase]) -> list[PatchSource]:
    """Brings cases into memory if all of them fit into `MEMORY_FOR_CASES_BYTES`, else leaves them on disk."""
    if sum(case.nbytes for case in cases) > MEMORY_FOR_CASES_BYTES:
        return list(cases)
    loaded = []
    for case in cases:
        image, label = case.load()
        loaded.append(InMemoryCase(image=image, label=label, foreground=case.load_foreground()))
    return list(loaded)


def count_loader_threads(device: torch.device) -> int:
    """Threads that make batches: one beside a CPU that trains, else the cores but two, at most eight."""
    return 1 if device.type == "cpu" else max(1, min(8, count_cores() - 2))


def _result(batch: Future[Batch]) -> Batch:
    try:
        return batch.result(timeout=STALL_SECONDS)
    except FutureTimeout as error:
        raise AutosegError(
            f"no training patch could be read for {STALL_SECONDS} s", "check the disk that holds the preprocessed cases"
        ) from error
