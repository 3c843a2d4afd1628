"""Data consistency: the result, degraded again, must give what was acquired.

A linear degradation D is one matrix per axis, so its pseudo-inverse D+ is too, and x + D+ P(y - Dx) is the point
nearest to x that agrees with y inside the band P. A magnitude image has lost the sign of y; that of Dx is the best
guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .degradation import FactorsKJI, apply_axis_matrices, axis_matrix
from .intensity import is_magnitude

# A scanner's zero-filling shows as a fall of the mean power spectrum. The raw MS scans of the training data fall by
# about 16 dB at their known band; the steepest fall of a fully acquired axis there is 9 dB.
BAND_FALL_DB = 12.0
_INSIDE, _GAP, _OUTSIDE = 0.10, 0.04, 0.15


@dataclass(frozen=True)
class Consistent:
    """A result made consistent.

    Args:
        array_kji: the corrected volume, not yet clipped at 0.
        error_before: RMS of the in-band difference to the acquired input before, as a fraction of its range.
        error_after: largest absolute in-band difference after, as a fraction of its range.
    """

    array_kji: np.ndarray
    error_before: float
    error_after: float


def acquired_band(slices_lr: np.ndarray) -> tuple[float, float]:
    """Estimate which fraction (0 to 1) of the Nyquist band was acquired along rows (j) and columns (i).

    Args:
        slices_lr: (K, h, w) as the scanner gave them; 1.0 where no zero-filling shows.
    """
    return _band_along(slices_lr, 1), _band_along(slices_lr, 2)


def enforce_consistency(
    result: np.ndarray,
    acquired: np.ndarray,
    factors_kji: FactorsKJI,
    degradation: str,
    band_ji: tuple[float, float] = (1.0, 1.0),
) -> Consistent:
    """Project a result onto the volumes that degrade to the acquired input.

    Args:
        result: (K, H, W), float.
        acquired: (K, h, w) in the same intensity units; see `is_magnitude`.
        factors_kji: factors between the two.
        degradation: name of a linear degradation.
        band_ji: acquired fraction of the band along rows and columns.
    """
    x = result.astype(np.float64)
    y = acquired.astype(np.float64)
    forward = [axis_matrix(degradation, n, f) for n, f in zip(x.shape, factors_kji, strict=True)]
    backward = [_pseudo_inverse(degradation, n, f) for n, f in zip(x.shape, factors_kji, strict=True)]
    band = [np.eye(y.shape[0]), *(_band_matrix(n, b) for n, b in zip(y.shape[1:], band_ji, strict=True))]
    degraded = apply_axis_matrices(x, forward)
    if is_magnitude(acquired):
        y = np.where(degraded < 0, -y, y)
    misfit = apply_axis_matrices(y - degraded, band)
    x += apply_axis_matrices(misfit, backward)
    after = apply_axis_matrices(y - apply_axis_matrices(x, forward), band)
    value_range = float(acquired.max() - acquired.min()) or 1.0
    return Consistent(
        x.astype(result.dtype),
        float(np.sqrt(np.mean(misfit**2))) / value_range,
        float(np.abs(after).max()) / value_range,
    )


@lru_cache(maxsize=32)
def _pseudo_inverse(degradation: str, size_hr: int, factor: int) -> np.ndarray:
    return np.linalg.pinv(axis_matrix(degradation, size_hr, factor))


@lru_cache(maxsize=32)
def _band_matrix(size: int, fraction: float) -> np.ndarray:
    """Projection of a line of `size` samples onto its frequencies up to `fraction` of Nyquist, (size, size)."""
    if fraction >= 1:
        return np.eye(size)
    keep = np.abs(np.fft.fftfreq(size)) <= 0.5 * fraction
    return np.real(np.fft.ifft(np.fft.fft(np.eye(size), axis=0) * keep[:, None], axis=0))


def _band_along(slices: np.ndarray, axis: int) -> float:
    size = slices.shape[axis]
    if size < 32:
        return 1.0
    spectrum = np.abs(np.fft.rfft(slices, axis=axis)) ** 2
    power = spectrum.mean(axis=tuple(a for a in range(3) if a != axis))[1:]
    level_db = 10 * np.log10(np.maximum(power, power.max() * 1e-12))
    falls = {}
    for edge in range(len(level_db) // 4, len(level_db)):
        inside = level_db[max(0, edge - max(2, int(_INSIDE * len(level_db)))) : edge]
        start = edge + int(_GAP * len(level_db))
        outside = level_db[start : start + max(2, int(_OUTSIDE * len(level_db)))]
        if len(outside) >= max(2, int(0.08 * len(level_db))):
            falls[edge] = float(inside.mean() - outside.mean())
    edge = max(falls, key=lambda e: falls[e])
    return edge / len(level_db) if falls[edge] >= BAND_FALL_DB else 1.0
