"""The acquired band of zero-filled scans, found from the spectrum; and data consistency within it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mcsr.consistency import acquired_band, enforce_consistency, misfit
from mcsr.degradation import degrade
from mcsr.geometry import Grid
from mcsr.phantom import make_phantom
from mcsr.subjects import find_subject_pairs


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """Slices (2, 224, 192) of a head without noise, about 0..1."""
    matrix = np.diag([-1.0, -1.0, 4.0, 1.0])
    matrix[:3, 3] = (97, 95, 15)
    return make_phantom(Grid((192, 224, 2), matrix), "T2", noise=0).array_kji.astype(np.float64) / 1000


def scan(
    image: np.ndarray, fraction: float, axis: int = 2, *, noise: float = 0.0, window: str = "none", half: float = 1.0
) -> np.ndarray:
    """A magnitude image of which a fraction of k-space was acquired along an axis, the rest filled with zeros.

    Args:
        image: slices (K, h, w).
        fraction: of the band.
        axis: 1 for rows, 2 for columns.
        noise: standard deviation of what is acquired, per channel.
        window: over what was acquired: "none", "hann" (down to zero) or "fermi" (over the outer quarter).
        half: how much of the negative half of it was acquired (partial Fourier).
    """
    rng = np.random.default_rng(0)
    noisy = image + noise * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))
    place = np.fft.fftfreq(image.shape[axis]) * 2 / fraction
    kept = (place >= -half) & (place <= 1)
    weight = {
        "none": np.ones_like(place),
        "hann": 0.5 + 0.5 * np.cos(np.pi * place),
        "fermi": 1 / (1 + np.exp((np.abs(place) - 0.85) / 0.06)),
    }[window]
    shape = [-1 if n == axis else 1 for n in range(3)]
    return np.abs(np.fft.ifft(np.fft.fft(noisy, axis=axis) * (weight * kept).reshape(shape), axis=axis))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("axis", [1, 2], ids=["rows", "columns"])
@pytest.mark.parametrize("fraction", [0.4, 0.5, 0.67, 0.73, 0.85])
def test_a_zero_filled_band_is_found_to_two_lines(head: np.ndarray, fraction: float, axis: int, noise: float) -> None:
    found = acquired_band(scan(head, fraction, axis, noise=noise))
    assert found[axis - 1] == pytest.approx(fraction, abs=0.021)
    assert found[2 - axis] == 1.0


def test_both_axes_may_be_zero_filled(head: np.ndarray) -> None:
    found = acquired_band(scan(scan(head, 0.5, 2, noise=0.01), 0.7, 1))
    assert found == pytest.approx((0.7, 0.5), abs=0.02)


@pytest.mark.parametrize(("window", "least"), [("fermi", 0.85), ("hann", 0.7)])
@pytest.mark.parametrize("fraction", [0.6, 0.75])
def test_a_filter_that_leads_up_to_the_zeros_shortens_the_band(
    head: np.ndarray, fraction: float, window: str, least: float
) -> None:
    for noise in (0.0, 0.01):
        _, columns = acquired_band(scan(head, fraction, noise=noise, window=window))
        assert least * fraction < columns <= fraction


def test_half_of_a_band_is_found_where_little_of_the_other_half_was_acquired(head: np.ndarray) -> None:
    """Partial Fourier: lines without their mirror image have half their weight (6 dB); it shows when they are many."""
    assert acquired_band(scan(head, 1.0, half=0.5))[1] == pytest.approx(0.5, abs=0.06)
    assert acquired_band(scan(head, 1.0, half=0.9)) == (1.0, 1.0)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_no_band_is_found_where_all_was_acquired(head: np.ndarray, noise: float) -> None:
    noisy = scan(head, 1.0, noise=noise)
    assert acquired_band(noisy) == (1.0, 1.0)
    for factor in (2, 3, 4):
        for degradation in ("kspace", "average"):
            low = degrade(noisy[:, :216, :192], (1, factor, factor), degradation)
            assert acquired_band(low) == (1.0, 1.0), (factor, degradation)


def test_images_that_tell_nothing_have_the_whole_band(head: np.ndarray) -> None:
    assert acquired_band(head[:, :40, :40]) == (1.0, 1.0)
    assert acquired_band(np.zeros((2, 64, 64))) == (1.0, 1.0)
    stripes = np.repeat(head[:, :, 96:97], 192, axis=2)
    assert acquired_band(stripes)[1] == 1.0


def test_a_zero_filled_target_binds_only_what_was_acquired(head: np.ndarray) -> None:
    """Detail beyond the band may stay, and is no misfit; within the band the figures hold that hold everywhere."""
    truth = head[:, :, :192]
    acquired = scan(degrade(truth, (1, 2, 2), signed=True), 0.6, 1)
    band = acquired_band(acquired)
    assert band == pytest.approx((0.6, 1.0), abs=0.03)
    wrong = truth + 0.05 * np.random.default_rng(1).normal(size=truth.shape)
    fixed = enforce_consistency(wrong, acquired, (1, 2, 2), "kspace", band)
    assert fixed.error_before > 0.01
    assert fixed.error_after < 0.001
    stored = np.maximum(fixed.array_kji, 0)
    assert np.sqrt(np.mean(misfit(stored, acquired, (1, 2, 2), "kspace", band) ** 2)) < 0.005
    blind = enforce_consistency(wrong, acquired, (1, 2, 2), "kspace").array_kji
    assert np.linalg.norm(fixed.array_kji - truth) < 0.9 * np.linalg.norm(blind - truth), "zeros are no measurement"


@pytest.mark.data
def test_bands_of_real_scans_are_found(real_data: Path) -> None:
    """Known from the scanner's matrix: 0.67 to 0.73 along columns, with a filter before; along rows all."""
    h5py = pytest.importorskip("h5py")
    for pair in find_subject_pairs(real_data, "val"):
        with h5py.File(pair.path) as file:
            known = float(file.attrs["kspace_fraction_x"])
        middle = pair.read(pair.target).array_kji[15:21]
        rows, columns = acquired_band(middle)
        assert rows == 1.0
        assert columns == (pytest.approx(known - 0.03, abs=0.02) if np.isfinite(known) else 1.0)
        low = degrade(middle[:, : middle.shape[1] // 2 * 2, : middle.shape[2] // 2 * 2], (1, 2, 2))
        assert acquired_band(low) == (1.0, 1.0)
