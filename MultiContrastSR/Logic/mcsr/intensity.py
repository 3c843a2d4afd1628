"""Intensity: what is signal, and the scale that brings an image to about 0..1."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .errors import InputError

FOREGROUND_LEVEL = 0.1
"""A voxel is foreground above this fraction of the 99th percentile of the positive voxels."""

SCALE_PERCENTILE = 99.9

AIR = 0.1
"""Fraction of the scale below which nothing but air is taken to lie."""

NEGATIVE_TOLERANCE = 0.01
"""Values down to minus this fraction of the scale are overshoot of an earlier resampling, not a signed image."""


def foreground(array: np.ndarray) -> np.ndarray:
    """Mask of the voxels that hold signal: bool, same shape. All False when no voxel is positive."""
    return array > foreground_level(_parts(array), array.size)


def foreground_level(parts: Iterable[np.ndarray], size: int) -> float:
    """What the voxels of an image exceed that hold signal; infinite when no voxel is positive.

    Args:
        parts: of the image, one after the other: the whole need not be in memory.
        size: number of voxels in all of them.
    """
    positive = _above(0, parts, size)
    return FOREGROUND_LEVEL * np.percentile(positive, 99, overwrite_input=True) if positive.size else np.inf


def intensity_scale(array: np.ndarray, name: str = "the image") -> float:
    """The 99.9 percentile of the foreground, in the array's units: dividing by it brings signal to about 0..1.

    Raises:
        InputError: when there is no positive voxel.
    """
    lit = _above(foreground_level(_parts(array), array.size), _parts(array), array.size)
    if not lit.size:
        raise InputError(f"{name} has no positive voxel; an MRI magnitude image is needed.")
    return float(np.percentile(lit, SCALE_PERCENTILE, overwrite_input=True))


def inverted(scaled: np.ndarray) -> np.ndarray:
    """Bright made dark and the other way round, in an image of about 0..1: 1 - x, falling smoothly to 0 below `AIR`."""
    inside = np.clip(scaled / AIR, 0, 1)
    return np.clip(1 - scaled, 0, None) * inside**2 * (3 - 2 * inside)


def is_magnitude(array: np.ndarray) -> bool:
    """Whether an image is a magnitude image: nothing is negative but the overshoot of a resampling."""
    positive = array[array > 0]
    return positive.size > 0 and float(np.percentile(array, 0.1)) >= -NEGATIVE_TOLERANCE * float(positive.max())


def _parts(array: np.ndarray) -> Iterable[np.ndarray]:
    return array if array.ndim > 1 else [array]


def _above(level: float, parts: Iterable[np.ndarray], size: int) -> np.ndarray:
    """The values above a level, in one dimension: one copy of them, and nothing of the size of the image beside it."""
    values, count = np.empty(0), 0
    for part in parts:
        found = part[part > level]
        if not count:
            values = np.empty(size, dtype=found.dtype)
        values[count : count + found.size] = found
        count += found.size
    return values[:count]
