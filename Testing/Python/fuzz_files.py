"""Image files made by hand from their standards, so that a reader can be held against them."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fuzz_cases import Image

NIFTI_TYPES = {
    "uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512, "uint32": 768,
    "int64": 1024, "uint64": 1280,
}  # fmt: skip
NRRD_TYPES = {
    "uint8": "uchar", "int16": "short", "int32": "int", "float32": "float", "float64": "double", "int8": "signed char",
    "uint16": "ushort", "uint32": "unsigned int",
}  # fmt: skip
META_TYPES = {
    "uint8": "MET_UCHAR", "int16": "MET_SHORT", "int32": "MET_INT", "float32": "MET_FLOAT", "float64": "MET_DOUBLE",
    "int8": "MET_CHAR", "uint16": "MET_USHORT", "uint32": "MET_UINT",
}  # fmt: skip
LPS = np.array([-1.0, -1.0, 1.0])


def nifti_file(
    array: np.ndarray,
    *,
    order: str = "<",
    pixdim: Sequence[float] = (1, 1, 1, 1),
    sform: np.ndarray | None = None,
    quaternion: Sequence[float] | None = None,
    scaling: tuple[float, float] = (1, 0),
    units: int = 2,
    extension: int = 0,
    **fields: Any,
) -> bytes:
    """A NIfTI-1 file of (K, J, I) voxels; `quaternion` is (b, c, d, x, y, z); `fields` overrule all."""
    header = bytearray(352 + extension)
    header[348] = extension > 0
    if extension:
        struct.pack_into(f"{order}2i", header, 352, extension, 6)
    values = {
        "size": 348,
        "magic": b"n+1\0",
        "dim": (3, *array.shape[::-1], 1, 1, 1, 1),
        "datatype": NIFTI_TYPES[array.dtype.name],
        "bitpix": 8 * array.dtype.itemsize,
        "pixdim": (*pixdim, *[0] * (8 - len(pixdim))),
        "offset": len(header),
        "scaling": scaling,
        "units": units,
        "qform_code": int(quaternion is not None),
        "sform_code": int(sform is not None),
        "quaternion": (0,) * 6 if quaternion is None else quaternion,
        "sform": (0,) * 12 if sform is None else sform[:3].ravel(),
    } | fields
    places = {
        "size": ("i", 0), "magic": ("4s", 344), "dim": ("8h", 40), "datatype": ("h", 70), "bitpix": ("h", 72),
        "pixdim": ("8f", 76), "offset": ("f", 108), "scaling": ("2f", 112), "units": ("b", 123),
        "qform_code": ("h", 252), "sform_code": ("h", 254), "quaternion": ("6f", 256), "sform": ("12f", 280),
    }  # fmt: skip
    for name, value in values.items():
        kind, place = places[name]
        struct.pack_into(order + kind, header, place, *(value if np.iterable(value) and kind[-1] != "s" else [value]))
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes()


def nrrd_file(
    image: Image, *, order: str = "<", encoding: str = "raw", signs: np.ndarray = LPS, **fields: Any
) -> bytes:
    """An NRRD file; `signs` tells its space from RAS; `fields` overrule, None leaves a field out."""
    axes, origin = image.matrix[:3, :3] * signs[:, None], image.matrix[:3, 3] * signs
    space = f"{'right left'.split()[int(signs[0] < 0)]}-{'anterior posterior'.split()[int(signs[1] < 0)]}-superior"
    values = {
        "type": NRRD_TYPES[image.array.dtype.name],
        "dimension": 3,
        "space": space,
        "sizes": _words(image.shape_ijk),
        "space directions": " ".join(f"({','.join(repr(float(x)) for x in axis)})" for axis in axes.T),
        "endian": "little" if order == "<" else "big",
        "encoding": encoding,
        "space origin": f"({','.join(repr(float(x)) for x in origin)})",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    voxels = image.array.astype(image.array.dtype.newbyteorder(order)).tobytes()
    if encoding == "gzip":
        voxels = gzip.compress(voxels, 1)
    elif encoding == "ascii":
        voxels = _words(image.array.ravel()).encode()
    return f"NRRD0004\n{_lines(values, ': ')}\n".encode() + voxels


def metaimage_file(image: Image, *, order: str = "<", compressed: bool = False, **fields: Any) -> bytes:
    """A MetaImage file; `fields` overrule, None leaves a field out."""
    voxels = image.array.astype(image.array.dtype.newbyteorder(order)).tobytes()
    if compressed:
        voxels = zlib.compress(voxels, 1)
    directions = image.matrix[:3, :3] / image.spacing * LPS[:, None]
    values = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": order == ">",
        "CompressedData": compressed,
        "CompressedDataSize": len(voxels) if compressed else None,
        "TransformMatrix": _words(directions.T.ravel()),
        "Offset": _words(image.matrix[:3, 3] * LPS),
        "ElementSpacing": _words(image.spacing),
        "DimSize": _words(image.shape_ijk),
        "ElementType": META_TYPES[image.array.dtype.name],
        **fields,
    }
    values["ElementDataFile"] = values.pop("ElementDataFile", "LOCAL")  # the last one, whatever it is
    return _lines(values, " = ").encode() + voxels


def _words(values: Any) -> str:
    return " ".join(repr(value.item() if isinstance(value, np.generic) else value) for value in values)


def _lines(fields: Mapping[str, Any], between: str) -> str:
    return "".join(f"{name}{between}{value}\n" for name, value in fields.items() if value is not None)
