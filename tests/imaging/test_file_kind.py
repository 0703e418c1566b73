"""Files that no library may open: pipes, devices, sockets, and headers that promise too much."""

import os
import socket
from pathlib import Path

import pytest

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import DEFLATE_RATIO, check_budget, check_kind
from autoseg.imaging.formats import READABLE_ENDINGS
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.image_headers import read_image_header


@pytest.mark.parametrize("ending", READABLE_ENDINGS)
@pytest.mark.timeout(20)
def test_pipes_are_refused_at_once(tmp_path: Path, ending: str) -> None:
    """Nobody will ever write into them."""
    path = tmp_path / f"a{ending}"
    os.mkfifo(path)
    for read in (lambda: read_image((path,)), lambda: read_label_map(path), lambda: read_image_header(path)):
        with pytest.raises(ImageError, match="is no file but a pipe; put an image file in its place"):
            read()


def test_sockets_devices_folders_and_circles_of_links_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by what it is."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("a.nrrd")
        with pytest.raises(ImageError, match="is no file but a socket"):
            check_kind(Path("a.nrrd"))
    with pytest.raises(ImageError, match="is no file but a device"):
        check_kind(Path(os.devnull))
    with pytest.raises(ImageError, match="is a folder"):
        check_kind(tmp_path)
    Path("b.nrrd").symlink_to("b.nrrd")
    with pytest.raises(ImageError, match=r"cannot read b\.nrrd: .*symbolic links"):
        check_kind(Path("b.nrrd"))


def test_a_header_may_promise_what_the_file_and_the_memory_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of zeros is a thousandth of its size when it is packed; no byte stands for more."""
    path = Path("a.nrrd")
    check_budget(path, 10**6, 10**6)
    check_budget(path, 10**6, 10**3, largest_ratio=DEFLATE_RATIO)
    with pytest.raises(
        ImageError, match=r"is cut off: it ends before its last voxel, its header promises [0-9,]+ bytes"
    ):
        check_budget(path, 10**6 + 1, 10**6)
    with pytest.raises(
        ImageError, match=r"is cut off: it ends before its last voxel, its header promises [0-9,]+ bytes"
    ):
        check_budget(path, 10**7, 10**3, largest_ratio=DEFLATE_RATIO)
    monkeypatch.setattr("autoseg.imaging.file_kind.free_memory_bytes", lambda: 10**5)
    check_budget(path, 10**6, 10**6)
    with pytest.raises(ImageError, match=r"a\.nrrd does not fit into the memory: it holds"):
        check_budget(path, 10**9, 10**9)
