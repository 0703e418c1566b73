"""The viewer in a browser: a click opens the scan with its mask in the right place, from a file and from a server."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from threading import Thread
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scan_folders import write_predictions
from tiny_workspaces import NUMBER, folders_of, write_volumes

import autoseg
from autoseg.datasets.info import DatasetInfo
from autoseg.report.loopback import LoopbackServer

pytestmark = pytest.mark.slow  # a browser starts

PLACE = re.compile(r"(\w+) ([\d.]+), (\w+) ([\d.]+), (\w+) ([\d.]+) mm · (.*?): (\S+) · label: (.*)")
NEGATIVE = ("left", "posterior", "inferior")
COLOURS = ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9))
MILLISECONDS_TO_OPEN = 90_000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace of three cases."""
    root = tmp_path_factory.mktemp("workspace")
    write_volumes(root, shape=(14, 16, 18), spacing_mm=(3.0, 2.0, 2.0), cases=3)
    return root


@pytest.fixture(scope="module")
def data_page(root):
    """The page of these cases."""
    return autoseg.report_data(NUMBER, root / "page.html", workspace=root)


@pytest.fixture
def open_address(browser) -> Iterator[Any]:
    """Opens an address; nothing may be written to the console but what the driver of software WebGL says of itself."""
    pages, complaints = [], []

    def open_one(address: str) -> Any:
        page = browser.new_page(viewport={"width": 900, "height": 650})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert [text for text in complaints if "GL Driver Message" not in text] == []


def wait_for(page, name: str) -> None:
    """Waits until the viewer shows a case."""
    page.locator(f"#viewer[data-shows={json.dumps(name)}]").wait_for(timeout=MILLISECONDS_TO_OPEN)


def check_place(page, root, name: str, tolerance: float) -> str:
    """Compares position, value and label that the viewer states with the files, by nibabel; returns the label."""
    match = PLACE.match(page.inner_text("#viewer-place"))
    ras = [float(match[2 * axis + 2]) * (-1 if match[2 * axis + 1] in NEGATIVE else 1) for axis in range(3)]
    image = nibabel.load(folders_of(root).raw / "imagesTr" / f"{name}_0000.nii.gz")
    label = nibabel.load(folders_of(root).raw / "labelsTr" / f"{name}.nii.gz")
    index = tuple(np.rint(np.linalg.inv(image.affine) @ [*ras, 1])[:3].astype(int))
    assert float(match[8]) == pytest.approx(image.get_fdata()[index], abs=tolerance)
    info = DatasetInfo.load(folders_of(root).raw / "dataset.json")
    names = ["none", *info.targets.names]
    assert match[9] == names[int(label.get_fdata()[index])]
    return match[9]


def test_case_opens_in_the_right_place(open_address, data_page, root):
    """Enter opens it at its label; arrow keys move; values and labels are those of the files; Escape closes."""
    page = open_address(data_page.as_uri())
    page.locator("#cases .open").nth(1).focus()
    page.keyboard.press("Enter")
    wait_for(page, "case_2")
    assert not page.is_visible("#viewer-picture")
    values = nibabel.load(folders_of(root).raw / "imagesTr" / "case_2_0000.nii.gz").get_fdata()
    page.locator("#viewer-canvas").focus()
    labels = set()
    for key in ("ArrowLeft", "ArrowUp", "PageUp", *["ArrowRight"] * 6, "PageDown", "ArrowDown"):
        page.keyboard.press(key)
        labels.add(
            check_place(page, root, "case_2", tolerance=np.ptp(values) / 255 + 0.05 * np.abs(values).max() / 100)
        )
    assert len(labels) > 1
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    assert page.evaluate("document.activeElement.dataset.name") == "case_2"


def test_mask_is_drawn_where_it_lies(open_address, data_page, root):
    """The coronal plane: the patient's right is on the left, the head at the top, in the colours of the legend."""
    page = open_address(data_page.as_uri())
    page.locator("#cases .open").first.click()
    wait_for(page, "case_1")
    page.select_option("#viewer-view", "coronal")
    page.locator("#viewer-opacity").fill("100")
    place = PLACE.match(page.inner_text("#viewer-place"))
    label = nibabel.load(folders_of(root).raw / "labelsTr" / "case_1.nii.gz")
    anterior = float(place[4]) * (-1 if place[3] in NEGATIVE else 1)
    plane = label.get_fdata()[:, round((anterior - label.affine[1, 3]) / label.affine[1, 1]), ::-1]
    page.wait_for_timeout(300)
    shot = np.asarray(Image.open(BytesIO(page.locator("#viewer-canvas").screenshot())).convert("RGB")).astype(int)
    boxes = {}
    for number, colour in enumerate(COLOURS, start=1):
        rows, columns = np.nonzero((np.abs(shot - colour) < 12).all(axis=-1))
        assert len(rows) > 50
        x, y = np.nonzero(plane == number)  # towards left and inferior, as they are drawn
        drawn = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1], float)
        stored = np.array([x.min(), x.max() + 1, y.min(), y.max() + 1], float)
        boxes[number] = drawn, stored
    (drawn, stored), (other_drawn, other_stored) = boxes.values()
    for first in (0, 2):
        scale = (drawn[first + 1] - drawn[first]) / (stored[first + 1] - stored[first])
        shift = other_drawn[first : first + 2] - drawn[first : first + 2]
        expected = (other_stored[first : first + 2] - stored[first : first + 2]) * scale
        np.testing.assert_allclose(shift, expected, atol=scale)


def test_mask_can_be_hidden(open_address, data_page):
    """Its value is no more in the line below, and it is no more drawn."""
    page = open_address(data_page.as_uri())
    page.locator("#cases .open").first.click()
    wait_for(page, "case_1")
    assert "label:" in page.inner_text("#viewer-place")
    page.locator("#viewer-masks input").uncheck()
    assert "label:" not in page.inner_text("#viewer-place")


def test_served_page_shows_full_resolution(open_address, root, tmp_path, monkeypatch):
    """Also of a case that is not in the page; its values are exact."""
    monkeypatch.setattr("autoseg.report.viewer.FEWEST_BYTES", 0)
    monkeypatch.setattr("autoseg.report.viewer.PAGE_BYTES", 0)
    servers, addresses = [], []
    begin = LoopbackServer.run
    monkeypatch.setattr(
        LoopbackServer, "run", lambda server: (servers.append(server), addresses.append(server.address), begin(server))
    )
    path = tmp_path / "page.html"
    serve = Thread(target=autoseg.report_data, args=(NUMBER, path), kwargs={"workspace": root, "serve": True})
    serve.start()
    while not addresses:
        serve.join(0.05)
    try:
        page = open_address(addresses[0])
        page.locator("#cases .open").nth(2).click()
        wait_for(page, "case_3")
        page.locator("#viewer-canvas").focus()
        for key in ("ArrowLeft", "PageUp", "ArrowDown"):
            page.keyboard.press(key)
            check_place(page, root, "case_3", tolerance=0.06)
        page.keyboard.press("Escape")
    finally:
        servers[0]._server.shutdown()
        serve.join()
    page = open_address(path.as_uri())
    page.locator("#cases .open").nth(2).click()
    page.locator("#viewer-note", has_text="not in the page").wait_for()
    assert page.inner_text("#viewer-note") == (
        f"This scan is not in the page, which would become too large; autoseg report data -d {NUMBER} --serve shows it."
    )
    assert "volumes of 0 of 3 cases are in this page" in page.inner_text("main")


def test_scans_sort_filter_and_open(open_address, root, tmp_path):
    """The page of segmented scans, with a hostile remark; the worst is the first row."""
    hostile = "<img src=x onerror=alert(1)>"
    masks = write_predictions(
        root, tmp_path / "masks", agreements={"case_1": 0.4, "case_2": 0.9}, remarks={"case_3": (hostile,)}
    )
    page = open_address(autoseg.report_scans(masks).as_uri())
    names = page.locator("#cases tbody tr:visible .open")
    assert [text.strip() for text in names.all_inner_texts()] == ["case_3", "case_1", "case_2"]
    assert hostile in page.inner_text("#first")
    page.locator("#cases thead button", has_text="agreement").click()
    assert [text.strip() for text in names.all_inner_texts()] == ["case_1", "case_2", "case_3"]
    page.fill("#filter", "onerror")
    assert [text.strip() for text in names.all_inner_texts()] == ["case_3"]
    page.locator("#first .open").click()
    wait_for(page, "case_3")
    assert "mask: " in page.inner_text("#viewer-place")
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")


def test_held_out_case_opens_with_truth_and_what_was_found(open_address, trained_volumes, tmp_path):
    """What was found is shown first; the truth at a click; the next case follows in the open viewer."""
    page = open_address(autoseg.report_model(NUMBER, tmp_path / "model.html", workspace=trained_volumes).as_uri())
    rows = page.locator("#cases tbody .open")
    keys = [row.get_attribute("data-key") for row in rows.all()]
    rows.first.click()
    wait_for(page, keys[0])
    assert [text.strip() for text in page.locator("#viewer-masks label").all_inner_texts()] == ["truth", "found"]
    assert "found: " in page.inner_text("#viewer-place")
    assert "truth: " not in page.inner_text("#viewer-place")
    page.locator("#viewer-masks input").first.check()
    assert "truth: " in page.inner_text("#viewer-place")
    page.click("#next")
    wait_for(page, keys[1])
