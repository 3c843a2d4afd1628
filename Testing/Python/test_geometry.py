"""Grids and storage orders: nothing moves in space."""

from __future__ import annotations

import numpy as np
import pytest
from grids import ALL_ORDERS, oblique_grid, order_id
from mcsr.errors import GeometryError
from mcsr.geometry import (
    PLANES,
    RAS_FROM_LPS,
    AxisOrder,
    Grid,
    coarsen_grid,
    crop_grid,
    display_order,
    moved_grid,
    overlap_fraction,
    plane_name,
    refine_grid,
    rigid_matrix,
    same_space,
    slice_axis,
    slice_axis_of_plane,
    transform_points,
)
from mcsr.volume import Volume, crop_to_grid


def test_a_grid_that_can_be_worked_out_by_hand() -> None:
    """Columns run to A, rows to L, slices to S."""
    grid = Grid((4, 5, 6), np.array([[0, -3, 0, 10], [2, 0, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]))
    assert grid.shape_kji == (6, 5, 4)
    assert grid.axis_codes == "ALS"
    np.testing.assert_allclose(grid.spacing_ijk_mm, (2, 3, 4))
    np.testing.assert_allclose(grid.centre_ras, (4, 23, 40))
    np.testing.assert_allclose(grid.ras_bounds(), [(-3.5, 19, 28), (11.5, 27, 52)])
    np.testing.assert_allclose(grid.to_ras((1, 2, 3)), (4, 22, 42))
    np.testing.assert_allclose(transform_points(RAS_FROM_LPS, grid.to_ras((1, 2, 3))), (-4, -22, 42))


def test_voxels_of_any_size_are_welcome() -> None:
    for size_mm in (0.002, 50.0):
        np.testing.assert_allclose(Grid((4, 4, 4), np.diag([size_mm] * 3 + [1])).spacing_ijk_mm, size_mm)


@pytest.mark.parametrize("order", ALL_ORDERS, ids=order_id)
@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 4, 1), (1, 1, 3), (3, 1, 2)])
def test_refining_keeps_the_box_and_coarsening_undoes_it(order: AxisOrder, factors: tuple[int, int, int]) -> None:
    grid = order.apply_grid(oblique_grid())
    fine = refine_grid(grid, factors)
    np.testing.assert_allclose(fine.box_corners_ras(), grid.box_corners_ras(), atol=1e-10)
    np.testing.assert_allclose(fine.ras_bounds(), grid.ras_bounds(), atol=1e-10)
    np.testing.assert_allclose(fine.spacing_ijk_mm * factors, grid.spacing_ijk_mm)
    assert same_space(coarsen_grid(fine, factors), grid, 1e-10)


def test_refined_first_centre_lies_a_quarter_and_three_eighths_voxel_towards_the_corner() -> None:
    grid = oblique_grid()
    fine = refine_grid(grid, (2, 4, 1))
    np.testing.assert_allclose(grid.to_ijk(fine.to_ras((0, 0, 0))), (-0.25, -0.375, 0), atol=1e-10)


def test_corner_sampling_keeps_the_first_voxel_in_place() -> None:
    grid = oblique_grid()
    coarse = coarsen_grid(grid, (4, 4, 1), "corner")
    np.testing.assert_allclose(coarse.to_ras((0, 0, 0)), grid.to_ras((0, 0, 0)))
    np.testing.assert_allclose(coarse.to_ras((1, 2, 3)), grid.to_ras((4, 8, 3)))


@pytest.mark.parametrize("order", ALL_ORDERS, ids=order_id)
def test_reordering_keeps_every_voxel_at_its_place(order: AxisOrder) -> None:
    grid = oblique_grid((3, 4, 5))
    volume = Volume(np.arange(60.0).reshape(5, 4, 3), grid.ijk_to_ras)
    stored = volume.reordered(order)
    for value in (0, 17, 43, 59):
        k, j, i = np.argwhere(volume.array_kji == value)[0]
        k2, j2, i2 = np.argwhere(stored.array_kji == value)[0]
        np.testing.assert_allclose(stored.grid.to_ras((i2, j2, k2)), grid.to_ras((i, j, k)), atol=1e-9)
    back = stored.reordered(order.inverse())
    np.testing.assert_array_equal(back.array_kji, volume.array_kji)
    assert same_space(back.grid, grid, 1e-9)


@pytest.mark.parametrize("order", ALL_ORDERS, ids=order_id)
def test_display_orientation_is_the_same_whatever_the_storage_order(order: AxisOrder) -> None:
    grid = oblique_grid((5, 4, 3))
    volume = Volume(np.random.default_rng(0).random((3, 4, 5)), grid.ijk_to_ras)
    stored = volume.reordered(order)
    shown = stored.reordered(display_order(stored.grid, slice_axis(stored.grid)))
    assert shown.grid.axis_codes == "LPS"
    np.testing.assert_array_equal(shown.array_kji, volume.array_kji)


@pytest.mark.parametrize(("plane", "codes"), [("axial", "LPS"), ("sagittal", "PIL"), ("coronal", "LIP")])
def test_display_orientation_of_each_plane(plane: str, codes: str) -> None:
    grid = oblique_grid((4, 4, 4), (1.0, 1.0, 1.0))
    axis = slice_axis_of_plane(grid, plane)
    assert plane_name(grid, axis) == plane
    assert display_order(grid, axis).apply_grid(grid).axis_codes == codes


def test_every_axis_of_a_steeply_oblique_grid_has_a_plane_of_its_own() -> None:
    grid = oblique_grid(rotation_deg=(45, 35, 10))
    assert list(np.abs(grid.directions).argmax(axis=0)) == [0, 1, 1], "two axes lie nearest to A"
    assert [plane_name(grid, axis) for axis in range(3)] == list(PLANES)


def test_slice_axis_is_the_coarsest_a_tie_takes_the_plane_and_one_slice_is_the_slice() -> None:
    assert slice_axis(oblique_grid(spacing_mm=(3.0, 0.5, 0.5))) == 0
    assert slice_axis(oblique_grid(spacing_mm=(1.0, 1.0, 1.05))) == 2
    assert slice_axis(oblique_grid(spacing_mm=(4.0, 1.0, 4.0))) == 1
    assert slice_axis(oblique_grid(spacing_mm=(1.0, 1.0, 1.05)), tie_plane="coronal") == 1
    assert slice_axis(oblique_grid((1, 20, 20), (1.0, 1.0, 3.0))) == 0
    assert slice_axis(oblique_grid(spacing_mm=(3.0, 0.5, 0.5)), "axial") == 2
    with pytest.raises(GeometryError, match="Unknown plane 'transverse'"):
        slice_axis(oblique_grid(), "transverse")


def test_crop_keeps_voxels_in_place() -> None:
    grid = oblique_grid()
    cropped = crop_grid(grid, (3, -2, 1), (5, 6, 2))
    np.testing.assert_allclose(cropped.to_ras((0, 0, 0)), grid.to_ras((3, -2, 1)))


def test_rigid_matrix_turns_about_the_centre_and_keeps_lengths() -> None:
    centre = np.array([10.0, -20.0, 30.0])
    matrix = rigid_matrix((5.0, 10.0, -15.0), np.array([1.0, 2.0, 3.0]), centre)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre + np.array([1.0, 2.0, 3.0]))
    # Ninety degrees about S take R to A.
    np.testing.assert_allclose(rigid_matrix((0, 0, 90), np.zeros(3), np.zeros(3))[:3, 0], [0, 1, 0], atol=1e-12)
    # About R, A goes to S, where it stays as the rest turns about S.
    np.testing.assert_allclose(rigid_matrix((90, 0, 90), np.zeros(3), np.zeros(3))[:3, 1], [0, 0, 1], atol=1e-12)


def test_overlap_fraction_of_a_shifted_box() -> None:
    grid = oblique_grid()
    axis_i = grid.directions[:, 0] * grid.spacing_ijk_mm[0] * grid.shape_ijk[0]
    for fraction in (0.0, 0.25, 1.0):
        shift = np.eye(4)
        shift[:3, 3] = axis_i * (1 - fraction)
        assert overlap_fraction(grid, moved_grid(grid, shift)) == pytest.approx(fraction, abs=0.05)
    assert overlap_fraction(grid, grid) == 1


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 4)),
        np.diag([1, 1, 0, 1.0]),
        np.full((4, 4), np.nan),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["zeros", "flat", "nan", "parallel"],
)
def test_degenerate_matrices_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Grid((4, 4, 4), matrix)


def test_crop_to_grid_finds_the_voxels_and_refuses_others() -> None:
    grid = oblique_grid((10, 9, 4))
    volume = Volume(np.random.default_rng(0).random((4, 9, 10)), grid.ijk_to_ras)
    inner = crop_grid(grid, (1, 0, 2), (8, 8, 2))
    np.testing.assert_array_equal(crop_to_grid(volume, inner, "truth").array_kji, volume.array_kji[2:4, 0:8, 1:9])
    shift = np.eye(4)
    shift[0, 3] = 0.3
    with pytest.raises(GeometryError, match="not on the result's grid"):
        crop_to_grid(volume, moved_grid(inner, shift), "truth")
    with pytest.raises(GeometryError, match="not on the result's grid"):
        crop_to_grid(volume, crop_grid(grid, (5, 0, 0), (8, 8, 2)), "truth")
