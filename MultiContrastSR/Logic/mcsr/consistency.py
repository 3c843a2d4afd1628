"""Data consistency: the result, degraded again, must give what was acquired.

A linear degradation D is one matrix per axis, so its pseudo-inverse D+ is too, and x + D+ P(y - Dx) is the point
nearest to x that agrees with y inside the band P. A magnitude image has lost the sign of y; that of Dx is the best
guess. It cannot be negative either: clipping and projecting by turns comes ever nearer to a point that is both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .degradation import FactorsKJI, apply_axis_matrices, axis_matrix, degrade
from .intensity import is_magnitude

Band = tuple[float, float]
"""Acquired fraction (0 to 1) of the Nyquist band along rows (j) and columns (i)."""

WHOLE_BAND: Band = (1.0, 1.0)

_ROUNDS = 4
"""Of clipping and projecting. On the validation patient they halve what clipping undoes; PSNR gains up to 0.03 dB."""

# A scanner's zero-filling shows as a knee of the mean power spectrum: a fall that ends in a floor. The anatomy's own
# spectrum bends ever less with frequency, so the knee (dB) is weighed by the edge's place. In the twelve raw MS scans
# of the training and validation data zero-filled axes have 2.8 to 4.2, and fall by 11 to 16 dB; fully acquired axes,
# and all scans degraded by 2 to 4, have at most 2.5 where they fall by 8 dB.
_KNEE_DB, _FALL_DB = 2.6, 8.0
_LEAST_BAND, _WINDOW, _EDGE = 0.25, 0.10, 0.02
_SMALLEST = 48


@dataclass(frozen=True)
class Consistent:
    """A result made consistent.

    Args:
        array_kji: the corrected volume, not yet clipped at 0.
        error_before: RMS of the in-band difference to the acquired input before (clipped), as a fraction of its range.
        error_after: largest absolute in-band difference after, as a fraction of its range.
    """

    array_kji: np.ndarray
    error_before: float
    error_after: float


def acquired_band(slices_lr: np.ndarray) -> Band:
    """Estimate which fraction of the Nyquist band was acquired along rows (j) and columns (i).

    Where a filter leads up to the zeros, the band ends half-way down (in dB). Not found: bands below a quarter or above
    nine tenths, and any in fewer than 48 pixels.

    Args:
        slices_lr: (K, h, w) as the scanner gave them; 1.0 where no zero-filling shows.
    """
    return _band_along(slices_lr, 0), _band_along(slices_lr, 1)


def enforce_consistency(
    result: np.ndarray,
    acquired: np.ndarray,
    factors_kji: FactorsKJI,
    degradation: str,
    band_ji: Band = WHOLE_BAND,
    *,
    out: np.ndarray | None = None,
) -> Consistent:
    """Project a result onto the volumes that degrade to the acquired input.

    Args:
        result: (K, H, W), float.
        acquired: (K, h, w) in the same intensity units; see `is_magnitude`.
        factors_kji: factors between the two.
        degradation: name of a linear degradation.
        band_ji: acquired part of the band.
        out: where to write the corrected volume, `result` itself if it is not needed any more.
    """
    parts = _parts(factors_kji[0], len(acquired))
    operators = _Operators.of(result[parts[0][0]].shape, factors_kji, degradation, band_ji)
    magnitude = is_magnitude(acquired)
    fixed = np.empty_like(result) if out is None else out
    squares, largest = 0.0, 0.0
    for fine, coarse in parts:
        fixed[fine], before, after = _projected(result[fine], acquired[coarse], operators, magnitude)
        squares += float((before**2).sum())
        largest = max(largest, float(np.abs(after).max()))
    value_range = _range(acquired)
    return Consistent(fixed, float(np.sqrt(squares / acquired.size)) / value_range, largest / value_range)


def misfit(
    result: np.ndarray, acquired: np.ndarray, factors_kji: FactorsKJI, degradation: str, band_ji: Band = WHOLE_BAND
) -> np.ndarray:
    """The result, degraded again, minus what was acquired, inside the acquired band, as fractions of its range.

    Where the degraded result is negative, a magnitude counts as negative too.

    Args:
        result: (K, H, W).
        acquired: (K, h, w) in the same intensity units.
        factors_kji: factors between the two.
        degradation: name of any degradation.
        band_ji: acquired part of the band.

    Returns:
        (K, h, w) of the type of the result.
    """
    magnitude, found = is_magnitude(acquired), np.empty(acquired.shape, result.dtype)
    for fine, coarse in _parts(factors_kji[0], len(acquired)):
        degraded = degrade(result[fine], factors_kji, degradation, signed=True)
        wanted = _with_sign(acquired[coarse], degraded) if magnitude else acquired[coarse]
        found[coarse] = apply_axis_matrices(degraded - wanted, _band_matrices(wanted.shape, band_ji))
    return found / np.asarray(_range(acquired), result.dtype)


class _Operators(NamedTuple):
    """Matrices per axis (k, j, i): of D, D+ and P."""

    forward: list[np.ndarray]
    backward: list[np.ndarray]
    band: list[np.ndarray]

    @classmethod
    def of(cls, shape_hr: tuple[int, ...], factors_kji: FactorsKJI, degradation: str, band_ji: Band) -> _Operators:
        axes = list(zip(shape_hr, factors_kji, strict=True))
        forward = [axis_matrix(degradation, size, factor) for size, factor in axes]
        backward = [_pseudo_inverse(degradation, size, factor) for size, factor in axes]
        return cls(forward, backward, _band_matrices(tuple(size // factor for size, factor in axes), band_ji))


def _parts(factor: int, slices_lr: int) -> list[tuple[slice, slice]]:
    """Slices of the result and of the input that D mixes; where it mixes none, one by one for the sake of memory."""
    if factor > 1:
        return [(slice(None), slice(None))]
    return [(slice(number, number + 1), slice(number, number + 1)) for number in range(slices_lr)]


def _range(acquired: np.ndarray) -> float:
    return float(np.ptp(acquired)) or 1.0


def _projected(
    result: np.ndarray, acquired: np.ndarray, operators: _Operators, magnitude: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The projected result, and what it lacked in the band before and after."""
    x, y = result.astype(np.float64), acquired.astype(np.float64)
    wanted, lacking = y, []
    for _ in range(_ROUNDS if magnitude else 1):
        x = np.maximum(x, 0) if magnitude else x
        degraded = apply_axis_matrices(x, operators.forward)
        wanted = _with_sign(y, degraded) if magnitude else y
        lacking.append(apply_axis_matrices(wanted - degraded, operators.band))
        x = x + apply_axis_matrices(lacking[-1], operators.backward)
    after = apply_axis_matrices(wanted - apply_axis_matrices(x, operators.forward), operators.band)
    return x, lacking[0], after


def _with_sign(acquired: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """A magnitude image with the signs of a degraded result; its negative values, a resampling's overshoot, stay."""
    return np.where((degraded < 0) & (acquired > 0), -acquired, acquired)


@lru_cache(maxsize=32)
def _pseudo_inverse(degradation: str, size_hr: int, factor: int) -> np.ndarray:
    return np.linalg.pinv(axis_matrix(degradation, size_hr, factor))


def _band_matrices(shape_lr: tuple[int, ...], band_ji: Band) -> list[np.ndarray]:
    return [np.eye(shape_lr[0]), *(_band_matrix(n, b) for n, b in zip(shape_lr[1:], band_ji, strict=True))]


@lru_cache(maxsize=32)
def _band_matrix(size: int, fraction: float) -> np.ndarray:
    """Projection of a line of `size` samples onto its frequencies up to `fraction` of Nyquist, (size, size)."""
    if fraction >= 1:
        return np.eye(size)
    lines = np.arange(size)
    keep = np.minimum(lines, size - lines) <= fraction * (size // 2) + 1e-6
    return np.real(np.fft.ifft(np.fft.fft(np.eye(size), axis=0) * keep[:, None], axis=0))


def _band_along(slices: np.ndarray, axis: int) -> float:
    """The band along an axis of each slice: 0 for rows (j), 1 for columns (i)."""
    if slices.shape[1 + axis] < _SMALLEST:
        return 1.0
    power = np.zeros(slices.shape[1 + axis] // 2 + 1)
    for pixels in slices:
        power += (np.abs(np.fft.rfft(pixels, axis=axis)) ** 2).sum(axis=1 - axis)
    floor = 1e-14 * power.sum()  # what rounding leaves is no fall
    if floor == 0:
        return 1.0
    level_db = 10 * np.log10(power[1:] + floor)
    lines = len(level_db)
    window, few = max(3, round(_WINDOW * lines)), max(1, round(_EDGE * lines))
    best, band = _KNEE_DB, 1.0
    for edge in range(int(_LEAST_BAND * lines), lines - window + 1):
        before, outside = level_db[edge - window : edge].mean(), level_db[edge : edge + window].mean()
        at, after = level_db[edge : edge + few].mean(), level_db[edge + few : edge + window].mean()
        inside = level_db[max(0, edge - 2 * window) : edge - window].mean()
        knee = float((before - at) - (at - after)) * edge / lines
        if knee > best and inside - outside >= _FALL_DB:
            best, band = knee, _half_way_down(level_db[:edge], (inside + outside) / 2) / lines
    return band


def _half_way_down(level_db: np.ndarray, half: float) -> int:
    """How many lines lie before the last fall below `half`."""
    return int(np.flatnonzero(level_db >= half)[-1]) + 1
