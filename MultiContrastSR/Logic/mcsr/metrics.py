"""PSNR, SSIM and NMSE, defined once.

Images are compared after division by one scale (the original's 99.9 foreground percentile, `intensity_scale`) and after
clipping at 0, so the data range is 1 for every method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .intensity import intensity_scale

SSIM_WINDOW = 7


@dataclass(frozen=True)
class Scores:
    """Mean over slices of a volume: PSNR (dB), SSIM (-1..1); NMSE of the whole volume."""

    psnr: float
    ssim: float
    nmse: float


def compare(result_kji: np.ndarray, truth_kji: np.ndarray, scale: float | None = None) -> Scores:
    """Score a volume (K, H, W), slice by slice, against the truth of the same shape.

    Args:
        result_kji: the volume to score.
        truth_kji: the original.
        scale: what both are divided by; the original's 99.9 foreground percentile by default.

    Slices in which the original is empty are left out.
    """
    scale = scale or intensity_scale(truth_kji, "the original")
    result, truth = (np.maximum(a, 0) / scale for a in (result_kji, truth_kji))
    rows = [n for n in range(len(truth)) if truth[n].any()]
    return Scores(
        float(np.mean([psnr(result[n], truth[n]) for n in rows])),
        float(np.mean([ssim(result[n], truth[n]) for n in rows])),
        nmse(result, truth),
    )


def psnr(result: np.ndarray, truth: np.ndarray, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = float(np.mean((result.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def nmse(result: np.ndarray, truth: np.ndarray) -> float:
    """Sum of squared errors over sum of squares of the truth."""
    truth = truth.astype(np.float64)
    return float(((result - truth) ** 2).sum() / (truth**2).sum())


def ssim(result: np.ndarray, truth: np.ndarray, data_range: float = 1.0) -> float:
    """Structural similarity of two slices (H, W) (Wang et al. 2004).

    7x7 uniform window, sample covariance, windows that leave the image left out: scikit-image's defaults.
    """
    x, y = (torch.from_numpy(np.array(a, dtype=np.float64))[None, None] for a in (result, truth))
    pixels = SSIM_WINDOW**2

    def mean(image: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(image, SSIM_WINDOW, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    unbiased = pixels / (pixels - 1)
    var_x = unbiased * (mean(x * x) - mean_x**2)
    var_y = unbiased * (mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float((numerator / denominator).mean())
