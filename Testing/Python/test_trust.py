"""Trust maps and the use of the reference: their numbers, their place, and what is said of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from grids import SOME_ORDERS, order_id
from mcsr.consistency import misfit
from mcsr.degradation import degrade
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder
from mcsr.job import Memory, Result, Settings
from mcsr.pipeline import draw_maps, enhance, observe, simulate
from mcsr.trust import SPECS, consistency_error, error_features, expected_error, noise_sd
from mcsr.trust_calibration import Calibration, calibrate, find_calibration, read_calibrations, write_calibrations
from mcsr.trust_fit import ReferenceFit
from mcsr.trust_summary import Findings, slice_ranges, summarise
from mcsr.volume import Volume
from scenes import pair

FACTORS = (1, 2, 2)
KNOWN = Calibration((1.5, 0.2, 0.1, 0.01), ("a",))


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr.pipeline_trust.find_calibration", lambda sha256: KNOWN)


@pytest.fixture
def settings(untrained_x2: Path) -> Settings:
    return Settings(scale=2, weights=untrained_x2, registration="none", trust=True)


@pytest.fixture
def volumes() -> tuple[Volume, Volume]:
    truth, reference = pair()
    return simulate(truth, 2)[0], reference


def mirrored(reference: Volume) -> Volume:
    return reference.with_array(np.ascontiguousarray(np.roll(reference.array_kji[:, ::-1, ::-1], 9, axis=2)))


def test_consistency_error_is_the_difference_of_what_was_acquired() -> None:
    rng = np.random.default_rng(0)
    truth = 1 + rng.random((2, 40, 48))
    acquired = degrade(truth, FACTORS, "kspace")
    percent, in_noise = consistency_error(
        misfit(truth + 0.02 * np.ptp(acquired), acquired, FACTORS, "kspace"), acquired, FACTORS
    )
    np.testing.assert_allclose(percent, 2.0, atol=1e-3)
    sigma = noise_sd(acquired)
    assert in_noise is not None
    assert sigma is not None
    np.testing.assert_allclose(in_noise[0] * sigma[0], 0.02 * np.ptp(acquired), rtol=1e-3)
    assert consistency_error(np.zeros((1, 10, 10)), acquired[:1, :10, :10], FACTORS)[1] is None, "too small"


def test_noise_is_told_from_the_image() -> None:
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[-1:1:96j, -1:1:96j]
    smooth = 100 * np.exp(-4 * (rows**2 + columns**2))
    found = noise_sd(smooth + rng.normal(scale=2.0, size=(5, 96, 96)))
    np.testing.assert_allclose(found, 2.0, rtol=0.25)


def test_features_of_the_expected_error() -> None:
    flat = np.full((1, 30, 30), 0.5)
    step = flat + (np.arange(30) >= 15)
    spread, residual, edge = error_features([step, step + 0.3], flat)
    np.testing.assert_allclose(spread, 0.15, atol=1e-6)
    assert residual[0, 15, 29] == pytest.approx(1.0)
    assert residual[0, 15, 0] == pytest.approx(0.0)
    assert np.argmax(edge[0, 15]) in (14, 15)
    assert edge[0, 15, 3] == 0


def test_a_calibration_finds_what_made_the_errors_and_nothing_negative() -> None:
    rng = np.random.default_rng(2)
    features = rng.random((3, 4000))
    errors = 2 * features[0] - 0.5 * features[1] + 0.6 + 0.01 * rng.normal(size=4000)
    spread, residual, edge, constant = calibrate(
        [features[:, :1000], features[:, 1000:]], [errors[:1000], errors[1000:]], ["a"]
    ).coefficients
    assert spread == pytest.approx(2, abs=0.1)
    assert residual == 0
    assert min(edge, constant) >= 0
    with pytest.raises(InputError, match="4 numbers"):
        expected_error(features, (1.0, 2.0))


def test_calibrations_are_kept_by_the_hash_of_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "MultiContrastSR_trust.json"
    write_calibrations(file, {"abc": KNOWN})
    assert read_calibrations(file) == {"abc": KNOWN}
    assert read_calibrations(tmp_path / "absent.json") == {}
    monkeypatch.setattr("mcsr.trust_calibration.MODEL_FOLDERS", (tmp_path,))
    assert find_calibration("abc") == KNOWN
    assert find_calibration("other") is None


@pytest.mark.usefixtures("calibrated")
def test_a_job_gives_all_trust_maps(volumes: tuple[Volume, Volume], settings: Settings) -> None:
    target, reference = volumes
    early: list[Result] = []
    result = enhance(target, reference, settings, on_result=early.append)
    assert list(result.maps) == list(SPECS)
    assert not early[0].maps
    assert {entry["family"] for entry in result.provenance["maps"].values()} == {"Trust"}
    for volume in result.maps.values():
        assert volume.grid == result.sr.grid
        assert np.isfinite(volume.array_kji).all()
    alone = enhance(target, None, dataclasses.replace(settings, trust=False))
    bright = float(np.percentile(target.array_kji[target.array_kji > 0.1 * target.array_kji.max()], 99.9))
    influence = result.maps["reference_influence"].array_kji * bright / 100
    np.testing.assert_allclose(influence, result.sr.array_kji - alone.sr.array_kji, atol=2e-6 * bright)
    assert np.abs(influence).max() > 1e-4 * bright
    assert result.maps["expected_error"].array_kji.min() >= 100 * KNOWN.coefficients[-1] - 1e-4
    assert np.abs(result.maps["consistency_error"].array_kji).max() < 5
    assert "expected error is largest" in result.provenance["summary"][1]


@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize("order", SOME_ORDERS[1:3], ids=order_id)
def test_trust_maps_lie_on_the_anatomy_in_every_storage_order(
    volumes: tuple[Volume, Volume], settings: Settings, order: AxisOrder
) -> None:
    expected = enhance(*volumes, settings).maps
    found = enhance(volumes[0].reordered(order), volumes[1], settings).maps
    for name, volume in expected.items():
        largest = max(1.0, float(np.abs(volume.array_kji).max()))
        np.testing.assert_allclose(found[name].array_kji, order.apply(volume.array_kji), atol=2e-3 * largest)


@pytest.mark.usefixtures("calibrated")
def test_trust_maps_can_follow_later(volumes: tuple[Volume, Volume], settings: Settings) -> None:
    memory = Memory()
    first = enhance(*volumes, settings, memory=memory)
    later = draw_maps(*volumes, settings, memory=memory)
    assert list(later.maps) == list(first.maps)
    for name, volume in later.maps.items():
        np.testing.assert_array_equal(volume.array_kji, first.maps[name].array_kji)
    assert later.provenance["summary"] == first.provenance["summary"]


def test_weights_that_were_not_calibrated_give_no_expected_error(
    volumes: tuple[Volume, Volume], settings: Settings
) -> None:
    result = enhance(*volumes, settings)
    assert "expected_error" not in result.maps
    assert any("not calibrated" in words for words in result.warnings)


def test_without_a_reference_or_a_network_there_is_less_to_show(
    volumes: tuple[Volume, Volume], settings: Settings
) -> None:
    alone = enhance(volumes[0], None, settings)
    assert set(alone.maps) == {"consistency_error", "consistency_error_sd"}
    assert alone.provenance["summary"][2].startswith("Reference not used: none was given")
    sinc = enhance(*volumes, Settings(model="sinc", scale=2, trust=True))
    assert "consistency_error" in sinc.maps
    assert sinc.provenance["summary"][2] == "Reference not used: this method uses none."


def test_a_reference_that_does_not_fit_is_not_used(volumes: tuple[Volume, Volume], settings: Settings) -> None:
    settings = dataclasses.replace(settings, trust=False)
    target, reference = volumes
    alone = enhance(target, None, settings)
    right, wrong = enhance(target, reference, settings), enhance(target, mirrored(reference), settings)
    np.testing.assert_array_equal(wrong.sr.array_kji, alone.sr.array_kji)
    assert any("does not fit the target in any slice" in words for words in wrong.warnings)
    assert wrong.provenance["summary"][2].startswith("Reference not used: it does not fit the target in any slice")
    assert right.provenance["summary"][2].startswith("Reference used in all 8 slices")
    assert not np.array_equal(right.sr.array_kji, alone.sr.array_kji)
    forced = enhance(target, mirrored(reference), dataclasses.replace(settings, fallback=False))
    assert not np.array_equal(forced.sr.array_kji, alone.sr.array_kji)
    assert forced.provenance["summary"][2].startswith(
        "Reference used in all slices: whether it fits was not acted upon"
    )
    coarse, _ = simulate(reference, 2)
    told = enhance(target, coarse, dataclasses.replace(settings, fallback=False)).provenance["summary"][2]
    assert "as was asked for; it carries detail to" in told


def test_a_reference_that_fits_in_part_is_used_where_it_does(
    volumes: tuple[Volume, Volume], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, trust=False, consistency=False)
    target, reference = volumes
    right, alone = (enhance(target, r, settings).sr.array_kji for r in (reference, None))
    weights = np.array([1, 1, 1, 1, 0.25, 0, 0, 0])
    fit = ReferenceFit(weights, weights)
    monkeypatch.setattr("mcsr.pipeline_inputs.reference_fit", lambda *_: fit)
    found = enhance(target, reference, settings)
    mixed = weights[:, None, None] * right + (1 - weights[:, None, None]) * alone
    np.testing.assert_allclose(found.sr.array_kji, mixed, atol=1e-3 * np.abs(mixed).max())
    assert "not used in slices 6-8 and used in part in slices 5" in found.provenance["summary"][2]
    assert sum("slices 5" in words or "slices 6-8" in words for words in found.warnings) == 2


def test_observation_is_of_the_result(volumes: tuple[Volume, Volume], settings: Settings) -> None:
    seen = observe(*volumes, settings)
    result = enhance(*volumes, dataclasses.replace(settings, trust=False))
    assert seen.features.shape == (3, *seen.sr.shape)
    assert sorted(seen.sr.shape) == sorted(result.sr.array_kji.shape)
    assert seen.sr.sum() == pytest.approx(float(result.sr.array_kji.sum()), rel=1e-5)


def test_summary_names_numbers_and_never_says_safe() -> None:
    good = {"applied": True, "error_after_clip_percent_rms": 0.04}
    fit = ReferenceFit(np.full(4, 0.3), np.ones(4))
    lit = np.array([True] * 4)
    passed = summarise(Findings(good, fit, "", lit, "", None, ()))
    assert passed[0].startswith("Checks passed: the result, degraded again, differs from the input by 0.04 % ")
    assert passed[1].startswith("Nothing else stood out")
    assert "edge agreement 0.30" in passed[2]
    assert "coarse" not in passed[2]
    bad = summarise(
        Findings(
            {**good, "error_after_clip_percent_rms": 3.0}, fit, "coarse", lit, "", np.array([1, 9, 2, 3.0]), ("a",)
        )
    )
    assert bad[0] == "Checks passed: none."
    assert "slice 2, whose expected error is largest (mean 9.0 %" in bad[1]
    assert "the warning of this job" in bad[1]
    assert bad[2].endswith("; coarse.")
    assert not any("safe" in sentence for sentence in (*passed, *bad))


def test_slices_are_counted_from_one() -> None:
    assert slice_ranges([0, 1, 2, 6]) == "1-3, 7"
    assert slice_ranges([]) == ""
