"""What ITK's NIfTI reader hides: files cut short are read as if the rest were 0, and so are NaN and infinite voxels."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import InputError

_FLOAT_TYPES = {16: "f4", 64: "f8"}


class _Header(NamedTuple):
    byte_order: str
    voxels: int
    bits: int
    datatype: int
    offset: int

    @property
    def file_length(self) -> int:
        return self.offset + self.voxels * self.bits // 8


def read_nifti_bytes(path: Path) -> bytes:
    """The whole file, decompressed; gzip's checksum is verified on the way.

    Raises:
        InputError: no NIfTI file, a damaged one, or one that is shorter than its header says.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            content = stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name} is truncated or damaged; copy or export it again.") from error
    header = _header(content)
    if header is None:
        raise InputError(f"{path.name} is damaged or not a NIfTI image; export it again.")
    if len(content) < header.file_length:
        raise InputError(
            f"{path.name} is truncated ({len(content)} of {header.file_length} bytes are there); "
            "copy or export it again."
        )
    return content


def nonfinite_voxels(content: bytes) -> np.ndarray | None:
    """Mask (flat, i runs fastest) of the NaN and infinite voxels in what `read_nifti_bytes` gave; None without any."""
    header = _header(content)
    if header is None or header.datatype not in _FLOAT_TYPES:
        return None
    dtype = np.dtype(header.byte_order + _FLOAT_TYPES[header.datatype])
    bad = ~np.isfinite(np.frombuffer(content, dtype, header.voxels, header.offset))
    return bad if bad.any() else None


def _header(content: bytes) -> _Header | None:
    """The fields that tell where the voxels are, from a NIfTI-1 or NIfTI-2 header; None when it is no such header."""
    for order in "<>" if len(content) >= 348 else "":
        (size,) = struct.unpack_from(f"{order}i", content)
        if size == 348:
            dim = struct.unpack_from(f"{order}8h", content, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", content, 70)
            (offset,) = struct.unpack_from(f"{order}f", content, 108)
        elif size == 540 and len(content) >= 540:
            datatype, bits = struct.unpack_from(f"{order}2h", content, 12)
            dim = struct.unpack_from(f"{order}8q", content, 16)
            (offset,) = struct.unpack_from(f"{order}q", content, 168)
        else:
            continue
        if not 1 <= dim[0] <= 7 or dim[1] < 1 or not math.isfinite(offset):
            return None
        # The NIfTI library takes a size below 1 for 1.
        voxels = math.prod(max(n, 1) for n in dim[1 : 1 + dim[0]])
        return _Header(order, voxels, bits, datatype, max(int(offset), size))
    return None
