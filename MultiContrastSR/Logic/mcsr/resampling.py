"""Volumes onto other grids.

One mechanism serves every pair of grids, sheared ones included: ITK sees the voxels in index space (spacing 1,
origin 0, no direction), and the map from output index to source index is handed to it as an affine transform.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .geometry import Grid
from .volume import Volume

_INTERPOLATORS = {"cubic": sitk.sitkBSpline, "linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}

_SPLINE_SUPPORT = 4
"""ITK's cubic B-spline needs this many samples along every axis."""

_ANTI_ALIASING_FROM = 1.2
"""Ratio of output to source spacing up to which nothing is low-passed: the Gaussian would be narrower than a voxel."""


def resample(volume: Volume, grid: Grid, interpolation: str = "cubic") -> Volume:
    """Put a volume onto another grid.

    Where the source is finer than the output, it is low-passed first, axis by axis: a Gaussian widens the source's
    voxel to the output's (full widths at half maximum added in squares; Cardoso et al., MICCAI 2015). `nearest` is
    meant for labels and never low-passed.

    Args:
        volume: any grid; an axis of one slice is held constant over the thickness of that slice.
        grid: where the samples are wanted.
        interpolation: "cubic" (B-spline of order 3), "linear" or "nearest".

    Returns:
        A volume on `grid`, 0 outside the source's box. The overshoot of cubic interpolation is kept above and cut
        off below at the source's minimum or 0, whichever is lower, so that magnitudes stay magnitudes.
    """
    if interpolation not in _INTERPOLATORS:
        raise InputError(f"Unknown interpolation '{interpolation}'; known are {', '.join(_INTERPOLATORS)}.")
    source = volume.array_kji
    start, steps = _index_map(volume.grid, grid)
    image = sitk.GetImageFromArray(source)
    if interpolation != "nearest":
        image = _low_passed(image, anti_aliasing_sigma(volume.grid, grid))
    # The spline needs its support along every axis, and ITK leaves out the far face of the box, which belongs to it.
    padding = [max(1, _SPLINE_SUPPORT - n) for n in image.GetSize()]
    image = sitk.ZeroFluxNeumannPad(image, padding, padding)
    to_source = sitk.AffineTransform(steps.T.ravel().tolist(), start.tolist())
    values = sitk.Resample(
        image, list(grid.shape_ijk), to_source, _INTERPOLATORS[interpolation], (0.0,) * 3, (1.0,) * 3
    )
    array = np.where(coverage(volume.grid, grid), sitk.GetArrayViewFromImage(values), np.float32(0))
    if interpolation == "cubic":
        array = np.maximum(array, min(np.float32(0), source.min()))
    return volume.on_grid(array, grid)


def coverage(volume_grid: Grid, grid: Grid) -> np.ndarray:
    """Where voxel centres of `grid` lie in the box of `volume_grid` (faces included): bool (K, J, I)."""
    start, steps = _index_map(volume_grid, grid)
    inside = np.ones(grid.shape_kji, dtype=bool)
    counts = [np.arange(n) for n in grid.shape_ijk]
    for axis, size in enumerate(volume_grid.shape_ijk):
        along_i, along_j, along_k = (count * step for count, step in zip(counts, steps[:, axis], strict=True))
        index = (start[axis] + along_k)[:, None, None] + along_j[:, None] + along_i
        # A grid and its refinement share faces: rounding must not decide about them.
        inside &= (index >= -0.5 - 1e-6) & (index <= size - 0.5 + 1e-6)
    return inside


def anti_aliasing_sigma(volume_grid: Grid, grid: Grid) -> np.ndarray:
    """Width (standard deviation, in voxels of `volume_grid`) of the low-pass per source axis (i, j, k); 0 for none.

    The spacing of `grid` along a source axis is the length along that axis over which its index changes by 1.
    """
    _, steps = _index_map(grid, volume_grid)
    ratio = 1 / np.linalg.norm(steps, axis=1)
    return np.where(ratio > _ANTI_ALIASING_FROM, np.sqrt(np.maximum(ratio**2 - 1, 0) / (8 * np.log(2))), 0.0)


def _low_passed(image: sitk.Image, sigma: np.ndarray) -> sitk.Image:
    if not sigma.any():
        return image
    widest = 2 * int(np.ceil(4 * sigma.max())) + 1
    return sitk.DiscreteGaussian(image, (sigma**2).tolist(), widest, 0.005)


def _index_map(source: Grid, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Source index of voxel (0, 0, 0) of `grid`, (3,), and its change per voxel step along i, j, k as rows, (3, 3)."""
    start = source.to_ijk(grid.to_ras((0, 0, 0)))
    return start, source.to_ijk(grid.to_ras(np.eye(3))) - start
