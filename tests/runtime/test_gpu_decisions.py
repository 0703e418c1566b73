"""The table of decisions about GPUs: its rows, the order in which they are asked, and what is refused."""

import json

import pytest
import torch

from autoseg.errors import ArtifactError
from autoseg.runtime import gpu_decisions
from autoseg.runtime.gpu_decisions import (
    FILE,
    GpuDecisions,
    augments_faster,
    gains_from_compiling,
    read_decisions,
    stores_channels_last,
)

GPU = torch.device("cuda")
BELIEF = {"choice": True, "source": "decision: until it is measured"}
MEASURED = {"source": "tests/benchmarks/gpu_overview.py", "measured_on": "a GPU, torch 2.11"}
NAMES = ("channels_last", "compile", "augment_on_device")
HOPPER = {"least_capability": [9, 0], "most_capability": [9, 0]}


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Puts a table in the place of that of the package, and a GPU of a compute capability into the machine."""

    def put(*, capability=None, **rows):
        content = {"format_version": 1, **{name: [BELIEF] for name in NAMES}}
        path = tmp_path / "decisions.json"
        path.write_text(json.dumps({**content, **rows}), encoding="utf-8")
        table = GpuDecisions.load(path)
        monkeypatch.setattr(gpu_decisions, "read_decisions", lambda: table)
        if capability is not None:
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return put


def test_the_table_of_the_package_is_sound():
    """It is read once; every row says where it is from, and a measured one what it was measured on."""
    assert read_decisions() is read_decisions()
    for rows in (read_decisions().channels_last, read_decisions().compile, read_decisions().augment_on_device):
        for row in rows:
            assert ("gpu_overview" in row.source) == (row.measured_on is not None)


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), False), ((8, 9), True), ((12, 0), True)])
def test_a_measured_gpu_has_its_row_and_others_have_the_last(table, capability, expected):
    """The first row that is for the compute capability decides."""
    rows = [{**HOPPER, **MEASURED, "choice": False}, BELIEF]
    table(capability=capability, channels_last=rows, compile=rows)
    assert stores_channels_last(GPU) is gains_from_compiling(GPU) is expected


@pytest.mark.parametrize(
    ("voxels", "cores", "expected"),
    [(806_400, 16, False), (806_400, 32, False), (806_400, 15, True), (806_401, 16, True), (1, 16, False)],
)
def test_small_batches_beside_many_cores_stay_on_the_cpu(table, voxels, cores, expected):
    """A row holds for the sizes and cores that it names."""
    row = {**HOPPER, **MEASURED, "most_voxels": 806_400, "least_cores": 16, "choice": False}
    table(capability=(9, 0), augment_on_device=[row, BELIEF])
    assert augments_faster(GPU, voxels, cores) is expected


def test_a_gpu_is_asked_only_by_rows_for_some(table, monkeypatch):
    """The last row applies to everything."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: pytest.fail("no row asks for it"))
    table()
    assert gains_from_compiling(GPU)
    assert augments_faster(GPU, 1000, 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"compile": []}, "the last row of compile must be without conditions"),
        ({"compile": [{**BELIEF, "most_capability": [8, 0]}]}, "the last row of compile must be without conditions"),
        (
            {"augment_on_device": [{**BELIEF, "least_cores": 4}]},
            "the last row of augment_on_device must be without conditions",
        ),
        ({"compile": [{"choice": True}]}, "compile.0.source"),
        ({"compile": [{**BELIEF, "gpu": "H200"}]}, "compile.0.gpu"),
        ({"augment_on_device": [{**BELIEF, "most_voxels": 0}, BELIEF]}, "augment_on_device.0.most_voxels"),
    ],
)
def test_a_table_that_leaves_a_gpu_without_decision_is_refused(table, rows, message):
    """The message names the row or the decision."""
    with pytest.raises(ArtifactError, match=message):
        table(**rows)


def test_the_file_is_as_it_would_be_saved(tmp_path):
    """So that an update changes only the rows that it measures."""
    GpuDecisions.load(FILE).save(tmp_path / "again.json")
    assert GpuDecisions.load(tmp_path / "again.json") == GpuDecisions.load(FILE)
    assert (tmp_path / "again.json").read_text(encoding="utf-8") == FILE.read_text(encoding="utf-8")
