"""Cases that were labelled by a model and not by people: they teach, and nothing is judged by them."""

from collections.abc import Iterable, Sequence

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.runtime.reporting import Reporter

RECORD = "pseudo_labels.json"
"""File in the folder of a dataset that says where the labels of its machine-labelled cases come from."""


def list_machine_labelled(cases: Iterable[str], info: DatasetInfo) -> list[str]:
    """Returns those of the cases that were labelled by a model, as dataset.json says, in their order.

    Example:
        >>> labels = {"background": 0, "liver": 1}
        >>> info = DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".png", machine_labelled=("b",))
        >>> list_machine_labelled(["c", "b", "a"], info)
        ['b']
    """
    names = set(info.machine_labelled or ())
    return [name for name in cases if name in names]


def choose_new_scans(scans: Sequence[Case], dataset: Dataset, reporter: Reporter) -> list[Case]:
    """Returns the scans that are no cases of the dataset, by name and by file, and says which are left out.

    Decision: a scan that people have labelled needs no other label, and with one it would teach a fold that holds it
    out.
    """
    labelled = [case for case in dataset.cases if case.name not in set(dataset.info.machine_labelled or ())]
    names, files = {case.name for case in labelled}, {path.resolve() for case in labelled for path in case.images}
    new = [scan for scan in scans if scan.name not in names and not files & {path.resolve() for path in scan.images}]
    if left := len(scans) - len(new):
        reporter.say(f"{left} of {len(scans)} scans are labelled cases of {dataset.name}, and are left out")
    return new
