"""Files of surface meshes: binary STL, a file per structure, and binary glTF (GLB), a file for all of a scan.

STL has neither units nor a frame. Points are written in mm in LPS, which 3D Slicer takes a file for, and the header
says so in the words that Slicer looks for.

glTF has metres, y upwards, and shows objects from their front, in the direction of z. Points are kept in mm in LPS, and
the node above all meshes turns and scales them: the patient stands, and looks at the viewer.

Source: the glTF 2.0 specification of the Khronos Group, sections 3.4 and 4.4; for STL the format of 3D Systems.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoseg._version import __version__
from autoseg.imaging.meshes import Mesh
from autoseg.runtime.artifact import atomic_file

STL_HEADER_BYTES = 80
STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])

LPS_MM_TO_GLTF = (0.001, 0, 0, 0, 0, 0, -0.001, 0, 0, 0.001, 0, 0, 0, 0, 0, 1)
"""Columns of the matrix from LPS in mm to glTF in metres: left is x, the head is y, the front is z."""

FLOAT, UNSIGNED_INT, ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 5126, 5125, 34962, 34963

COLOURS = ((0.90, 0.62, 0.0), (0.34, 0.71, 0.91), (0.0, 0.62, 0.45), (0.94, 0.89, 0.26), (0.80, 0.47, 0.65))
"""Base colours, in turns. Source: Okabe and Ito, colours that people with any colour vision can tell apart."""


def write_stl(path: Path, mesh: Mesh) -> None:
    """Writes a mesh as binary STL, in mm in LPS.

    Raises:
        WriteError: The file cannot be written.
    """
    corners = mesh.points_mm[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(corners), dtype=STL_TRIANGLE)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["corners"] = corners
    header = f"autoseg {__version__}; SPACE=LPS; mm".encode("ascii").ljust(STL_HEADER_BYTES)
    with atomic_file(path) as writing:
        writing.write_bytes(header[:STL_HEADER_BYTES] + struct.pack("<I", len(records)) + records.tobytes())


def write_glb(path: Path, meshes: Sequence[Mesh]) -> None:
    """Writes meshes as binary glTF, each as a node with the name of its structure.

    Without meshes, the file holds an empty scene.

    Raises:
        WriteError: The file cannot be written.
    """
    scene: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"autoseg {__version__}", "extras": {"points": "mm in LPS"}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "patient", "matrix": list(LPS_MM_TO_GLTF)}],
    }
    content = b""
    if meshes:
        content = b"".join(mesh.points_mm.tobytes() + mesh.triangles.tobytes() for mesh in meshes)
        scene |= _describe(meshes)
        scene["buffers"] = [{"byteLength": len(content)}]
        scene["nodes"][0]["children"] = list(range(1, len(meshes) + 1))
        scene["nodes"] += [{"name": mesh.name, "mesh": number} for number, mesh in enumerate(meshes)]
    text = json.dumps(scene).encode()
    chunks = _chunk(b"JSON", text + b" " * (-len(text) % 4)) + (_chunk(b"BIN\0", content) if content else b"")
    with atomic_file(path) as writing:
        writing.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + kind + content


def _describe(meshes: Sequence[Mesh]) -> dict[str, Any]:
    """Describes meshes whose points and triangles lie in the buffer one after the other."""
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    materials: list[dict[str, Any]] = []
    offset = 0
    for number, mesh in enumerate(meshes):
        for array, target in ((mesh.points_mm, ARRAY_BUFFER), (mesh.triangles, ELEMENT_ARRAY_BUFFER)):
            views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
            offset += array.nbytes
        points = {"bufferView": 2 * number, "componentType": FLOAT, "count": len(mesh.points_mm), "type": "VEC3"}
        points |= {"min": mesh.points_mm.min(axis=0).tolist(), "max": mesh.points_mm.max(axis=0).tolist()}
        indices = {"bufferView": 2 * number + 1, "componentType": UNSIGNED_INT, "count": mesh.triangles.size}
        accessors += [points, {**indices, "type": "SCALAR"}]
        colour = [*COLOURS[number % len(COLOURS)], 1.0]
        surface = {"baseColorFactor": colour, "metallicFactor": 0.0, "roughnessFactor": 0.7}
        materials.append({"name": mesh.name, "pbrMetallicRoughness": surface})
        primitive = {"attributes": {"POSITION": 2 * number}, "indices": 2 * number + 1, "material": number}
        described.append({"name": mesh.name, "primitives": [primitive]})
    return {"bufferViews": views, "accessors": accessors, "meshes": described, "materials": materials}
