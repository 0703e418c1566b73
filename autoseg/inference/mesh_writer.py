"""Surfaces of segmentations, written as mesh files beside the image files of a folder.

meshes/CASE/LABEL.stl      a file for each structure that was found
meshes/CASE.glb            all of them in one file
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import MESHES_FOLDER
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.label_files import file_stem, load_result, name_files
from autoseg.imaging.mesh_files import write_glb, write_stl
from autoseg.imaging.meshes import make_meshes
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import atomic_folder

MESH_KINDS = ("stl", "glb")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshWriter:
    """Writes the meshes of scans, from the segmentations that were written before; a `ResultWriter`.

    Attributes:
        kinds: The files that were asked for, of `MESH_KINDS`.
        targets: The structures.
    """

    kinds: tuple[str, ...]
    targets: Targets

    def list_files(self, scan: Case, maps: Mapping[int, str]) -> tuple[str, ...]:  # noqa: ARG002 - see ResultWriter
        """Returns the paths of the meshes of a scan, from the folder of the results on."""
        endings = {"stl": "", "glb": ".glb"}
        return tuple(f"{MESHES_FOLDER}/{scan.name}{endings[kind]}" for kind in self.kinds)

    def write(self, scan: Case, result: Path, output: Path, maps: Mapping[int, str]) -> None:
        """Writes the meshes of a scan; older ones are replaced.

        Args:
            scan: The scan.
            result: Its segmentation.
            output: Folder of the results.
            maps: Probabilities that were written too; meshes do not depend on them.

        Raises:
            ImageError: The scan is a plane, or its segmentation cannot be read.
            WriteError: A file cannot be written.
        """
        segmentation, targets = load_result(result, self.targets)
        if segmentation.geometry.dimensions == 2:
            raise ImageError(f"{scan.images[0].name} is a plane, which has no surface", "leave out --meshes")
        meshes = list(make_meshes(segmentation, targets))
        for kind, path in zip(self.kinds, self.list_files(scan, maps), strict=True):
            if kind == "glb":
                write_glb(output / path, meshes)
                continue
            with atomic_folder(output / path) as folder:
                for mesh in meshes:
                    write_stl(folder / f"{file_stem(mesh.name)}.stl", mesh)


def choose_meshes(kinds: Sequence[str], targets: Targets) -> MeshWriter | None:
    """Returns what writes the meshes that are asked for; None if none are.

    Example:
        >>> choose_meshes(["glb"], Targets.of_labels({"liver": 1})).kinds
        ('glb',)

    Raises:
        UsageError: There is no such kind, or two structures would have the same file.
        ModuleNotFoundError: scikit-image is not installed, which finds surfaces.
    """
    if not kinds:
        return None
    for kind in kinds:
        if kind not in MESH_KINDS:
            raise UsageError(f"there are no meshes of the kind {kind!r}", f"choose from {', '.join(MESH_KINDS)}")
    import skimage.measure  # noqa: F401, PLC0415 - its lack is noticed before the work

    if "stl" in kinds:
        name_files(targets.names, ".stl", "meshes")
    return MeshWriter(kinds=tuple(dict.fromkeys(kinds)), targets=targets)
