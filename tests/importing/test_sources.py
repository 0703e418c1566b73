"""Bringing foreign data into the workspace."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from import_sources import circle, colours, files, write_decathlon, write_pair
from phantoms import REALDATA, SHAPE, Listener, blocks, noise, place, write_dataset, write_json, write_picture

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.integrity import check_dataset, load_case
from autoseg.errors import AutosegError, DatasetError, ProblemsError, UsageError
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.importing import sources
from autoseg.importing.sources import import_source
from autoseg.workspace import Workspace


def run(source: Path | tuple[Path, Path], root: Path, name: str | None = None) -> tuple[Dataset, Listener]:
    """Imports as dataset 7 and listens."""
    listener = Listener()
    dataset = import_source(source, workspace=Workspace(root=root / "ws"), number=7, name=name, reporter=listener)
    return dataset, listener


@pytest.mark.parametrize("listed", [True, False])
def test_decathlon_folder_is_copied(tmp_path: Path, listed: bool) -> None:
    """Files come over byte for byte, hidden ones stay behind, and the licence travels along."""
    write_decathlon(tmp_path / "Task01", listed=listed)
    dataset, listener = run(tmp_path / "Task01", tmp_path)
    assert dataset.name == "Dataset007_Brain_Tumour"
    assert files(dataset.folder) == [
        "dataset.json",
        "imagesTr/brain_1_0000.nii.gz",
        "imagesTr/brain_2_0000.nii.gz",
        "imagesTs/brain_3_0000.nii.gz",
        "labelsTr/brain_1.nii.gz",
        "labelsTr/brain_2.nii.gz",
    ]
    source = tmp_path / "Task01" / "imagesTr" / "brain_1.nii.gz"
    copied = dataset.folder / "imagesTr" / "brain_1_0000.nii.gz"
    assert copied.read_bytes() == source.read_bytes()
    assert not copied.samefile(source)
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert content == {
        "channel_names": {"0": "m0"},
        "labels": {"background": 0, "edema": 1, "core": 2},
        "file_ending": ".nii.gz",
        "name": "Brain_Tumour",
        "numTraining": 2,
        "licence": "CC-BY-SA 4.0",
    }
    assert listener.advanced["importing"] == listener.totals["importing"] == 3
    assert check_dataset(dataset).problems == ()


@pytest.mark.parametrize("kind", ["training", "dataset"])
def test_paths_of_windows_are_found(tmp_path: Path, kind: str) -> None:
    """A list that was written there has backslashes; the masks that it names are those of their images."""
    source = tmp_path / "source"
    made = write_dataset(source, cases=3)
    content = json.loads((source / "dataset.json").read_text())
    names = [(case.name, case.images[0].name, case.label.name) for case in made.cases if case.label]
    if kind == "training":
        content["training"] = [
            {"image": f".\\imagesTr\\{image}", "label": f".\\labelsTr\\{label}"} for _, image, label in names
        ]
    else:
        content["dataset"] = {
            name: {"images": [f"imagesTr\\{image}"], "label": f"labelsTr\\{label}"} for name, image, label in names
        }
    (source / "dataset.json").write_text(json.dumps(content))
    dataset, listener = run(source, tmp_path)
    assert len(dataset.cases) == 3
    assert "Left out" not in listener.text


def test_four_dimensions_become_channels(tmp_path: Path) -> None:
    """Each volume of a 4D image is a channel in its own file, with the grid and number type of the source."""
    write_decathlon(tmp_path / "Task01", channels=3)
    dataset, _ = run(tmp_path / "Task01", tmp_path)
    image, label = load_case(dataset.cases[0], dataset.info)
    np.testing.assert_array_equal(image.array, [noise(0), noise(1), noise(2)])
    assert image.geometry.difference(label.geometry) is None
    assert sitk.ReadImage(str(dataset.cases[0].images[2])).GetPixelID() == sitk.sitkInt16
    assert len(list((dataset.folder / "imagesTs").iterdir())) == 3


def test_listed_files_that_are_missing_are_said(tmp_path: Path) -> None:
    """A partial download is imported without the missing cases."""
    write_decathlon(tmp_path / "Task01")
    (tmp_path / "Task01" / "labelsTr" / "brain_2.nii.gz").unlink()
    dataset, listener = run(tmp_path / "Task01", tmp_path)
    assert [case.name for case in dataset.cases] == ["brain_1"]
    assert "images without a mask: brain_2" in listener.text


def test_raw_folder_of_nnunet_is_copied_as_it_is(tmp_path: Path) -> None:
    """All files of whole cases keep their names and bytes; only the folder's number and name change."""
    source = write_dataset(tmp_path / "Dataset123_Liver", cases=2, channels=2).folder
    write_image(source / "imagesTs" / "scan_0000.nii.gz", place(noise(1)[np.newaxis]))
    write_image(source / "imagesTs" / "scan_0001.nii.gz", place(noise(2)[np.newaxis]))
    (source / "imagesTr" / "preview.png").touch()
    dataset, _ = run(source, tmp_path)
    assert dataset.name == "Dataset007_Liver"
    assert files(dataset.folder) == [name for name in files(source) if name != "imagesTr/preview.png"]
    for name in files(dataset.folder):
        if name != "dataset.json":
            assert (dataset.folder / name).read_bytes() == (source / name).read_bytes()
    before = json.loads((source / "dataset.json").read_text())
    assert json.loads((dataset.folder / "dataset.json").read_text()) == before | {"name": "Liver"}


def test_incomplete_cases_are_left_out_and_said(tmp_path: Path) -> None:
    """Cases without a mask, an image or a channel do not come along, and numTraining counts those that do."""
    source = write_dataset(tmp_path / "Dataset123_Liver", cases=4, channels=2).folder
    (source / "labelsTr" / "case_1.nii.gz").unlink()
    (source / "imagesTr" / "case_2_0000.nii.gz").unlink()
    for channel in (0, 1):
        (source / "imagesTr" / f"case_3_{channel:04d}.nii.gz").unlink()
    dataset, listener = run(source, tmp_path)
    assert ([case.name for case in dataset.cases], dataset.problems) == (["case_4"], ())
    assert "images without a mask: case_1" in listener.text
    assert "cases that lack a channel: case_2" in listener.text
    assert "masks without an image: case_3" in listener.text
    assert json.loads((dataset.folder / "dataset.json").read_text())["numTraining"] == 1


@pytest.mark.parametrize("folders", [("images", "masks"), ("imagesTr", "labelsTr"), ("Image", "LABEL")])
def test_two_folders_are_found_by_name(tmp_path: Path, folders: tuple[str, str]) -> None:
    """The usual names of folders are known, in any case, and given folders need no name at all."""
    for number in (1, 2):
        write_pair(tmp_path / "Heart", f"scan{number}")
    (tmp_path / "Heart" / "images").rename(tmp_path / "Heart" / folders[0])
    (tmp_path / "Heart" / "labels").rename(tmp_path / "Heart" / folders[1])
    dataset, _ = run(tmp_path / "Heart", tmp_path)
    assert dataset.name == "Dataset007_Heart"
    assert dataset.info.labels == {"background": 0, "label_1": 1, "label_2": 2}
    pair = (tmp_path / "Heart" / folders[0], tmp_path / "Heart" / folders[1])
    again, _ = run(pair, tmp_path / "again", name="Given")
    assert again.name == "Dataset007_Given"
    assert files(again.folder) == files(dataset.folder)


def test_names_of_masks_may_have_a_suffix(tmp_path: Path) -> None:
    """Suffixes of channels and masks do not keep a pair apart, and a whole name comes before a suffix."""
    write_pair(tmp_path / "src", "a", mask_name="a_mask")
    write_pair(tmp_path / "src", "b_0000", mask_name="b_Seg")
    write_pair(tmp_path / "src", "c_seg")
    write_pair(tmp_path / "src", "d", mask_name="d.seg")
    dataset, _ = run(tmp_path / "src", tmp_path)
    assert [case.name for case in dataset.cases] == ["a", "b", "c_seg", "d"]


def test_channels_in_files_are_kept_apart(tmp_path: Path) -> None:
    """Numbered files of one case are its channels, in order."""
    for channel in (1, 0):
        write_image(tmp_path / "src" / "images" / f"a_{channel:04d}.nii.gz", place(noise(channel)[np.newaxis]))
    write_label_map(tmp_path / "src" / "labels" / "a.nii.gz", place(blocks()))
    dataset, listener = run(tmp_path / "src", tmp_path)
    assert dataset.info.channel_names == {"0": "channel_0", "1": "channel_1"}
    np.testing.assert_array_equal(read_image(dataset.cases[0].images).array, [noise(0), noise(1)])
    assert "'CT'" in listener.text


def test_mask_values_are_renumbered_and_said(tmp_path: Path) -> None:
    """Values of all masks together are numbered 0, 1, 2, ...; names keep the old value."""
    write_pair(tmp_path / "src", "a", (0, 255))
    write_pair(tmp_path / "src", "b", (0, 7, 255))
    dataset, listener = run(tmp_path / "src", tmp_path)
    assert dataset.info.labels == {"background": 0, "label_7": 1, "label_255": 2}
    np.testing.assert_array_equal(read_label_map(dataset.folder / "labelsTr" / "a.nii.gz").array, blocks((0, 2)))
    np.testing.assert_array_equal(read_label_map(dataset.folder / "labelsTr" / "b.nii.gz").array, blocks((0, 1, 2)))
    assert "7 becomes 1, 255 becomes 2" in listener.text


def test_consecutive_masks_are_copied(tmp_path: Path) -> None:
    """Masks that need no change keep their bytes, and nothing is said of numbers."""
    write_pair(tmp_path / "src", "a")
    dataset, listener = run(tmp_path / "src", tmp_path)
    label = dataset.folder / "labelsTr" / "a.nii.gz"
    assert label.read_bytes() == (tmp_path / "src" / "labels" / "a.nii.gz").read_bytes()
    assert "becomes" not in listener.text


def test_mixed_volumes_become_nifti(tmp_path: Path) -> None:
    """Files of different types end as .nii.gz, with voxels and place unchanged."""
    volume = place(noise(3)[np.newaxis], origin_mm=(5.0, -3.0, 2.0))
    write_image(tmp_path / "src" / "images" / "a.nrrd", volume)
    write_label_map(tmp_path / "src" / "labels" / "a.mha", place(blocks(), origin_mm=(5.0, -3.0, 2.0)))
    dataset, _ = run(tmp_path / "src", tmp_path)
    image, label = load_case(dataset.cases[0], dataset.info)
    assert dataset.info.file_ending == ".nii.gz"
    np.testing.assert_array_equal(image.array, volume.array)
    np.testing.assert_array_equal(label.array, blocks())
    assert image.geometry.difference(volume.geometry) is None


def test_colour_pictures_stay_whole(tmp_path: Path) -> None:
    """A colour PNG is one file of three channels, even if its name ends in a number; its mask may be grey colours."""
    for number in range(4):
        write_picture(tmp_path / "src" / "images" / f"frame_{number:04d}.png", colours(number))
        grey = np.repeat(circle()[..., np.newaxis], 3, axis=-1)
        write_picture(tmp_path / "src" / "masks" / f"frame_{number:04d}.PNG", grey)
    write_picture(tmp_path / "src" / "imagesTs" / "frame_0009.png", colours(9))
    dataset, _ = run(tmp_path / "src", tmp_path)
    assert list(dataset.info.channel_names.values()) == ["rgb_to_0_1"] * 3
    assert dataset.info.labels == {"background": 0, "label_255": 1}
    assert [case.name for case in dataset.cases] == [f"frame_{number:04d}" for number in range(4)]
    image, label = load_case(dataset.cases[2], dataset.info)
    np.testing.assert_array_equal(image.array[:, 0], np.moveaxis(colours(2), -1, 0))
    np.testing.assert_array_equal(label.array[0], circle((0, 1)))
    assert files(dataset.folder / "imagesTs") == ["frame_0009_0000.png"]


def test_colour_pictures_without_numbers_keep_their_names(tmp_path: Path) -> None:
    """CASE.png stays CASE.png, byte for byte."""
    write_picture(tmp_path / "src" / "images" / "eye.png", colours(0))
    write_picture(tmp_path / "src" / "masks" / "eye.png", circle((0, 1)))
    dataset, _ = run(tmp_path / "src", tmp_path)
    assert files(dataset.folder) == ["dataset.json", "imagesTr/eye.png", "labelsTr/eye.png"]
    source = tmp_path / "src" / "images" / "eye.png"
    assert (dataset.folder / "imagesTr" / "eye.png").read_bytes() == source.read_bytes()


def test_jpeg_pictures_become_png(tmp_path: Path) -> None:
    """JPEG images are kept without further loss."""
    write_picture(tmp_path / "src" / "images" / "eye.jpg", colours(0))
    write_picture(tmp_path / "src" / "masks" / "eye.png", circle((0, 1)))
    dataset, _ = run(tmp_path / "src", tmp_path)
    assert dataset.info.file_ending == ".png"
    before = read_image((tmp_path / "src" / "images" / "eye.jpg",))
    np.testing.assert_array_equal(read_image(dataset.cases[0].images).array, before.array)


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    """A JPEG mask has grey seams that would become labels."""
    for number in range(3):
        write_picture(tmp_path / "src" / "images" / f"{number}.png", colours(number, 64))
        write_picture(tmp_path / "src" / "masks" / f"{number}.jpg", circle(side=64))
    with pytest.raises(DatasetError, match=r"blurred or compressed.*PNG"):
        run(tmp_path / "src", tmp_path)


@pytest.mark.parametrize("sigma", [0.4, 0.8, 2.0])
def test_smoothed_masks_are_refused(tmp_path: Path, sigma: float) -> None:
    """Anti-aliasing of any width is recognised."""
    write_picture(tmp_path / "src" / "images" / "a.png", colours(0, 64))
    smooth = sitk.DiscreteGaussian(sitk.GetImageFromArray(circle(side=64).astype(np.float32)), sigma**2)
    write_picture(tmp_path / "src" / "masks" / "a.png", np.round(sitk.GetArrayFromImage(smooth)).astype(np.uint8))
    with pytest.raises(DatasetError, match="blurred or compressed"):
        run(tmp_path / "src", tmp_path)


def test_images_instead_of_masks_are_refused(tmp_path: Path) -> None:
    """More than 256 values are no labels."""
    write_image(tmp_path / "src" / "images" / "a.nii.gz", place(noise(0)[np.newaxis]))
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    write_label_map(tmp_path / "src" / "labels" / "a.nii.gz", place(values))
    with pytest.raises(DatasetError, match="432 values"):
        run(tmp_path / "src", tmp_path)


def test_masks_without_foreground_are_refused(tmp_path: Path) -> None:
    """A dataset of empty masks has nothing to learn."""
    write_pair(tmp_path / "src", "a", (0,))
    with pytest.raises(DatasetError, match="all empty"):
        run(tmp_path / "src", tmp_path)


def test_names_that_do_not_fit_are_shown(tmp_path: Path) -> None:
    """Without any pair, the error shows the three nearest names."""
    for number in range(5):
        write_pair(tmp_path / "src", f"image{number}", mask_name=f"truth{number}")
    with pytest.raises(DatasetError, match=r"'image0' and 'truth0', 'image1' and 'truth1', 'image2' and 'truth2'\)"):
        run(tmp_path / "src", tmp_path)


def test_two_files_of_one_case_are_refused(tmp_path: Path) -> None:
    """It is never guessed which of two files is meant."""
    write_pair(tmp_path / "src", "a")
    write_image(tmp_path / "src" / "images" / "a_0000.nii.gz", place(noise(1)[np.newaxis]))
    with pytest.raises(DatasetError, match="same channel of 'a'"):
        run(tmp_path / "src", tmp_path)
    (tmp_path / "src" / "images" / "a_0000.nii.gz").unlink()
    write_label_map(tmp_path / "src" / "labels" / "a_seg.nii.gz", place(blocks()))
    with pytest.raises(DatasetError, match="both masks of 'a'"):
        run(tmp_path / "src", tmp_path)


def test_other_numbers_of_channels_are_left_out(tmp_path: Path) -> None:
    """A grey picture among colour pictures cannot be used with them."""
    for name, picture in (("a", colours(0)), ("b", colours(1)), ("grey", circle())):
        write_picture(tmp_path / "src" / "images" / f"{name}.png", picture)
        write_picture(tmp_path / "src" / "masks" / f"{name}.png", circle((0, 1)))
    dataset, listener = run(tmp_path / "src", tmp_path)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert "cases that do not have 3 channels: grey" in listener.text


def test_taken_number_is_refused(tmp_path: Path) -> None:
    """A dataset is never overwritten, whatever its name."""
    write_pair(tmp_path / "src", "a")
    first, _ = run(tmp_path / "src", tmp_path)
    before = files(first.folder)
    with pytest.raises(UsageError, match=r"already holds Dataset007_src; choose another number"):
        run(tmp_path / "src", tmp_path, name="Other")
    assert files(first.folder) == before


@pytest.mark.parametrize("name", ["src", "Other"])
def test_an_import_of_another_run_with_the_same_number_is_kept(tmp_path: Path, monkeypatch, name: str) -> None:
    """Both began before the other had ended; the first one stays as it is, and the user is told."""
    write_pair(tmp_path / "src", "a")
    others = tmp_path / "ws" / "raw" / f"Dataset007_{name}"

    def recognise_slowly(*arguments: object) -> object:
        others.mkdir(parents=True)
        (others / "theirs").touch()
        return recognise(*arguments)

    recognise = sources.recognise
    monkeypatch.setattr(sources, "recognise", recognise_slowly)
    with pytest.raises(UsageError, match=rf"another run has made .*Dataset007_{name} meanwhile"):
        run(tmp_path / "src", tmp_path)
    assert [path.name for path in others.iterdir()] == ["theirs"]


def test_failed_import_leaves_nothing(tmp_path: Path) -> None:
    """A file that cannot be converted stops the import, and the workspace is as before."""
    write_decathlon(tmp_path / "src", channels=2)
    broken = tmp_path / "src" / "imagesTs" / "brain_3.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(AutosegError, match="brain_3"):
        run(tmp_path / "src", tmp_path)
    assert list((tmp_path / "ws" / "raw").iterdir()) == []


def test_damaged_description_is_refused(tmp_path: Path) -> None:
    """A dataset.json that is no JSON, or that names no channels, is said to be so."""
    folder = tmp_path / "src"
    write_json(folder / "dataset.json", {"labels": {}})
    with pytest.raises(DatasetError, match="neither 'channel_names' nor 'modality'"):
        run(folder, tmp_path)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        run(folder, tmp_path)


def test_unknown_source_is_refused(tmp_path: Path) -> None:
    """A folder of no known kind says what was looked for; so does a path that is no folder."""
    with pytest.raises(UsageError, match=r"neither dataset\.json nor a folder of images.*--labels"):
        run(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        run(tmp_path / "absent", tmp_path)
    for name in ("images", "imagesTr", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="images and imagesTr"):
        run(tmp_path, tmp_path)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    """Empty folders, or files of unknown type, say which types are known."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.dat").touch()
    with pytest.raises(DatasetError, match=r"0 images and 0 masks.*\.nii\.gz"):
        run(tmp_path, tmp_path)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_decathlon_task(tmp_path: Path) -> None:
    """The hippocampus task comes over whole, under its own name."""
    dataset, _ = run(REALDATA / "Task04_Hippocampus", tmp_path)
    assert dataset.name == "Dataset007_Hippocampus"
    assert (len(dataset.cases), dataset.problems) == (260, ())
    assert dataset.info.labels == {"background": 0, "Anterior": 1, "Posterior": 2}


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_colour_pictures(tmp_path: Path) -> None:
    """Cardiac slices with masks of 0 and 255, saved as colours, become a sound dataset of three channels."""
    dataset, listener = run(REALDATA / "sunnybrook_2d" / "test", tmp_path, name="Sunnybrook")
    assert len(dataset.cases) == 60
    assert "255 becomes 1" in listener.text
    assert check_dataset(dataset).problems == ()


@pytest.mark.parametrize("value", [1, 255])
def test_masks_with_other_headers_are_laid_on_their_images(tmp_path: Path, value: int) -> None:
    """Their voxels stay, the headers become those of the images; other numbers of voxels are refused."""
    for number in range(2):
        write_image(
            tmp_path / "scans" / f"a{number}.nii.gz", place(noise(number)[np.newaxis], origin_mm=(9.0, 8.0, 7.0))
        )
        write_label_map(tmp_path / "masks" / f"a{number}.nii.gz", place(value * (blocks() > 0)))
    source = (tmp_path / "scans", tmp_path / "masks")
    options = {"workspace": Workspace(root=tmp_path / "ws"), "name": "A"}
    [first, _] = check_dataset(import_source(source, number=1, **options)).problems
    assert "only headers differ" in first.fix
    dataset = import_source(source, number=2, geometry="image", **options)
    assert check_dataset(dataset).problems == ()
    label = read_label_map(dataset.cases[0].label)
    assert np.array_equal(label.array, blocks() > 0)
    assert label.geometry.origin_mm == (9.0, 8.0, 7.0)
    write_label_map(tmp_path / "masks" / "a1.nii.gz", place(value * (blocks()[1:] > 0)))
    with pytest.raises(
        AutosegError, match=r"the mask of .*a1\.nii\.gz has .* voxels \(x, y, z\); resample the mask onto the image"
    ):
        import_source(source, number=3, geometry="image", **options)
    with pytest.raises(UsageError, match="choose --geometry own or image"):
        import_source(source, number=3, geometry="mask", **options)
    with pytest.raises(UsageError, match="leave --link or --geometry image out"):
        import_source(source, number=3, geometry="image", link=True, **options)


def test_names_that_are_formulas_are_refused(tmp_path: Path) -> None:
    """Before anything is written, with a line for each; a raw dataset with such a name has a remark."""
    for name in ("=cmd(1)", "@sum", "+C_01"):
        write_pair(tmp_path / "source", name)
    with pytest.raises(ProblemsError) as caught:
        run(tmp_path / "source", tmp_path)
    assert [line.partition(";")[0] for line in str(caught.value).splitlines()] == [
        "the name '=cmd(1)' is a formula",
        "the name '@sum' is a formula",
    ]
    assert not (tmp_path / "ws").exists()
    dataset = write_dataset(tmp_path / "raw", cases=2)
    for path in (*(dataset.folder / "imagesTr").iterdir(), *(dataset.folder / "labelsTr").iterdir()):
        path.rename(path.with_name(f"={path.name}"))
    assert [remark.partition(":")[0] for remark in Dataset.open(dataset.folder).remarks] == [
        "the name '=case_1' is a formula",
        "the name '=case_2' is a formula",
    ]
