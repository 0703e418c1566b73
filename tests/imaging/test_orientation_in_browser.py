"""Pictures are turned as a browser shows them, by EXIF and not by XMP; masks by the same rule as their pictures."""

import base64
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from autoseg.imaging.image_files import read_image, read_label_map

pytestmark = pytest.mark.slow  # a browser starts

ORIENTATION = 274
PIXELS = np.kron(np.array([[0, 60, 120], [180, 220, 255]], np.uint8), np.ones((16, 16), np.uint8))
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
    "</rdf:RDF></x:xmpmeta>"
)
SHOWN = """async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [canvas.height, canvas.width, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""


def encode(kind: str, *, exif: int | None = None, xmp: int | None = None) -> bytes:
    """Encodes the pixels as PNG or JPEG, with the orientations that EXIF and XMP state."""
    options: dict[str, Any] = {"quality": 100} if kind == "jpeg" else {}
    if exif is not None:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = exif
    if xmp is not None and kind == "jpeg":
        options["xmp"] = XMP.format(xmp).encode()
    elif xmp is not None:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.format(xmp))
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def move_exif_behind_the_pixels(png: bytes) -> bytes:
    """Returns a PNG whose EXIF block follows the pixels, which the format allows."""
    start = png.index(b"eXIf") - 4
    stop = start + 12 + struct.unpack_from(">I", png, start)[0]
    rest, end = png[:start] + png[stop:], b"IEND"
    place = rest.index(end) - 4
    return rest[:place] + png[start:stop] + rest[place:]


def show(page: Any, kind: str, content: bytes) -> np.ndarray:
    """Returns the pixels (y, x) that a browser shows."""
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    height, width, samples = page.evaluate(SHOWN, address)
    return np.reshape(samples, (height, width, 4))[..., 0]


def read(folder: Path, kind: str, content: bytes) -> np.ndarray:
    """Returns the pixels (y, x) that are read here; a PNG gives them as a mask as well."""
    path = folder / f"picture.{kind}"
    path.write_bytes(content)
    pixels = read_image((path,)).array[0, 0]
    if kind == "png":
        assert np.array_equal(read_label_map(path).array[0], pixels)
    return pixels


def test_a_picture_is_turned_as_a_browser_shows_it(tmp_path: Path, browser: Any) -> None:
    """By EXIF, whatever XMP says; by XMP alone it is not turned."""
    cases = [(kind, {"exif": value}) for kind in ("png", "jpeg") for value in range(1, 9)]
    cases += [(kind, {"xmp": value}) for kind in ("png", "jpeg") for value in range(1, 9)]
    cases += [("jpeg", {"exif": 6, "xmp": 3}), ("png", {"exif": 8, "xmp": 1}), ("jpeg", {"exif": 1, "xmp": 6})]
    page = browser.new_page()
    for kind, tags in cases:
        content = encode(kind, **tags)
        shown, mine = show(page, kind, content), read(tmp_path, kind, content)
        assert shown.shape == mine.shape, (kind, tags)
        assert np.abs(shown - mine).max() < 5, (kind, tags)
    late = move_exif_behind_the_pixels(encode("png", exif=6))
    assert np.array_equal(show(page, "png", late), PIXELS)  # the browser overlooks it
    page.close()
    assert np.array_equal(read(tmp_path, "png", late), PIXELS[::-1].T)
