"""Grids that scanners and converters give: oblique, anisotropic, permuted, left-handed."""

from __future__ import annotations

import itertools

import numpy as np
from mcsr.geometry import AxisOrder, Grid, rigid_matrix

SPACING_MM = (0.7, 0.9, 3.1)


def oblique_grid(
    shape_ijk: tuple[int, int, int] = (24, 20, 6),
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    rotation_deg: tuple[float, float, float] = (7.0, -11.0, 16.0),
    origin_ras: tuple[float, float, float] = (31.0, 42.0, -17.0),
) -> Grid:
    """An axial grid in LPS order, turned and away from the origin."""
    matrix = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    matrix = rigid_matrix(rotation_deg, np.array(origin_ras), np.zeros(3)) @ matrix
    return Grid(shape_ijk, matrix)


ALL_ORDERS = [
    AxisOrder(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
"""All 48 storage orders of a volume: 6 permutations, 8 flips; half of them left-handed."""

SOME_ORDERS = ALL_ORDERS[::4]
"""Twelve of them, all six permutations, both hands."""


def order_id(order: AxisOrder) -> str:
    """For pytest: the axes in their order, a minus where one is reversed."""
    return "".join(
        f"{'-' if flip else '+'}{'ijk'[axis]}" for axis, flip in zip(order.axes_ijk, order.flips, strict=True)
    )
