"""Resampling is exact in space on every kind of grid, and does not alias."""

from __future__ import annotations

import numpy as np
import pytest
from grids import SOME_ORDERS, oblique_grid, order_id
from mcsr import resampling
from mcsr.errors import InputError
from mcsr.geometry import Grid, crop_grid, moved_grid, refine_grid, rigid_matrix
from mcsr.resampling import anti_aliasing_sigma, coverage, resample
from mcsr.volume import Volume

SMOOTH = ("linear", "cubic")


def points_kji(grid: Grid) -> np.ndarray:
    """RAS of every voxel, (K, J, I, 3)."""
    return grid.to_ras(np.argwhere(np.ones(grid.shape_kji))[:, ::-1]).reshape(*grid.shape_kji, 3)


def ramp(grid: Grid) -> np.ndarray:
    """1 per mm along R, 2 along A, -0.5 along S."""
    return points_kji(grid) @ np.array([1.0, 2.0, -0.5]) + 50


def sheared(grid: Grid) -> Grid:
    shear = np.eye(4)
    shear[0, 1], shear[1, 2] = 0.3, -0.2
    return Grid(grid.shape_ijk, grid.ijk_to_ras @ shear)


def source_grid() -> Grid:
    return oblique_grid((60, 50, 40), (0.5, 0.6, 1.1))


def inner_grid(around: Grid, spacing_mm: tuple[float, float, float] = (0.7, 0.6, 1.0)) -> Grid:
    """A grid of another obliqueness, well inside the box of `around`."""
    grid = oblique_grid((12, 11, 7), spacing_mm, (-5.0, 4.0, -9.0))
    return moved_grid(grid, rigid_matrix((0, 0, 0), around.centre_ras - grid.centre_ras, np.zeros(3)))


@pytest.mark.parametrize("interpolation", SMOOTH)
@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_a_ramp_in_space_is_reproduced(order, interpolation):
    grid = source_grid()
    source = Volume(ramp(grid), grid.ijk_to_ras).reordered(order)
    output = inner_grid(grid)
    result = resample(source, output, interpolation)
    assert result.grid == output
    assert np.abs(result.array_kji - ramp(output)).max() < 1e-3


@pytest.mark.parametrize("interpolation", SMOOTH)
@pytest.mark.parametrize("spacing_mm", [(0.2, 0.3, 0.4), (1.5, 1.5, 1.1)], ids=["finer", "coarser"])
def test_a_ramp_on_a_sheared_grid_is_reproduced_finer_and_coarser(spacing_mm, interpolation):
    grid = sheared(source_grid())
    output = inner_grid(grid, spacing_mm)
    assert coverage(grid, output).all()
    result = resample(Volume(ramp(grid), grid.ijk_to_ras), output, interpolation)
    assert np.abs(result.array_kji - ramp(output)).max() < 1e-3


@pytest.mark.parametrize("interpolation", ["nearest", *SMOOTH])
def test_the_same_grid_gives_the_same_voxels(interpolation):
    grid = oblique_grid()
    array = np.random.default_rng(0).uniform(0, 100, grid.shape_kji).astype(np.float32)
    result = resample(Volume(array, grid.ijk_to_ras), grid, interpolation)
    np.testing.assert_allclose(result.array_kji, array, atol=2e-3)


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_voxels_that_lie_on_those_of_the_source_are_copied_in_any_order(order, monkeypatch):
    """Sticking out on some sides, ending early on others: what interpolation gives, which is then not needed."""
    grid = oblique_grid((14, 13, 12))
    source = Volume(np.random.default_rng(1).uniform(1, 100, grid.shape_kji), grid.ijk_to_ras).reordered(order)
    output = crop_grid(grid, (3, -2, 0), (14, 9, 15))
    monkeypatch.setattr(resampling, "_SAME_PLACE", -1.0)
    interpolated = resample(source, output).array_kji
    monkeypatch.undo()
    monkeypatch.setattr(resampling, "_sampled", None)
    copied = resample(source, output).array_kji
    np.testing.assert_allclose(copied, interpolated, atol=2e-3)
    inside = coverage(source.grid, output)
    assert (copied[~inside] == 0).all()
    assert np.isin(copied[inside], source.array_kji).all()


@pytest.mark.parametrize("motion", ["shift", "turn", "stretch"])
def test_voxels_beside_those_of_the_source_are_not_copied(motion):
    grid = oblique_grid((14, 13, 12))
    source = Volume(ramp(grid), grid.ijk_to_ras)
    change = {
        "shift": rigid_matrix((0, 0, 0), np.array([2e-3, 0, 0]), np.zeros(3)),
        "turn": rigid_matrix((0, 0, 0.01), np.zeros(3), grid.centre_ras),
        "stretch": np.diag([1.0002, 1, 1, 1]),
    }[motion]
    output = Grid(grid.shape_ijk, change @ grid.ijk_to_ras)
    inner = (slice(2, -2),) * 3
    moved = np.abs(ramp(output) - ramp(grid))[inner].max()
    assert np.abs(resample(source, output, "linear").array_kji - ramp(output))[inner].max() < moved / 2


def test_nearest_copies_the_voxel_that_holds_the_point():
    grid = oblique_grid((5, 4, 3))
    array = np.arange(60, dtype=np.float32).reshape(grid.shape_kji)
    result = resample(Volume(array, grid.ijk_to_ras), refine_grid(grid, (3, 1, 3)), "nearest")
    assert np.array_equal(result.array_kji, np.repeat(np.repeat(array, 3, axis=0), 3, axis=2))


@pytest.mark.parametrize("interpolation", ["nearest", *SMOOTH])
def test_outside_the_box_is_zero_and_the_box_is_what_coverage_says(interpolation):
    grid = oblique_grid((24, 20, 6))
    output = crop_grid(refine_grid(grid, (2, 2, 2)), (-6, -5, -4), (60, 50, 20))
    result = resample(Volume(np.full(grid.shape_kji, 7.0), grid.ijk_to_ras), output, interpolation)
    box = np.zeros(output.shape_kji, dtype=bool)
    box[4:16, 5:45, 6:54] = True
    assert np.array_equal(coverage(grid, output), box)
    np.testing.assert_allclose(result.array_kji, np.where(box, 7.0, 0.0), atol=1e-4)


@pytest.mark.parametrize("interpolation", ["nearest", *SMOOTH])
def test_the_faces_of_a_box_belong_to_it(interpolation):
    grid = oblique_grid((24, 20, 6))
    on_faces = moved_grid(grid, rigid_matrix((0, 0, 0), grid.to_ras((-0.5,) * 3) - grid.to_ras((0,) * 3), np.zeros(3)))
    output = crop_grid(on_faces, (0, 0, 0), (25, 21, 7))
    assert coverage(grid, output).all()
    result = resample(Volume(np.full(grid.shape_kji, 7.0), grid.ijk_to_ras), output, interpolation)
    np.testing.assert_allclose(result.array_kji, 7, atol=1e-4)


@pytest.mark.parametrize("interpolation", ["nearest", *SMOOTH])
@pytest.mark.parametrize("spacing_mm", [(0.5, 0.6, 0.8), (1.5, 1.5, 1.1)], ids=["finer", "coarser"])
def test_the_parts_in_which_a_large_volume_is_resampled_do_not_show(spacing_mm, interpolation, monkeypatch):
    grid = source_grid()
    source = Volume(np.random.default_rng(0).uniform(0, 100, grid.shape_kji), grid.ijk_to_ras)
    output = inner_grid(grid, spacing_mm)
    at_once = resample(source, output, interpolation).array_kji
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", source.array_kji.size // 5)
    np.testing.assert_allclose(resample(source, output, interpolation).array_kji, at_once, atol=1e-3)


@pytest.mark.parametrize("interpolation", ["nearest", *SMOOTH])
@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_fills_its_thickness_and_no_more(axis, interpolation):
    shape, spacing = [9, 8, 7], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 1, 4.0
    grid = Grid(tuple(shape), np.diag([*spacing, 1.0]))
    values = ramp(grid).astype(np.float32)
    # Samples 0.5 mm apart through the slice, from 3.25 mm before its centre to 3.25 mm behind it.
    output_shape, step = list(shape), np.ones(3)
    output_shape[axis], step[axis] = 14, 0.5
    matrix = np.diag([*step, 1.0])
    matrix[axis, 3] = -3.25
    result = np.moveaxis(
        resample(Volume(values, grid.ijk_to_ras), Grid(tuple(output_shape), matrix), interpolation).array_kji,
        2 - axis,
        0,
    )
    in_slice = np.abs(np.arange(14) * 0.5 - 3.25) <= 2
    assert not result[~in_slice].any()
    np.testing.assert_allclose(result[in_slice], np.broadcast_to(values.squeeze(), (8, *result.shape[1:])), atol=1e-3)


def test_detail_finer_than_the_output_grid_is_removed_not_aliased():
    grid = Grid((96, 8, 8), np.diag([0.3, 1.0, 1.0, 1.0]))
    x_mm = points_kji(grid)[..., 0]
    # 0.7 mm per cycle cannot be held at 0.9 mm spacing; 9 mm per cycle can.
    fine, coarse = np.sin(2 * np.pi * x_mm / 0.7), np.sin(2 * np.pi * x_mm / 9)
    output = Grid((24, 8, 8), np.array([[0.9, 0, 0, 3.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    detail = resample(Volume(fine, grid.ijk_to_ras), output).array_kji
    structure = resample(Volume(coarse, grid.ijk_to_ras), output).array_kji
    assert np.abs(resample(Volume(fine, grid.ijk_to_ras), output, "nearest").array_kji).max() > 0.9
    assert np.abs(detail).max() < 0.1
    np.testing.assert_allclose(structure, np.sin(2 * np.pi * points_kji(output)[..., 0] / 9), atol=0.06)


def test_the_low_pass_follows_the_ratio_of_spacings_per_axis():
    source = Grid((40, 40, 40), np.diag([0.3, 1.0, 1.0, 1.0]))
    output = Grid((20, 40, 40), np.diag([0.6, 1.1, 0.5, 1.0]))
    # Twice the spacing: a voxel of full width 2 from one of full width 1 (FWHM = 2.355 sigma).
    for order in SOME_ORDERS:
        sigma = anti_aliasing_sigma(source, order.apply_grid(output))
        np.testing.assert_allclose(sigma, [np.sqrt(3) / 2.3548, 0, 0], atol=1e-4)


def test_an_oblique_thick_slice_does_not_blur_the_fine_axes_of_the_source():
    source = Grid((40, 40, 40), np.diag([0.6, 0.6, 3.0, 1.0]))
    tilted = Grid((40, 40, 40), rigid_matrix((12, 0, 0), np.zeros(3), np.zeros(3)) @ source.ijk_to_ras)
    assert not anti_aliasing_sigma(source, tilted)[:2].any()


def test_cubic_overshoot_stays_above_zero_for_magnitudes_and_above_the_minimum_for_signed_images():
    grid = Grid((16, 8, 8), np.eye(4))
    step = np.zeros(grid.shape_kji)
    step[..., 8:] = 100
    output = refine_grid(grid, (4, 1, 1))
    magnitude = resample(Volume(step, grid.ijk_to_ras), output).array_kji
    signed = resample(Volume(step - 60, grid.ijk_to_ras), output).array_kji
    assert magnitude.min() == 0
    assert magnitude.max() > 105
    assert signed.min() == -60


def test_an_unknown_interpolation_is_refused_with_the_known_ones():
    volume = Volume(np.ones((4, 4, 4)), np.eye(4))
    with pytest.raises(InputError, match=r"lanczos.*cubic, linear, nearest"):
        resample(volume, volume.grid, "lanczos")


@pytest.mark.parametrize("shift_mm", [(0.0, 0.0, 0.0), (9.0, -7.0, 12.0), (500.0, 0.0, 0.0)])
def test_coverage_is_what_every_voxel_centre_says(shift_mm):
    grid = source_grid()
    output = oblique_grid((40, 30, 25), (1.0, 1.2, 1.5), (-5.0, 4.0, -9.0))
    output = moved_grid(output, rigid_matrix((0, 0, 0), grid.centre_ras - output.centre_ras + shift_mm, np.zeros(3)))
    index = grid.to_ijk(points_kji(output))
    box = ((index >= -0.5) & (index <= np.array(grid.shape_ijk) - 0.5)).all(axis=-1)
    assert np.array_equal(coverage(grid, output), box)
    assert box.any() == (shift_mm[0] < 100)
