"""Weights of others see slices as their authors made them, and the result is in the target's units and place again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grids import SOME_ORDERS, oblique_grid, order_id
from mcsr import pipeline_inputs
from mcsr.canvas import Canvas, native_canvas
from mcsr.conventions import Conventions, corner_samples, given_slices
from mcsr.degradation import degrade
from mcsr.errors import WeightsError
from mcsr.geometry import AxisOrder, same_space
from mcsr.inference import enhance_slices, make_plan
from mcsr.job import Settings
from mcsr.networks import Network, SROutput
from mcsr.networks.baselines import BaselineConfig
from mcsr.networks.blocks import upsample_slices
from mcsr.pipeline import enhance, simulate
from mcsr.weights import Weights
from scenes import scene


class Stub(Network):
    """A network that is a formula; remembers the shape of what it saw."""

    seen: tuple[int, ...] = ()

    def __init__(self, scale: int) -> None:
        super().__init__(BaselineConfig(scale=scale))

    def encode_reference(self, reference: torch.Tensor) -> torch.Tensor:
        return reference

    def forward(self, target_lr: torch.Tensor, reference: torch.Tensor, **_: Any) -> SROutput:
        self.seen = tuple(reference.shape[-2:])
        return SROutput(self.formula(target_lr, reference))

    def formula(self, target_lr: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return upsample_slices(target_lr, self.config.scale, "nearest")


class EchoReference(Stub):
    def formula(self, target_lr: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return reference


class CornerNetwork(Stub):
    """What training on corner samples teaches: low-resolution sample j belongs on high-resolution pixel s j."""

    def formula(self, target_lr: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        scale = self.config.scale
        for axis in (-2, -1):
            size = scale * target_lr.shape[axis]
            target_lr = scale * torch.fft.irfft(torch.fft.rfft(target_lr, dim=axis), n=size, dim=axis)
        return target_lr


def _use(monkeypatch: pytest.MonkeyPatch, network: Network, **card: Any) -> None:
    """Let the pipeline find this network."""
    full = {"plane": "axial", "degradation": "kspace", **card}
    monkeypatch.setattr(pipeline_inputs, "_load", lambda settings, memory: (network, full, None))


def _shift_in_voxels(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Shift (k, j, i) of one volume against another from the phase slope of their cross-spectrum, low frequencies."""
    moved, fixed = (a - a.mean() for a in (moved.astype(np.float64), fixed.astype(np.float64)))
    cross = np.fft.fftn(moved) * np.conj(np.fft.fftn(fixed))
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in moved.shape), indexing="ij")
    low = np.sqrt(sum(a**2 for a in axes)) < 0.06
    weight = np.abs(cross[low])
    frequencies = np.stack([-2 * np.pi * a[low] for a in axes], axis=1)
    used = np.abs(frequencies).max(axis=0) > 0  # a stack of few slices has no low frequency across
    solution, *_ = np.linalg.lstsq(frequencies[:, used] * weight[:, None], np.angle(cross[low]) * weight, rcond=None)
    shift = np.zeros(moved.ndim)
    shift[used] = solution
    return shift


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("degradation", ["dcamsr-official", "diffmsr-official"])
def test_weights_of_corner_samples_do_not_move_the_anatomy(
    degradation: str, scale: int, order: AxisOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = scene("T2", oblique_grid((72, 84, 3), (0.8, 0.9, 5.0))).reordered(order)
    reference = scene("T1", oblique_grid((72, 84, 3), (0.8, 0.9, 5.0)))
    low, _ = simulate(truth, scale)
    _use(monkeypatch, CornerNetwork(scale), degradation=degradation)
    result = enhance(low, reference, Settings(scale=scale, registration="none"), ground_truth=truth)
    assert result.truth is not None
    assert same_space(result.sr.grid, result.truth.grid, 1e-6)
    shift = _shift_in_voxels(result.sr.array_kji, result.truth.array_kji)
    assert np.abs(shift).max() < 0.05, shift
    assert any("Data consistency is off" in warning for warning in result.warnings)


@pytest.mark.parametrize("scale", [2, 4])
def test_without_compensation_the_anatomy_would_move(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure sees it: (s - 1)/2 pixels along rows and columns."""
    truth = scene("T2", oblique_grid((72, 84, 3), (0.8, 0.9, 5.0)))
    _use(monkeypatch, CornerNetwork(scale), degradation="kspace")
    settings = Settings(scale=scale, registration="none", consistency=False)
    result = enhance(simulate(truth, scale)[0], scene("T1", truth.grid), settings)
    shift = _shift_in_voxels(result.sr.array_kji, truth.array_kji)
    np.testing.assert_allclose(shift, [0, -(scale - 1) / 2, -(scale - 1) / 2], atol=0.06)


def test_corner_samples_are_what_a_corner_crop_gives() -> None:
    """The centred image, moved, equals the published crop of the same object, its brightness apart."""
    truth = scene("T2", oblique_grid((96, 112, 3), (0.8, 0.8, 4.0))).array_kji
    for scale in (2, 4):
        expected = degrade(truth, (1, scale, scale), "kspace-official") / scale
        moved = corner_samples(degrade(truth, (1, scale, scale)), scale)
        assert np.abs(moved - expected).max() < 0.02 * expected.max()
        unmoved = degrade(truth, (1, scale, scale))
        assert np.abs(unmoved - expected).max() > 0.1 * expected.max()


def _slices() -> tuple[np.ndarray, np.ndarray]:
    grid = oblique_grid((64, 48, 3), (0.8, 0.8, 4.0))
    return tuple(scene(name, grid).array_kji / np.float32(120) for name in ("T2", "T1"))  # type: ignore[return-value]


def test_zscore_lr_is_the_published_preparation() -> None:
    """The steps of DCAMSR's code, done on the truth, against what the engine makes of the intensity-kept input."""
    truth, reference = _slices()
    bright = degrade(truth, (1, 4, 4), "kspace-official")
    own = degrade(reference, (1, 4, 4), "kspace-official")
    conventions = Conventions("centred", "zscore-lr")
    given = given_slices(bright / 4, reference, 4, Canvas(0, 0, 12, 16), conventions)
    for n in range(3):
        mean, deviation = bright[n].mean(), bright[n].std(ddof=1)
        np.testing.assert_allclose(given.target_lr[n], np.clip((bright[n] - mean) / deviation, -6, 6), atol=1e-5)
        mine = (reference[n] - own[n].mean()) / own[n].std(ddof=1)
        np.testing.assert_allclose(given.reference[n], np.clip(mine, -6, 6), atol=1e-5)
        wanted = (truth[n] - mean) / deviation
        np.testing.assert_allclose(wanted * given.gain[n] + given.offset[n], truth[n], atol=1e-5)


def test_zscore_lr_clamps_at_six_deviations() -> None:
    target, reference = (
        np.random.default_rng(0).random((2, 16, 16), dtype=np.float32),
        np.zeros((2, 64, 64), np.float32),
    )
    target[0, 3, 4] = 100.0
    reference += np.random.default_rng(1).random(reference.shape, dtype=np.float32)
    given = given_slices(target, reference, 4, Canvas(0, 0, 16, 16), Conventions("centred", "zscore-lr"))
    assert given.target_lr.max() == 6.0


@pytest.mark.parametrize(("intensity", "brighter"), [("percentile", 1), ("minmax-slice", 1), ("zscore-lr", 4)])
def test_a_linear_network_gives_the_targets_units_back(intensity: str, brighter: int) -> None:
    """What hands the target through gives the target; under zscore-lr as bright as the published crop is."""
    truth, reference = _slices()
    low = degrade(truth, (1, 4, 4)) * np.array([1, 30, 0.2], np.float32)[:, None, None]
    plan = dataclasses.replace(
        make_plan(Stub(4), Canvas(0, 0, 12, 16), "cpu", "fp32"), conventions=Conventions("centred", intensity)
    )
    result, _ = enhance_slices(Stub(4), low, reference, plan)
    expected = brighter * low.repeat(4, axis=1).repeat(4, axis=2)
    for got, wanted in zip(result, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * wanted.max())


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize(("intensity", "brighter"), [("percentile", 1), ("minmax-slice", 1), ("zscore-lr", 4)])
def test_slices_without_contrast_stay_what_they_are(intensity: str, brighter: int, sampling: str) -> None:
    """A constant slice has neither range nor deviation to divide by; no slice at all is no mistake either."""
    target = np.ones((3, 12, 16), np.float32) * np.array([0, 0.3, 1], np.float32)[:, None, None]
    reference = target.repeat(4, axis=1).repeat(4, axis=2)
    plan = make_plan(Stub(4), Canvas(0, 0, 12, 16), "cpu", "fp32", Conventions(sampling, intensity))
    for kept in (slice(None), slice(0)):
        result, _ = enhance_slices(Stub(4), target[kept], reference[kept], plan)
        np.testing.assert_allclose(result, brighter * reference[kept], atol=1e-6)


def test_minmax_hands_over_zero_to_one() -> None:
    truth, reference = _slices()
    low = 5 + 3 * degrade(truth, (1, 4, 4))
    given = given_slices(low, reference, 4, Canvas(0, 0, 12, 16), Conventions("centred", "minmax-slice"))
    for slices in (given.target_lr, given.reference):
        np.testing.assert_array_equal(slices.min(axis=(1, 2)), 0)
        np.testing.assert_allclose(slices.max(axis=(1, 2)), 1, atol=1e-6)


@pytest.mark.parametrize(("size", "seen"), [(64, (64, 64)), (96, (96, 96)), (40, (48, 64))])
def test_a_native_canvas_is_the_published_square_even_beyond_the_slice(size: int, seen: tuple[int, int]) -> None:
    """Slices of 48 x 64: smaller than the square, beyond it in one direction, or larger than it (tiled elsewhere)."""
    truth, reference = _slices()
    truth, reference = truth.copy(), reference.copy()
    truth[:, :, :2] = truth[:, :, -2:] = 1.0  # signal from border to border
    low = degrade(truth, (1, 4, 4))
    canvas = native_canvas(low, 4, size)
    assert (4 * canvas.rows, 4 * canvas.columns) == seen
    network = EchoReference(4)
    result, _ = enhance_slices(network, low, reference, make_plan(network, canvas, "cpu", "fp32"))
    assert network.seen == seen
    rows = slice(max(0, 4 * canvas.row), 4 * (canvas.row + canvas.rows))
    inside = (slice(None), slice(12, 36), slice(12, 52))
    assert rows.start <= 12
    np.testing.assert_allclose(result[inside], reference[inside], atol=1e-6)
    if size == 96:
        np.testing.assert_allclose(result, reference, atol=1e-6)
        assert (canvas.row, canvas.column) == (-6, -4)


def test_a_native_canvas_is_about_the_signal_in_a_larger_slice() -> None:
    slices = np.random.default_rng(0).rayleigh(0.01, (2, 96, 80)).astype(np.float32)
    slices[:, 50:80, 40:60] = 1.0
    canvas = native_canvas(slices, 4, 256)
    assert (canvas.row, canvas.rows) == (32, 64), "moved inwards to stay on the slice"
    assert (canvas.column, canvas.columns) == (16, 64)
    assert native_canvas(slices, 4, 96).rows > 24, "signal that does not fit is tiled, not cut"


def test_an_unknown_convention_asks_for_an_update() -> None:
    with pytest.raises(WeightsError, match=r"intensity convention 'log', unknown here; update"):
        Conventions.of({"degradation": "kspace", "intensity_convention": "log"})


def test_the_stage_of_a_training_that_needs_the_truth_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"architecture": "diffmsr", "scale": 2, "stage": 1, "degradation": "kspace", "plane": "axial"}
    monkeypatch.setattr(pipeline_inputs, "find_weights", lambda *_: Weights(Path("first.safetensors"), "", card))
    grid = oblique_grid((48, 56, 3))
    with pytest.raises(WeightsError, match=r"first\.safetensors is .* which needs the high-resolution truth"):
        enhance(simulate(scene("T2", grid), 2)[0], scene("T1", grid), Settings("diffmsr", 2))
