"""The segments of a JPEG before its pixels.

Source: ITU-T T.81, annex B. The header is a row of segments: the byte 255, a kind, and the length of the rest. Any
number of bytes 255 may come before a segment.
"""

from collections.abc import Iterator

START, SCAN = b"\xff\xd8", 0xDA
JFIF_SEGMENT, EXIF_SEGMENT, ADOBE_SEGMENT = 0xE0, 0xE1, 0xEE
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # kinds of segments that state the size


def read_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the kind and the content of each segment before the pixels."""
    offset = len(START) if content.startswith(START) else len(content)
    while offset + 4 <= len(content) and content[offset] == 0xFF:
        kind = content[offset + 1]
        if kind == 0xFF:
            offset += 1
            continue
        if kind == SCAN:
            return
        length = int.from_bytes(content[offset + 2 : offset + 4], "big")
        yield kind, content[offset + 4 : offset + 2 + length]
        offset += 2 + length
