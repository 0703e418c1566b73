"""The viewer inside a page: which cases get room, what the page says of the others, and the vendored script."""

import gzip
import hashlib
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

import autoseg.report
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.report.viewer import ViewedCase, ViewedVolumes, make_viewer
from autoseg.runtime.reporting import SILENT

VENDORED = Path(autoseg.report.__file__).parent / "vendored"
GEOMETRY = Geometry(shape=(4, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
HOSTILE = "</script><script>alert(1)</script>"


def case(name: str, *, is_readable: bool = True) -> ViewedCase:
    """A case of noise with a mask."""

    def read() -> ViewedVolumes:
        if not is_readable:
            raise ImageError(f"{name} cannot be read", "replace it")
        image = np.random.default_rng(len(name)).normal(size=GEOMETRY.shape).astype(np.float32)
        mask = (image > 1).astype(np.uint8)
        return ViewedVolumes(
            images=(Volume(array=image, geometry=GEOMETRY),), masks=(Volume(array=mask, geometry=GEOMETRY),)
        )

    return ViewedCase(name=name, images=("MR",), masks=("label",), read=read)


def entries(cases, *, first=(), other_bytes=0):
    """The cases as the page holds them."""
    viewer = make_viewer(cases, ["liver"], first=first, other_bytes=other_bytes, reporter=SILENT)
    return viewer, json.loads(viewer.cases)


def test_first_cases_get_room(monkeypatch):
    """Until the next one would exceed it; the others keep their number, by which they are served."""
    monkeypatch.setattr("autoseg.report.viewer.PAGE_BYTES", 1300)
    monkeypatch.setattr("autoseg.report.viewer.FEWEST_BYTES", 0)
    viewer, content = entries([case(name) for name in "abcdef"], first=["e", "b"])
    held = [name for name, entry in content["cases"].items() if entry["volumes"]]
    assert held == ["b", "e"]
    assert (viewer.embedded, viewer.total) == (2, 6)
    assert [entry["number"] for entry in content["cases"].values()] == list(range(6))
    assert sum(len(text) for name in held for text in content["cases"][name]["volumes"]) <= 1300
    _, content = entries([case("a")], other_bytes=2000)
    assert not content["cases"]["a"]["volumes"]


def test_cases_that_cannot_be_read_are_left_out():
    """The others are there."""
    viewer, content = entries([case("a", is_readable=False), case("b")])
    assert viewer.embedded == 1
    assert not content["cases"]["a"]["volumes"]
    volumes = [gzip.decompress(b64decode(text)) for text in content["cases"]["b"]["volumes"]]
    assert [len(volume) for volume in volumes] == [352 + 256, 352 + 256]


def test_names_cannot_leave_the_data():
    """A case and a structure that end a script."""
    viewer = make_viewer([case(HOSTILE)], [HOSTILE], first=(), other_bytes=0, reporter=SILENT)
    assert "<" not in viewer.cases
    content = json.loads(viewer.cases)
    assert (content["structures"][0][0], list(content["cases"])) == (HOSTILE, [HOSTILE])


def test_page_without_cases_has_no_viewer():
    """Nor its script."""
    assert make_viewer([], ["liver"], first=(), other_bytes=0, reporter=SILENT) is None


def test_vendored_script_is_that_of_npm_and_has_its_licence():
    """Unchanged, with the licences of what it contains; it asks nothing of the network by itself."""
    script = (VENDORED / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    licence = (VENDORED / "LICENSE-niivue.txt").read_text(encoding="utf-8")
    assert "@niivue/niivue 0.69.0" in licence
    assert "BSD 2-Clause License" in licence
    for name in (
        "gl-matrix",
        "nifti-reader-js",
        "fflate",
        "zarrita",
        "numcodecs",
        "structured-clone",
        "array-equal",
        "uuid",
    ):
        assert name in licence


@pytest.mark.parametrize("function", ["report_data", "report_model", "report_scans"])
def test_port_without_serving_is_refused(function, tmp_path):
    """It would do nothing."""
    with pytest.raises(UsageError, match="port 8000 is where the page would be served; add --serve"):
        getattr(autoseg, function)(4, port=8000) if function != "report_scans" else autoseg.report_scans(
            tmp_path, port=8000
        )
