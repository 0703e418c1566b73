"""The weights of a network that another program trained, under the names of the network of a plan.

Files of `torch.save` and .safetensors files are read as `foreign_weights` does, so that nothing in them is run. Their
weights are found by the first of these that applies:

    names of a file that the user wrote                  see `weight_patterns`
    "nnssl_adaptation_plan" in the file                  encoder and stem, whose keys the file names; see below
    the names of the network itself                      a plain state dict
    nnU-Net's names                                      a checkpoint of nnU-Net, see `nnunet_names`

nnssl, which pretrains encoders on scans without labels (OpenMind), saves the weights as "network_weights" and beside
them a plan of how to take them over: under which keys the encoder's stages ("key_to_encoder") and the first convolution
("key_to_stem") are, the name of the network, and the number of channels. Inside of both, names are nnU-Net's. Its
decoder draws images and no structures, and is left. Source: MIC-DKFZ/nnssl, src/nnssl/adaptation_planning, and
nnU-Net v2.8.1, training/nnUNetTrainer/pretraining.
"""

import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import ModelError, UsageError
from autoseg.models.bundle_format import MANIFEST
from autoseg.models.foreign_weights import find_weights, open_container, open_weights, read_weights, unwrap
from autoseg.models.nnunet_names import all_names, to_nnunet_name
from autoseg.models.pickles import DAMAGED
from autoseg.models.safetensors_file import is_safetensors
from autoseg.models.weight_patterns import WeightPatterns
from autoseg.networks.architecture import Architecture
from autoseg.runtime.printable import printable
from autoseg.runtime.reporting import list_names

OWN_KEY = b"format_version"
"""The first key of a checkpoint of this program."""

NNSSL_PLAN, NNSSL_WEIGHTS = "nnssl_adaptation_plan", "network_weights"
STEM, STAGES = "encoder.stem", "encoder.stages"
HEADS = "heads."

LONGEST_TEXT = 300
MOST_CITATIONS = 5

Stored = Mapping[str, Any]
"""Foreign name, without prefixes of wrapped networks, to a `StoredTensor`; whether it is one is checked in reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWeights:
    """Weights that another program trained.

    Attributes:
        path: The file.
        kind: What it is, for people.
        is_pretrained_encoder: Whether it is a file of nnssl.
        weights: The weights that have a name in the network of the plan, by that name; shapes may differ.
        unused: Foreign names of all others.
        remarks: Lines for people: what to cite, and patterns that match nothing.
    """

    path: Path
    kind: str
    is_pretrained_encoder: bool
    weights: Mapping[str, torch.Tensor]
    unused: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def is_foreign(path: Path) -> bool:
    """Returns whether a file is one of `torch.save`, and none of this program, or a .safetensors file; runs nothing.

    Raises:
        ModelError: The file is damaged or no container of torch's.
    """
    if is_safetensors(path):
        return True
    if _is_bundle(path):
        return False
    with open_container(path) as container:
        return OWN_KEY not in container.read_description()[:100]


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except Exception:  # noqa: BLE001 - zipfile meets crafted files with errors of many kinds
        return False


def match_foreign_weights(
    path: Path, names: Iterable[str], architecture: Architecture | None, patterns_file: Path | None = None
) -> ForeignWeights:
    """Reads the weights of a foreign file that the network of a plan has too.

    Args:
        path: The file.
        names: Names of the weights of the network of the plan.
        architecture: The network, if it is the built-in one; else nnU-Net's names, which nnssl has too, are not known.
        patterns_file: File of names, see `weight_patterns`.

    Raises:
        ModelError: The file is damaged, holds more than tensors and plain values, or no weights that can be found; or
            weights are infinite or no numbers.
        ArtifactError, UsageError: The file of names is missing or wrong.
    """
    patterns = None if patterns_file is None else WeightPatterns.load(patterns_file)
    with open_weights(path) as container:
        content = container.read_content()
        plan = _find_plan(content, path)
        key = NNSSL_WEIGHTS if plan is not None else None if patterns is None else patterns.weights
        stored = {unwrap(str(name)): tensor for name, tensor in find_weights(content, path, key).items()}
        remarks: list[str] = []
        if patterns is not None:
            kind, chosen = f"weights by the names of {patterns_file}", _choose_by_patterns(stored, patterns, path)
            remarks += [f"no weight of the file matches {pattern!r}" for pattern in patterns.list_idle(stored)]
        elif plan is not None:
            kind, chosen = _describe_plan(plan), _choose_encoder(stored, names, architecture, plan)
            remarks += _list_citations(content)
        else:
            kind, chosen = _choose_by_name(stored, names, architecture, path)
        wanted = set(chosen.values())
        tensors = read_weights(stored, container, lambda name: name not in wanted)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{path}: its weights {_short(name)!r} are infinite or no numbers", DAMAGED)
    used = wanted | _find_copies(stored, wanted)
    return ForeignWeights(
        path=path,
        kind=kind,
        is_pretrained_encoder=plan is not None and patterns is None,
        weights={name: tensors[foreign] for name, foreign in chosen.items()},
        unused=tuple(name for name in stored if name not in used),
        remarks=tuple(remarks),
    )


def _find_copies(stored: Stored, wanted: Collection[str]) -> set[str]:
    """Returns the names of tensors that share the numbers of wanted ones: nnU-Net writes most under several names."""
    taken = [stored[name] for name in wanted]
    return {name for name, tensor in stored.items() if tensor in taken}


# --- The names that they have here ------------------------------------------------------------------------------------


def _choose_by_patterns(stored: Stored, patterns: WeightPatterns, path: Path) -> dict[str, str]:
    chosen = patterns.translate(stored)
    for name, foreign in chosen.items():
        if len(foreign) > 1:
            both = " and ".join(repr(_short(other)) for other in foreign[:2])
            raise UsageError(f"the names give {both} of {path} the same name {_short(name)!r}", "correct the patterns")
    return {name: foreign[0] for name, foreign in chosen.items()}


def _choose_by_name(
    stored: Stored, names: Iterable[str], architecture: Architecture | None, path: Path
) -> tuple[str, dict[str, str]]:
    """Returns what the file is, and the foreign name of each weight that it has: by our names or by nnU-Net's.

    Raises:
        UsageError: It has none of them.
    """
    names = list(names)
    own = {name: name for name in names if name in stored}
    if own:
        return "weights by the names of the network", own
    bodies = [name for name in names if not name.startswith(HEADS)]  # what its outputs stand for is not in the file
    chosen = _choose(stored, bodies, architecture, lambda name: name)
    if not chosen:
        examples = list_names((_short(name) for name in stored), most=3, count_rest=False)
        what = f"{path} holds no weight that the network of the plan has by that name (there: {examples})"
        raise UsageError(what, "say which is which in a file of --init-names; see 'autoseg guide fine_tuning'")
    return "weights by nnU-Net's names", chosen


def _choose_encoder(
    stored: Stored, names: Iterable[str], architecture: Architecture | None, plan: Mapping[str, str]
) -> dict[str, str]:
    """Returns the foreign names of the encoder and its stem in a file of nnssl."""

    def place(name: str) -> str:
        for usual, key in ((STEM, plan["stem"]), (STAGES, plan["encoder"])):
            if name.startswith(f"{usual}."):
                return key + name.removeprefix(usual)
        return name

    encoder = [name for name in names if name.startswith(("stem.", "encoder."))]
    return _choose(stored, encoder, architecture, place)


def _choose(
    stored: Stored, names: Iterable[str], architecture: Architecture | None, place: Callable[[str], str]
) -> dict[str, str]:
    """Returns the foreign name of each weight that a file has under one of nnU-Net's names."""
    if architecture is None:
        return {}
    chosen = {}
    for name in names:
        candidates = map(place, all_names(to_nnunet_name(name, architecture)))
        foreign = next((candidate for candidate in candidates if candidate in stored), None)
        if foreign is not None:
            chosen[name] = foreign
    return chosen


# --- Files of nnssl ---------------------------------------------------------------------------------------------------


def _find_plan(content: Any, path: Path) -> dict[str, str] | None:
    """Returns the keys of encoder and stem and the name of the network in a file of nnssl; None if it is none.

    Its first versions named them differently.

    Raises:
        ModelError: Something else stands in their place.
    """
    if not isinstance(content, dict) or NNSSL_PLAN not in content:
        return None
    plan = content[NNSSL_PLAN]
    if not isinstance(plan, dict):
        raise ModelError(f"{path}: its {NNSSL_PLAN} is none", DAMAGED)
    network = plan.get("architecture_plans", {})
    named = network.get("arch_class_name") if isinstance(network, dict) else None
    texts = {
        "encoder": plan.get("key_to_encoder", plan.get("state_dict_key_to_encoder", STAGES)),
        "stem": plan.get("key_to_stem", plan.get("state_dict_key_to_stem", STEM)),
        "network": named or plan.get("architecture_name", "a network without a name"),
    }
    if not all(isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT for text in texts.values()):
        raise ModelError(f"{path}: its {NNSSL_PLAN} names its encoder by something else than text", DAMAGED)
    return texts


def _describe_plan(plan: Mapping[str, str]) -> str:
    return f"encoder of {_short(plan['network'])}, pretrained with nnssl"


def _list_citations(content: Any) -> list[str]:
    """Returns lines on what a file's authors ask to cite: "citations" holds texts, or groups of "apa_citations"."""
    groups = content.get("citations") if isinstance(content, dict) else None
    texts: list[Any] = []
    for group in groups if isinstance(groups, list | tuple) else ():
        inside = group.get("apa_citations") if isinstance(group, dict) else [group]
        texts += inside if isinstance(inside, list | tuple) else [inside]
    lines = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    return [f"its authors ask to cite: {_short(line)}" for line in lines[:MOST_CITATIONS] if line]


def _short(text: str) -> str:
    """Returns a text of unknown origin for a line: without signs that terminals obey, and of limited length."""
    return printable(text[:LONGEST_TEXT])
