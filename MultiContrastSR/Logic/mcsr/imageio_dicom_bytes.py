"""What SimpleITK does not tell of a DICOM file: elements inside sequences, and how long its pixel data are.

Both are found in the file's bytes by their tags, in each of the byte orders and ways of naming types that there are.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = (0x7FE0, 0x0010)


def sop_class(file: Path) -> str:
    """What kind of DICOM object a file says to be, in its file meta information (explicit, little endian, always)."""
    with file.open("rb") as stream:
        start = stream.read(512)
    tag = start.find(b"\x02\x00\x02\x00UI")
    if start[128:132] != b"DICM" or tag < 0:
        return ""
    length = int.from_bytes(start[tag + 6 : tag + 8], "little")
    return start[tag + 8 : tag + 8 + length].decode("ascii", "replace").strip(" \0")


def decimal_values(content: bytes, tag: tuple[int, int]) -> np.ndarray:
    """All values of a decimal element (DS), wherever it stands before the pixel data: (times, values).

    Empty when there is none, when they are not equally many, or when one is no number.
    """
    found = []
    for start, length in _elements(content, tag, (b"DS",), "H"):
        words = content[start : start + length].decode("ascii", "replace").strip(" \0").split("\\")
        try:
            found.append([float(word) for word in words])
        except ValueError:
            return np.empty((0, 0))
    if len({len(values) for values in found}) != 1:
        return np.empty((0, 0))
    return np.array(found)


def pixel_data_lengths(content: bytes) -> list[int]:
    """What the file says of the length (bytes) of its pixel data, those of an icon included; none when compressed."""
    lengths = [length for _, length in _elements(content, _PIXEL_DATA, (b"OW\0\0", b"OB\0\0"), "I")]
    return [length for length in lengths if length != _UNDEFINED_LENGTH]


def _elements(
    content: bytes, tag: tuple[int, int], types: tuple[bytes, ...], length_format: str
) -> list[tuple[int, int]]:
    """Start and length of the value of every element with this tag."""
    named = [
        element
        for order in "<>"
        for code in types
        for element in _after(content, struct.pack(f"{order}2H", *tag) + code, order + length_format)
    ]
    # Where types are left out, the length has four bytes; such files are little endian.
    return named or _after(content, struct.pack("<2H", *tag), "<I")


def _after(content: bytes, start: bytes, length_format: str) -> list[tuple[int, int]]:
    size = struct.calcsize(length_format)
    ends = [match.end() for match in re.finditer(re.escape(start), content[:-size])]
    return [(end + size, *struct.unpack_from(length_format, content, end)) for end in ends]
