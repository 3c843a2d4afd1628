"""What the lesion study measures, on results made by hand and on one that a baseline gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mcsr.cli import app
from mcsr.degradation import degrade, upsample
from mcsr.evaluation_lesions import (
    CONTRASTS,
    DIAMETERS_MM,
    Effect,
    Lesion,
    Scene,
    kept,
    leaked,
    lesion_scene,
    markdown,
    measure,
    tissue_level,
    with_lesions,
)
from mcsr.geometry import Grid
from mcsr.job import Settings
from mcsr.phantom import tissue_fractions
from mcsr.volume import Volume
from typer.testing import CliRunner

GRID = Grid((60, 50, 2), np.diag([-0.8, -0.8, 4.0, 1.0]))
LESION = Lesion((1, 20, 30), 4.0, 0.2)
LEVELS = (300.0, 1000.0)


def flat(level: float) -> Volume:
    """Tissue of one shade."""
    return Volume(np.full(GRID.shape_kji, level, dtype=np.float32), GRID.ijk_to_ras)


def inserted(level: float, lesion: Lesion = LESION) -> np.ndarray:
    """What a lesion changes in such tissue."""
    return with_lesions(flat(level), [lesion]).array_kji - level


@pytest.fixture(scope="module")
def scene() -> Scene:
    return lesion_scene(slices=1, pixel_mm=1.2)


def test_a_lesion_has_its_size_and_contrast_in_its_slice_alone() -> None:
    change = inserted(300.0)
    assert not change[0].any()
    assert change.max() == pytest.approx(0.2 * 300)
    assert np.count_nonzero(change[1] >= 30) * 0.8**2 == pytest.approx(np.pi * 2.0**2, rel=0.15)
    assert change[1, 20, 30 + 3] == pytest.approx(60 * 0.1)  # 2.4 mm from the middle, 0.4 mm outside the edge


@pytest.mark.parametrize(("share", "percent"), [(1.0, 100.0), (0.25, 25.0), (0.0, 0.0), (-0.5, -50.0)])
def test_kept_is_the_share_of_the_contrast_in_the_result(share: float, percent: float) -> None:
    for lesion in (LESION, Lesion((0, 25, 25), 2.0, -0.5)):
        truth = inserted(300.0, lesion)
        assert kept(share * truth, truth, lesion, GRID) == pytest.approx(percent)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_result_that_copies_the_lesion_of_the_reference_leaks_all_of_it(sign: int) -> None:
    """In the target's shades: 20 % of the reference's tissue becomes 20 % of the target's, brighter or darker."""
    found = leaked(sign * inserted(LEVELS[0]), LEVELS, inserted(LEVELS[1]), LESION, GRID, margin_mm=1.6)
    assert found == pytest.approx((100, 100), abs=0.01)


def test_nothing_and_a_tenth_leaked() -> None:
    reference = inserted(LEVELS[1])
    assert leaked(np.zeros(GRID.shape_kji), LEVELS, reference, LESION, GRID, 1.6) == (0, 0)
    tenth = 0.1 * inserted(LEVELS[0])
    assert leaked(tenth, LEVELS, reference, LESION, GRID, 1.6) == pytest.approx((10, 10), abs=0.01)


def test_an_outline_is_seen_though_the_core_is_as_it_was() -> None:
    outline = np.zeros(GRID.shape_kji)
    outline[1, 20, 30 + 4] = 0.2 * LEVELS[0]  # 3.2 mm from the middle, 1.2 mm outside the edge
    reference = inserted(LEVELS[1])
    assert leaked(outline, LEVELS, reference, LESION, GRID, 1.6) == pytest.approx((0, 100), abs=0.01)
    assert leaked(outline, LEVELS, reference, LESION, GRID, 0.8) == (0, 0)


def test_the_scene_has_every_lesion_in_white_matter_and_apart(scene: Scene) -> None:
    grid, lesions = scene.target.grid, scene.lesions
    kinds = {(lesion.diameter_mm, lesion.contrast) for lesion in lesions}
    assert len(lesions) == len(kinds) == len(DIAMETERS_MM) * len(CONTRASTS)
    k, j, i = np.indices(grid.shape_kji)
    white = tissue_fractions(grid.to_ras(np.stack([i, j, k], axis=-1)), lesions=False)[..., 1]
    for lesion in lesions:
        assert white[0][lesion.distance_mm(grid) <= 1].min() > 0.7
    places = 1.2 * np.array([lesion.place_kji for lesion in lesions])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert gaps[gaps > 0].min() > 12
    for plain, changed in ((scene.target, scene.target_with), (scene.reference, scene.reference_with)):
        for lesion in lesions:
            row, column = lesion.place_kji[1:]
            ratio = (changed.array_kji - plain.array_kji)[0, row, column] / tissue_level(plain, lesion)
            assert ratio == pytest.approx(lesion.contrast)


def test_sinc_keeps_what_was_acquired_and_leaks_nothing(scene: Scene) -> None:
    ((model, scale, effects),) = measure(scene, [("sinc", 4)], Settings(device="cpu"))
    assert (model, scale, len(effects)) == ("sinc", 4, 12)
    change = scene.target_with.array_kji - scene.target.array_kji
    acquired = upsample(degrade(change, (1, 4, 4), signed=True), (1, 4, 4))
    for effect in effects:
        assert (effect.leaked, effect.leaked_most) == (0, 0)
        assert effect.kept == pytest.approx(effect.kept_by_sinc, abs=0.01)
        assert effect.kept == pytest.approx(kept(acquired, change, effect.lesion, scene.target.grid), abs=1)
    by_size = [np.mean([e.kept for e in effects if e.lesion.diameter_mm == size]) for size in (2, 4, 8)]
    assert 5 < by_size[0] < 30 < by_size[1] < 60 < by_size[2] < 95


def test_a_network_is_measured_with_the_lesions_in_the_target_and_in_the_reference(untrained_x2: Path) -> None:
    scene = lesion_scene(slices=1, pixel_mm=2.4)
    settings = Settings(device="cpu", weights=untrained_x2)
    seen: list[float] = []
    ((model, scale, effects),) = measure(
        scene, [("dcamsr-s", 2)], settings, progress=lambda event: seen.append(event.fraction)
    )
    assert (model, scale) == ("dcamsr-s", 2)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    # Random weights do as they like above the acquired band; within it the result is consistent.
    assert all(effect.kept > 40 for effect in effects if effect.lesion.diameter_mm == 8)
    assert all(effect.leaked_most > 0 for effect in effects)


def test_the_table_has_means_and_worst(scene: Scene) -> None:
    effects = [Effect(Lesion((0, 0, 0), size, 0.2), size, 2 * size, 1.0, 3.0) for size in DIAMETERS_MM]
    effects += [Effect(Lesion((0, 0, 0), size, -0.2), size + 10, 3 * size, 2.0, 7.0) for size in DIAMETERS_MM]
    caption, _, _, _, *rows = markdown(scene, {("dcamsr-s", 4): effects}).splitlines()
    assert "seed 0: T2 helped by T1, 1 axial slices with pixels of 1.2 mm, 12 lesions" in caption
    assert rows[0] == "| dcamsr-s | x4 | 2 | 7 | 2 | 5 | 4 | 1.5 | 2.0 | 5.0 | 7.0 |"
    assert [row.split("|")[3].strip() for row in rows] == ["2", "4", "8"]


def test_a_model_without_weights_is_refused_in_one_sentence() -> None:
    result = CliRunner().invoke(app, ["lesions", "--models", "nothing"])
    assert result.exit_code == 4
    assert "No weights are installed for nothing" in result.output
