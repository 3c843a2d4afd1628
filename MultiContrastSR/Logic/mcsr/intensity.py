"""Intensity: what is signal, and the scale that brings an image to about 0..1."""

from __future__ import annotations

import numpy as np

from .errors import InputError

FOREGROUND_LEVEL = 0.1
"""A voxel is foreground above this fraction of the 99th percentile of the positive voxels."""

SCALE_PERCENTILE = 99.9

NEGATIVE_TOLERANCE = 0.01
"""Values down to minus this fraction of the scale are overshoot of an earlier resampling, not a signed image."""


def foreground(array: np.ndarray) -> np.ndarray:
    """Mask of the voxels that hold signal: bool, same shape. All False when no voxel is positive."""
    positive = array[array > 0]
    if positive.size == 0:
        return np.zeros(array.shape, dtype=bool)
    return array > FOREGROUND_LEVEL * np.percentile(positive, 99)


def intensity_scale(array: np.ndarray, name: str = "the image") -> float:
    """The 99.9 percentile of the foreground, in the array's units: dividing by it brings signal to about 0..1.

    Raises:
        InputError: when there is no positive voxel.
    """
    mask = foreground(array)
    if not mask.any():
        raise InputError(f"{name} has no positive voxel; an MRI magnitude image is needed.")
    return float(np.percentile(array[mask], SCALE_PERCENTILE))


def is_magnitude(array: np.ndarray) -> bool:
    """Whether an image is a magnitude image: nothing is negative but the overshoot of a resampling."""
    positive = array[array > 0]
    return positive.size > 0 and float(np.percentile(array, 0.1)) >= -NEGATIVE_TOLERANCE * float(positive.max())
