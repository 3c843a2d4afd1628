"""Small volumes with known content, on any grid: a function of RAS, sampled."""

from __future__ import annotations

import numpy as np
from grids import oblique_grid
from mcsr.geometry import Grid
from mcsr.volume import Volume

# Centres (RAS mm, relative to the middle of the head), radii (mm) and brightness per contrast of soft blobs.
_BLOBS = np.random.default_rng(7).uniform(-1, 1, (40, 3))
_RADII = np.random.default_rng(8).uniform(1.6, 4.0, 40)
_BRIGHTNESS = {
    "T2": np.random.default_rng(9).uniform(-40, 90, 40),
    "T1": np.random.default_rng(10).uniform(-60, 60, 40),
}


def head(contrast: str, ras: np.ndarray, centre: np.ndarray, radius_mm: float) -> np.ndarray:
    """Brightness of a soft-edged head full of blobs at points (..., 3)."""
    distance = np.linalg.norm(ras - centre, axis=-1)
    inside = 1 / (1 + np.exp((distance - radius_mm) / 0.8))
    value = np.full(distance.shape, 100.0)
    for place, radius, brightness in zip(_BLOBS, _RADII, _BRIGHTNESS[contrast], strict=True):
        gap = np.linalg.norm(ras - centre - 0.7 * radius_mm * place, axis=-1)
        value = value + brightness * np.exp(-0.5 * (gap / radius) ** 2)
    return inside * np.maximum(value, 5)


def scene(contrast: str, grid: Grid, *, centre: np.ndarray | None = None, dtype: str = "float32") -> Volume:
    """A head of about 0.8 of the smallest in-plane extent in the middle of a grid (or about `centre`)."""
    centre = grid.centre_ras if centre is None else centre
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    array = head(contrast, ras, centre, 15.0)
    if dtype != "float32":
        array = np.rint(array)
    return Volume(array, grid.ijk_to_ras, name=contrast, source_dtype=dtype)


def pair(shape: tuple[int, int, int] = (48, 56, 8)) -> tuple[Volume, Volume]:
    """A T2 on a fine oblique axial grid and a T1 of the same head on another grid, turned against it."""
    t2_grid = oblique_grid(shape, (0.8, 0.8, 3.2))
    t1_grid = oblique_grid((64, 64, 24), (0.7, 0.75, 1.5), (2.0, 5.0, -9.0))
    shift = t2_grid.centre_ras - t1_grid.centre_ras + np.array([1.2, -0.7, 0.4])
    matrix = t1_grid.ijk_to_ras.copy()
    matrix[:3, 3] += shift
    t1_grid = Grid(t1_grid.shape_ijk, matrix)
    centre = t2_grid.centre_ras
    return scene("T2", t2_grid, centre=centre, dtype="int16"), scene("T1", t1_grid, centre=centre, dtype="int16")
