"""Main memory: how much a job may take, how sizes are written, and arrays gone through in parts."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .errors import DeviceError, InputError

USABLE = 0.8
"""Share of the free memory that a job takes at most when the user sets no bound."""

WORKING_BYTES = 512 * 2**20
"""What a step takes beside the arrays that it reads and writes, whatever the number of slices."""

_CGROUPS = Path("/sys/fs/cgroup")
_BLOCK_VOXELS = 2**20
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_UNKNOWN_FREE = 4 * 2**30
_UNKNOWN_RESIDENT = 2**29


def parse_bytes(text: str) -> int:
    """A size as people write it: "4G", "512M", "1.5 GiB", or a number of bytes; units are powers of 1024.

    Raises:
        InputError: for what is no positive size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    size = int(float(found[1]) * 2 ** _UNITS[found[2]]) if found else 0
    if size < 1:
        raise InputError(f"'{text}' is no amount of memory; write it like 4G or 512M.")
    return size


def size_text(size: float) -> str:
    """A number of bytes for the user, in the unit of `parse_bytes`: "4.2G"."""
    return f"{size / 2**30:.1f}G"


def free_bytes() -> int:
    """Memory that this process could still take: of the computer, or of the container that it runs in."""
    free = _free_of_computer()
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = (_number(_CGROUPS / name) for name in (limit, used))
        if most is not None and now is not None:
            free = min(free, max(0, most - now))
    return free


def resident_bytes() -> int:
    """Memory that this process holds now; a guess where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_RESIDENT


def memory_bound(chosen: int | None) -> int:
    """Bytes that this process may hold: as chosen, or what it holds and `USABLE` of what is free."""
    return chosen if chosen is not None else resident_bytes() + int(USABLE * free_bytes())


class SliceSource(Protocol):
    """Slices (K, H, W) that can be asked for by number: an array, or `Slices`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, chosen: Any) -> np.ndarray: ...


class Slices:
    """Slices that are made when they are asked for, so that they need no memory before and after."""

    def __init__(self, shape: tuple[int, ...], make: Callable[[np.ndarray], np.ndarray]) -> None:
        """Shape (K, H, W), and what gives the slices (n, H, W) with some numbers (n,)."""
        self.shape, self._make = shape, make

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """As of an array, along the first axis."""
        numbers = np.arange(self.shape[0])[chosen]
        made = self._make(np.atleast_1d(numbers))
        return made if np.ndim(numbers) else made[0]


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The first axis of an array in parts of about a million values, so that what is made of a part stays small."""
    count = max(1, _BLOCK_VOXELS // max(1, shape[1] * shape[2]))
    return (slice(start, min(start + count, shape[0])) for start in range(0, shape[0], count))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out on some device."""
    # PyTorch's CPU allocator and ITK have no exception of their own, only their words.
    words = str(error).lower()
    phrases = ("out of memory", "not enough memory", "allocate memory", "bad_alloc", "create a memory object")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | DeviceError) and any(phrase in words for phrase in phrases)
    )


@contextmanager
def shortage_said(chosen: int | None) -> Iterator[None]:
    """Memory that runs out inside becomes one sentence, a `DeviceError`; `chosen` is the user's bound."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        bound = "" if chosen is None else f"give less than --memory {size_text(chosen)}, "
        raise DeviceError(
            f"Memory ran out; close other programs, {bound}ask for fewer maps, or enhance a part of the volume."
        ) from error


def _free_of_computer() -> int:
    if sys.platform == "win32":
        return _free_on_windows()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:  # macOS: what it calls free leaves out what it would give; half of all is a fair guess
        return os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
    except (OSError, ValueError, AttributeError):
        return _UNKNOWN_FREE


def _free_on_windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    found = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined, unused-ignore]
    return int(status.free) if found else _UNKNOWN_FREE


def _number(file: Path) -> int | None:
    """The number in a file; None where there is neither (a limit that is not set reads "max")."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
