"""Data consistency: the result degrades to what was acquired, and nothing more is changed."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.consistency import acquired_band, enforce_consistency
from mcsr.degradation import degrade, upsample


def _textured(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Positive volume with edges and texture, float32."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(shape, dtype=np.float32)
    rows, columns = shape[1:]
    volume[:, rows // 5 : -rows // 5, columns // 6 : -columns // 6] = 100
    volume[:, rows // 3 : rows // 2, columns // 3 : columns // 2] = 240
    return volume * rng.uniform(0.7, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize("degradation", ["kspace", "bicubic", "average"])
@pytest.mark.parametrize(("shape", "factor"), [((3, 40, 48), 4), ((3, 42, 36), 2), ((2, 45, 39), 3)])
def test_the_result_degrades_to_the_acquired_input(shape: tuple[int, int, int], factor: int, degradation: str) -> None:
    truth = _textured(shape)
    acquired = degrade(truth, (1, factor, factor), degradation)
    wrong = truth + 20 * np.random.default_rng(1).normal(size=shape).astype(np.float32)
    fixed = enforce_consistency(wrong, acquired, (1, factor, factor), degradation)
    value_range = acquired.max() - acquired.min()
    remaining = np.abs(degrade(fixed.array_kji, (1, factor, factor), degradation) - acquired).max() / value_range
    assert fixed.error_before > 0.005
    assert remaining < 0.001
    assert fixed.error_after < 0.001
    assert fixed.array_kji.dtype == np.float32


def test_a_projection_never_moves_away_from_the_truth() -> None:
    truth = _textured((3, 40, 48))
    acquired = degrade(truth, (1, 4, 4))
    wrong = truth + 20 * np.random.default_rng(1).normal(size=truth.shape)
    fixed = enforce_consistency(wrong, acquired, (1, 4, 4), "kspace").array_kji
    assert np.linalg.norm(fixed - truth) < 0.99 * np.linalg.norm(wrong - truth)
    again = enforce_consistency(fixed, acquired, (1, 4, 4), "kspace").array_kji
    np.testing.assert_allclose(again, fixed, atol=1e-3)


def test_the_sign_that_a_magnitude_lost_is_taken_from_the_result() -> None:
    truth = np.zeros((1, 1, 64))
    truth[..., 30:] = 100.0
    signed = degrade(truth, (1, 1, 4), signed=True)
    assert signed.min() < -1
    fixed = enforce_consistency(truth, np.abs(signed), (1, 1, 4), "kspace")
    np.testing.assert_allclose(fixed.array_kji, truth, atol=1e-9)


def test_outside_the_acquired_band_the_result_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    acquired = rng.random((2, 32, 40))
    result = upsample(acquired, (1, 2, 2)) + 0.1 * rng.normal(size=(2, 64, 80))
    fixed = enforce_consistency(result, acquired - 10, (1, 2, 2), "kspace", (1.0, 0.5)).array_kji
    change = np.abs(np.fft.fft2(fixed - result))
    columns = np.abs(np.fft.fftfreq(80, 1 / 80))
    assert change[:, :, columns > 10].max() < 1e-8 * change.max()
    assert change[:, :, columns <= 10].max() > 1


@pytest.mark.parametrize("fraction", [0.6, 0.73])
def test_the_band_of_a_zero_filled_scan_is_found_per_axis(fraction: float) -> None:
    volume = _textured((6, 160, 128)).astype(np.float64)
    spectrum = np.fft.fft(volume, axis=2)
    spectrum[..., np.abs(np.fft.fftfreq(128)) > 0.5 * fraction] = 0
    filled = np.abs(np.fft.ifft(spectrum, axis=2))
    rows, columns = acquired_band(filled)
    assert rows == 1.0
    assert columns == pytest.approx(fraction, abs=0.06)
    assert acquired_band(volume) == (1.0, 1.0)
