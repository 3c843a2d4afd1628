"""What ITK's NIfTI reader hides.

It takes the missing end of a file cut short, NaN and infinite voxels for 0, and what a header contradicts or leaves out
for 1; and it puts voxels of the pixdim's size onto the directions of the sform, whether they agree or not.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .compression import LEVEL, strategy_for
from .errors import GeometryError, InputError
from .geometry import Grid, same_space

_FLOAT_TYPES = {16: "f4", 64: "f8"}
# Bits per voxel by datatype code, as the standard fixes them: a header may say otherwise in its bitpix.
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1792: 128}
_BITS |= {2304: 32}
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
_AGREEMENT_VOXELS = 0.05
_PIECE = 1 << 22
_GZIP_WINDOW = 31
"""zlib's largest window, with gzip's header and sum."""


MOST_VOXELS_ALONG_AXIS = 32767
_HEADER, _FIRST_VOXEL, _SIZES = 348, 352, 42
_SIZE_OF_NIFTI_2 = 540
_MAGIC = b"n+1\0"


class NiftiHeader(NamedTuple):
    """What a header says of its voxels; see `read_nifti_header`.

    Args:
        byte_order: "<" or ">".
        shape: of the voxels, i first.
        datatype: the standard's code.
        bits: of a voxel.
        offset: of the first voxel, bytes.
        grids: where the voxels lie by the sform and by the qform; none when the header has neither.
    """

    byte_order: str
    shape: tuple[int, ...]
    datatype: int
    bits: int
    offset: int
    grids: tuple[Grid, ...]

    @property
    def voxels(self) -> int:
        """Their number."""
        return math.prod(self.shape)

    @property
    def file_length(self) -> int:
        """Bytes of the whole file, not compressed."""
        return self.offset + self.voxels * self.bits // 8


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of a NIfTI-1 file, refused where it cannot be true.

    Raises:
        InputError: no NIfTI file, or sizes, scaling or places that no image can have.
    """
    content = _decompressed(path, _FIRST_VOXEL)
    if len(content) == _FIRST_VOXEL:
        for order in "<>":
            (size,) = struct.unpack_from(f"{order}i", content)
            if size == _HEADER and content[344:348] == _MAGIC:
                return _parsed(content, order, path.name)
            if size == _SIZE_OF_NIFTI_2:
                raise InputError(f"{path.name} is a NIfTI-2 file, which cannot be read; convert it to NIfTI-1 or NRRD.")
    raise InputError(f"{path.name} is damaged or not a NIfTI image; export it again.")


def nonfinite_voxels(path: Path, header: NiftiHeader) -> np.ndarray | None:
    """Read the whole file: mask (flat, i runs fastest) of the NaN and infinite voxels; None without any.

    Raises:
        InputError: a damaged file (gzip's checksum is verified), or one that is not as long as its header says.
    """
    content = _decompressed(path, header.file_length + 1)
    if len(content) < header.file_length:
        raise InputError(
            f"{path.name} is truncated ({len(content)} of {header.file_length} bytes are there); "
            "copy or export it again."
        )
    if len(content) > header.file_length:
        raise InputError(
            f"{path.name} holds more than the {header.file_length} bytes that its header describes, so that the header "
            "cannot be trusted; export it again."
        )
    if header.datatype not in _FLOAT_TYPES:
        return None
    dtype = np.dtype(header.byte_order + _FLOAT_TYPES[header.datatype])
    bad = ~np.isfinite(np.frombuffer(content, dtype, header.voxels, header.offset))
    return bad if bad.any() else None


def write_other_voxels(path: Path, shape_ijk: tuple[int, int, int], slice_at: Callable[[int], np.ndarray]) -> None:
    """Give a .nii.gz file, of one voxel say, other voxels: ITK takes twice as long, and does not tell of a full disk.

    Args:
        path: of a file that ITK wrote.
        shape_ijk: of the new voxels.
        slice_at: gives those of a k, of the type that the header names.
    """
    content = _decompressed(path, _FIRST_VOXEL)
    header = content[:_SIZES] + struct.pack("=3h", *shape_ijk) + content[_SIZES + 6 :]
    strategy = strategy_for(slice_at(shape_ijk[2] // 2).tobytes())
    compressor = zlib.compressobj(LEVEL, wbits=_GZIP_WINDOW, strategy=strategy)
    with path.open("wb") as file:
        file.write(compressor.compress(header))
        for k in range(shape_ijk[2]):
            file.write(compressor.compress(slice_at(k).tobytes()))
        file.write(compressor.flush())


def check_place(grid: Grid, header: NiftiHeader, name: str) -> None:
    """Refuse the grid that ITK made of a header when it is neither that of the sform nor that of the qform.

    Raises:
        GeometryError: the header contradicts itself.
    """
    tolerance = _AGREEMENT_VOXELS * float(grid.spacing_ijk_mm.min())
    if header.grids and not any(same_space(grid, other, tolerance) for other in header.grids):
        raise GeometryError(
            f"The header of {name} contradicts itself: its voxel sizes (pixdim) are not those of its sform; "
            "export it again."
        )


def _decompressed(path: Path, length: int) -> bytes:
    """Up to `length` bytes from the start; piece by piece, since that may be more than the memory can hold."""
    content = bytearray()
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            while len(content) < length and (piece := stream.read(min(_PIECE, length - len(content)))):
                content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name} is truncated or damaged; copy or export it again.") from error
    return bytes(content)


def _parsed(content: bytes, order: str, name: str) -> NiftiHeader:
    def values(kind: str, place: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + kind, content, place)

    dim, (datatype, bits), (offset,) = values("8h", 40), values("2h", 70), values("f", 108)
    # Axes beyond the third are left at 0 by some programs; that of one of the first three would be a guess.
    shape = tuple(n if axis < 3 else max(n, 1) for axis, n in enumerate(dim[1 : 1 + max(0, dim[0])]))
    if not 1 <= dim[0] <= 7 or min(shape) < 1:
        raise InputError(f"The header of {name} gives impossible sizes ({dim[0]} axes of {shape}); export it again.")
    if not math.isfinite(offset) or offset < _FIRST_VOXEL:
        raise InputError(f"The header of {name} puts the voxels at byte {offset:g}, inside itself; export it again.")
    slope, intercept = values("2f", 112)
    # A slope of 0 or NaN means that nothing is scaled; ITK adds the intercept all the same.
    unscaled = (slope == 0 or math.isnan(slope)) and (intercept == 0 or math.isnan(intercept))
    if not unscaled and not (slope != 0 and math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(f"The header of {name} scales its values by {slope:g} and {intercept:g}; export it again.")
    grids = _grids((*shape, 1, 1)[:3], values, name)
    return NiftiHeader(order, shape, datatype, _BITS.get(datatype, bits), int(offset), grids)


def _grids(shape: tuple[int, ...], values: Callable[[str, int], tuple[Any, ...]], name: str) -> tuple[Grid, ...]:
    pixdim, (units,), (qform_code, sform_code) = values("8f", 76), values("b", 123), values("2h", 252)
    unit_mm = np.array([[_MM_PER_UNIT.get(units & 7, 1.0)]] * 3 + [[1.0]])
    grids = []
    try:
        if sform_code > 0:
            sform = np.vstack([np.reshape(values("12f", 280), (3, 4)), (0, 0, 0, 1)])
            grids.append(Grid(shape, sform * unit_mm))  # type: ignore[arg-type]
        if qform_code > 0:
            grids.append(Grid(shape, _qform(values("6f", 256), pixdim) * unit_mm))  # type: ignore[arg-type]
        if not grids:
            Grid(shape, np.diag([*pixdim[1:4], 1.0]))  # type: ignore[arg-type]  # sizes there must be
    except GeometryError as error:
        if not grids:  # else the sform tells
            raise GeometryError(
                f"The header of {name} does not say where its voxels lie (pixdim, qform, sform); export it again."
            ) from error
    return tuple(grids)


def _qform(parameters: tuple[float, ...], pixdim: tuple[float, ...]) -> np.ndarray:
    """Method 2 of the standard: a unit quaternion whose first part is left out, sizes, and the hand in pixdim[0]."""
    b, c, d = parameters[:3]
    length = b * b + c * c + d * d
    a = math.sqrt(max(0.0, 1 - length))
    if length > 1:
        b, c, d = (part / math.sqrt(length) for part in (b, c, d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    hand = -1.0 if pixdim[0] < 0 else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array([pixdim[1], pixdim[2], hand * pixdim[3]])
    matrix[:3, 3] = parameters[3:]
    return matrix
