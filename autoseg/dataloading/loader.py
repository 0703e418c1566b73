"""Batches, made ahead of the training loop by threads.

Every batch follows from the seed and its own number alone. So the order of threads, their number, or a stop and a
resume in between change nothing. Threads share the memory of the process: nothing is copied between processes, and
there is no worker process that could die silently or hang.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from threading import get_ident
from typing import TypeVar, cast

import numpy as np
import torch

from autoseg.dataloading.augmentation import augment, clear_outside
from autoseg.dataloading.batch import Batch, Prepared
from autoseg.dataloading.cascade_labels import Beyond, FollowingCase
from autoseg.dataloading.device_augmentation import collect
from autoseg.dataloading.patch import PatchRegion, crop_to_centre, place_patch
from autoseg.dataloading.sampling import InMemoryCase, PatchSource, count_forced
from autoseg.dataloading.threads import OnWait, prepare_ahead
from autoseg.imaging.label_encoding import (
    CodeBase,
    code_base,
    decode_labels,
    decode_previous,
    encode_targets,
    swapped_code_pairs,
)
from autoseg.imaging.structure_masks import structure_channels
from autoseg.imaging.targets import Targets
from autoseg.planning.plan import Configuration
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.store import MEMORY_FOR_CASES_BYTES, StoredCase
from autoseg.runtime.reporting import list_names

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """An endless, numbered supply of batches.

    Attributes:
        cases: Preprocessed cases; each patch comes from one drawn evenly.
        configuration: Says patch and batch size, and how to augment.
        foreground_fraction: Share of patches centred on foreground.
        seed: Of all draws; batches of two supplies with one seed are equal.
        augmented: Whether patches are changed by chance.
        finished_on: The device that changes them, all of a batch at once; None if the threads that read them do. The
            same changes of the same patches either way, up to rounding.
        unknown: Of each case, for each structure whether nobody looked for it; empty if all were looked for in all.
        previous: In a cascade, the structures of the segmentation that the cases hold beside the labels; see
            `data.previous`.
        beyond: What labels become beyond the border of the cases, where their mirror images are seen; None if nothing
            is seen there. See `cut.find_beyond`.
        share: The rank that asks, and how many ranks share a batch: of its patches it gets every so-manieth, from the
            one of its own number on. They are those of the whole batch, which does not depend on the ranks.
        reading: Cases on disk that are being read, by thread: what to look at if no batch comes.
    """

    cases: Sequence[PatchSource]
    configuration: Configuration
    foreground_fraction: float
    seed: tuple[int, ...]
    augmented: bool
    finished_on: torch.device | None = None
    unknown: Sequence[tuple[bool, ...]] = ()
    previous: Targets | None = None
    beyond: Beyond | None = None
    share: tuple[int, int] = (0, 1)
    reading: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def make(self, number: int) -> Batch:
        """Makes one batch, on the CPU or on the device that changes it."""
        return self._finish(self._prepare(number))

    def _prepare(self, number: int) -> Prepared:
        """What a thread does: draws and reads the patches, and changes them unless a device does."""
        random = np.random.default_rng((*self.seed, number))
        cuts = [self._draw_cut(index, random) for index in range(self.configuration.batch_size)]
        if all(cut.draw.partner is None for cut in cuts[self._own]):
            cuts = cuts[self._own]
        unknown = torch.tensor([cut.unknown for cut in cuts]) if self.unknown else None
        if self.augmented and self.finished_on is not None:
            parts = [self._noting(cut, cut.read_source_region) for cut in cuts]
            patches = collect(cuts, parts, self._augmentation, find_cleared(self.configuration))
            return Prepared(patches=patches, unknown=unknown)
        read = [self._noting(cut, cut.read) for cut in cuts]
        return Prepared(patches=change(read, cuts, self.configuration, self._augmentation), unknown=unknown)

    @property
    def _augmentation(self) -> AugmentationSettings:
        """As the plan says; in a cascade, label and segmentation change places together."""
        settings = self.configuration.augmentation
        if self.previous is None:
            return settings
        pairs = swapped_code_pairs(settings.swapped_labels, self._base)
        return settings.model_copy(update={"swapped_labels": pairs})

    def _noting(self, cut: PatchRegion, read: Callable[[AugmentationSettings], T]) -> T:
        """Reads a patch, and lets it be known which case that is."""
        self.reading[get_ident()] = getattr(cut.case, "name", "a case in memory")
        patch = read(self.configuration.augmentation)
        del self.reading[get_ident()]
        return patch

    def _finish(self, prepared: Prepared) -> Batch:
        patches = prepared.patches
        if not isinstance(patches, Batch):
            images, labels = patches.finish(cast(torch.device, self.finished_on))
            patches = Batch(images=images, labels=labels)
        unknown = None if prepared.unknown is None else prepared.unknown.to(patches.labels.device)
        batch = self._show_previous(replace(patches, unknown=unknown))
        centres = crop_to_centre(batch.labels, self.configuration.patches.margin)
        return self._keep_own(replace(batch, labels=centres))

    def _show_previous(self, batch: Batch) -> Batch:
        """In a cascade, turns the segmentation that came with the labels into channels."""
        if self.previous is None:
            return batch
        channels = structure_channels(decode_previous(batch.labels, self._base), self.previous.structures.values())
        return replace(
            batch, images=torch.cat([batch.images, channels], dim=1), labels=decode_labels(batch.labels, self._base)
        )

    @property
    def _base(self) -> CodeBase:
        """Of the codes of a cascade, once they are read."""
        targets = cast(Targets, self.previous)
        return code_base(targets if self.beyond is None else targets.with_ignore)

    @property
    def _own(self) -> slice:
        """Of the patches of a batch, those of this rank."""
        first, step = self.share
        return slice(first, None, step)

    def _keep_own(self, batch: Batch) -> Batch:
        """Leaves out patches of other ranks, which were read for the sake of a histogram."""
        if len(batch.images) == len(range(self.configuration.batch_size)[self._own]):
            return batch
        values = {one.name: getattr(batch, one.name) for one in fields(batch)}
        return replace(
            batch, **{name: value[self._own] for name, value in values.items() if isinstance(value, torch.Tensor)}
        )

    def _draw_cut(self, index: int, random: np.random.Generator) -> PatchRegion:
        """Draws a patch of a batch: where it lies and how it changes."""
        configuration = self.configuration
        count, size = configuration.batch_size, configuration.patch_size
        forced = index >= count - count_forced(count, self.foreground_fraction)
        number = int(random.integers(len(self.cases)))
        case = self.cases[number]
        cut = PatchRegion(
            case=case,
            start=place_patch(case, configuration, forced=forced, random=random),
            patch_size=size,
            unknown=self.unknown[number] if self.unknown else (),
            previous=self.previous,
            beyond=self.beyond,
        )
        others = [other for other in range(count) if other != index]
        return cut.with_changes(configuration, others, random) if self.augmented else cut

    def ahead(self, numbers: range, *, workers: int, on_wait: OnWait | None = None) -> Iterator[Batch]:
        """Gives the batches of `numbers` in order, while threads make the next ones.

        Args:
            numbers: Which batches.
            workers: Threads; 0 makes each batch when it is asked for.
            on_wait: Is called for every second of waiting for a batch, and may raise an error to wait no longer.

        Raises:
            AutosegError: A batch did not come within `STALL_SECONDS`.
        """
        if workers == 0:
            yield from map(self.make, numbers)
            return
        prepared = prepare_ahead(
            self._prepare, numbers, workers=workers, describe_work=self._describe_work, on_wait=on_wait
        )
        with closing(prepared):
            yield from map(self._finish, prepared)

    def _describe_work(self) -> str:
        names = sorted({str(name) for name in self.reading.copy().values()})
        return f"reading {list_names(names)}" if names else "no case is being read"


def change(
    patches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    cuts: Sequence[PatchRegion],
    configuration: Configuration,
    settings: AugmentationSettings | None = None,
) -> Batch:
    """Stacks patches as `PatchRegion.read` gave them, and augments them on the CPU as drawn; by default as planned."""
    images, labels = (torch.stack([pair[which] for pair in patches]) for which in (0, 1))
    augment(images, labels, [cut.draw for cut in cuts], settings or configuration.augmentation)
    clear_outside(images, labels, find_cleared(configuration))
    return Batch(images=images, labels=encode_targets(labels))


def find_cleared(configuration: Configuration) -> list[int]:
    """Channels that are zero outside the cases, by their normalization."""
    return [channel for channel, scheme in enumerate(configuration.normalization) if scheme.only_nonzero]


def open_cases(cases: Sequence[StoredCase], codes: Sequence[StoredCase] = ()) -> list[PatchSource]:
    """Brings cases into memory if all of them fit into `MEMORY_FOR_CASES_BYTES`, else leaves them on disk.

    Args:
        cases: To read patches of.
        codes: In a cascade, of each case what stands in place of its labels; see `data.previous`.
    """
    if sum(case.nbytes for case in (*cases, *codes)) > MEMORY_FOR_CASES_BYTES:
        pairs = zip(cases, codes, strict=True) if codes else ()
        return [FollowingCase(case=case, codes=one) for case, one in pairs] or list(cases)
    loaded: list[PatchSource] = []
    for number, case in enumerate(cases):
        image, label = case.load()
        label = codes[number].load_label() if codes else label
        loaded.append(InMemoryCase(image=image, label=label, foreground=case.load_foreground()))
    return loaded
