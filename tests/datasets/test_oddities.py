"""A case that is unlike all others is named before it takes the memory, and a channel that holds nothing is said."""

import re
from pathlib import Path

import numpy as np
import pytest
from phantoms import SHAPE, Listener, blocks, noise, place, write_dataset

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import check_dataset
from autoseg.datasets.oddities import CaseExtent, describe_odd_grids, describe_oddities
from autoseg.errors import ProblemsError
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.pipeline.datasets import extract_fingerprint, plan_and_preprocess, plan_configurations, preprocess
from autoseg.pipeline.raw_datasets import check
from autoseg.workspace import Workspace


def extent(name: str, spacing: tuple[float, float, float], shape: tuple[int, int, int] = (40, 200, 200)) -> CaseExtent:
    """The extent of a case."""
    return CaseExtent(name=name, shape=shape, spacing_mm=spacing)


USUAL = [extent(f"c{number}", (3.0, 0.8, 0.8 + 0.05 * number)) for number in range(5)]


@pytest.mark.parametrize(
    ("spacing", "shape", "is_odd"),
    [
        ((3.0, 0.8, 0.9), (40, 200, 200), False),
        ((1.0, 0.4, 0.4), (120, 400, 400), False),  # finer slices of the same part of the body
        ((15.0, 0.8, 0.8), (8, 200, 200), False),  # thick slices of the same part
        ((3.0, 1.6, 1.6), (80, 200, 200), False),  # a large patient
        ((300.0, 80.0, 80.0), (40, 200, 200), True),  # the unit is wrong
        ((0.003, 0.0008, 0.0008), (40, 200, 200), True),
        ((3.0, 0.8, 80.0), (40, 200, 200), True),  # one number is wrong
        ((1.0, 1.0, 1.0), (1, 1, 1), False),  # small, but its spacing is usual
    ],
)
def test_only_an_impossible_spacing_is_odd(spacing, shape, is_odd):
    """Thick slices and large patients occur."""
    lines = list(describe_odd_grids([*USUAL, extent("odd", spacing, shape)], channels=1))
    assert ["case 'odd'" in line for line in lines] == [True] * is_odd


def test_it_is_said_how_large_the_case_would_become():
    """In the order of viewers, with the memory that it takes."""
    odd = CaseExtent(name="c3", shape=(12, 20, 24), spacing_mm=(1.0, 1.0, 1.0))
    usual = [CaseExtent(name=f"c{n}", shape=(12, 20, 20), spacing_mm=(0.01, 0.01, 0.01)) for n in range(3)]
    [line] = describe_odd_grids([*usual, odd], channels=2)
    assert "case 'c3' has a spacing of 1 x 1 x 1 mm (x, y, z), the typical case 0.01 x 0.01 x 0.01 mm" in line
    assert "resampled it would have 2400 x 2000 x 1200 voxels (x, y, z), 46.1 GB" in line
    assert "most have 4800 voxels" in line
    assert "--skip c3" in line


def test_a_mixed_dataset_is_not_named_case_by_case():
    """Ten lines at most, and how many more there are."""
    mixed = [extent(f"c{n}", (1.0, 1.0, 1.0) if n % 2 else (50.0, 50.0, 50.0)) for n in range(61)]
    assert len(list(describe_odd_grids(mixed, channels=1))) == 11
    assert list(describe_odd_grids(mixed[:2], channels=1)) == []


def test_a_case_that_does_not_fit_into_the_memory_is_named(monkeypatch):
    """Whatever its spacing and however few cases there are, with what is free."""
    monkeypatch.setattr("autoseg.datasets.oddities.free_memory_bytes", lambda: 10**8)
    large = extent("large", (3.0, 0.8, 0.8), (400, 600, 600))
    for cases in ([*USUAL, large], [large], [large, USUAL[0]]):
        [line] = describe_odd_grids(cases, channels=2)
        assert line.startswith("case 'large' would not fit into the memory: at the typical spacing of 0.8")
        assert re.search(r"x 400 voxels \(x, y, z\), 1\.[012] GB, and 100 MB are free; check its size and", line)
    odd = extent("odd", (300.0, 80.0, 80.0))
    [line] = describe_odd_grids([*USUAL, odd], channels=1)
    assert re.search(r"has a spacing of 80 x 80 x 300 mm .* where most have .* and 100 MB are free; correct its", line)
    monkeypatch.setattr("autoseg.datasets.oddities.free_memory_bytes", lambda: None)
    assert list(describe_odd_grids([large], channels=2)) == []
    assert list(describe_odd_grids([], channels=2)) == []


def test_channels_without_content_are_said():
    """With the number and the names of the cases."""
    info = DatasetInfo(channel_names={"0": "T1", "1": "FLAIR"}, labels={"background": 0, "a": 1}, file_ending=".nii.gz")
    ranges = [((0.0, 9.0), (0.0, 9.0)), ((0.0, 9.0), (3.0, 3.0)), ((0.0, 9.0), (0.0, 0.0))]
    extents = [
        CaseExtent(name=f"c{n}", shape=(3, 3, 3), spacing_mm=(1.0, 1.0, 1.0), intensities=both)
        for n, both in enumerate(ranges)
    ]
    assert list(describe_oddities(extents, info)) == [
        "channel 1 (FLAIR) has the same value everywhere in 2 of 3 cases: c1, c2"
    ]


def write_odd(workspace: Path) -> Dataset:
    """Four cases of two channels: one lacks a channel, one has a spacing of its own."""
    dataset = write_dataset(workspace / "raw" / "Dataset001_Odd", cases=4, channels=2)
    write_image(dataset.folder / "imagesTr" / "case_2_0001.nii.gz", place(np.zeros((1, *SHAPE))))
    for channel in (0, 1):
        path = dataset.folder / "imagesTr" / f"case_3_000{channel}.nii.gz"
        write_image(path, place(noise(channel)[np.newaxis], spacing_mm=(200.0, 100.0, 80.0)))
    write_label_map(dataset.folder / "labelsTr" / "case_3.nii.gz", place(blocks(), spacing_mm=(200.0, 100.0, 80.0)))
    return dataset


def test_check_and_fingerprint_say_both_and_go_on(tmp_path):
    """Also where an earlier run had read the cases."""
    dataset = write_odd(tmp_path)
    said = [Listener() for _ in range(3)]
    checked = check_dataset(dataset, said[0])
    assert checked.problems == ()
    label = dataset.folder / "labelsTr" / "case_4.nii.gz"
    content = label.read_bytes()
    label.write_bytes(b"")
    with pytest.raises(ProblemsError):
        extract_fingerprint(1, workspace=tmp_path, reporter=said[1])
    label.write_bytes(content)
    extract_fingerprint(1, workspace=tmp_path, reporter=said[2])
    assert "taken over" in said[2].text
    said[0].lines += checked.remarks
    for listener in said:
        assert "case 'case_3' has a spacing of 80 x 100 x 200 mm (x, y, z)" in listener.text
        assert "(channel_1) has the same value everywhere in 1 of" in listener.text


def test_the_last_line_of_check_is_true(tmp_path):
    """It counts what was remarked, and says that all is sound if nothing was."""
    write_odd(tmp_path)
    said, sound = Listener(), Listener()
    assert check(1, workspace=tmp_path, reporter=said) == []
    assert said.lines[-1] == "Dataset001_Odd: 4 cases without a problem, and 2 remarks to look at, above"
    assert len([line for line in said.lines if line.startswith("Dataset001_Odd: c")]) == 2
    write_dataset(tmp_path / "raw" / "Dataset002_Even", cases=4)
    assert check(2, workspace=tmp_path, reporter=sound) == []
    assert sound.lines == ["Dataset002_Even: 4 cases, all sound"]


def test_a_case_that_would_not_fit_into_the_memory_is_said_before_the_work(tmp_path, monkeypatch):
    """With the size that it would get: planning says it, preprocessing refuses it, and does none of the others."""
    write_odd(tmp_path)
    extract_fingerprint(1, workspace=tmp_path)
    monkeypatch.setattr("autoseg.preprocessing.target_grid.free_memory_bytes", lambda: 2**30)
    listener = Listener()
    plan_configurations(1, preset="small", workspace=tmp_path, reporter=listener)
    said = r"case 'case_3': at the spacing of the model, .*, the image has \d+ x \d+ x \d+ voxels .*GB are free"
    assert [line for line in listener.lines if re.search(said, line)]
    for run in (plan_and_preprocess, preprocess):
        options = {"preset": "small"} if run is plan_and_preprocess else {}
        with pytest.raises(ProblemsError, match=rf"{said}; .*, or leave the case out with .*--skip case_3") as caught:
            run(1, workspace=tmp_path, **options)
        assert len(str(caught.value).splitlines()) == 1
        assert not list((tmp_path / "preprocessed").rglob("case_*.zip"))
    plan_and_preprocess(1, preset="small", configurations=["2d"], skip=["case_3"], workspace=tmp_path)
    assert list((tmp_path / "preprocessed").rglob("case_*.zip"))


def test_import_says_it_from_the_headers(tmp_path, monkeypatch):
    """Before any voxel is read again."""
    source, listener = write_odd(tmp_path / "source"), Listener()
    monkeypatch.setattr("autoseg.datasets.oddities.free_memory_bytes", lambda: 10**6)
    import_source(source.folder, workspace=Workspace(root=tmp_path), number=2, reporter=listener)
    assert "case 'case_3' has a spacing of 80 x 100 x 200 mm (x, y, z)" in listener.text
    assert "and 1 MB are free; correct its header, or leave it out" in listener.text


def test_a_case_without_a_channel_is_prepared(tmp_path):
    """A patient may lack a channel; the others are trained on."""
    dataset = write_dataset(tmp_path / "raw" / "Dataset001_Odd", cases=4, channels=2)
    write_image(dataset.folder / "imagesTr" / "case_2_0001.nii.gz", place(np.zeros((1, *SHAPE))))
    plan_and_preprocess(1, preset="small", configurations=["2d"], workspace=tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rgb_to_0_1", 256.0, "outside the 0 to 255 of colours; give colours of 8 bit"),
        ("RGB_to_0_1", -1.0, "outside the 0 to 255 of colours"),
        ("rgb_to_0_1", 255.0, None),
        ("MR", 65535.0, None),
        ("MR", -3.4e38, "which nothing measures; replace what marks missing voxels"),
        ("CT", 3.4e38, "which nothing measures"),
    ],
)
def test_what_normalization_refuses_is_found_by_check(tmp_path, name, value, said):
    """And not first by preprocessing, after everything else."""
    dataset = write_dataset(tmp_path, cases=2)
    image = np.abs(noise(0)) % 100
    image[0, 0, 0] = value
    write_image(tmp_path / "imagesTr" / "case_1_0000.nii.gz", place(image[np.newaxis]))
    info = dataset.info.model_copy(update={"channel_names": {"0": name}})
    info.save(tmp_path / "dataset.json")
    image_2 = np.abs(noise(1)) % 100
    write_image(tmp_path / "imagesTr" / "case_2_0000.nii.gz", place(image_2[np.newaxis]))
    problems = [str(problem) for problem in check_dataset(Dataset.open(tmp_path)).problems]
    assert [said in line for line in problems] == ([] if said is None else [True])


def test_a_black_frame_without_labels_is_no_problem(tmp_path):
    """With labels it is one: nothing can be seen of what they mark."""
    dataset = write_dataset(tmp_path, cases=3)
    write_image(tmp_path / "imagesTr" / "case_1_0000.nii.gz", place(np.zeros((1, *SHAPE))))
    [problem] = check_dataset(dataset).problems
    assert "same value everywhere, 0 in channel 0 (channel_0), and its label map holds structures" in problem.what
    write_label_map(tmp_path / "labelsTr" / "case_1.nii.gz", place(np.zeros(SHAPE, np.int32)))
    assert check_dataset(Dataset.open(tmp_path)).problems == ()
