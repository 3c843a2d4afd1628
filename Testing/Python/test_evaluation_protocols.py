"""The papers' protocols against computations of their own with numpy and scikit-image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from grids import oblique_grid
from mcsr.canvas import Canvas
from mcsr.conventions import Conventions, given_slices
from mcsr.errors import InputError
from mcsr.evaluation_protocols import PROTOCOLS, acquire, fitted, protocol_named, protocol_scores
from mcsr.geometry import same_space
from mcsr.volume import Volume
from scenes import scene
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

GRID = oblique_grid((64, 48, 3), (0.8, 0.8, 3.0), (0, 0, 0))
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """A truth and a noisy result, (3, 48, 64) float64."""
    truth = scene("T2", GRID).array_kji.astype(np.float64)
    return truth + np.random.default_rng(0).normal(0, 6, truth.shape), truth


def official_lr(image: np.ndarray, scale: int, first_line: int | None = None) -> np.ndarray:
    """Magnitude of an orthonormal crop of k-space, as the published codes make it; rows and columns alike."""
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))
    crop = []
    for n in image.shape:
        start = n // 2 - n // scale // 2 + (first_line or 0)
        crop.append(np.arange(start, start + n // scale))
    low = np.fft.ifft2(np.fft.ifftshift(spectrum[np.ix_(*crop)]), norm="ortho")
    return np.abs(np.fft.fftshift(low))


def by_slice(result: np.ndarray, truth: np.ndarray, **how: object) -> tuple[list[float], list[float]]:
    pairs = list(zip(truth, result, strict=True))
    psnr = [peak_signal_noise_ratio(t, r, data_range=how["data_range"]) for t, r in pairs]
    return psnr, [structural_similarity(t, r, **how) for t, r in pairs]


def stretched(slices: np.ndarray) -> np.ndarray:
    return np.stack([(s - s.min()) / np.ptp(s) for s in slices])


def test_cd_dpe_stretches_every_slice_by_its_own_extremes(images: tuple[np.ndarray, np.ndarray]) -> None:
    found = protocol_scores(*images, 4, PROTOCOLS["cd-dpe"])
    psnr, ssim = by_slice(*(stretched(a) for a in images), data_range=1.0)
    np.testing.assert_allclose(found["psnr"], psnr, atol=1e-6)
    np.testing.assert_allclose(found["ssim"], ssim, atol=1e-8)
    affine = protocol_scores(3 * images[0] + 20, images[1], 4, PROTOCOLS["cd-dpe"])
    np.testing.assert_allclose(affine["psnr"], found["psnr"], atol=1e-6)


def test_daasr_crops_the_border_by_the_scale(images: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = images
    spoilt = result.copy()
    spoilt[:, :4], spoilt[:, -4:], spoilt[:, :, :4], spoilt[:, :, -4:] = 1e4, 1e4, 1e4, 1e4
    found = protocol_scores(spoilt, truth, 4, PROTOCOLS["daasr"])
    lit = truth[truth > 0.1 * np.percentile(truth[truth > 0], 99)]
    inner = [a[:, 4:-4, 4:-4] / np.percentile(lit, 99.9) for a in images]
    psnr, ssim = by_slice(*inner, data_range=1.0, **GAUSSIAN)
    np.testing.assert_allclose(found["psnr"], psnr, atol=1e-5)
    np.testing.assert_allclose(found["ssim"], ssim, atol=1e-6)


@pytest.mark.parametrize("name", ["hftn-sr", "dcamsr"])
def test_fastmri_rules_take_the_volume(name: str, images: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = images
    found = protocol_scores(result, truth, 2, PROTOCOLS[name])
    assert found["psnr"].shape == found["ssim"].shape == (1,)
    assert found["psnr"][0] == pytest.approx(peak_signal_noise_ratio(truth, result, data_range=truth.max()), abs=1e-6)
    ssim = by_slice(result, truth, data_range=truth.max())[1]
    assert found["ssim"][0] == pytest.approx(np.mean(ssim), abs=1e-8)
    error = np.linalg.norm(truth - result) ** 2 / np.linalg.norm(truth) ** 2
    assert found["nmse"][0] == pytest.approx(error, rel=1e-6)


def test_dcamsr_clips_the_truth_by_its_low_resolution_slice(images: tuple[np.ndarray, np.ndarray]) -> None:
    truth = images[1].copy()
    truth[1, 20, 30] = 1e5
    low = official_lr(truth[1], 2)
    limit = low.mean() + 6 * low.std(ddof=1)
    assert limit < 1e5
    clipped = truth.copy()
    clipped[1, 20, 30] = limit
    found = protocol_scores(images[0], truth, 2, PROTOCOLS["dcamsr"])
    expected = peak_signal_noise_ratio(clipped, images[0], data_range=limit)
    assert found["psnr"][0] == pytest.approx(expected, abs=1e-3)


def test_diffmsr_takes_the_low_band_from_the_truth_and_eight_bits(images: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = (a[:, :, :48] for a in images)
    found = protocol_scores(result, truth, 4, PROTOCOLS["diffmsr"])
    # The published mask for 256 lines is 95 to 158 about a zero frequency at 129: from 34 lines below it to 29 above.
    band = np.isin(np.fft.fftshift(np.fft.fftfreq(48, 1 / 48)).round(), np.arange(-6 - 2, 6 - 2))
    expected = []
    for r, t in zip(result, truth, strict=True):
        one, other = (np.fft.fftshift(np.fft.fft2(a)) for a in (r, t))
        image = np.abs(np.fft.ifft2(np.fft.ifftshift(np.where(np.outer(band, band), other, one))))
        expected.append([np.rint(255 * np.clip(a / (0.8 * t.max()), 0, 1)) for a in (image, t)])
    psnr = [peak_signal_noise_ratio(t, r, data_range=255) for r, t in expected]
    ssim = [structural_similarity(t, r, data_range=255, **GAUSSIAN) for r, t in expected]
    np.testing.assert_allclose(found["psnr"], psnr, atol=1e-6)
    np.testing.assert_allclose(found["ssim"], ssim, atol=1e-6)


def test_diffmsr_scores_only_what_was_not_acquired(images: tuple[np.ndarray, np.ndarray]) -> None:
    truth = images[1]
    wave = 10 * np.cos(2 * np.pi * np.arange(64) / 64)
    found = protocol_scores(truth + wave, truth, 4, PROTOCOLS["diffmsr"])
    assert found["psnr"].min() > 60, "an error inside the acquired band does not count"


@pytest.mark.parametrize(("name", "first_line"), [("dcamsr", 0), ("diffmsr", -3)])
def test_weights_are_given_the_published_image(name: str, first_line: int) -> None:
    """Centred for the engine, and back where the authors' weights have it: nothing is lost on the way."""
    truth = scene("T2", GRID)
    target = acquire(truth, 4, PROTOCOLS[name].degradation)
    assert same_space(target.grid, acquire(truth, 4, "kspace").grid)
    given = given_slices(target.array_kji, truth.array_kji, 4, Canvas(0, 0, 12, 16), Conventions(sampling="corner"))
    expected = np.stack([official_lr(s, 4, first_line) for s in truth.array_kji]) / 4
    assert np.abs(given.target_lr - expected).max() < 1e-3 * expected.max()


def test_max_pooling_and_bicubic_are_taken_as_they_are() -> None:
    truth = scene("T2", GRID)
    low = acquire(truth, 2, "cddpe-official").array_kji
    assert low[1, 5, 7] == truth.array_kji[1, 10:12, 14:16].max()
    ones = truth.with_array(np.ones_like(truth.array_kji))
    np.testing.assert_allclose(acquire(ones, 2, "bicubic").array_kji, 1, atol=1e-6)


def test_slices_get_the_published_size() -> None:
    grid = oblique_grid((400, 330, 60), (0.5, 0.5, 3.0), (4, -3, 8))
    truth = Volume(np.zeros(grid.shape_kji, dtype=np.float32), grid.ijk_to_ras)
    assert fitted(truth, PROTOCOLS["cd-dpe"]).grid.shape_ijk == (400, 330, 50)
    cropped = fitted(truth, PROTOCOLS["dcamsr"])
    assert cropped.grid.shape_ijk == (320, 320, 60)
    np.testing.assert_allclose(cropped.grid.centre_ras, grid.centre_ras, atol=1e-6)
    small = oblique_grid((40, 32, 2), (0.9, 0.9, 3.0))
    resized = fitted(scene("T2", small), dataclasses.replace(PROTOCOLS["daasr"], size=30))
    assert resized.grid.shape_ijk == (30, 30, 2)
    np.testing.assert_allclose(resized.grid.spacing_ijk_mm, (1.2, 1.2, 3.0))
    np.testing.assert_allclose(resized.grid.centre_ras, small.centre_ras, atol=1e-6)
    centre = small.centre_ras
    expected = scene("T2", resized.grid, centre=centre).array_kji
    inside = scene("T2", resized.grid, centre=centre).array_kji > 60
    assert np.abs(resized.array_kji - expected)[inside].mean() < 2, "anatomy stays where it is"


def test_published_numbers_are_those_of_the_papers() -> None:
    numbers = {(name, p.data.split(",")[0], p.scale): p.psnr for name in PROTOCOLS for p in PROTOCOLS[name].published}
    assert numbers["cd-dpe", "BraTS 2018", 2] == 40.70
    assert numbers["daasr", "fastMRI", 4] == 33.41
    assert numbers["hftn-sr", "fastMRI knee", 4] == 30.85
    assert numbers["dcamsr", "M4Raw", 2] == 32.31
    assert numbers["diffmsr", "pelvis", 4] == 35.47


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(
        InputError, match="Unknown protocol 'nobody'; known are cd-dpe, daasr, hftn-sr, dcamsr, diffmsr"
    ):
        protocol_named("nobody")
