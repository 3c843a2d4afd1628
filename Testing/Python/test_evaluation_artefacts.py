"""What is done to a reference is what is said."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.evaluation_artefacts import (
    KEPT_COLUMNS,
    VOID_MM,
    cropped,
    resampled,
    with_inversion,
    with_motion,
    with_void,
)
from mcsr.evaluation_conditions import CONDITIONS, GROUPS, turned
from mcsr.geometry import Grid
from mcsr.intensity import foreground
from mcsr.volume import Volume
from scenes import scene


@pytest.fixture(scope="module")
def volume() -> Volume:
    return scene("T2", Grid((90, 101, 3), np.diag([1.2, 0.9, 4, 1])))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_motion_leaves_ghosts_and_the_patient_where_they_were(volume: Volume) -> None:
    spoilt = with_motion(volume, 0)
    assert spoilt.grid == volume.grid
    assert 0.6 < correlation(spoilt.array_kji, volume.array_kji) < 0.97
    air = ~foreground(volume.array_kji)
    assert spoilt.array_kji[air].mean() > 5 * volume.array_kji[air].mean()
    assert np.array_equal(with_motion(volume, 0).array_kji, spoilt.array_kji)
    assert not np.array_equal(with_motion(volume, 1).array_kji, spoilt.array_kji)
    rms = np.sqrt(np.mean(spoilt.array_kji**2)), np.sqrt(np.mean(volume.array_kji**2))
    assert rms[0] == pytest.approx(rms[1], rel=1e-3), "shifts of its lines keep an image's energy, up to its phase"


def test_a_void_is_a_ball_of_its_size_in_millimetres(volume: Volume) -> None:
    full = volume.with_array(np.full_like(volume.array_kji, 100.0))
    spoilt = with_void(full, 2).array_kji
    holes = (spoilt == 0).sum(axis=(1, 2)) * 1.2 * 0.9
    assert 0.2 * np.pi * VOID_MM**2 < holes.max() <= 1.02 * np.pi * VOID_MM**2
    assert spoilt.max() == pytest.approx(200, rel=0.05)
    assert set(np.unique(spoilt[spoilt < 100])) == {0}
    inside = with_void(volume, 2)
    assert (foreground(volume.array_kji) & (inside.array_kji == 0)).sum() > 200, "it lies in the head"


def test_a_cropped_reference_lies_where_it_lay(volume: Volume) -> None:
    part = cropped(volume)
    assert part.grid.shape_ijk == (round(KEPT_COLUMNS * 90), 101, 3)
    assert np.allclose(part.grid.ijk_to_ras, volume.grid.ijk_to_ras)
    assert np.array_equal(part.array_kji, volume.array_kji[..., :54])


def test_a_resampled_reference_has_lost_detail_and_nothing_else(volume: Volume) -> None:
    coarse = resampled(volume)
    assert coarse.grid == volume.grid
    assert correlation(coarse.array_kji[1], volume.array_kji[1]) > 0.98
    stripes = volume.with_array(np.where(np.indices(volume.array_kji.shape)[2] % 2, 100, 0).astype(np.float32))
    assert resampled(stripes).array_kji[1, :, 9:-9].std() < 0.2 * stripes.array_kji.std()


def test_inversion_keeps_air_dark_and_turns_tissue_round(volume: Volume) -> None:
    turned_round = with_inversion(volume).array_kji
    tissue = volume.array_kji > 0.3 * volume.array_kji.max()
    assert correlation(turned_round[tissue], volume.array_kji[tissue]) < -0.9
    assert turned_round[volume.array_kji == 0].max(initial=0) == 0


def test_another_anatomy_is_turned_about_the_left_right_axis(volume: Volume) -> None:
    before, after = volume.grid, turned(volume).grid
    assert np.allclose(np.abs(after.ijk_to_ras[:3, 0]), np.abs(before.ijk_to_ras[:3, 0])), "left stays left"
    assert np.allclose(np.abs(after.ijk_to_ras[:3, 1]), [0, 0, 0.9]), "rows now run up and down"


def test_groups_are_of_known_conditions() -> None:
    for names in GROUPS.values():
        assert set(names) <= set(CONDITIONS)
    assert {"motion", "void", "cropped", "resampled", "inverted", "anatomy"} <= set(GROUPS["wrong"])
