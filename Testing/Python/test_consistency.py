"""Data consistency: the result degrades to what was acquired, and nothing more is changed."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.consistency import acquired_band, enforce_consistency, misfit
from mcsr.degradation import degrade, upsample
from mcsr.intensity import is_magnitude


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


@pytest.mark.parametrize("degradation", ["kspace", "bicubic", "average"])
@pytest.mark.parametrize(
    ("shape_lr", "factors"),
    [
        ((3, 11, 16), (1, 4, 2)),
        ((2, 16, 11), (1, 3, 4)),
        ((1, 1, 37), (1, 1, 3)),
        ((1, 9, 8), (1, 2, 2)),
        ((5, 8, 9), (2, 1, 1)),
        ((4, 9, 8), (3, 2, 4)),
        ((7, 10, 11), (4, 1, 1)),
    ],
)
@pytest.mark.parametrize("signed", [False, True], ids=["magnitude", "signed"])
def test_it_holds_for_odd_and_even_sizes_along_every_axis(
    shape_lr: tuple[int, int, int], factors: tuple[int, int, int], degradation: str, signed: bool
) -> None:
    rng = np.random.default_rng(2)
    shape = tuple(n * f for n, f in zip(shape_lr, factors, strict=True))
    acquired = rng.random(shape_lr, dtype=np.float32) - (0.5 if signed else 0)
    fixed = enforce_consistency(rng.normal(size=shape).astype(np.float32), acquired, factors, degradation)
    low = degrade(fixed.array_kji, factors, degradation, signed=signed)
    assert np.abs(low - acquired).max() < 1e-5
    assert fixed.error_after < 1e-5
    assert np.abs(misfit(fixed.array_kji, acquired, factors, degradation)).max() < 1e-5
    assert fixed.error_before > 0.1


def test_clipping_afterwards_undoes_little() -> None:
    """The goal is at most 0.5 % of the range (RMS) after the clip and after rounding to whole numbers."""
    truth = _textured((4, 96, 88))
    acquired = degrade(truth, (1, 4, 4))
    wrong = np.maximum(truth + 12 * np.random.default_rng(1).normal(size=truth.shape), 0).astype(np.float32)
    fixed = enforce_consistency(wrong, acquired, (1, 4, 4), "kspace").array_kji
    assert fixed.min() < -2, "there must be something to clip"
    for stored in (np.maximum(fixed, 0), np.rint(np.maximum(fixed, 0))):
        remaining = misfit(stored, acquired, (1, 4, 4), "kspace")
        assert np.sqrt(np.mean(remaining**2)) < 0.005
        assert np.abs(remaining).max() < 0.05


def test_a_projection_never_moves_away_from_the_truth() -> None:
    truth = _textured((3, 40, 48))
    acquired = degrade(truth, (1, 4, 4), signed=True) - 50
    wrong = truth - 50 + 20 * np.random.default_rng(1).normal(size=truth.shape)
    fixed = enforce_consistency(wrong, acquired, (1, 4, 4), "kspace").array_kji
    assert np.linalg.norm(fixed - truth + 50) < 0.99 * np.linalg.norm(wrong - truth + 50)
    again = enforce_consistency(fixed, acquired, (1, 4, 4), "kspace").array_kji
    np.testing.assert_allclose(again, fixed, atol=1e-3)


def test_the_result_may_be_written_over_its_input() -> None:
    truth = _textured((3, 40, 48))
    acquired = degrade(truth, (1, 4, 4))
    wrong = truth + 20 * np.random.default_rng(1).normal(size=truth.shape).astype(np.float32)
    expected = enforce_consistency(wrong, acquired, (1, 4, 4), "kspace").array_kji
    assert enforce_consistency(wrong, acquired, (1, 4, 4), "kspace", out=wrong).array_kji is wrong
    np.testing.assert_array_equal(wrong, expected)


def test_the_overshoot_of_a_resampled_magnitude_stays_negative() -> None:
    truth = _textured((2, 40, 48))
    acquired = degrade(truth, (1, 2, 2))
    dark = acquired < 0.05 * acquired.max()
    acquired[dark] = -0.005 * acquired.max()
    assert is_magnitude(acquired)
    fixed = enforce_consistency(truth - 10, acquired, (1, 2, 2), "kspace").array_kji
    low = degrade(fixed, (1, 2, 2), signed=True)
    np.testing.assert_allclose(low[dark], acquired[dark], atol=1e-3)


def test_the_sign_that_a_magnitude_lost_is_taken_from_the_result() -> None:
    truth = np.zeros((1, 1, 64))
    truth[..., 30:] = 100.0
    signed = degrade(truth, (1, 1, 4), signed=True)
    assert signed.min() < -1
    fixed = enforce_consistency(truth, np.abs(signed), (1, 1, 4), "kspace")
    np.testing.assert_allclose(fixed.array_kji, truth, atol=1e-9)


def test_errors_are_fractions_of_the_range_of_the_acquired() -> None:
    acquired = 4 * np.random.default_rng(0).random((2, 11, 13)) - 3
    brighter = upsample(acquired, (1, 3, 3)) + 0.5
    expected = 0.5 / np.ptp(acquired)
    np.testing.assert_allclose(misfit(brighter, acquired, (1, 3, 3), "kspace"), expected)
    assert enforce_consistency(brighter, acquired, (1, 3, 3), "kspace").error_before == pytest.approx(expected)


def test_the_last_line_acquired_belongs_to_the_band() -> None:
    spectrum = np.fft.fft(np.random.default_rng(0).normal(size=(4, 64, 96)), axis=2)
    spectrum[..., np.abs(np.fft.fftfreq(96, 1 / 96)) > 29] = 0
    assert acquired_band(np.fft.ifft(spectrum, axis=2).real) == (1.0, 29 / 48)


def test_outside_the_acquired_band_the_result_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    acquired = rng.random((2, 32, 40))
    result = upsample(acquired, (1, 2, 2)) + 0.1 * rng.normal(size=(2, 64, 80))
    fixed = enforce_consistency(result, acquired - 10, (1, 2, 2), "kspace", (1.0, 0.5)).array_kji
    change = np.abs(np.fft.fft2(fixed - result))
    columns = np.abs(np.fft.fftfreq(80, 1 / 80))
    assert change[:, :, columns > 10].max() < 1e-8 * change.max()
    assert change[:, :, columns <= 10].max() > 1
