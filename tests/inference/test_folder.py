"""Which probabilities are written, and where."""

from pathlib import Path

import pytest

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.inference.folder import choose_labels, name_probability_maps

INFO = DatasetInfo(
    channel_names={"0": "CT"}, labels={"background": 0, "liver": 1, "tumor": 2, "vena cava": 3}, file_ending=".nii.gz"
)


def scan(name: str, ending: str = ".nii.gz") -> Case:
    """A scan of one channel."""
    return Case(name=name, images=(Path(f"{name}_0000{ending}"),))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ((), {}),
        ("tumor", {"tumor": 2}),
        (("tumor", "liver", "tumor"), {"tumor": 2, "liver": 1}),
        ("all", {"liver": 1, "tumor": 2, "vena cava": 3}),
        (("background", "all"), {"background": 0, "liver": 1, "tumor": 2, "vena cava": 3}),
    ],
)
def test_labels_are_chosen_by_name(names: str | tuple[str, ...], labels: dict[str, int]) -> None:
    """One, several, none, or all but the background, each once."""
    assert choose_labels(names, INFO) == labels


def test_unknown_labels_are_refused_with_those_there_are() -> None:
    """A misspelt name, and a name in other letters."""
    for name in ("spleen", "Liver", ""):
        with pytest.raises(UsageError, match=f"no label '{name}'; choose from background, liver, tumor, vena cava, or"):
            choose_labels(["tumor", name], INFO)


def test_files_are_named_by_scan_and_label() -> None:
    """With the ending of the segmentation; whatever a file name may not hold becomes a single underscore."""
    labels = {"a/b: c": 1, "../../up": 2, "肝脏": 3, "x" * 300: 4}
    names = name_probability_maps([scan("p.1"), scan("p2", ".jpg")], labels)
    assert names == {
        "p.1": {1: "p.1_a_b_c.nii.gz", 2: "p.1_up.nii.gz", 3: "p.1_肝脏.nii.gz", 4: f"p.1_{'x' * 60}.nii.gz"},
        "p2": {1: "p2_a_b_c.png", 2: "p2_up.png", 3: "p2_肝脏.png", 4: f"p2_{'x' * 60}.png"},
    }
    assert name_probability_maps([scan("p.1")], {}) == {"p.1": {}}


@pytest.mark.parametrize(
    ("scans", "labels"),
    [
        (("p1", "p1_left"), {"left_kidney": 1, "kidney": 2}),
        (("p1",), {"kidney": 1, "Kidney": 2}),
        (("p1",), {"a b": 1, "a/b": 2}),
    ],
)
def test_no_map_replaces_another(scans: tuple[str, ...], labels: dict[str, int]) -> None:
    """Two maps with the same file, on any file system, are refused before the work."""
    with pytest.raises(UsageError, match=r"of scan 'p1' and of label .* would both be written to p1_.*; ask for them"):
        name_probability_maps([scan(name) for name in scans], labels)
