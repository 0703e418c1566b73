"""Batches of training patches, prepared ahead of the training loop by threads.

Every batch is determined by the seed and its own number alone. So neither the order or number of threads changes it,
nor a stop and a resume of the training. Threads share the memory of the process: nothing is copied between processes,
and there is no worker process that could die silently or hang.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from threading import get_ident
from typing import TypeVar, cast

import numpy as np
import torch

from autoseg.dataloading.augmentation import augment, clear_outside
from autoseg.dataloading.batch import Batch, PreparedBatch
from autoseg.dataloading.cascade_labels import Beyond, FollowingCase
from autoseg.dataloading.component_sampling import ComponentSampling
from autoseg.dataloading.device_augmentation import stack_unaugmented
from autoseg.dataloading.patch import PatchRegion, crop_to_centre, find_cleared, place_patch
from autoseg.dataloading.sampling import InMemoryCase, PatchSource, count_forced
from autoseg.dataloading.shapes import ShapeMaker
from autoseg.dataloading.soft_targets import SoftSource, crop_soft_to_centre, mirror_soft, split_soft
from autoseg.dataloading.threads import OnWait, OnWaited, Waiting, prepare_ahead
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
from autoseg.planning.patch_growth import PatchStage
from autoseg.planning.plan import Configuration
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.store import MEMORY_FOR_CASES_BYTES, StoredCase
from autoseg.runtime.copy_ahead import CopyAhead, copy_ahead
from autoseg.runtime.device import copy_to
from autoseg.runtime.reporting import list_names

CPU = torch.device("cpu")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """An endless, numbered supply of batches.

    Attributes:
        cases: Preprocessed cases; the case of each patch is drawn evenly.
        configuration: Gives patch size, batch size and augmentation settings.
        foreground_fraction: Share of the patches that are centred on foreground.
        seed: Seed of all random numbers; two supplies with the same seed give equal batches.
        augmented: Whether patches are augmented.
        augmentation_device: Device that augments all patches of a batch at once; None if the threads that read them
            augment them. The same patches get the same changes either way, up to rounding.
        unknown: For each case, for each structure, whether it is not annotated; empty if all structures are annotated
            in all cases.
        previous: In a cascade, the structures of the coarse segmentation that the cases hold beside the labels; see
            `cascade_labels`.
        beyond: Gives the labels of voxels beyond the border of a case, where its mirror image is read; None if nothing
            is read there. See `patch.find_beyond`.
        shapes: Makes the shapes that the loss needs beside the labels; None if it needs none. Threads make them, so
            there is no augmentation device then.
        soft: For each case, the probabilities by a teacher; empty without one. Threads augment the patches then.
        components: Draws the cases and the centres of the patches on foreground, evenly from connected components;
            None to draw them by `sampling.choose_start`.
        share: The rank of this process, and the number of ranks that share each batch. Of n ranks, rank r gets the
            patches r, r + n, r + 2 n and so on of the whole batch, which does not depend on the number of ranks.
        reading: Name of the case that each thread is reading, by the thread's identifier; used in messages.
    """

    cases: Sequence[PatchSource]
    configuration: Configuration
    foreground_fraction: float
    seed: tuple[int, ...]
    augmented: bool
    augmentation_device: torch.device | None = None
    unknown: Sequence[tuple[bool, ...]] = ()
    previous: Targets | None = None
    beyond: Beyond | None = None
    shapes: ShapeMaker | None = None
    soft: Sequence[SoftSource] = ()
    components: ComponentSampling | None = None
    share: tuple[int, int] = (0, 1)
    reading: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def make(self, number: int) -> Batch:
        """Makes one batch.

        Args:
            number: Number of the batch.

        Returns:
            The batch, on `augmentation_device` or else on the CPU.
        """
        return self._finish(self._prepare_copy(number).finish())

    def at_stage(self, stage: PatchStage) -> "Batches":
        """Returns the supply of batches with patches of another number and size; see `planning.patch_growth`."""
        return replace(self, configuration=self.configuration.model_copy(update={**dict(stage), "patch_growth": ()}))

    def _prepare_copy(self, number: int, device: torch.device = CPU) -> CopyAhead[PreparedBatch]:
        """Prepares a batch and its copy to a device, by default to `augmentation_device`; called in a loader thread."""
        prepared = self._prepare(number)
        if not isinstance(prepared.patches, Batch):
            device = cast(torch.device, self.augmentation_device)
        return copy_ahead(prepared, device)

    def _prepare(self, number: int) -> PreparedBatch:
        """Draws and reads the patches of a batch, and augments them unless a device does; called in a loader thread."""
        random = np.random.default_rng((*self.seed, number))
        regions = [self._sample_region(index, random) for index in range(self.configuration.batch_size)]
        if all(region.augmentation.partner is None for region in regions[self._rank_slice]):
            regions = regions[self._rank_slice]
        unknown = torch.tensor([region.unknown for region in regions]) if self.unknown else None
        if self.augmented and self.augmentation_device is not None:
            sources = [self._read_tracked(region, region.read_source_region) for region in regions]
            patches = stack_unaugmented(regions, sources, self._augmentation, find_cleared(self.configuration))
            return PreparedBatch(patches=patches, unknown=unknown)
        read = (self._read_tracked(region, region.read) for region in regions)
        patches_read, soft = split_soft(read, self.soft)
        batch = augment_on_cpu(patches_read, regions, self.configuration, self._augmentation)
        mirror_soft(soft, [region.augmentation for region in regions], self.configuration.augmentation)
        return PreparedBatch(patches=replace(self._add_shapes(batch), soft=soft), unknown=unknown)

    def _add_shapes(self, batch: Batch) -> Batch:
        """Makes the shapes that the loss needs, of the labels in the centre of each patch."""
        if self.shapes is None:
            return batch
        labels = batch.labels if self.previous is None else decode_labels(batch.labels, self._base)
        shapes = self.shapes.make(crop_to_centre(labels, self.configuration.patches.margin))
        return replace(batch, regions=shapes.regions, skeletons=shapes.skeletons, borders=shapes.borders)

    @property
    def _augmentation(self) -> AugmentationSettings:
        """The augmentation settings of the plan.

        In a cascade, pairs of labels are swapped in the labels and in the coarse segmentation together.
        """
        settings = self.configuration.augmentation
        if self.previous is None:
            return settings
        pairs = swapped_code_pairs(settings.swapped_labels, self._base)
        return settings.model_copy(update={"swapped_labels": pairs})

    def _read_tracked(self, region: PatchRegion, read: Callable[[AugmentationSettings], T]) -> T:
        """Reads a patch, and notes in `reading` from which case."""
        self.reading[get_ident()] = getattr(region.case, "name", "a case in memory")
        patch = read(self.configuration.augmentation)
        del self.reading[get_ident()]
        return patch

    def _finish(self, prepared: PreparedBatch) -> Batch:
        """Augments a batch on the device if its thread has not, and crops it to what this process trains on."""
        patches = prepared.patches
        if not isinstance(patches, Batch):
            images, labels = patches.augment(cast(torch.device, self.augmentation_device))
            patches = Batch(images=images, labels=labels)
        unknown = None if prepared.unknown is None else copy_to(prepared.unknown, patches.labels.device)
        batch, margin = self._show_previous(replace(patches, unknown=unknown)), self.configuration.patches.margin
        centres, soft = crop_to_centre(batch.labels, margin), crop_soft_to_centre(batch.soft, margin)
        return self._select_rank(replace(batch, labels=centres, soft=soft))

    def _show_previous(self, batch: Batch) -> Batch:
        """In a cascade, turns the coarse segmentation that the labels hold into channels of the image."""
        if self.previous is None:
            return batch
        channels = structure_channels(decode_previous(batch.labels, self._base), self.previous.structures.values())
        labels = decode_labels(batch.labels, self._base).to(batch.labels.dtype)
        return replace(batch, images=torch.cat([batch.images, channels], dim=1), labels=labels)

    @property
    def _base(self) -> CodeBase:
        """Base of the codes of a cascade in the patches, whose labels may have got a number for ignored voxels."""
        targets = cast(Targets, self.previous)
        return code_base(targets if self.beyond is None else targets.with_ignore)

    @property
    def _rank_slice(self) -> slice:
        """Selects the patches of this rank from those of a batch."""
        first, step = self.share
        return slice(first, None, step)

    def _select_rank(self, batch: Batch) -> Batch:
        """Leaves out the patches of other ranks, which were read for histogram matching."""
        if len(batch.images) == len(range(self.configuration.batch_size)[self._rank_slice]):
            return batch
        values = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}
        return replace(
            batch,
            **{name: value[self._rank_slice] for name, value in values.items() if isinstance(value, torch.Tensor)},
        )

    def _sample_region(self, index: int, random: np.random.Generator) -> PatchRegion:
        """Draws the place and the augmentation of a patch.

        Args:
            index: Index of the patch in its batch.
            random: Source of every random number.
        """
        configuration = self.configuration
        count, size = configuration.batch_size, configuration.patch_size
        forced = index >= count - count_forced(count, self.foreground_fraction)
        drawn = self.components.draw(random) if forced and self.components is not None else None
        number, voxel = (int(random.integers(len(self.cases))), None) if drawn is None else drawn
        case = self.cases[number]
        region = PatchRegion(
            case=case,
            start=place_patch(case, configuration, forced=forced, random=random, voxel=voxel),
            patch_size=size,
            unknown=self.unknown[number] if self.unknown else (),
            previous=self.previous,
            beyond=self.beyond,
            neighbours=configuration.neighbouring_slices,
            soft=self.soft[number] if self.soft else None,
        )
        others = [other for other in range(count) if other != index]
        return region.with_augmentation(configuration, others, random) if self.augmented else region

    def ahead(
        self,
        numbers: range,
        *,
        workers: int,
        device: torch.device = CPU,
        on_wait: OnWait | None = None,
        on_waited: OnWaited | None = None,
    ) -> Generator[Batch, None, None]:
        """Gives batches in order, while threads prepare the next ones, and the next one is copied to a CUDA GPU.

        Args:
            numbers: Numbers of the batches.
            workers: Number of threads; with 0, each batch is made when it is asked for.
            device: Device that uses the batches. Only to a CUDA GPU they are copied ahead; see `runtime.copy_ahead`.
            on_wait: Called for every second of waiting for a batch; may raise an error to wait no longer.
            on_waited: Called with the seconds of waiting for each batch to be prepared. What a device does to the batch
                afterwards, and the start of that, is not waiting.

        Raises:
            AutosegError: A batch did not come within `threads.STALL_SECONDS`.
        """
        copies = prepare_ahead(
            partial(self._prepare_copy, device=device),
            numbers,
            workers=workers,
            start=CopyAhead.start,
            waiting=Waiting(describe_work=self._describe_work, on_wait=on_wait, on_waited=on_waited),
        )
        with closing(copies):
            yield from (self._finish(copy.finish()) for copy in copies)

    def _describe_work(self) -> str:
        names = sorted({str(name) for name in self.reading.copy().values()})
        return f"reading {list_names(names)}" if names else "no case is being read"


def augment_on_cpu(
    patches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    regions: Sequence[PatchRegion],
    configuration: Configuration,
    settings: AugmentationSettings | None = None,
) -> Batch:
    """Stacks patches and augments them on the CPU.

    Args:
        patches: Image and label map of each patch, from `PatchRegion.read`.
        regions: The regions that the patches were read from, with their augmentation.
        configuration: The configuration.
        settings: Augmentation settings; by default those of the configuration.
    """
    images, labels = (torch.stack(tensors) for tensors in zip(*patches, strict=True))
    augment(images, labels, [region.augmentation for region in regions], settings or configuration.augmentation)
    clear_outside(images, labels, find_cleared(configuration))
    return Batch(images=images, labels=encode_targets(labels))


def open_cases(cases: Sequence[StoredCase], codes: Sequence[StoredCase] = ()) -> list[PatchSource]:
    """Loads cases into memory if all of them fit into `MEMORY_FOR_CASES_BYTES`, else leaves them on disk.

    Args:
        cases: The cases that patches are read from.
        codes: In a cascade, for each case the store whose codes are read in place of its labels; see `cascade_labels`.
    """
    if sum(case.nbytes for case in (*cases, *codes)) > MEMORY_FOR_CASES_BYTES:
        pairs = zip(cases, codes, strict=True) if codes else ()
        return [FollowingCase(case=case, codes=case_codes) for case, case_codes in pairs] or list(cases)
    loaded: list[PatchSource] = []
    for number, case in enumerate(cases):
        image, label = case.load()
        label = codes[number].load_label() if codes else label
        foreground, missing = case.load_foreground(), case.missing_channels
        loaded.append(InMemoryCase(image=image, label=label, foreground=foreground, missing_channels=missing))
    return loaded
