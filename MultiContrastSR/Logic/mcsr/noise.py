"""How much noise an image holds, told from the image itself."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .consistency import acquired_band

# Farther out scanners' filters bend the noise down; the raw MS scans of the training data are flat there.
_RING = (0.70, 0.85)
_DIRECTIONS = 8
_EMPTY = 0.3
_SMOOTHING = 9


def noise_density(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power density of the noise in the unitary k-space of each slice, and where k-space was acquired.

    It is taken from an outer ring of the band that the scanner acquired, so that zero-filling does not hide it, in the
    direction with least power, as the median (anatomy is sparse there). What anatomy is left counts as noise.

    Args:
        slices: (K, H, W) in display orientation.

    Returns:
        (K,) in squared intensity units; and a mask (H, W) with the zero frequency first.
    """
    power = np.abs(np.fft.fft2(slices.astype(np.float64), norm="ortho")) ** 2
    row, column = (
        np.fft.fftfreq(n) * 2 / band for n, band in zip(slices.shape[1:], acquired_band(slices), strict=True)
    )
    radius = np.hypot(row[:, None], column[None, :])
    direction = np.mod(np.arctan2(row[:, None], column[None, :]), np.pi) // (np.pi / _DIRECTIONS)
    in_ring = (radius >= _RING[0]) & (radius <= _RING[1])
    sectors = [power[:, in_ring & (direction == n)] for n in range(_DIRECTIONS)]
    quietest = min((sector for sector in sectors if sector.size), key=lambda sector: float(np.median(sector)))
    # The power of complex noise is exponential: its mean is its median over ln 2.
    density = np.median(quietest, axis=1) / np.log(2)
    smooth = F.pad(torch.from_numpy(power.mean(axis=0))[None, None], (_SMOOTHING // 2,) * 4, mode="circular")
    return density, F.avg_pool2d(smooth, _SMOOTHING, stride=1)[0, 0].numpy() > _EMPTY * density.mean()
