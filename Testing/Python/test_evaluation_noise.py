"""The noise ceiling against noise that is known."""

from __future__ import annotations

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.evaluation_noise import noise_ceiling
from mcsr.noise import noise_density
from scenes import scene

SIGMA = 3.0
SCALE = 200.0


def anatomy(rows: int = 192, columns: int = 160, slices: int = 8) -> np.ndarray:
    """A head without noise whose detail ends well inside the band, (K, rows, columns)."""
    return scene("T2", oblique_grid((columns, rows, slices), (0.25, 0.25, 1.0))).array_kji.astype(np.float64)


def truncated(image: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """Only the given fraction of the band along each axis, as a zero-filling scanner leaves it."""
    keep = [np.abs(np.fft.fftfreq(n)) * 2 <= band for n, band in zip(image.shape[1:], (rows, columns), strict=True)]
    return np.fft.ifft2(np.fft.fft2(image) * np.outer(*keep)).real


@pytest.mark.parametrize("band", [(1.0, 1.0), (1.0, 0.7)])
@pytest.mark.parametrize("factor", [2, 4])
def test_the_ceiling_is_the_psnr_of_the_noise_that_is_not_in_the_input(band: tuple[float, float], factor: int) -> None:
    clean = anatomy()
    noise = truncated(np.random.default_rng(1).normal(0, SIGMA, clean.shape), *band)
    unknown = noise - truncated(noise, 1 / factor, 1 / factor)
    perfect = 10 * np.log10(SCALE**2 / np.mean(unknown**2))
    estimate = noise_ceiling(clean + noise, factor, SCALE)
    assert estimate.shape == (8,)
    assert estimate.mean() == pytest.approx(perfect, abs=0.4)


def test_air_that_was_masked_lowers_the_noise() -> None:
    clean = anatomy()
    noise = np.where(clean > 10, np.random.default_rng(1).normal(0, SIGMA, clean.shape), 0)
    perfect = 10 * np.log10(SCALE**2 / np.mean(noise**2) / (1 - 1 / 16))
    assert noise_ceiling(clean + noise, 4, SCALE).mean() == pytest.approx(perfect, abs=0.6)


def test_magnitude_noise_in_air_counts_by_its_own_deviation() -> None:
    clean = anatomy()
    rng = np.random.default_rng(2)
    magnitude = np.hypot(clean + rng.normal(0, SIGMA, clean.shape), rng.normal(0, SIGMA, clean.shape))
    # What no method can know is the deviation about the expected magnitude: sigma in tissue, 0.655 sigma in air.
    air = clean < 1
    error = np.where(air, (0.655 * SIGMA) ** 2, SIGMA**2).mean() * (1 - 1 / 16)
    assert noise_ceiling(magnitude, 4, SCALE).mean() == pytest.approx(10 * np.log10(SCALE**2 / error), abs=0.5)


def test_zero_filling_is_not_taken_for_quiet() -> None:
    noise = np.random.default_rng(1).normal(0, SIGMA, (6, 192, 160))
    density, acquired = noise_density(truncated(anatomy(slices=6) + noise, 1.0, 0.7))
    assert density.mean() == pytest.approx(SIGMA**2, rel=0.1)
    assert acquired.mean() == pytest.approx(0.7, abs=0.05)
