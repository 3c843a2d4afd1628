"""The canvas: the part of every slice that the network sees, one for a whole volume.

Networks with global statistics see the canvas and nothing else, so it belongs to what they are: training, evaluation
and use all take it from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .intensity import foreground

MARGIN_HR = 16
"""Pixels around the box of the signal, on the high-resolution grid."""

BLEND_HR = 8
"""Pixels at the rim over which the network's result passes into the interpolation around it."""


@dataclass(frozen=True)
class Canvas:
    """A box of rows and columns in low-resolution pixels, the same in all slices (display orientation).

    A native canvas reaches beyond slices that are smaller than it: its first row or column is then negative.
    """

    row: int
    column: int
    rows: int
    columns: int

    def crop(self, array: np.ndarray, factor: int = 1) -> np.ndarray:
        """The canvas of an array (..., rows, columns) that is `factor` times finer, as far as it lies on it; a view."""
        rows = slice(max(0, self.row * factor), (self.row + self.rows) * factor)
        columns = slice(max(0, self.column * factor), (self.column + self.columns) * factor)
        return array[..., rows, columns]

    def padded(self, array: np.ndarray, factor: int = 1) -> np.ndarray:
        """The whole canvas of such an array; beyond its border the border is repeated, which is air around a head."""
        cropped = self.crop(array, factor)
        margins = [(0, 0)] * (array.ndim - 2) + list(self._beyond(array.shape, factor))
        return np.pad(cropped, margins, mode="edge") if np.any(margins) else cropped

    def unpadded(self, values: np.ndarray, shape: tuple[int, ...], factor: int = 1) -> np.ndarray:
        """Of values (..., rows, columns) on the whole canvas those that `crop` gives of an array of `shape`; a view."""
        (top, bottom), (left, right) = self._beyond(shape, factor)
        height, width = values.shape[-2:]
        return values[..., top : height - bottom, left : width - right]

    def _beyond(self, shape: tuple[int, ...], factor: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels of the canvas beyond an image of `shape`: (top, bottom), (left, right)."""
        bottom = (self.row + self.rows) * factor - shape[-2]
        right = (self.column + self.columns) * factor - shape[-1]
        return (max(0, -self.row * factor), max(0, bottom)), (max(0, -self.column * factor), max(0, right))


def signal_canvas(slices_lr: np.ndarray, factor: int, multiple: int = 8) -> Canvas:
    """The box of the signal over all slices plus `MARGIN_HR`, its size a multiple where the image has room for it.

    Args:
        slices_lr: (K, h, w) low-resolution slices in display orientation.
        factor: in-plane factor from low to high resolution.
        multiple: what the high-resolution size should be divisible by; the networks pad the rest inside.
    """
    has_rows, has_columns = _has_signal(slices_lr)
    step = math.lcm(multiple, factor) // factor
    margin = math.ceil(MARGIN_HR / factor)
    row, rows = _interval(has_rows, margin, step)
    column, columns = _interval(has_columns, margin, step)
    return Canvas(row, column, rows, columns)


def native_canvas(slices_lr: np.ndarray, factor: int, size_hr: int) -> Canvas:
    """The square of `size_hr` pixels (high resolution) that weights were made for, about the signal.

    It reaches beyond smaller slices. Where the signal of larger ones does not fit, the canvas is the box of the signal
    plus `MARGIN_HR`, to be run in tiles of that size.

    Args:
        slices_lr: (K, h, w) low-resolution slices in display orientation.
        factor: in-plane factor from low to high resolution.
        size_hr: side of the square; rounded down to a multiple of the factor.
    """
    has_rows, has_columns = _has_signal(slices_lr)
    row, rows = _native_interval(has_rows, factor, size_hr // factor)
    column, columns = _native_interval(has_columns, factor, size_hr // factor)
    return Canvas(row, column, rows, columns)


def rim_weight(canvas: Canvas, factor: int, shape_hr: tuple[int, int]) -> np.ndarray:
    """Weight (0..1) of the network's result where the canvas lies on the image, (rows, columns) float32.

    It falls to 0 over `BLEND_HR` pixels at the rim, except where the rim is the border of the image itself.
    """
    row = _ramp(canvas.row * factor, canvas.rows * factor, shape_hr[0])
    column = _ramp(canvas.column * factor, canvas.columns * factor, shape_hr[1])
    return canvas.unpadded(np.minimum(row[:, None], column[None, :]).astype(np.float32), shape_hr, factor)


def _has_signal(slices_lr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that hold signal in some slice."""
    mask = foreground(slices_lr)
    # A line with a single lit voxel is noise or an artefact, not anatomy.
    return (mask.sum(axis=2) >= 2).any(axis=0), (mask.sum(axis=1) >= 2).any(axis=0)


def _native_interval(has_signal: np.ndarray, factor: int, length: int) -> tuple[int, int]:
    size = len(has_signal)
    lit = np.flatnonzero(has_signal) if has_signal.any() else np.array([0, size - 1])
    # The rim, where the result passes into the interpolation, should not lie on the signal.
    needed = lit[-1] + 1 - lit[0] + (2 * math.ceil(BLEND_HR / factor) if size > length else 0)
    if needed > length:
        return _interval(has_signal, math.ceil(MARGIN_HR / factor), 1)
    first, last = sorted((0, size - length))
    return int(np.clip((lit[0] + lit[-1] + 1 - length) // 2, first, last)), length


def _interval(has_signal: np.ndarray, margin: int, step: int) -> tuple[int, int]:
    size = len(has_signal)
    lit = np.flatnonzero(has_signal)
    if lit.size == 0:
        return 0, size
    start, stop = max(0, lit[0] - margin), min(size, lit[-1] + 1 + margin)
    length = -(-(stop - start) // step) * step
    if length > size:
        return 0, size
    start = min(max(0, start - (length - (stop - start)) // 2), size - length)
    return int(start), int(length)


def _ramp(start: int, length: int, size: int) -> np.ndarray:
    rise = np.minimum(1, (np.arange(length) + 0.5) / BLEND_HR)
    weight = np.ones(length)
    if start > 0:
        weight = np.minimum(weight, rise)
    if start + length < size:
        weight = np.minimum(weight, rise[::-1])
    return weight
