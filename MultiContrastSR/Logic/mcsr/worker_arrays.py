"""Voxels in .npy files, as panel and worker hand them to each other: numbers, nothing that would be executed.

Standard library and numpy only: both sides load it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .worker_messages import open_plain

_MOST_VOXELS = 2**31


def write_array(path: Path, array: np.ndarray) -> None:
    """Write voxels (k, j, i).

    Raises:
        OSError: with its reason, which numpy's own writing of a file loses where the disk is full.
    """
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def read_array(folder: Path, name: str) -> np.ndarray:
    """Voxels (k, j, i) from a .npy file of a job.

    Raises:
        InputError: for anything but a whole, plain file of a 3-D array of real numbers.
    """
    with open_plain(folder, name) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else _refuse_version
            shape, _, dtype = read_header(file)
            start, end = file.tell(), file.seek(0, 2)
        except Exception as error:  # the header is Python text, at which its parser may fail in any way
            raise InputError(f"The file {name} of the job is no array; start the job again.") from error
        if dtype.kind not in "iuf" or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
            raise InputError(f"The file {name} of the job holds no 3-D image of real numbers; start the job again.")
        count = math.prod(shape)
        if count > _MOST_VOXELS or end - start != count * dtype.itemsize:
            raise InputError(f"The file {name} of the job is not as long as its image; start the job again.")
        file.seek(0)
        array: np.ndarray = np.load(file, allow_pickle=False)
        return array


def _refuse_version(file: Any) -> Any:
    raise ValueError("another version of the format than numpy writes for plain numbers")
