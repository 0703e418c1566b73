"""Damaged and crafted files of every kind, read by a process of their own, which must survive them all.

As a program: `hostile_files COUNT FOLDER KIND ...` reads mutations of a sound file of each kind, and prints a line for
each reader of each: its number, and "read", "refused", or what went wrong.
"""

import gzip
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.errors import AutosegError

WORDS = (
    b"-1", b"0", b"nan", b"inf", b"1e308", b"99999999999999999999", b"16", b"2147483648", b"4294967295", b"%s%n%d",
    b"(", b")", b"none", b"LIST", b"/etc/passwd", b"-", b"\0", b"\xff", b" ", b"\n", b"=", b":", b"[[[[", b'"', b"null",
)  # fmt: skip
"""What takes the place of a word of a text."""

BLOCKS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\x80")
"""What takes the place of bytes: numbers that are huge, none, negative, infinite, or no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file that may come from a stranger.

    Attributes:
        name: File name.
        make: Writes a sound file.
        readers: What reads it; each may raise an error of this program, and nothing else.
        header: Bytes at the beginning in which most mutations lie; None for the whole file.
        is_text: Whether words are replaced too.
        is_packed: Whether mutations are made before gzip packs the file.
    """

    name: str
    make: Callable[[Path], object]
    readers: Callable[[], "list[Callable[[Path], object]]"]
    header: int | None = None
    is_text: bool = False
    is_packed: bool = False


def _image(path: Path, *, packed: bool = False) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 400, (6, 7, 8)).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 1.2))
    sitk.WriteImage(image, str(path), useCompression=packed)


def _packed_image(path: Path) -> None:
    _image(path, packed=True)


def _second_nifti(path: Path) -> None:
    import nibabel

    nibabel.Nifti2Image(np.zeros((6, 7, 8), np.int16), np.eye(4)).to_filename(path)


def _image_readers() -> "list[Callable[[Path], object]]":
    from autoseg.imaging.image_files import read_image, read_label_map
    from autoseg.imaging.image_headers import read_image_header

    return [read_image_header, lambda path: read_image((path,)), read_label_map]


def _checkpoint(path: Path) -> None:
    from small_models import small_checkpoint

    from autoseg.models.checkpoint import save_checkpoint

    save_checkpoint(small_checkpoint(), path)


def _checkpoint_readers() -> "list[Callable[[Path], object]]":
    from autoseg.models.checkpoint import load_checkpoint

    return [load_checkpoint, lambda path: load_checkpoint(path, mapped=True)]


def _bundle(path: Path) -> None:
    from autoseg.models.bundle import export_model
    from autoseg.workspace import ModelFolder

    folder = ModelFolder(path=path.parent / "model" / "3d_fullres")
    _checkpoint(folder.checkpoint(0))
    export_model(folder.path, path)


def _bundle_readers() -> "list[Callable[[Path], object]]":
    from autoseg.models.bundle import install_model

    return [lambda path: install_model(path, path.parent / f"workspace_{path.stem}")]


def _nnunet_checkpoint(path: Path) -> None:
    import torch

    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "module.b.bias": torch.ones(2)}
    content = {
        "network_weights": weights,
        "init_args": {"configuration": "2d", "fold": 0},
        "trainer_name": "nnUNetTrainer",
    }
    torch.save({**content, "current_epoch": 3, "inference_allowed_mirroring_axes": (0, 1)}, path)


def _nnunet_readers() -> "list[Callable[[Path], object]]":
    from autoseg.nnunet.checkpoint_file import read_nnunet_checkpoint

    return [read_nnunet_checkpoint]


def _foreign_weights(path: Path) -> None:
    import torch

    torch.save({"model": {"a.weight": torch.arange(6.0).reshape(2, 3), "module.b.bias": torch.ones(2)}}, path)


def _foreign_readers() -> "list[Callable[[Path], object]]":
    from autoseg.models.foreign_weights import read_foreign_weights

    return [read_foreign_weights]


def _nnunet_plans(path: Path) -> None:
    from small_nnunet import change_json, unpack

    model = next(unpack("residual", path.parent / "results").iterdir())
    path.write_bytes((model / "plans.json").read_bytes())
    change_json(path, dataset_name="Dataset001_Small")


def _nnunet_plan_readers() -> "list[Callable[[Path], object]]":
    from autoseg.nnunet.plans import NnunetPlans

    def follow(path: Path) -> None:
        plans = NnunetPlans.load(path)
        for name in plans.configurations:
            plans.configuration(name)

    return [follow]


def _plan(path: Path) -> None:
    from small_models import small_plan

    small_plan().save(path)


def _plan_readers() -> "list[Callable[[Path], object]]":
    from autoseg.planning.plan import Plan

    return [Plan.load]


def _summary(path: Path) -> None:
    from autoseg.evaluation.scores import UNDEFINED
    from autoseg.evaluation.summary import CaseResult, summarize

    scores = [{"liver": UNDEFINED.model_copy(update={"dice": value})} for value in (0.5, 0.7)]
    cases = [CaseResult(name=f"case_{number}", scores=score) for number, score in enumerate(scores)]
    summarize(cases, ["liver"]).save(path)


def _summary_readers() -> "list[Callable[[Path], object]]":
    from autoseg.evaluation.paired import compare_summaries
    from autoseg.evaluation.summary import Summary

    def compare(path: Path) -> None:
        summary = Summary.load(path)
        compare_summaries(summary, summary, names=("a", "b"))

    return [compare]


IMAGES = {
    "nrrd": Kind(name="a.nrrd", make=_image, readers=_image_readers, header=400, is_text=True),
    "nrrd_packed": Kind(name="a.nrrd", make=_packed_image, readers=_image_readers, header=400, is_text=True),
    "metaimage": Kind(name="a.mha", make=_image, readers=_image_readers, header=350, is_text=True),
    "metaimage_packed": Kind(name="a.mha", make=_packed_image, readers=_image_readers, header=370, is_text=True),
    "gipl": Kind(name="a.gipl", make=_image, readers=_image_readers, header=256),
    "nifti": Kind(name="a.nii", make=_image, readers=_image_readers, header=352),
    "nifti_packed": Kind(name="a.nii.gz", make=_image, readers=_image_readers, header=352, is_packed=True),
    "nifti_2": Kind(name="a.nii", make=_second_nifti, readers=_image_readers, header=544),
}
MODELS = {
    "checkpoint": Kind(name="checkpoint.pt", make=_checkpoint, readers=_checkpoint_readers, header=3000),
    "bundle": Kind(name="bundle.zip", make=_bundle, readers=_bundle_readers),
    "nnunet_checkpoint": Kind(name="checkpoint_final.pth", make=_nnunet_checkpoint, readers=_nnunet_readers),
    "foreign_weights": Kind(name="weights.pth", make=_foreign_weights, readers=_foreign_readers, header=1200),
    "nnunet_plans": Kind(name="plans.json", make=_nnunet_plans, readers=_nnunet_plan_readers, is_text=True),
    "plan": Kind(name="plan.json", make=_plan, readers=_plan_readers, is_text=True),
    "summary": Kind(name="summary.json", make=_summary, readers=_summary_readers, is_text=True),
}
KINDS = {**IMAGES, **MODELS}


def mutate(content: bytes, number: int, kind: Kind) -> bytes:
    """Returns a sound file with one to six changes; the same number gives the same changes."""
    chance = random.Random(number)
    end = min(len(content), kind.header or len(content))
    head, body = bytearray(content[:end]), content[end:]
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place, change = chance.randrange(max(1, len(head))), chance.random()
        words = list(re.finditer(rb"[-\w.]+", bytes(head))) if kind.is_text and change < 0.4 else []
        if words:
            word = chance.choice(words)
            head[word.start() : word.end()] = chance.choice(WORDS)
        elif change < 0.6:
            head[place : place + 1] = bytes([chance.randrange(256)])
        elif change < 0.7:
            head[place : place + 1] = bytes([(head[place] if head else 0) ^ (1 << chance.randrange(8))])
        elif change < 0.85:
            block = chance.choice(BLOCKS)
            head[place : place + len(block)] = block
        elif kind.is_text:
            del head[place : place + chance.randrange(1, 20)]
    if chance.random() < 0.1:
        body = body[: chance.randrange(len(body) + 1)]
    return bytes(head) + body


def read_mutations(name: str, count: int, folder: Path) -> None:
    """Reads mutations of a kind, and prints what became of each."""
    kind = KINDS[name]
    sound = folder / kind.name
    kind.make(sound)
    content, readers = sound.read_bytes(), kind.readers()
    content = gzip.decompress(content) if kind.is_packed else content
    for number in range(count):
        path = folder / f"{number}_{kind.name}"
        sys.stdout.write(f"{name} {number} began\n")
        sys.stdout.flush()
        mutation = mutate(content, number, kind)
        path.write_bytes(gzip.compress(mutation, 1) if kind.is_packed else mutation)
        for reader in readers:
            sys.stdout.write(f"{name} {number} {_try(reader, path)}\n")
        path.unlink()


def _try(reader: "Callable[[Path], object]", path: Path) -> str:
    try:
        reader(path)
    except AutosegError as error:
        return "refused" if str(error).isprintable() else f"says {str(error)!a}"
    except Exception as error:  # noqa: BLE001 - it is what the test looks for
        return f"raises {type(error).__name__}: {str(error)[:200]!a}"
    return "read"


def survive(names: Iterable[str], count: int, folder: Path) -> set[str]:
    """Reads mutations of kinds of files in a process of their own.

    Returns:
        What happened to them: "read" and "refused", and what should not happen, with the kind and number of the file.
    """
    program = [sys.executable, str(Path(__file__)), str(count), str(folder), *names]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = ended.stdout.splitlines()
    happened = {line.split()[-1] if line.endswith((" read", " refused", " began")) else line for line in lines}
    if ended.returncode:
        happened.add(f"ended with {ended.returncode} in {lines[-1:]}: {ended.stderr[-500:]}")
    return happened - {"began"}


if __name__ == "__main__":
    for kind_name in sys.argv[3:]:
        read_mutations(kind_name, int(sys.argv[1]), Path(sys.argv[2]))
