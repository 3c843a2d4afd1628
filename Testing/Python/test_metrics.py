"""PSNR, SSIM and NMSE against scikit-image and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.metrics import compare, nmse, psnr, ssim
from skimage.metrics import structural_similarity


def test_ssim_equals_scikit_image() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((40, 33))
    result = truth + rng.normal(0, 0.1, truth.shape)
    assert ssim(result, truth) == pytest.approx(structural_similarity(result, truth, data_range=1.0), abs=1e-10)


def test_psnr_and_nmse_by_hand() -> None:
    truth = np.full((8, 8), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0)
    assert nmse(truth + 0.1, truth) == pytest.approx(0.04)
    assert psnr(truth, truth) == float("inf")


def test_volumes_are_scaled_by_the_original_clipped_and_averaged_over_slices_with_signal() -> None:
    truth = np.zeros((3, 16, 16))
    truth[1:] = 200.0
    result = truth.copy()
    result[1] += 2.0
    result[2] += 20.0
    result[0] -= 50.0
    scores = compare(result, truth, 200.0)
    assert scores.psnr == pytest.approx((40 + 20) / 2), "the empty slice is left out"
    assert compare(result * 7, truth * 7, 1400.0).psnr == pytest.approx(scores.psnr)
    assert scores.nmse == pytest.approx((0.01**2 + 0.1**2) / 2)
