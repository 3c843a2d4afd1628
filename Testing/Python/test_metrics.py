"""PSNR, SSIM and NMSE against scikit-image and by hand; LPIPS where it can be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mcsr.metrics import compare, compare_slices, lit_slices, nmse, psnr, ssim
from mcsr.metrics_lpips import BACKBONE_FILE, find_lpips
from skimage.metrics import structural_similarity


@pytest.mark.parametrize(
    ("window", "how"),
    [("uniform", {}), ("gaussian", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False})],
)
def test_ssim_equals_scikit_image(window: str, how: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    truth = 3 * rng.random((40, 33))
    result = truth + rng.normal(0, 0.1, truth.shape)
    expected = structural_similarity(result, truth, data_range=3.0, **how)
    assert ssim(result, truth, 3.0, window) == pytest.approx(expected, abs=1e-10)


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


def test_every_slice_is_scored_whole_and_on_the_foreground_alone() -> None:
    truth = np.zeros((3, 20, 20))
    truth[1:, 5:15, 5:15] = 200.0
    truth[:, 0, 0] = 5.0
    result = truth.copy()
    result[1, 5:15, 5:15] += 20.0
    result[2, 0:4, :] = 40.0
    assert lit_slices(truth).tolist() == [1, 2], "a slice of noise is left out"
    scores = compare_slices(result, truth)
    assert scores["psnr"][0] == pytest.approx(20 + 10 * np.log10(4)), "a quarter of the slice is off by a tenth"
    assert scores["psnr_foreground"][0] == pytest.approx(20.0)
    assert scores["nmse_foreground"][0] == pytest.approx(0.01)
    assert scores["psnr_foreground"][1] == float("inf"), "what is wrong in the air does not count"
    assert scores["psnr"][1] < 30
    assert scores["ssim_foreground"][1] > 0.99 > scores["ssim"][1]
    assert scores["nmse"][1] > scores["nmse_foreground"][1] == 0


def test_a_given_distance_is_taken_whole_and_with_the_air_put_out() -> None:
    truth = np.zeros((1, 12, 12))
    truth[0, 4:8, 4:8] = 100.0
    result = truth.copy()
    result[0, 0] = 50.0
    scores = compare_slices(result, truth, lpips=lambda a, b: float(np.abs(a - b).sum()))
    assert scores["lpips"][0] == pytest.approx(12 * 0.5)
    assert scores["lpips_foreground"][0] == 0


def test_lpips_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr.metrics_lpips.find_spec", lambda name: None)
    assert find_lpips() == "LPIPS is left out: its packages are missing; run: pip install torchmetrics torchvision"
    monkeypatch.setattr("mcsr.metrics_lpips.find_spec", lambda name: name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    words = f"LPIPS is left out: its backbone is missing; put {BACKBONE_FILE} into {tmp_path / 'checkpoints'}."
    assert find_lpips() == words


def test_lpips_is_small_for_like_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights in the backbone's place: which weights these are is not ours to test."""
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    (tmp_path / "checkpoints").mkdir()
    torch.save(models.alexnet(weights=None).state_dict(), tmp_path / "checkpoints" / BACKBONE_FILE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    lpips = find_lpips()
    assert not isinstance(lpips, str), lpips
    truth = np.random.default_rng(0).random((64, 70))
    noise = np.random.default_rng(1).normal(0, 1, truth.shape)
    assert lpips(truth, truth) == pytest.approx(0, abs=1e-6)
    assert 0 < lpips(truth + 0.02 * noise, truth) < lpips(truth + 0.3 * noise, truth)
