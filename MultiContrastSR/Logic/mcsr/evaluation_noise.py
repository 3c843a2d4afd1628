"""The noise ceiling: the PSNR of a perfect result against a truth that is noisy itself.

The anatomy may be known exactly and the noise of the truth still cannot: what lies outside the band of the
low-resolution input is error of any method, while the noise inside that band is part of the input. By Parseval the
noise power outside, summed over k-space, is that error, wherever in the image it lies. So neither the air, which many
publishers mask, nor its Rician statistics need be modelled: the smaller deviation of magnitude noise in air (0.655
sigma) lowers the density in k-space as it lowers the error.
"""

from __future__ import annotations

import numpy as np

from .noise import noise_density

_LEAST_ERROR = 1e-10


def noise_ceiling(truth_kji: np.ndarray, factor: int, scale: float) -> np.ndarray:
    """Estimate the PSNR that a perfect result would have, slice by slice.

    What anatomy `noise_density` takes for noise makes it lower: the true ceiling is at this estimate or above. It means
    nothing for images that were resampled or filtered at their source.

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
