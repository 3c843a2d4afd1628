"""Consistency of whole jobs: a reference that covers a part, slices without signal, odd sizes, zero-filled targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcsr.consistency import misfit
from mcsr.job import Settings
from mcsr.pipeline import enhance, simulate
from mcsr.volume import Volume
from scenes import pair

FACTORS = (1, 2, 2)


def _held(target: Volume, reference: Volume, weights: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """What is left of the misfit (K, h, w), as a fraction of the range, and the record; random weights."""
    settings = Settings(scale=2, weights=weights, registration="none", plane="axial")
    result = enhance(target, reference, settings)
    record = dict(result.provenance["consistency"])
    band = record["acquired_band_rows_columns"]
    return misfit(result.sr.array_kji, target.array_kji, FACTORS, "kspace", (band[0], band[1])), record


@pytest.mark.parametrize("covered", [(64, 26, 24), (30, 64, 24), (64, 64, 9)], ids=["rows", "columns", "slices"])
def test_it_holds_where_the_reference_does_not_reach(covered: tuple[int, int, int], untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    remaining, record = _held(target, reference.cropped((0, 0, 0), covered), untrained_x2)
    assert record["error_before_percent_rms"] > 1, "the network must be wrong for this to show anything"
    assert record["error_after_percent_max"] < 0.1
    for number, part in enumerate(remaining):
        assert np.sqrt(np.mean(part**2)) < 0.005, number
    assert record["error_after_clip_percent_rms"] == pytest.approx(100 * np.sqrt(np.mean(remaining**2)), abs=0.01)


def test_it_holds_for_odd_sizes_and_slices_without_signal(untrained_x2: Path) -> None:
    truth, reference = pair((50, 58, 8))
    array = truth.array_kji.copy()
    array[[0, 1, 7]] *= 0.001
    target, _ = simulate(truth.with_array(array), 2)
    assert [n % 2 for n in target.array_kji.shape[1:]] == [1, 1]
    remaining, record = _held(target, reference, untrained_x2)
    assert record["error_after_percent_max"] < 0.1
    assert max(np.sqrt(np.mean(part**2)) for part in remaining) < 0.005


def test_detail_beyond_the_band_of_a_zero_filled_target_is_no_misfit(untrained_x2: Path) -> None:
    truth, reference = pair((112, 112, 4))
    texture = np.random.default_rng(0).uniform(0.6, 1.4, truth.array_kji.shape)
    target, _ = simulate(truth.with_array(truth.array_kji * texture), 2)
    spectrum = np.fft.fft(target.array_kji, axis=2)
    spectrum[..., np.abs(np.fft.fftfreq(56)) > 0.3] = 0
    filled = target.with_array(np.abs(np.fft.ifft(spectrum, axis=2)))
    remaining, record = _held(filled, reference, untrained_x2)
    assert record["acquired_band_rows_columns"] == [1.0, pytest.approx(0.6, abs=0.04)]
    assert record["error_after_percent_max"] < 0.1
    assert record["error_after_clip_percent_rms"] < 0.5
    assert np.sqrt(np.mean(remaining**2)) < 0.005
