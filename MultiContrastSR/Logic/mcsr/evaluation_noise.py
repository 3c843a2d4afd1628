"""The noise ceiling: the PSNR of a perfect result against a truth that is noisy itself.

The anatomy may be known exactly and the noise of the truth still cannot: what lies outside the band of the
low-resolution input is error of any method, while the noise inside that band is part of the input. By Parseval the
noise power outside, summed over k-space, is that error, wherever in the image it lies. So neither the air, which many
publishers mask, nor its Rician statistics need be modelled: the smaller deviation of magnitude noise in air (0.655
sigma) lowers the density in k-space as it lowers the error.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .consistency import acquired_band

# Farther out scanners' filters bend the noise down; the raw MS scans of the training data are flat there.
_RING = (0.70, 0.85)
_DIRECTIONS = 8
_EMPTY = 0.3
_LEAST_ERROR = 1e-10
_SMOOTHING = 9


def noise_ceiling(truth_kji: np.ndarray, factor: int, scale: float) -> np.ndarray:
    """Estimate the PSNR that a perfect result would have, slice by slice.

    The density of the noise is taken from an outer ring of the band that the scanner acquired, so that zero-filling
    does not hide it, in the direction with least power, as the median (anatomy is sparse there). What anatomy is left
    counts as noise: the true ceiling is at this estimate or above. It means nothing for images that were resampled or
    filtered at their source.

    Args:
        truth_kji: the original, (K, H, W) in display orientation.
        factor: in-plane factor to the low-resolution input.
        scale: intensity that is 1 in the PSNR.

    Returns:
        (K,) in dB.
    """
    density, acquired = noise_density(truth_kji)
    row, column = (np.abs(np.fft.fftfreq(n)) * 2 for n in truth_kji.shape[1:])
    unknown = np.maximum(row[:, None], column[None, :]) > 1 / factor
    error = density * (acquired & unknown).mean() / scale**2
    return -10 * np.log10(np.maximum(error, _LEAST_ERROR))


def noise_density(truth_kji: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power density of the noise in the unitary k-space of each slice, and where k-space was acquired.

    Args:
        truth_kji: (K, H, W).

    Returns:
        (K,) in squared intensity units; and a mask (H, W) with the zero frequency first.
    """
    power = np.abs(np.fft.fft2(truth_kji.astype(np.float64), norm="ortho")) ** 2
    row, column = (
        np.fft.fftfreq(n) * 2 / band for n, band in zip(truth_kji.shape[1:], acquired_band(truth_kji), strict=True)
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
