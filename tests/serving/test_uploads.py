"""Uploads that cannot be read, are too large, too many, too slow or hostile: one line each, and the server goes on."""

import gzip
import io
import socket
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import make_series, random_voxels, write_series
from served_models import load_small, served, write_noise

from autoseg.errors import ImageError
from autoseg.serving.archives import check_archive
from autoseg.serving.limits import Limits


def send(client, filename: str, content: bytes, query: str = "", **data):
    """Sends one file."""
    return client.post(f"/segment{query}", files={"scan": (filename, content)}, data=data)


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip file in memory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def nifti_header(shape: tuple[int, ...], spacing: float = 1.0) -> bytes:
    """The header of a file, without its voxels."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_zooms((spacing,) * len(shape))
    header["vox_offset"], header["sform_code"] = 352, 0
    return header.binaryblock + b"\0\0\0\0"


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> dict[str, bytes]:
    """The files of a series, by name."""
    pytest.importorskip("pydicom")
    folder = write_series(tmp_path_factory.mktemp("series") / "s", make_series(random_voxels((4, 16, 14))))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


UNREADABLE = {
    "no image": ("a.nii.gz", b"no image at all", 422, "a.nii.gz"),
    "empty": ("a.nii.gz", b"", 422, "a.nii.gz"),
    "cut off": ("a.nii.gz", gzip.compress(nifti_header((8, 8, 8)) + bytes(100)), 422, "a.nii.gz is cut off"),
    "not a number": ("b.nrrd", b"NRRD0004\ntype: float\ndimension: 3\nsizes: x y z\n\n", 422, "b.nrrd"),
    "voxels elsewhere": (
        "c.mhd",
        b"NDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n",
        422,
        "c.mhd takes its voxels from '/etc/passwd', which is no plain file beside it",
    ),
    "a text": ("notes.txt", b"notes", 415, "notes.txt is of a kind that is not read here"),
    "no ending": ("notes", b"notes", 415, "notes is of a kind that is not read here"),
    "no zip": ("a.zip", b"PK\x03\x04 and no more", 422, "a.zip is no zip file, or is damaged or cut off"),
    "zip of a text": ("a.zip", zip_of({"a.txt": b"text"}), 422, "a.zip holds no DICOM files"),
    "damaged DICOM": ("IM1", bytes(128) + b"DICM" + b"\xff" * 60, 422, "IM1"),
    "path": ("../../../tmp/x.nii.gz", b"no image", 422, "x.nii.gz"),
    "path of Windows": ("C:\\x\\..\\y.nii.gz", b"no image", 422, "y.nii.gz"),
    "control codes": ("\x1b[31m.nii.gz", b"no image", 422, "[31m.nii.gz"),
    "long name": ("a" * 2000 + ".nii.gz", b"no image", 422, "a.nii.gz"),
    "page": ("<img src=x onerror=alert(1)>.nii.gz", b"no image", 422, "alert(1)>.nii.gz"),
}
"""Name, content, status and a part of the line."""


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_gets_one_line(client, scan, kind):
    """It names the file as it was sent, and no folder of the server, which goes on."""
    name, content, status, part = UNREADABLE[kind]
    answer = send(client, name, content)
    assert answer.status_code == status, answer.text
    line = answer.json()["error"]
    assert part in line
    assert "; " in line
    assert line.isprintable()
    assert not any(folder in line for folder in ("place_", "/upload", "autoseg_serve", "/tmp/"))  # noqa: S108
    assert client.get("/health").json() == {"status": "ok", "scans": 0}


@pytest.mark.parametrize(
    ("query", "data", "part"),
    [
        ("?answer=pdf", {}, "answer cannot be 'pdf'; choose from zip, mask, json"),
        ("?colour=red", {}, "there is no option 'colour'"),
        ("?dicom=sr", {}, "dicom cannot be 'sr'"),
        ("", {"name": "x"}, "there is no field 'name'"),
        ("", {"resample_tilt": "perhaps"}, "resample_tilt is neither true nor false"),
    ],
)
def test_options_that_do_not_exist(client, scan, query, data, part):
    """They are refused by name."""
    answer = send(client, "a.nii.gz", scan.read_bytes(), query, **data)
    assert answer.status_code == 422
    assert part in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_of", "status", "part"),
    [
        (lambda client: client.post("/segment", json={}), 415, "a scan is sent as a form"),
        (lambda client: client.post("/segment", files={"image": ("a", b"")}), 422, "there is no field 'image'"),
        (lambda client: client.post("/segment", files={"scan": (None, "text")}), 422, "there is no file 'scan'"),
        (
            lambda client: client.post(
                "/segment", content=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data; boundary=x"}
            ),
            422,
            "scan",
        ),
        (lambda client: client.post("/segment", headers={"Content-Type": "multipart/form-data"}), 400, "boundary"),
        (
            lambda client: client.post("/segment", files=[("scan", ("a.nii", b"")) for _ in range(40)]),
            400,
            "Too many files",
        ),
        (lambda client: client.get("/segment"), 405, "method not allowed"),
        (lambda client: client.get("/../etc/passwd"), 404, "not found"),
        (lambda client: client.get("/page.js/../../x"), 404, "not found"),
    ],
)
def test_requests_that_are_no_scans(client, request_of, status, part):
    """One line each."""
    answer = request_of(client)
    assert answer.status_code == status, answer.text
    assert part in answer.json()["error"]


def test_voxels_are_counted_before_they_are_read(client):
    """By the header: a megabyte may unpack to a hundred gigabytes, or be resampled to as many."""
    tracemalloc.start()
    for content, where in (
        (nifti_header((30_000, 30_000, 1_000)), ""),
        (nifti_header((4, 4, 4), spacing=2_000.0) + bytes(64), " at the spacing of the model"),
    ):
        answer = send(client, "bomb.nii.gz", gzip.compress(content))
        assert answer.status_code == 422
        assert "bomb.nii.gz has " in answer.json()["error"]
        assert f"voxels{where}, and this server takes 268435456 at most" in answer.json()["error"]
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_file_that_unpacks_for_ever_is_not_read_to_its_end(client):
    """Three megabytes that unpack to three gigabytes behind the last voxel."""
    block = gzip.compress(bytes(2**26))
    answer = send(client, "bomb.nii.gz", gzip.compress(nifti_header((4, 4, 4)) + bytes(64)) + block * 48)
    assert "holds more voxels than the sizes in its header say" in answer.json()["error"]


def test_zip_files_with_paths_stay_inside(client, slices, server, tmp_path):
    """Names that lead out of the folder, to the root or to Windows drives; results have names of the server's own."""
    outside = Path(server[1]).parent / "autoseg_escaped"
    names = [f"../../../../{outside.name}/{name}" for name in slices]
    names = [
        f"{outside}/{name}" if number % 2 else path
        for number, (name, path) in enumerate(zip(slices, names, strict=True))
    ]
    answer = send(client, "s.zip", zip_of(dict(zip(names, slices.values(), strict=True))), "?answer=json")
    assert answer.status_code in (200, 422)
    assert not outside.exists()
    windows = {f"C:\\..\\{name}": content for name, content in slices.items()}
    answer = send(client, "s.zip", zip_of(windows), "?answer=json").json()
    assert [scan["name"] for scan in answer["scans"]] == ["scan"]


def test_several_examinations_are_scans_of_their_own(client, slices):
    """Their names are the server's."""
    other = make_series(random_voxels((4, 16, 14)))
    for dataset in other:
        dataset.PatientID, dataset.PatientName = "2", "B"
    folders = {f"../a/{name}": content for name, content in slices.items()}
    for number, dataset in enumerate(other):
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        folders[f"b;rm -rf/{number}.dcm"] = file.getvalue()
    answer = send(client, "s.zip", zip_of(folders), "?answer=json").json()
    assert [scan["name"] for scan in answer["scans"]] == ["scan_1", "scan_2"]
    assert [scan["files"] for scan in answer["scans"]] == [
        [f"dicom/scan_{number}_seg.dcm", f"scan_{number}.nii.gz"] for number in (1, 2)
    ]


def test_several_series_are_asked_about(client, tmp_path):
    """With the line of the command; then one is chosen."""
    pytest.importorskip("pydicom")
    first = make_series(random_voxels((4, 16, 14)), description="T2 axial", number=1)
    second = make_series(random_voxels((4, 16, 14)), description="T1 axial", number=2, study=first[0])
    for name, series in (("1", first), ("2", second)):
        write_series(tmp_path / name, series)
    content = zip_of(
        {str(path.relative_to(tmp_path)): path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    )
    refused = send(client, "s.zip", content)
    assert refused.status_code == 422
    assert "series" in refused.json()["error"]
    assert send(client, "s.zip", content, series="t2*").status_code == 200


def test_zip_bombs_are_not_unpacked(slices, model, tmp_path):
    """Too many bytes, too many files, a table that is larger than all that, and ZIP64."""
    limits = Limits(upload_bytes=2**20, unpacked_ratio=2, members=20)
    path = tmp_path / "s.zip"

    def check(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(ImageError) as refused:
            check_archive(path, limits)
        return str(refused.value)

    assert "unpacks to 3 MB, and this server unpacks 2 MB at most" in check(
        zip_of({**slices, "zeros": bytes(3 * 10**6)})
    )
    assert "holds more files than the 20" in check(zip_of({**slices, **{f"{n}.txt": b"" for n in range(20)}}))
    assert "holds more files than the 20" in check(zip_of({**slices, **{f"{n}" * 2000: b"" for n in range(9)}}))
    plain = zip_of(slices)
    end = plain.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    assert "holds more files than the 20" in check(plain[:end] + locator + plain[end:])
    assert "is no zip file" in check(plain[:-30])
    assert "is no zip file" in check(b"")
    with served(load_small(model, limits)) as (client, _, _lines):
        answer = send(client, "s.zip", zip_of({**slices, "zeros": bytes(3 * 10**6)}))
        assert (answer.status_code, "unpacks to 3 MB" in answer.text) == (422, True)
        assert send(client, "s.zip", plain).status_code == 200


@pytest.fixture(scope="module")
def narrow(model):
    """A server of small limits."""
    limits = Limits(upload_bytes=100_000, voxels=5_000, idle_seconds=0.5, upload_seconds=1.5)
    with served(load_small(model, limits)) as running:
        yield running


def test_large_uploads_are_refused(narrow, tmp_path):
    """By the stated length, or, where none is stated, as soon as they are too large; nothing is kept."""
    client, folder, _ = narrow
    stated = send(client, "a.nii.gz", bytes(200_000))

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\n'
        for _ in range(2_000):
            yield bytes(1_000)

    unstated = client.post("/segment", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    for answer in (stated, unstated):
        assert answer.status_code == 413
        assert "is larger than the 0 MB that this server takes" in answer.json()["error"]
    assert list(folder.iterdir()) == []
    scan = write_noise(tmp_path / "a.nii.gz", shape=(20, 20, 20))
    assert "has 8000 voxels, and this server takes 5000 at most" in send(client, "a.nii.gz", scan.read_bytes()).text


@pytest.mark.parametrize("pause", [0.2, 10.0])
def test_slow_uploads_are_given_up(narrow, pause):
    """Those that stop on their way, and those that go on for ever, a byte at a time."""
    client, folder, _ = narrow
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20) as connection:
        connection.sendall(
            b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 5000\r\n\r\n--x\r\n" % client.base_url.port
        )
        end = time.monotonic() + 5.0
        connection.settimeout(pause if pause < 1 else 15)
        answer = b""
        while b"408" not in answer and time.monotonic() < end + 10:
            try:
                answer += connection.recv(1000)
            except TimeoutError:
                connection.sendall(b"-")
    assert b"408" in answer
    assert list(folder.iterdir()) == []
    assert client.get("/health").json()["scans"] == 0


def test_a_client_that_goes_away_leaves_nothing(narrow):
    """In the middle of its upload."""
    client, folder, _ = narrow
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20) as connection:
        connection.sendall(
            b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 5000\r\n\r\n--x\r\n" % client.base_url.port
        )
    end = time.monotonic() + 10
    while client.get("/health").json()["scans"] and time.monotonic() < end:
        time.sleep(0.02)
    assert client.get("/health").json()["scans"] == 0
    assert list(folder.iterdir()) == []
