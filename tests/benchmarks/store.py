"""Several formats of preprocessed cases: their size on disk, and the time to write cases and to read patches.

    python tests/benchmarks/store.py WORKSPACE [--size 160 384 384] [--patches 40] [--own-grid] [--only zstd]

Makes CT-like cases: scans in whole Hounsfield units, normalized, and resampled to the size given; with --own-grid they
are not resampled, so that few different values occur, which compress far better. Each variant writes all cases and
reads the same random patches of image and label map, opening the files each time as training does. "Cold" means that
the file was dropped from the system's cache just before; caches of the disk or of a virtual machine's host remain.
Variants take turns; the fastest of all rounds counts. The row "store" is `save_case` and `StoredCase.read` themselves,
with checksums and the sampled voxels of the foreground.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import blosc2
import numpy as np
from measured_on import print_machine
from numpy.typing import NDArray
from smooth_scans import ANY_SPACING, make_scan

from autoseg.imaging.geometry import Box, Geometry, Shape
from autoseg.preprocessing.archive import BLOCK_EDGE, CODEC, LEVEL
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord
from autoseg.preprocessing.label_resampling import resample_labels
from autoseg.preprocessing.resampling import resample_image
from autoseg.preprocessing.store import StoredCase, save_case

LABELS = 10
FINER = 1.15  # Edges of the scan in voxels, divided by those of the case
MEAN_HU, DEVIATION_HU = -300.0, 550.0
SMALL_PATCH = (32, 64, 64)
MEGABYTE = 10**6

Arrays = tuple[NDArray[np.float32], NDArray[np.integer]]
PatchRegion = tuple[int, Box]  # Number of a case, and a box in it


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Two .npy files, mapped into memory."""

    name: str = "plain .npy"
    dtype: type[np.floating] = np.float32

    def write(self, folder: Path, number: int, arrays: Arrays) -> None:
        for path, array in zip(self._paths(folder, number), arrays, strict=True):
            np.save(path, array.astype(self.dtype, copy=False) if array.ndim == 4 else array)

    def read(self, folder: Path, number: int, box: Box) -> Arrays:
        image, label = (np.load(path, mmap_mode="r") for path in self._paths(folder, number))
        return np.array(image[(slice(None), *box.slices)], dtype=np.float32), np.array(label[box.slices])

    def _paths(self, folder: Path, number: int) -> tuple[Path, Path]:
        return folder / f"{number}_image.npy", folder / f"{number}_label.npy"


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Two files of blosc2."""

    name: str
    chunks: Shape
    blocks: Shape = (BLOCK_EDGE[3],) * 3
    codec: blosc2.Codec = blosc2.Codec[CODEC]
    level: int = LEVEL
    filters: tuple[blosc2.Filter, ...] = (blosc2.Filter.SHUFFLE,)
    dtype: type[np.floating] = np.float32

    def write(self, folder: Path, number: int, arrays: Arrays) -> None:
        image, label = arrays
        image_path, label_path = self._paths(folder, number)
        self._write(image_path, image.astype(self.dtype, copy=False), self.filters)
        self._write(label_path, label, (blosc2.Filter.NOFILTER,))

    def read(self, folder: Path, number: int, box: Box) -> Arrays:
        image, label = (
            blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
            for path in self._paths(folder, number)
        )
        return image[(slice(None), *box.slices)].astype(np.float32, copy=False), label[box.slices]

    def _write(self, path: Path, array: NDArray[np.generic], filters: Sequence[blosc2.Filter]) -> None:
        chunks = tuple(map(min, self.chunks, array.shape[-3:]))
        leading = (1,) * (array.ndim - 3)
        settings = {"codec": self.codec, "clevel": self.level, "nthreads": 1}
        compressed = blosc2.asarray(
            np.ascontiguousarray(array),
            chunks=(*leading, *chunks),
            blocks=(*leading, *map(min, self.blocks, chunks)),
            cparams={**settings, "filters": list(filters), "filters_meta": [0] * len(filters)},
        )
        path.write_bytes(compressed.to_cframe())

    def _paths(self, folder: Path, number: int) -> tuple[Path, Path]:
        return folder / f"{number}_image.b2nd", folder / f"{number}_label.b2nd"


@dataclass(frozen=True, kw_only=True)
class Store:
    """The store of the program."""

    patch: Shape
    name: str = "**store**"

    def write(self, folder: Path, number: int, arrays: Arrays) -> None:
        image, label = arrays
        z, y, x = label.shape
        record = PreprocessRecord(
            geometry=Geometry(shape=(z, y, x), spacing_mm=ANY_SPACING),
            axis_order=(0, 1, 2),
            box=Box(start=(0, 0, 0), stop=(z, y, x)),
            shape=(z, y, x),
            spacing_mm=ANY_SPACING,
        )
        save_case(folder, str(number), PreprocessedCase(image=image, label=label, record=record), patch_size=self.patch)

    def read(self, folder: Path, number: int, box: Box) -> Arrays:
        return StoredCase.open(folder, str(number)).read(box)


Variant = Plain | Compressed | Store


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The cases that all variants write into a folder, and the patches and whole cases that they read."""

    root: Path
    cases: list[Arrays]
    patches: list[PatchRegion]
    small: list[PatchRegion]
    whole: list[PatchRegion]


def main() -> None:
    """Measures all variants in turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(160, 384, 384), metavar=("Z", "Y", "X"))
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("Z", "Y", "X"))
    parser.add_argument("--patches", type=int, default=40)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own-grid", action="store_true", help="do not resample the scans")
    parser.add_argument("--only", nargs="*", help="names of variants, or parts of names")
    arguments = parser.parse_args()
    print_machine()
    size, patch = tuple(arguments.size), tuple(arguments.patch)
    root = arguments.workspace / "store_benchmark"
    random = np.random.default_rng(0)
    bench = Bench(
        root=root,
        cases=[make_case(size, seed=number, own_grid=arguments.own_grid) for number in range(arguments.cases)],
        patches=draw(size, patch, arguments.cases, arguments.patches, random),
        small=draw(size, SMALL_PATCH, arguments.cases, arguments.patches, random),
        whole=[(number, Box(start=(0, 0, 0), stop=size)) for number in range(arguments.cases)],
    )
    variants = list_variants(patch)
    if arguments.only:
        variants = [
            variant for variant in variants if any(part in variant.name for part in (*arguments.only, "plain .npy"))
        ]
    rounds = []
    try:
        for _ in range(arguments.rounds):
            rounds.append([measure(variant, bench) for variant in variants])
            print(f"round {len(rounds)}, load {os.getloadavg()[0]:.1f}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print_table(variants, np.array(rounds).min(axis=0))


def list_variants(patch: Shape) -> list[Variant]:
    """Returns plain files, the store, and its settings with the differences that each name states."""
    z, y, x = patch
    base = Compressed(name="the same without checksums and foreground", chunks=patch)
    lz4, lz4hc, bitshuffle = blosc2.Codec.LZ4, blosc2.Codec.LZ4HC, (blosc2.Filter.BITSHUFFLE,)
    everything = 10**6
    return [
        Plain(),
        Store(patch=patch),
        base,
        replace(base, name="zstd 3", level=3),
        replace(base, name="zstd 5", level=5),
        replace(base, name="lz4 9", codec=lz4, level=9),
        replace(base, name="lz4 9, bitshuffle", codec=lz4, level=9, filters=bitshuffle),
        replace(base, name="lz4hc 8", codec=lz4hc, level=8),
        replace(base, name="bitshuffle", filters=bitshuffle),
        replace(base, name="no filter", filters=(blosc2.Filter.NOFILTER,)),
        replace(base, name="chunk: half a patch", chunks=(z // 2, y // 2, x // 2)),
        replace(base, name="chunk: 16 whole slices", chunks=(16, everything, everything)),
        replace(base, name="block: 16 x 16 x 16", blocks=(16, 16, 16)),
        replace(base, name="block: 64 x 64 x 64", blocks=(64, 64, 64)),
        replace(base, name="float16 (not exact)", dtype=np.float16),
    ]


def make_case(size: Shape, seed: int, *, own_grid: bool) -> Arrays:
    """Returns a normalized scan, (1, z, y, x), and its label map, (z, y, x)."""
    z, y, x = (round(edge * (1 if own_grid else FINER)) for edge in size)
    scan, label = make_scan((z, y, x), LABELS, seed)
    image = ((scan.astype(np.float32) - np.float32(MEAN_HU)) / np.float32(DEVIATION_HU))[np.newaxis]
    resampled = resample_image(image, ANY_SPACING, size, ANY_SPACING)
    return resampled, resample_labels(label, ANY_SPACING, size, ANY_SPACING)


def draw(size: Shape, patch: Shape, cases: int, count: int, random: np.random.Generator) -> list[PatchRegion]:
    """Draws random patches inside random cases."""
    cuts = []
    for _ in range(count):
        z, y, x = (int(random.integers(0, max(0, edge - length) + 1)) for edge, length in zip(size, patch, strict=True))
        stop = tuple(map(min, (z + patch[0], y + patch[1], x + patch[2]), size))
        cuts.append((int(random.integers(cases)), Box(start=(z, y, x), stop=(stop[0], stop[1], stop[2]))))
    return cuts


def measure(variant: Variant, bench: Bench) -> list[float]:
    """Writes and reads all cases; returns the bytes of a case, its seconds of writing, and those of `time_reads`."""
    shutil.rmtree(bench.root, ignore_errors=True)
    bench.root.mkdir(parents=True)
    started = time.perf_counter()
    for number, arrays in enumerate(bench.cases):
        variant.write(bench.root, number, arrays)
    seconds = (time.perf_counter() - started) / len(bench.cases)
    check(variant, bench)
    arrays_on_disk = [path for path in bench.root.iterdir() if path.suffix in {".npy", ".b2nd", ".zip"}]
    size = sum(path.stat().st_size for path in arrays_on_disk) / len(bench.cases)
    return [size, seconds, *time_reads(variant, bench, arrays_on_disk)]


def check(variant: Variant, bench: Bench) -> None:
    """Checks that what was written is read again, exactly unless the variant is known to round.

    Raises:
        SystemExit: A variant changed values.
    """
    for number, box in bench.whole:
        for written, read in zip(bench.cases[number], variant.read(bench.root, number, box), strict=True):
            if not np.array_equal(written, read) and getattr(variant, "dtype", np.float32) == np.float32:
                raise SystemExit(f"{variant.name} changes values")


def time_reads(variant: Variant, bench: Bench, files: list[Path]) -> Iterator[float]:
    """Yields seconds per read: patches by one and by two threads, small patches, whole cases, and patches cold."""

    def read(cut: PatchRegion) -> None:
        variant.read(bench.root, *cut)

    def read_by_two(cuts: Sequence[PatchRegion]) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, cuts))

    for path in files:
        with path.open("r+b") as file:
            os.fsync(file.fileno())  # only what is on the disk can be dropped from the cache
    yield clock(lambda: [read(cut) for cut in bench.patches]) / len(bench.patches)
    yield clock(lambda: read_by_two(bench.patches)) / len(bench.patches)
    yield clock(lambda: [read(cut) for cut in bench.small]) / len(bench.small)
    yield clock(lambda: [read(cut) for cut in bench.whole]) / len(bench.whole)
    yield sum(clock_cold(lambda cut=cut: read(cut), files) for cut in bench.patches) / len(bench.patches)


def clock(work: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def clock_cold(work: Callable[[], object], files: Sequence[Path]) -> float:
    """Returns the seconds that a call takes once the files were dropped from the system's cache."""
    if hasattr(os, "posix_fadvise"):
        for path in files:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return clock(work)


def print_table(variants: Sequence[Variant], results: NDArray[np.float64]) -> None:
    """Prints a line for each variant; the ratio to plain files follows in brackets."""
    print("\n| | MB | write, s | patch, ms | by two threads, ms | small patch, ms | whole case, s | patch cold, ms |")
    print("|---|---|---|---|---|---|---|---|")
    scales = np.array([1 / MEGABYTE, 1, 1e3, 1e3, 1e3, 1, 1e3])
    for variant, result in zip(variants, results, strict=True):
        shown = [
            f"{value:.{1 if value >= 10 else 2}f} ({ratio:.2f})"
            for value, ratio in zip(result * scales, result / results[0], strict=True)
        ]
        print(f"| {variant.name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
