"""Beside sharp edges no shipped network rings more than sinc interpolation, data consistency included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mcsr.degradation import degrade_volume, upsample
from mcsr.geometry import Grid
from mcsr.job import Settings
from mcsr.phantom import make_phantom
from mcsr.pipeline import enhance
from mcsr.volume import Volume
from mcsr.weights import shipped_models

ENTRIES = {entry["id"]: entry for entry in shipped_models()}
QUICK = ("dcamsr-s-x2", "hftn-sr-s-x4")
# As fractions of what sinc shows on the same image.
MOST_RINGING = 1.0
# Of a single peak, which some networks raise by themselves, without data consistency too.
MOST_OVERSHOOT = 1.35


def ringing(result: np.ndarray, truth: np.ndarray, scale: int) -> float:
    """RMS error where the truth is flat: all of a neighbourhood of one low-resolution pixel, 8 of them off at most.

    Blur is not counted (it stays near the edge), oscillation is: a flat truth leaves nothing else.
    """
    flat, near = _flat(truth, scale), ~_flat(truth, 8 * scale)
    return float(np.sqrt(np.mean((result - truth)[flat & near] ** 2)))


def overshoot(result: np.ndarray, truth: np.ndarray) -> float:
    """How far the result goes beyond the brightest plateau."""
    return max(0.0, float(result.max() - truth.max()))


def _flat(truth: np.ndarray, reach: int) -> np.ndarray:
    """Where nothing changes within so many pixels, (K, H, W)."""
    image = torch.from_numpy(truth.astype(np.float32))[:, None]
    high, low = (sign * F.max_pool2d(sign * image, 2 * reach + 1, 1, reach) for sign in (1, -1))
    return (high - low)[:, 0].numpy() < 0.02 * truth.max()


def _grid(columns: int, rows: int, spacing_mm: float) -> Grid:
    matrix = np.diag([-spacing_mm, -spacing_mm, 4.0, 1.0])
    matrix[:3, 3] = (spacing_mm * (columns - 1) / 2 + 1.5, spacing_mm * (rows - 1) / 2 - 16, 17)
    return Grid((columns, rows, 1), matrix)


def plateaus() -> tuple[Volume, Volume]:
    """A disc with a straight edge, a smaller disc and a bar within, all sharp: target and another contrast of it."""
    grid = _grid(144, 132, 0.7)
    row, column = np.meshgrid(np.arange(132) - 66.0, np.arange(144) - 72.0, indexing="ij")
    head = (np.hypot(row, column) < 50) & (column < 36)
    inner, bar = np.hypot(row + 14, column + 10) < 17, (np.abs(row - 24) < 6) & (np.abs(column) < 22)
    shading = 1 + 0.005 * np.cos(row / 30) * np.cos(column / 30)  # no image is as even as a label map
    images = [
        np.where(bar, at_bar, np.where(inner, at_inner, base)) * head * shading
        for base, at_inner, at_bar in ((400, 1000, 120), (800, 300, 1000))
    ]
    target, reference = (Volume(image[None].astype(np.float32), grid.ijk_to_ras) for image in images)
    return target, reference


def heads() -> tuple[Volume, Volume]:
    """T2 and T1 of the phantom's head without noise; beyond the skin is air."""
    grid = _grid(168, 204, 1.1)
    target, reference = (make_phantom(grid, contrast, noise=0) for contrast in ("T2", "T1"))
    return target, reference


def _enhanced(name: str, truth: Volume, reference: Volume, consistency: bool = True) -> np.ndarray:
    scale = ENTRIES[name]["scale"]
    settings = Settings(ENTRIES[name]["architecture"], scale, registration="none", consistency=consistency)
    return enhance(degrade_volume(truth, (1, scale, scale)), reference, settings).sr.array_kji


def _sinc(truth: Volume, scale: int) -> np.ndarray:
    factors = (1, scale, scale)
    return np.maximum(upsample(degrade_volume(truth, factors).array_kji, factors), 0)


WEIGHTS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ENTRIES]


@pytest.mark.parametrize("name", WEIGHTS)
def test_no_more_ringing_than_sinc_beside_plateaus(name: str) -> None:
    truth, reference = plateaus()
    scale = ENTRIES[name]["scale"]
    sinc, result, original = _sinc(truth, scale), _enhanced(name, truth, reference), truth.array_kji
    assert ringing(sinc, original, scale) > 0.005 * original.max(), "sinc must ring for this to show anything"
    assert ringing(result, original, scale) <= MOST_RINGING * ringing(sinc, original, scale)
    assert overshoot(result, original) <= MOST_OVERSHOOT * overshoot(sinc, original)


@pytest.mark.parametrize("name", WEIGHTS)
def test_no_more_ringing_than_sinc_in_the_air_around_a_head(name: str) -> None:
    truth, reference = heads()
    scale = ENTRIES[name]["scale"]
    in_air = _flat(truth.array_kji, scale) & (truth.array_kji < 1)
    of_sinc, of_result = (
        float(np.sqrt(np.mean(image[in_air] ** 2)))
        for image in (_sinc(truth, scale), _enhanced(name, truth, reference))
    )
    assert of_sinc > 1, "sinc must ring for this to show anything"
    assert of_result <= MOST_RINGING * of_sinc


def test_the_measure_counts_oscillation_and_not_blur() -> None:
    truth = np.zeros((1, 60, 80))
    truth[..., 40:] = 100.0
    blurred = truth.copy()
    blurred[..., 37:43] = np.linspace(0, 100, 6)
    assert ringing(blurred, truth, 4) == 0
    waves = blurred + 3 * np.sin(np.arange(80))
    assert ringing(waves, truth, 4) == pytest.approx(3 / np.sqrt(2), rel=0.05)
    assert overshoot(waves, truth) == pytest.approx(3, rel=0.01)
    assert overshoot(blurred, truth) == 0
