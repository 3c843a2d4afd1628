"""PSNR, SSIM and NMSE, defined once.

Images are compared after division by one scale (the original's 99.9 foreground percentile, `intensity_scale`) and after
clipping at 0, so the data range is 1 for every method. Nothing is cropped: "whole" is every pixel of a slice, air
included; "foreground" is `intensity.foreground` of the original volume (above a tenth of its bright tissue; dark fluid
within the head is not part of it), the same mask for every method. SSIM compares 7x7 windows; those that leave the
image are left out, and those count as foreground whose centre is. Slices of the original without foreground are left
out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .intensity import foreground, intensity_scale

_UNIFORM = np.full(7, 1 / 7)
_GAUSSIAN = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
SSIM_WINDOWS = {"uniform": _UNIFORM, "gaussian": _GAUSSIAN / _GAUSSIAN.sum()}
"""Weights along one axis: scikit-image's default (7, with the sample covariance), and Wang et al.'s (11, sigma 1.5)."""

SliceDistance = Callable[[np.ndarray, np.ndarray], float]
"""A distance of two slices (H, W) of about 0..1, such as `metrics_lpips.find_lpips` gives."""


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
    """
    scale = scale or intensity_scale(truth_kji, "the original")
    result, truth = (np.maximum(a, 0) / scale for a in (result_kji, truth_kji))
    rows = lit_slices(truth_kji)
    return Scores(
        float(np.mean([psnr(result[n], truth[n]) for n in rows])),
        float(np.mean([ssim(result[n], truth[n]) for n in rows])),
        nmse(result, truth),
    )


def compare_slices(
    result_kji: np.ndarray, truth_kji: np.ndarray, scale: float | None = None, *, lpips: SliceDistance | None = None
) -> dict[str, np.ndarray]:
    """Every score of every slice with foreground, on the whole slice and on the foreground alone.

    Args:
        result_kji: the volume to score (K, H, W).
        truth_kji: the original.
        scale: see `compare`.
        lpips: a perceptual distance, where its backbone is present; outside the foreground both images are then 0.

    Returns:
        psnr (dB), ssim, nmse, psnr_foreground, ssim_foreground, nmse_foreground and, with `lpips`, lpips and
        lpips_foreground: float64, one value for each of `lit_slices`.
    """
    scale = scale or intensity_scale(truth_kji, "the original")
    result, truth = (np.maximum(a, 0) / scale for a in (result_kji, truth_kji))
    mask = foreground(truth_kji)
    slices = [_slice_scores(result[n], truth[n], mask[n], lpips) for n in lit_slices(truth_kji)]
    return {name: np.array([scores[name] for scores in slices]) for name in slices[0]}


def lit_slices(truth_kji: np.ndarray) -> np.ndarray:
    """Indices of the slices that are scored: those of the original with foreground."""
    return np.flatnonzero(foreground(truth_kji).any(axis=(1, 2)))


def psnr(result: np.ndarray, truth: np.ndarray, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = float(np.mean((result.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def nmse(result: np.ndarray, truth: np.ndarray) -> float:
    """Sum of squared errors over sum of squares of the truth."""
    truth = truth.astype(np.float64)
    return float(((result - truth) ** 2).sum() / (truth**2).sum())


def ssim(result: np.ndarray, truth: np.ndarray, data_range: float = 1.0, window: str = "uniform") -> float:
    """Structural similarity of two slices (H, W) (Wang et al. 2004), the mean of `ssim_map`."""
    return float(ssim_map(result, truth, data_range, window).mean())


def ssim_map(result: np.ndarray, truth: np.ndarray, data_range: float = 1.0, window: str = "uniform") -> np.ndarray:
    """Structural similarity window by window.

    Args:
        result: slice (H, W).
        truth: slice of the same shape.
        data_range: of both.
        window: of `SSIM_WINDOWS`; "uniform" with the sample covariance, "gaussian" without.

    Returns:
        (H - w + 1, W - w + 1) float64 for windows of w pixels, one value for each window that lies in the image.
    """
    x, y = (torch.from_numpy(np.array(a, dtype=np.float64))[None, None] for a in (result, truth))
    weights = torch.from_numpy(SSIM_WINDOWS[window])[None, None]
    pixels = weights.numel() ** 2
    unbiased = pixels / (pixels - 1) if window == "uniform" else 1.0

    def mean(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(image, weights[..., None]), weights[..., None, :])

    mean_x, mean_y = mean(x), mean(y)
    var_x = unbiased * (mean(x * x) - mean_x**2)
    var_y = unbiased * (mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (numerator / denominator)[0, 0].numpy()


def _slice_scores(
    result: np.ndarray, truth: np.ndarray, mask: np.ndarray, lpips: SliceDistance | None
) -> dict[str, float]:
    similarity = ssim_map(result, truth)
    rim = len(_UNIFORM) // 2
    centres = mask[rim:-rim, rim:-rim]
    scores = {
        "psnr": psnr(result, truth),
        "ssim": float(similarity.mean()),
        "nmse": nmse(result, truth),
        "psnr_foreground": psnr(result[mask], truth[mask]),
        "ssim_foreground": float(similarity[centres].mean()) if centres.any() else float("nan"),
        "nmse_foreground": nmse(result[mask], truth[mask]),
    }
    if lpips:
        scores["lpips"] = lpips(result, truth)
        scores["lpips_foreground"] = lpips(result * mask, truth * mask)
    return scores
