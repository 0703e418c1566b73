"""Folders as predict leaves them, without a network: masks, dataset.json, prediction.json, records and the table."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tiny_workspaces import folders_of

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import info_file
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.inference.continuation import PROVENANCE_FILE, PredictionProvenance
from autoseg.inference.quality_checks import measure_volumes
from autoseg.inference.report import ReportWriter, make_record
from autoseg.inference.scan_pipeline import ScanReport
from autoseg.inference.scan_records import states_of_scan


def write_predictions(
    root: Path,
    output: Path,
    *,
    agreements: Mapping[str, float] = MappingProxyType({}),
    remarks: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    failures: Mapping[str, str] = MappingProxyType({}),
    on_mask: Callable[[str, Path], None] | None = None,
) -> Path:
    """Writes the label maps of a workspace's training cases as if predict had found them.

    Args:
        root: The workspace, see `tiny_workspaces.write_volumes`.
        output: The folder that is written.
        agreements: Agreement of cases; 0.95 for others.
        remarks: Remarks about cases.
        failures: Cases that were not segmented, and why.
        on_mask: Called with each case and the path of its mask, which it may change or remove.
    """
    dataset = Dataset.open(folders_of(root).raw)
    targets, table = dataset.info.targets, ReportWriter(output, dataset.info.targets.names)
    dataset.info.save(info_file(output))
    PredictionProvenance(program="1.0", dataset=dataset.name, model="m", postprocessing="keeps everything").save(
        output / PROVENANCE_FILE
    )
    scans = [replace(case, label=None) for case in dataset.cases]
    for case in sorted(scans, key=lambda case: case.name in failures):
        if case.name in failures:
            report = ScanReport(name=case.name, seconds=1.0, problem=failures[case.name])
        else:
            path = output / (case.name + dataset.info.file_ending)
            mask = read_label_map(folders_of(root).raw / "labelsTr" / path.name)
            write_label_map(path, mask)
            volumes = measure_volumes(mask, targets, mask.geometry.voxel_size)
            report = ScanReport(
                name=case.name,
                seconds=1.0,
                result=path,
                files=states_of_scan(case),
                volumes_ml={name: volume / 1000 for name, volume in volumes.items()},
                agreement=agreements.get(case.name, 0.95),
                remarks=remarks.get(case.name, ()),
            )
            if on_mask is not None:
                on_mask(case.name, path)
        table.add(make_record(report, case, "m", ()))
    table.write()
    return output
