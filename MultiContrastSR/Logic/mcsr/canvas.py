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
    """A box of rows and columns in low-resolution pixels, the same in all slices (display orientation)."""

    row: int
    column: int
    rows: int
    columns: int

    def crop(self, array: np.ndarray, factor: int = 1) -> np.ndarray:
        """The canvas of an array (..., rows, columns) that is `factor` times finer; a view."""
        rows = slice(self.row * factor, (self.row + self.rows) * factor)
        columns = slice(self.column * factor, (self.column + self.columns) * factor)
        return array[..., rows, columns]


def signal_canvas(slices_lr: np.ndarray, factor: int, multiple: int = 8) -> Canvas:
    """The box of the signal over all slices plus `MARGIN_HR`, its size a multiple where the image has room for it.

    Args:
        slices_lr: (K, h, w) low-resolution slices in display orientation.
        factor: in-plane factor from low to high resolution.
        multiple: what the high-resolution size should be divisible by; the networks pad the rest inside.
    """
    mask = foreground(slices_lr)
    # A line with a single lit voxel is noise or an artefact, not anatomy.
    has_rows = (mask.sum(axis=2) >= 2).any(axis=0)
    has_columns = (mask.sum(axis=1) >= 2).any(axis=0)
    step = math.lcm(multiple, factor) // factor
    margin = math.ceil(MARGIN_HR / factor)
    row, rows = _interval(has_rows, margin, step)
    column, columns = _interval(has_columns, margin, step)
    return Canvas(row, column, rows, columns)


def rim_weight(canvas: Canvas, factor: int, shape_hr: tuple[int, int]) -> np.ndarray:
    """Weight (0..1) of the network's result on the canvas, (rows, columns) float32.

    It falls to 0 over `BLEND_HR` pixels at the rim, except where the rim is the border of the image itself.
    """
    row = _ramp(canvas.row * factor, canvas.rows * factor, shape_hr[0])
    column = _ramp(canvas.column * factor, canvas.columns * factor, shape_hr[1])
    return np.minimum(row[:, None], column[None, :]).astype(np.float32)


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
