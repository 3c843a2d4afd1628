"""What ITK's NRRD and MetaImage readers do not check: headers in words that cannot be true, and damaged data.

Compressed data that are damaged are read as anything, sizes that are unknown are taken for 1 mm, and a MetaImage of
99 dimensions ends the process.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import GeometryError, InputError

_LONGEST_HEADER = 1 << 16
_LONGEST_NAME = 255
_CHUNK = 1 << 20
_MOST_DIMENSIONS = 10
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?"}
_ZLIB_OR_GZIP, _GZIP = 47, 31

# The format's several names of one thing.
_META_MATRIX, _META_ORIGIN = {"TransformMatrix", "Rotation", "Orientation"}, {"Offset", "Position", "Origin"}
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_NRRD_BYTES = {
    1: "signed char;int8;int8_t;uchar;unsigned char;uint8;uint8_t",
    2: "short;short int;signed short;signed short int;int16;int16_t;"
    "ushort;unsigned short;unsigned short int;uint16;uint16_t",
    4: "int;signed int;int32;int32_t;uint;unsigned int;uint32;uint32_t;float",
    8: "longlong;long long;long long int;signed long long;signed long long int;int64;int64_t;"
    "ulonglong;unsigned long long;unsigned long long int;uint64;uint64_t;double",
}


class _Data(NamedTuple):
    """Where the voxels are, and what they must be.

    Args:
        path: of the file that holds them.
        start: byte of that file.
        length: bytes of the voxels, not compressed.
        compression: zlib's `wbits`; None when they are not compressed.
        exact: whether nothing but the voxels may follow.
    """

    path: Path
    start: int
    length: int
    compression: int | None
    exact: bool = True


def check_metaimage(path: Path) -> None:
    """Refuse a MetaImage file (.mha, .mhd) that ITK would read wrongly, or not survive.

    Raises:
        InputError: a header that cannot be true, or data that are damaged or not as long as it says.
    """
    content = _start_of(path)
    end = re.search(rb"^ElementDataFile\s*[=:][^\n]*\n?", content, re.MULTILINE)
    if end is None:
        raise _damaged(path, "MetaImage")
    lines = content[: end.end()].decode("latin-1").splitlines()
    fields = {key.strip(): value.strip() for key, found, value in (_split(line) for line in lines) if found}
    dimensions = _counts(path, fields, "NDims", 1)[0]
    if dimensions > _MOST_DIMENSIONS:
        raise _damaged(path, "MetaImage")
    sizes = _counts(path, fields, "DimSize", dimensions)
    channels = _counts(path, {"ElementNumberOfChannels": "1", **fields}, "ElementNumberOfChannels", 1)[0]
    _check_metaimage_place(path, fields, dimensions)
    voxel_bytes = _META_BYTES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    place, start = fields["ElementDataFile"], end.end()
    if voxel_bytes is None or not place or fields.get("HeaderSize", "0") not in ("0", "-1"):
        raise _damaged(path, "MetaImage")
    if place.upper().startswith("LIST") or "%" in place or not _is_true(fields.get("BinaryData", "True")):
        return  # files of one slice each, and numbers in words: ITK counts those itself
    if place.upper() != "LOCAL":
        path, start = _data_file(path, place, "MetaImage"), 0
    compressed = _is_true(fields.get("CompressedData", "False"))
    _check_data(_Data(path, start, math.prod(sizes) * channels * voxel_bytes, _ZLIB_OR_GZIP if compressed else None))
    if compressed and fields.get("CompressedDataSize") != str(path.stat().st_size - start):
        raise InputError(f"{path.name} is truncated or damaged (CompressedDataSize); copy or export it again.")


def check_nrrd(path: Path) -> None:
    """Refuse an NRRD file (.nrrd, .nhdr) that ITK would read wrongly.

    Raises:
        InputError: a header that cannot be true, or data that are damaged or not as long as it says.
    """
    content = _start_of(path)
    header = re.match(rb"NRRD000\d\r?\n(.*?\n)??(\r?\n|\Z)", content, re.DOTALL)
    if header is None:
        raise _damaged(path, "NRRD")
    lines = header.group().decode("latin-1").splitlines()[1:]
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    fields = {key.strip().lower(): value.strip() for key, found, value in pairs if found}
    dimensions = _counts(path, fields, "dimension", 1)[0]
    sizes = _counts(path, fields, "sizes", dimensions)
    if dimensions >= 3:
        _check_nrrd_place(path, fields, dimensions)
    names = {name: count for count, listed in _NRRD_BYTES.items() for name in listed.split(";")}
    voxel_bytes = names.get(fields.get("type", ""))
    if voxel_bytes is None:
        raise _damaged(path, "NRRD")
    place = fields.get("data file", fields.get("datafile", ""))
    start = header.end()
    if place.upper().startswith("LIST") or "%" in place or _skips(fields, "line"):
        return
    if place:
        path, start = _data_file(path, place, "NRRD"), 0
    encoding = fields.get("encoding", "")
    if encoding in ("raw", "gz", "gzip"):
        compression = None if encoding == "raw" else _GZIP
        length = math.prod(sizes) * voxel_bytes
        _check_data(_Data(path, start, length, compression, exact=not _skips(fields, "byte")))


def _check_metaimage_place(path: Path, fields: Mapping[str, str], dimensions: int) -> None:
    spacing = fields.get("ElementSpacing", fields.get("ElementSize", ""))
    _check_sizes(path, "ElementSpacing", spacing, _floats(spacing), dimensions)
    for count, keys in ((dimensions**2, _META_MATRIX), (dimensions, _META_ORIGIN)):
        for key in keys & set(fields):
            values = _floats(fields[key])
            if len(values) != count or not all(map(math.isfinite, values)):
                raise _impossible_place(path, key, fields[key])
    _check_units(path, [fields.get("DistanceUnits", "")])


def _check_nrrd_place(path: Path, fields: Mapping[str, str], dimensions: int) -> None:
    directions, spacings = fields.get("space directions"), fields.get("spacings", "")
    if directions is not None:
        # ITK gives an axis without a direction one of its own; time is the fourth.
        if len(re.findall(r"\([^)]*\)", directions)) not in (3, dimensions):
            raise _impossible_place(path, "space directions", directions)
    else:
        known = [value for value in _floats(spacings) if not (dimensions > 3 and math.isnan(value))]
        _check_sizes(path, "spacings", spacings, known, max(3, len(known)))
    units = fields.get("space units") or (fields.get("units", "") if dimensions == 3 else "")
    _check_units(path, re.findall(r'"([^"]*)"', units))


def _check_data(data: _Data) -> None:
    """Data that are as long as the header says; compressed ones by their checksum too."""
    name = data.path.name
    try:
        with data.path.open("rb") as stream:
            stream.seek(data.start)
            if data.compression is None:
                found = data.path.stat().st_size - data.start
            else:
                found, engine = 0, zlib.decompressobj(data.compression)
                while not engine.eof and (chunk := engine.unconsumed_tail or stream.read(_CHUNK)):
                    found += len(engine.decompress(chunk, _CHUNK))
                    if found > data.length + _CHUNK:
                        break  # whatever follows, it is too much
                if found <= data.length and (not engine.eof or engine.unused_data or stream.read(1)):
                    raise InputError(f"{name} is truncated or damaged; copy or export it again.")
    except zlib.error as error:
        raise InputError(f"{name} is truncated or damaged; copy or export it again.") from error
    if found < data.length:
        raise InputError(
            f"{name} is truncated ({found} of {data.length} bytes of voxels are there); copy or export it again."
        )
    if found > data.length and data.exact:
        raise InputError(
            f"{name} holds more than the {data.length} bytes of voxels that its header describes, so that the header "
            "cannot be trusted; export it again."
        )


def _data_file(header: Path, name: str, kind: str) -> Path:
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise _damaged(header, kind)
    return header.parent / name


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_LONGEST_HEADER)


def _split(line: str) -> tuple[str, bool, str]:
    key, *rest = re.split("[=:]", line, maxsplit=1)
    return key, bool(rest), "".join(rest)


def _counts(path: Path, fields: Mapping[str, str], key: str, count: int) -> list[int]:
    values = fields.get(key, "").split()
    if len(values) != count or not all(re.fullmatch(r"0*[1-9]\d{0,8}", value) for value in values):
        raise InputError(
            f"The header of {path.name} gives impossible sizes ({key} {_quoted(fields.get(key, ''))}); export it again."
        )
    return [int(value) for value in values]


def _floats(text: str) -> list[float]:
    """Numbers; NaN stands for what is none."""
    values = []
    for word in text.split():
        try:
            values.append(float(word))
        except ValueError:
            values.append(math.nan)
    return values


def _check_sizes(path: Path, key: str, text: str, values: list[float], count: int) -> None:
    if len(values) != count or not all(math.isfinite(value) and value > 0 for value in values):
        raise GeometryError(
            f"The header of {path.name} does not say how large the voxels are ({key} {_quoted(text)}); export it again."
        )


def _check_units(path: Path, units: list[str]) -> None:
    """ITK takes all lengths for millimetres."""
    other = [unit for unit in units if unit.strip().lower() not in _MILLIMETRES]
    if other:
        raise GeometryError(f"{path.name} gives lengths in {_quoted(other[0])}; export it in mm.")


def _quoted(text: str) -> str:
    """What stands in a header, which may be anything."""
    return ascii(text[:40])


def _skips(fields: Mapping[str, str], what: str) -> bool:
    return fields.get(f"{what} skip", fields.get(f"{what}skip", "0")) != "0"


def _is_true(word: str) -> bool:
    return word[:1] in ("T", "t", "1")


def _damaged(path: Path, kind: str) -> InputError:
    return InputError(f"{path.name} is damaged or not a {kind} image; export it again.")


def _impossible_place(path: Path, key: str, text: str) -> GeometryError:
    return GeometryError(
        f"The header of {path.name} does not say where the voxels lie ({key} {_quoted(text)}); export it again."
    )
