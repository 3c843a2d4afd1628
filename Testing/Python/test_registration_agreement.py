"""The second measure of a registration: edges on edges, where both images are, and how far the reference may move."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr import registration
from mcsr.geometry import Grid, rigid_matrix
from mcsr.registration_agreement import NOTICED, Sampled, correlation, correlations, edges, eroded, slack_mm
from mcsr.resampling import resample
from mcsr.volume import Volume
from test_registration import carried, centred, random_motion


def gradient_correlation(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    return correlation(edges(a)[mask], edges(b)[mask])


def test_gradient_correlation_sees_edges_not_contrast():
    image = np.random.default_rng(0).uniform(size=(8, 9, 10))
    everywhere = np.ones(image.shape, dtype=bool)
    assert gradient_correlation(image, image, everywhere) == pytest.approx(1)
    assert gradient_correlation(image, 5 - 3 * image, everywhere) == pytest.approx(1)
    assert abs(gradient_correlation(image, image[::-1, ::-1], everywhere)) < 0.2


def test_gradient_correlation_looks_inside_the_mask_only():
    a, b = np.random.default_rng(0).uniform(size=(2, 12, 12, 12))
    b[:6] = a[:6]
    mask = np.zeros(a.shape, dtype=bool)
    mask[:5] = True
    assert gradient_correlation(a, b, mask) == pytest.approx(1)
    assert gradient_correlation(a, b, ~mask) < 0.5


def test_gradient_correlation_without_edges_or_voxels_is_zero():
    image = np.random.default_rng(0).uniform(size=(4, 4, 4))
    assert gradient_correlation(image, np.ones((4, 4, 4)), np.ones((4, 4, 4), dtype=bool)) == 0
    assert gradient_correlation(image, image, np.zeros((4, 4, 4), dtype=bool)) == 0


def boxed(array: np.ndarray, voxel_mm: float = 1.5) -> Sampled:
    volume = Volume(array, centred(Grid(array.shape[::-1], np.diag([voxel_mm] * 3 + [1.0]))).ijk_to_ras)
    return Sampled(volume, np.ones(array.shape, dtype=bool))


def of_balls(stretch_kji: tuple[float, float, float]) -> np.ndarray:
    """(28, 28, 28), soft balls drawn out along the axes."""
    rng, points = np.random.default_rng(3), np.stack(np.meshgrid(*[np.arange(28.0)] * 3, indexing="ij"), axis=-1)
    centres = rng.uniform(6, 22, (8, 3))
    return sum(np.exp(-np.square((points - c) / (8 * np.array(stretch_kji))).sum(axis=-1)) for c in centres) + 0.05


def test_agreement_is_measured_where_both_images_are():
    fixed = boxed(of_balls((1, 1, 1)))
    half = fixed.volume.cropped((0, 0, 0), (14, 28, 28))
    before, after, kept = correlations(fixed, half, np.eye(4))
    assert before == pytest.approx(1, abs=1e-5)
    assert after == pytest.approx(1, abs=1e-5)
    assert kept == 1


@pytest.mark.parametrize("axis", range(3))
def test_slack_is_the_way_to_a_noticed_loss_where_it_is_longest(axis):
    array = of_balls(tuple(2.0 if a == 2 - axis else 0.8 for a in range(3)))
    fixed, grid = boxed(array), boxed(array).volume.grid
    slack = slack_mm(fixed, fixed.volume, np.eye(4), grid.centre_ras, 4.0)
    inside = eroded(eroded(eroded(fixed.covered)))  # the rim of what was moved does not reach

    def loss(direction: int) -> float:
        way = rigid_matrix((0, 0, 0), slack * np.eye(3)[direction], np.zeros(3))
        there = resample(carried(fixed.volume, way), grid, "linear").array_kji
        return 1 - correlation(edges(array)[inside], edges(there)[inside])

    losses = [loss(direction) for direction in range(3)]
    assert int(np.argmin(losses)) == axis
    # A voxel is long beside these balls: the parabola through it tells a little less than the way.
    assert NOTICED / 3 < losses[axis] < 1.2 * NOTICED


def test_slack_of_a_turn_is_told_at_the_radius():
    """An almost round thing shows every shift, and a turn late: the further out, the longer its way until then."""
    k, j, i = np.indices((28, 28, 28)) - 13.5
    fixed = boxed(1.0 + np.cos(np.sqrt(k**2 + 1.2 * j**2 + 1.4 * i**2)) * np.exp(-(k**2 + j**2 + i**2) / 60))
    centre = fixed.volume.grid.centre_ras
    near, far = (slack_mm(fixed, fixed.volume, np.eye(4), centre, radius) for radius in (40.0, 80.0))
    assert far == pytest.approx(2 * near, rel=0.1)


def test_slack_does_not_depend_on_where_the_pair_lies_or_on_contrast():
    fixed, centre = boxed(of_balls((1, 1, 1))), boxed(of_balls((1, 1, 1))).volume.grid.centre_ras
    slack = slack_mm(fixed, fixed.volume, np.eye(4), centre, 8.0)
    motion = random_motion(4, centre, 15, 20)
    away = carried(fixed.volume, np.linalg.inv(motion))
    inverted = Volume(2 - away.array_kji, away.ijk_to_ras)
    assert slack_mm(fixed, inverted, motion, centre, 8.0) == pytest.approx(slack, rel=0.02)


def test_slack_is_infinite_where_nothing_tells_one_place_from_another():
    rods = np.broadcast_to(of_balls((1, 1, 1))[14], (28, 28, 28)).copy()
    for array in (rods, np.ones((28, 28, 28)), np.zeros((28, 28, 28))):
        fixed = boxed(array)
        assert slack_mm(fixed, fixed.volume, np.eye(4), fixed.volume.grid.centre_ras, 8.0) > 100


@pytest.mark.parametrize(
    ("coarse", "fine", "told", "asked"),
    [(1.0, np.inf, 1.0, [2.0]), (np.inf, 1.5, 1.5, [2.0, 1.0]), (9.0, 5.0, 5.0, [2.0, 1.0])],
)
def test_slack_is_asked_of_fine_voxels_where_coarse_ones_do_not_tell(coarse, fine, told, asked, monkeypatch):
    levels = [boxed(of_balls((1, 1, 1)), voxel_mm) for voxel_mm in (4.0, 2.0, 1.0)]
    measured = []

    def slack(fixed: Sampled, reference: Volume, *_: object) -> float:
        voxel_mm = float(fixed.volume.grid.spacing_ijk_mm[0])
        assert float(reference.grid.spacing_ijk_mm[0]) == voxel_mm
        measured.append(voxel_mm)
        return {2.0: coarse, 1.0: fine}[voxel_mm]

    monkeypatch.setattr(registration, "slack_mm", slack)
    job = registration._Job(0, np.zeros(3), 10.0, lambda done: None, lambda: False)
    assert registration._slack_mm(levels, levels, np.eye(4), job) == told
    assert measured == asked


def test_the_rim_of_a_field_of_view_is_eroded_on_every_side():
    mask, inner = np.zeros((2, 6, 7, 8), dtype=bool)
    mask[1:5, 1:6, 2:], inner[2:4, 2:5, 3:7] = True, True
    assert np.array_equal(eroded(mask), inner)
