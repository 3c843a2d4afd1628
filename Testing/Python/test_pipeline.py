"""A job from volumes to volumes: space, orientation, consistency, warnings, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from grids import ALL_ORDERS, SOME_ORDERS, oblique_grid, order_id
from mcsr import pipeline_inputs, pipeline_steps
from mcsr.degradation import crop_to_multiple, degrade
from mcsr.errors import Cancelled, DeviceError, GeometryError, InputError, McsrError, WeightsError
from mcsr.geometry import AxisOrder, Grid, moved_grid, refine_grid, same_space
from mcsr.intensity import intensity_scale
from mcsr.job import Result, Settings
from mcsr.networks import create_network
from mcsr.pipeline import enhance, simulate
from mcsr.progress import Event
from mcsr.registration import Registration
from mcsr.volume import Volume
from mcsr.weights import save_weights
from scenes import pair, scene


def _settings(weights: Path, **changes: object) -> Settings:
    return dataclasses.replace(Settings(scale=2, weights=weights, registration="none"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_simulate_then_sinc_puts_every_structure_back(order: AxisOrder, scale: int) -> None:
    truth = scene("T2", oblique_grid((52, 60, 4), (0.8, 0.9, 5.0))).reordered(order)
    reference = scene("T1", oblique_grid((52, 60, 4), (0.8, 0.9, 5.0)))
    low, _ = simulate(truth, scale)
    result = enhance(low, reference, Settings(model="sinc", scale=scale), ground_truth=truth)
    assert result.truth is not None
    assert same_space(result.sr.grid, result.truth.grid, 1e-6)
    np.testing.assert_allclose(result.sr.grid.ras_bounds(), low.grid.ras_bounds(), atol=1e-9)
    shift = _shift_in_voxels(result.sr.array_kji, result.truth.array_kji)
    assert np.abs(shift).max() < 0.05, shift


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_the_storage_order_does_not_matter(order: AxisOrder, untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    settings = _settings(untrained_x2)
    expected = enhance(target, reference, settings).sr
    other = AxisOrder((2, 0, 1), (True, False, True))
    result = enhance(target.reordered(order), reference.reordered(other), settings).sr
    assert same_space(result.grid, order.apply_grid(expected.grid), 1e-6)
    scale = np.abs(expected.array_kji).max()
    np.testing.assert_allclose(result.array_kji, order.apply(expected.array_kji), atol=1e-4 * scale)


@pytest.mark.parametrize("order", ALL_ORDERS[5::9], ids=order_id)
def test_the_storage_order_does_not_matter_with_registration(order: AxisOrder, untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    settings = _settings(untrained_x2, registration="rigid")
    expected = enhance(target, reference, settings)
    result = enhance(target.reordered(order), reference.reordered(order), settings)
    scale = np.abs(expected.sr.array_kji).max()
    np.testing.assert_allclose(result.sr.array_kji, order.apply(expected.sr.array_kji), atol=1e-4 * scale)


def test_the_box_stays_and_the_type_is_restored(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    result = enhance(target, reference, _settings(untrained_x2))
    assert same_space(result.sr.grid, refine_grid(target.grid, (2, 2, 1)), 1e-9)
    assert (target.source_dtype, result.sr.source_dtype) == ("int16", "int16")
    assert result.residual.source_dtype == "float32"
    np.testing.assert_allclose(
        result.residual.array_kji, result.sr.array_kji - result.interpolated.array_kji, atol=1e-4
    )
    assert result.sr.array_kji.min() >= 0


def test_the_result_agrees_with_what_was_acquired(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    free = enhance(target, reference, _settings(untrained_x2, consistency=False))
    held = enhance(target, reference, _settings(untrained_x2))
    value_range = np.ptp(target.array_kji)

    def misfit(volume: Volume) -> float:
        return float(np.sqrt(np.mean((degrade(volume.array_kji, (1, 2, 2)) - target.array_kji) ** 2)) / value_range)

    assert misfit(free.sr) > 0.01, "the untrained network must be wrong for this to show anything"
    assert misfit(held.sr) < 0.005
    consistency = held.provenance["consistency"]
    assert consistency["error_after_percent_max"] < 0.1
    assert consistency["error_before_percent_rms"] > 1
    assert free.provenance["consistency"] == {"applied": False}


def test_the_same_job_gives_the_same_bits_and_scores(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    settings = _settings(untrained_x2, registration="rigid")
    first, second = (enhance(target, reference, settings, ground_truth=truth) for _ in range(2))
    np.testing.assert_array_equal(first.sr.array_kji, second.sr.array_kji)
    assert first.scores == second.scores
    assert first.scores["interpolated"].psnr > first.scores["result"].psnr, "random weights cannot beat sinc"


def test_progress_rises_to_the_end_and_names_the_stages(untrained_x2: Path) -> None:
    truth, reference = pair()
    events: list[Event] = []
    enhance(simulate(truth, 2)[0], reference, _settings(untrained_x2), progress=events.append)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert {"Registering", "Enhancing", "Checking consistency"} <= {event.stage for event in events}


def test_cancel_is_obeyed_at_every_step(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    for allowed in range(0, 9, 2):
        asked = iter([False] * allowed)
        with pytest.raises(Cancelled, match="nothing was written"):
            enhance(target, reference, _settings(untrained_x2), cancelled=lambda it=asked: next(it, True))


def test_one_slice_works_with_a_warning(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    single = target.cropped((0, 0, 4), (*target.grid.shape_ijk[:2], 1))
    result = enhance(single, reference, _settings(untrained_x2, registration="rigid"))
    assert result.sr.array_kji.shape == (1, 56, 48)
    assert any("single slice" in warning for warning in result.warnings)


def test_a_reference_whose_place_is_uncertain_is_said_to_be(
    untrained_x2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)

    def found(slack_mm: float) -> Result:
        kept = Registration(np.eye(4), False, 0.1, 0.2, "The header geometry is kept.", slack_mm)
        monkeypatch.setattr(pipeline_inputs, "register_rigid", lambda *_, **__: kept)
        return enhance(target, reference, _settings(untrained_x2, registration="rigid"))

    uncertain, certain = found(np.inf), found(1.0)
    assert "Where the reference lies is uncertain: lay it over the result and look." in uncertain.warnings
    assert "uncertain" not in " ".join(certain.warnings)
    assert uncertain.provenance["registration"]["slack_mm"] is None
    assert certain.provenance["registration"]["slack_mm"] == 1.0


def test_slices_that_the_reference_does_not_reach_help_themselves(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    flat = scene("T1", truth.grid)
    near = flat.cropped((0, 0, 2), (48, 56, 4))
    padded = flat.with_array(np.where(np.isin(np.arange(8), range(2, 6))[:, None, None], flat.array_kji, 0))
    alone = enhance(target, enhance(target, reference, Settings(model="sinc", scale=2)).sr, _settings(untrained_x2))
    for part in (near, padded):
        result = enhance(target, part, _settings(untrained_x2))
        assert any("does not reach all of 4 of 8 slices" in warning for warning in result.warnings)
        difference = np.abs(result.sr.array_kji - alone.sr.array_kji).max(axis=(1, 2))
        assert difference[[0, 1, 6, 7]].max() < 0.02 * difference[2:6].min()


def test_where_half_the_field_is_not_covered_the_target_stands_in(untrained_x2: Path) -> None:
    truth, _ = pair()
    target, _ = simulate(truth, 2)
    half = scene("T1", truth.grid).cropped((0, 0, 0), (24, 56, 8))
    seen: list[np.ndarray] = []
    original = pipeline_steps.enhance_slices

    def spy(network: object, lr: np.ndarray, reference: np.ndarray, *rest: object, **more: object) -> object:
        seen.append(reference[:])
        return original(network, lr, reference, *rest, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_steps, "enhance_slices", spy)
        result = enhance(target, half, _settings(untrained_x2))
    interpolated = result.interpolated.array_kji / intensity_scale(target.array_kji)
    np.testing.assert_allclose(np.maximum(seen[0][:, :, 26:], 0), interpolated[:, :, 26:], atol=1e-4)
    assert any("does not reach all of 8 of 8" in warning for warning in result.warnings)


def test_one_slightly_negative_voxel_changes_nothing_else(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    array = target.array_kji.copy()
    array[0, 0, 0] = -0.5
    expected = enhance(target, reference, _settings(untrained_x2)).sr.array_kji
    result = enhance(target.with_array(array), reference, _settings(untrained_x2)).sr.array_kji
    assert result.min() >= 0
    np.testing.assert_allclose(result[1:], expected[1:], atol=1e-3 * expected.max())


def test_signed_images_stay_signed(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2, signed=True, noise=0.1)
    assert enhance(target, reference, _settings(untrained_x2)).sr.array_kji.min() < -1


@pytest.mark.parametrize("scale", [3, 4])
def test_a_network_at_other_scales_on_sizes_that_fit_nothing(scale: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "w.safetensors"
    card = {"architecture": "dcamsr-s", "scale": scale, "degradation": "kspace", "plane": "axial"}
    save_weights(file, create_network("dcamsr-s", scale=scale), card)
    truth, reference = pair((53, 62, 4))
    target, lost = simulate(truth, scale)
    assert max(lost) > 0
    settings = Settings(scale=scale, weights=file, registration="none")
    result = enhance(target, reference, settings, ground_truth=truth)
    assert result.truth is not None
    assert same_space(result.sr.grid, result.truth.grid, 1e-6)
    assert result.provenance["consistency"]["error_after_clip_percent_rms"] < 0.5
    shift = _shift_in_voxels(result.sr.array_kji, result.truth.array_kji)
    assert np.abs(shift).max() < 0.3, "random weights disturb, but consistency holds the place"


def test_an_interpolation_takes_no_weights(untrained_x2: Path) -> None:
    truth, reference = pair()
    with pytest.raises(WeightsError, match=r"sinc has no weights; leave untrained\.safetensors out"):
        enhance(simulate(truth, 2)[0], reference, _settings(untrained_x2, model="sinc"))


def test_empty_slices_stay_interpolated(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    array = target.array_kji.copy()
    array[0] = 0.01 * np.random.default_rng(0).random(array[0].shape)
    result = enhance(target.with_array(array), reference, _settings(untrained_x2, consistency=False))
    np.testing.assert_allclose(result.sr.array_kji[0], result.interpolated.array_kji[0], atol=1e-6)
    assert np.abs(result.residual.array_kji[4]).max() > 1


def test_few_nan_work_with_a_warning(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    array = target.array_kji.copy()
    array[0, 0, :5] = np.nan
    result = enhance(dataclasses.replace(target, array_kji=array), reference, _settings(untrained_x2))
    assert np.isfinite(result.sr.array_kji).all()
    assert any("5 NaN or infinite voxels" in warning for warning in result.warnings)


def _moved(volume: Volume, shift_mm: float) -> Volume:
    matrix = np.eye(4)
    matrix[0, 3] = shift_mm
    return volume.moved(matrix)


def _coarse(volume: Volume) -> Volume:
    return simulate(volume, 4)[0]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"scale": 1}, InputError, "Scale 1 is not offered; choose 2, 3, 4"),
        ({"scale": 5}, InputError, "Scale 5 is not offered"),
        ({"model": "dcamrs-s"}, InputError, "did you mean dcamsr-s"),
        ({"plane": "transverse"}, GeometryError, "Unknown plane"),
        ({"registration": "affine"}, InputError, "Unknown registration"),
        ({"scale": 4}, WeightsError, "is for dcamsr-s x2"),
        ({"device": "tpu"}, DeviceError, "Unknown device"),
        ({"precision": "fp8"}, DeviceError, "Unknown precision"),
    ],
)
def test_settings_that_cannot_be(
    change: dict[str, object], error: type[McsrError], sentence: str, untrained_x2: Path
) -> None:
    truth, reference = pair()
    with pytest.raises(error, match=sentence):
        enhance(simulate(truth, 2)[0], reference, _settings(untrained_x2, **change))


def test_volumes_that_cannot_help_each_other(untrained_x2: Path) -> None:
    truth, reference = pair()
    target, _ = simulate(truth, 2)
    settings = _settings(untrained_x2)
    with pytest.raises(GeometryError, match="do not overlap in space"):
        enhance(target, _moved(reference, 500), settings)
    with pytest.raises(InputError, match=r"not finer than .*; choose a finer reference, or --force"):
        enhance(target, _coarse(reference), settings)
    forced = enhance(target, _coarse(reference), dataclasses.replace(settings, force=True))
    assert any("can add little" in warning for warning in forced.warnings)
    with pytest.raises(InputError, match="T2 is constant"):
        enhance(target.with_array(np.full_like(target.array_kji, 3), name="T2"), reference, settings)
    with pytest.raises(InputError, match="label map"):
        enhance(target, reference.with_array((reference.array_kji > 50).astype(np.float32)), settings)
    with pytest.raises(InputError, match="at least 8 each way"):
        enhance(target.cropped((0, 0, 0), (6, 28, 8)), reference, settings)
    with pytest.raises(GeometryError, match="not on the result's grid"):
        enhance(target, reference, settings, ground_truth=_moved(truth, 0.5))


def test_a_reference_that_is_coarser_than_the_result_is_fine_and_said(untrained_x2: Path) -> None:
    truth, _ = pair()
    target, _ = simulate(truth, 2)
    reference = scene("T1", oblique_grid((40, 40, 8), (1.2, 1.2, 3.2)), centre=truth.grid.centre_ras)
    matrix = reference.ijk_to_ras.copy()
    matrix[:3, 3] += truth.grid.centre_ras - reference.grid.centre_ras
    grid = Grid(reference.grid.shape_ijk, matrix)
    result = enhance(target, scene("T1", grid), _settings(untrained_x2))
    assert result.provenance["summary"][2].endswith("; it carries detail to 1.20 mm, the result's grid is 0.80 mm.")
    assert not any("detail" in warning for warning in result.warnings), "no reason to look closely"


def test_a_plane_or_spacing_the_weights_never_saw_is_warned_of(untrained_x2: Path) -> None:
    truth, reference = pair()
    turn = np.zeros((4, 4))
    turn[0, 2] = turn[1, 0] = turn[2, 1] = turn[3, 3] = 1  # axial slices become sagittal
    target = simulate(truth, 2)[0].moved(turn)
    result = enhance(target, reference.moved(turn), _settings(untrained_x2))
    assert any("trained on axial slices; yours are sagittal" in warning for warning in result.warnings)
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    result = enhance(simulate(truth, 2)[0].moved(double), reference.moved(double), _settings(untrained_x2))
    assert any("pixels are 1.60 mm; these weights saw 0.40 to 1.00" in warning for warning in result.warnings)


def test_simulate_crops_at_the_far_end_and_keeps_the_type() -> None:
    truth, _ = pair((50, 57, 3))
    low, lost = simulate(truth, 4)
    assert lost == (2, 1, 0)
    assert low.source_dtype == "int16"
    expected = degrade(crop_to_multiple(truth, (1, 4, 4))[0].array_kji, (1, 4, 4))
    np.testing.assert_allclose(low.array_kji, expected, atol=1e-4)
    noisy, _ = simulate(truth, 4, noise=0.05, seed=1)
    inside = low.array_kji > 100
    deviation = (noisy.array_kji - low.array_kji)[inside].std()
    assert deviation == pytest.approx(0.05 * intensity_scale(low.array_kji), rel=0.2)
    with pytest.raises(InputError, match="Scale 7"):
        simulate(truth, 7)
    for noise in (-0.1, float("nan")):
        with pytest.raises(InputError, match="no fraction"):
            simulate(truth, 4, noise=noise)


def test_simulate_leaves_an_integer_type_that_cannot_hold_the_values() -> None:
    truth = dataclasses.replace(pair()[0], source_dtype="uint16")
    assert simulate(truth, 4)[0].source_dtype == "uint16"
    signed, _ = simulate(truth, 4, signed=True, noise=0.05)
    assert (signed.source_dtype, signed.array_kji.min() < 0) == ("float32", True)
    full = dataclasses.replace(truth, array_kji=truth.array_kji / truth.array_kji.max() * 255, source_dtype="uint8")
    assert simulate(full, 4, degradation="kspace-official")[0].source_dtype == "float32"


def _shift_in_voxels(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Least-squares shift (k, j, i) of one volume against another, from its gradients (first order)."""
    gradients = np.stack([g.ravel() for g in np.gradient(fixed.astype(np.float64))], axis=1)
    solution, *_ = np.linalg.lstsq(gradients, (fixed - moved).astype(np.float64).ravel(), rcond=None)
    return solution


def test_the_shift_measure_sees_a_tenth_of_a_voxel() -> None:
    grid = oblique_grid((52, 60, 6), (0.8, 0.9, 3.0))
    fixed = scene("T2", grid)
    step = np.eye(4)
    step[:3, 3] = grid.ijk_to_ras[:3, 0] * 0.1
    moved = scene("T2", moved_grid(grid, np.linalg.inv(step)), centre=grid.centre_ras)
    np.testing.assert_allclose(_shift_in_voxels(moved.array_kji, fixed.array_kji), [0, 0, 0.1], atol=0.02)
