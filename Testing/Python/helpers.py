"""What the tests of files share: an MRI-like volume, files made by hand, a disk that fills up, a bound on memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.bench_memory import peak_resident_bytes
from mcsr.geometry import Grid
from mcsr.volume import Volume

POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals, pipes, locks and limits as POSIX has them")

EXTENSIONS = (".nii", ".nii.gz", ".nrrd", ".mha")
# NIfTI keeps its matrix as float32.
TOLERANCE_MM = {".nii": 1e-4, ".nii.gz": 1e-4, ".nrrd": 1e-9, ".mha": 1e-9}


def mri(grid: Grid | None = None, dtype: str = "int16", seed: int = 0, name: str = "volume") -> Volume:
    """Noise that no rule takes for labels, as whole numbers from 0 to 126 to fit every type."""
    grid = grid or oblique_grid()
    array = np.random.default_rng(seed).integers(0, 127, grid.shape_kji)
    return Volume(array, grid.ijk_to_ras, name=name, source_dtype=dtype)


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Every file ends at a number of bytes, as on a disk that fills up; works for the superuser too."""
    resource = pytest.importorskip("resource", reason="Windows does not limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def memory_grows_by_less_than(mib: float) -> Iterator[None]:
    """Of this process, at its peak: an earlier one, which could hide it, is forgotten where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_resident_bytes()
    yield
    assert peak_resident_bytes() - before < mib * 2**20


def one_sentence(error: pytest.ExceptionInfo[BaseException], *words: str) -> bool:
    text = str(error.value)
    return text.endswith((".", "?")) and "\n" not in text and all(word in text for word in words)


def nifti_bytes(array_kji: np.ndarray, ijk_to_ras: np.ndarray, big_endian: bool = False) -> bytes:
    """A NIfTI-1 file made by hand from the standard: int16 voxels and an sform."""
    order = ">" if big_endian else "<"
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, *array_kji.shape[::-1], 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, 4, 16)
    struct.pack_into(f"{order}8f", header, 76, 1, *np.linalg.norm(ijk_to_ras[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into(f"{order}2f", header, 108, 352, 1)
    struct.pack_into(f"{order}2h", header, 252, 0, 1)
    struct.pack_into(f"{order}12f", header, 280, *ijk_to_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + array_kji.astype(f"{order}i2").tobytes()
