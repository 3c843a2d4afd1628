"""The degradation: what it keeps, where it puts it, and its adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.degradation import (
    DEGRADATIONS,
    add_noise,
    axis_matrix,
    crop_to_multiple,
    degrade,
    degrade_volume,
    upsample,
    upsampling_matrix,
)
from mcsr.errors import InputError
from mcsr.volume import Volume

SIZES = [(24, 2), (24, 4), (20, 4), (27, 3), (18, 3), (30, 2), (21, 3), (36, 4)]


@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_kspace_is_the_cropped_spectrum_with_the_half_voxel_phase(size: int, factor: int) -> None:
    """By FFT: shift by (f-1)/2 HR pixels, keep the central lines, average the two Nyquist lines."""
    x = np.random.default_rng(0).normal(size=size)
    lines = np.fft.fftfreq(size, 1 / size)
    spectrum = np.fft.fft(x) * np.exp(2j * np.pi * lines * (factor - 1) / 2 / size)
    low = size // factor
    kept = np.zeros(low, dtype=complex)
    for line in range(-(low // 2), low // 2 + 1):
        share = 0.5 if abs(line) * 2 == low else 1.0
        kept[line % low] += share * spectrum[line % size]
    expected = np.fft.ifft(kept) / factor
    np.testing.assert_allclose(expected.imag, 0, atol=1e-12)
    np.testing.assert_allclose(axis_matrix("kspace", size, factor) @ x, expected.real, atol=1e-12)


@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_upsampling_is_the_adjoint_and_is_undone_but_for_the_nyquist_line(size: int, factor: int) -> None:
    forward, backward = axis_matrix("kspace", size, factor), upsampling_matrix(size // factor, factor)
    np.testing.assert_allclose(backward, factor * forward.T)
    low = size // factor
    nyquist = np.outer((-1.0) ** np.arange(low), (-1.0) ** np.arange(low)) / low
    expected = np.eye(low) - (0.5 * nyquist if low % 2 == 0 else 0)
    np.testing.assert_allclose(forward @ backward, expected, atol=1e-12)


@pytest.mark.parametrize("factors", [(1, 4, 4), (1, 2, 2), (1, 3, 3), (3, 1, 1), (2, 3, 4)])
def test_d_of_u_gives_the_volume_back(factors: tuple[int, int, int]) -> None:
    """Odd sizes have no Nyquist line: D(U(y)) = y to rounding, in every combination of axes."""
    y = np.random.default_rng(1).random((7, 9, 11))
    np.testing.assert_allclose(degrade(upsample(y, factors), factors, signed=True), y, atol=1e-12)


@pytest.mark.parametrize("name", ["kspace", "bicubic", "average"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_intensity_and_place_are_kept(name: str, factor: int) -> None:
    """A constant stays itself, and a smooth bump keeps its centre of mass in mm."""
    size = 48
    matrix = axis_matrix(name, size, factor)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    fine, coarse = np.arange(size), factor * np.arange(size // factor) + (factor - 1) / 2
    for centre in (20.0, 23.5, 26.2):
        bump = np.exp(-((fine - centre) ** 2) / (2 * 5.0**2))
        low = matrix @ bump
        assert (low @ coarse) / low.sum() == pytest.approx(centre, abs=0.01)


def test_kspace_official_is_the_published_code() -> None:
    """DCAMSR's code with NumPy's FFT: centred, orthonormal, cropped, magnitude: brighter by s, on voxel s j."""
    x = np.random.default_rng(2).random((1, 32, 24))
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x[0]), norm="ortho"))
    crop = spectrum[16 - 4 : 16 + 4, 12 - 3 : 12 + 3]
    expected = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(crop), norm="ortho")))
    np.testing.assert_allclose(degrade(x, (1, 4, 4), "kspace-official")[0], expected, atol=1e-12)
    assert degrade(np.ones((1, 32, 24)), (1, 4, 4), "kspace-official") == pytest.approx(4.0)


@pytest.mark.parametrize(("factor", "crops"), [(2, [(63, 128)]), (4, [(63, 128), (31, 64)])])
def test_diffmsr_official_is_the_published_chain_of_crops(factor: int, crops: list[tuple[int, int]]) -> None:
    """DiffMSR's data: the HR centre of k-space on 129 of 256, crops from 63 (128 lines) and 31 (64 lines)."""
    x = np.random.default_rng(2).random((256, 256))
    ramp = np.exp(2j * np.pi * (np.arange(256) - 128) / 256)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x * ramp[:, None] * ramp), norm="ortho"))
    assert np.unravel_index(np.abs(spectrum).argmax(), spectrum.shape) == (129, 129)
    for start, length in crops:
        spectrum = spectrum[start : start + length, start : start + length]
    centre = {2: 66, 4: 35}[factor]
    assert np.unravel_index(np.abs(spectrum).argmax(), spectrum.shape) == (centre, centre)
    expected = np.abs(np.fft.ifft2(spectrum, norm="ortho"))
    low = degrade(x[None], (1, factor, factor), "diffmsr-official")[0]
    np.testing.assert_allclose(low, np.fft.fftshift(expected), atol=1e-12)
    assert low.mean() / x.mean() == pytest.approx(factor, rel=5e-3), "brighter by the factor, as published"


def test_cddpe_official_is_a_maximum_of_cells() -> None:
    x = np.random.default_rng(3).random((2, 6, 9), dtype=np.float32)
    low = degrade(x, (1, 2, 3), "cddpe-official")
    assert (low.shape, low.dtype) == ((2, 3, 3), np.float32)
    assert low[1, 2, 0] == x[1, 4:6, 0:3].max()


def test_bicubic_is_that_of_matlab() -> None:
    """`imresize(x, 0.5)`: a kernel as wide as two coarse voxels to each side, mirrored at the border's face."""
    a, b, c, d = 0.43359375, 0.11328125, -0.03515625, -0.01171875
    matrix = axis_matrix("bicubic", 16, 2)
    np.testing.assert_allclose(matrix[4], [0] * 5 + [d, c, b, a, a, b, c, d] + [0] * 3, atol=1e-12)
    np.testing.assert_allclose(matrix[0], [a + b, a + c, b + d, c, d] + [0] * 11, atol=1e-12)


def test_magnitude_is_the_default_and_signed_keeps_the_sign() -> None:
    x = np.zeros((1, 1, 32), dtype=np.float32)
    x[..., 14:] = 1
    signed = degrade(x, (1, 1, 4), signed=True)
    assert signed.min() < -0.01
    np.testing.assert_array_equal(degrade(x, (1, 1, 4)), np.abs(signed))
    assert signed.dtype == np.float32


@pytest.mark.parametrize("name", list(DEGRADATIONS))
def test_the_grid_follows_the_samples(name: str) -> None:
    """A blob's centre of mass in RAS is the same before and after, for centred and for corner sampling."""
    grid = oblique_grid((80, 96, 3))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    blob = np.exp(-((i - 38.3) ** 2 + (j - 45.1) ** 2) / 200.0 - (k - 1) ** 2)
    volume = Volume(blob, grid.ijk_to_ras)
    np.testing.assert_allclose(
        _centre_of_mass(degrade_volume(volume, (1, 4, 4), name)), _centre_of_mass(volume), atol=0.02
    )


def test_crop_to_multiple_cuts_the_far_end_and_says_how_much() -> None:
    grid = oblique_grid((13, 10, 3))
    volume = Volume(np.random.default_rng(0).random((3, 10, 13)), grid.ijk_to_ras)
    cropped, lost = crop_to_multiple(volume, (1, 4, 4))
    assert lost == (1, 2, 0)
    np.testing.assert_array_equal(cropped.array_kji, volume.array_kji[:, :8, :12])
    np.testing.assert_array_equal(cropped.ijk_to_ras, volume.ijk_to_ras)
    with pytest.raises(InputError, match="fewer than the factors"):
        crop_to_multiple(volume.cropped((0, 0, 0), (3, 10, 3)), (1, 4, 4))


def test_noise_has_the_asked_deviation_and_rician_bias() -> None:
    flat = np.full((40, 40, 40), 10.0)
    gaussian = add_noise(flat, 0.5, kind="gaussian")
    assert gaussian.std() == pytest.approx(0.5, rel=0.02)
    assert gaussian.mean() == pytest.approx(10, abs=0.01)
    background = add_noise(np.zeros((40, 40, 40)), 0.5)
    assert background.mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.02), "Rayleigh in air"
    np.testing.assert_array_equal(add_noise(flat, 0.5, seed=3), add_noise(flat, 0.5, seed=3))


def test_unknown_names_are_said() -> None:
    with pytest.raises(InputError, match="Unknown degradation 'blur'; known are kspace"):
        degrade(np.ones((1, 4, 4)), (1, 2, 2), "blur")
    with pytest.raises(InputError, match="Unknown noise 'salt'"):
        add_noise(np.ones(3), 0.1, kind="salt")


def _centre_of_mass(volume: Volume) -> np.ndarray:
    weights = volume.array_kji.astype(np.float64)
    k, j, i = (np.arange(n) for n in weights.shape)
    total = weights.sum()
    ijk = (
        (weights.sum(axis=(0, 1)) @ i) / total,
        (weights.sum(axis=(0, 2)) @ j) / total,
        (weights.sum(axis=(1, 2)) @ k) / total,
    )
    return volume.grid.to_ras(ijk)
