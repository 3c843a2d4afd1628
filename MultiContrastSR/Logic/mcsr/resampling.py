"""Volumes onto other grids.

One mechanism serves every pair of grids, sheared ones included: ITK sees the voxels in index space (spacing 1,
origin 0, no direction), and the map from output index to source index is handed to it as an affine transform.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .geometry import Grid, crop_grid
from .volume import Volume

_INTERPOLATORS = {"cubic": sitk.sitkBSpline, "linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}

_SPLINE_SUPPORT = 4
"""ITK's cubic B-spline needs this many samples along every axis."""

_SPLINE_REACH = 12
"""Samples farther away change a spline by less than 2e-7 of what they are."""

_SLAB_VOXELS = 4 * 2**20

_SAME_PLACE = 1e-4
"""Voxels from another up to which a voxel lies where that one does: its value is copied. Headers are rounded so far."""

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
    lowest = min(np.float32(0), volume.array_kji.min()) if interpolation == "cubic" else -np.inf
    copied = _copied(volume, grid)
    if copied is not None:
        return volume.on_grid(copied, grid)
    array = np.empty(grid.shape_kji, dtype=np.float32)
    for where, slab in _slabs(grid, max(array.size, volume.array_kji.size)):
        image = _sampled(volume, grid, slab, interpolation)  # kept: a view does not keep it
        values = np.where(coverage(volume.grid, slab), sitk.GetArrayViewFromImage(image), np.float32(0))
        np.maximum(values, lowest, out=array[where])
    return volume.on_grid(array, grid)


def coverage(volume_grid: Grid, grid: Grid) -> np.ndarray:
    """Where voxel centres of `grid` lie in the box of `volume_grid` (faces included): bool (K, J, I)."""
    start, steps = _index_map(volume_grid, grid)
    inside = np.ones(grid.shape_kji, dtype=bool)
    counts = [np.arange(n) for n in grid.shape_ijk]
    for axis, size in enumerate(volume_grid.shape_ijk):
        # A grid and its refinement share faces: rounding must not decide about them.
        lowest, highest = -0.5 - 1e-6, size - 0.5 + 1e-6
        along_i, along_j, along_k = (count * step for count, step in zip(counts, steps[:, axis], strict=True))
        reach = [np.sort([along[0], along[-1]]) for along in (along_i, along_j)]
        for in_slice, offset in zip(inside, start[axis] + along_k, strict=True):
            first, last = offset + reach[0] + reach[1]
            if first < lowest or last > highest:
                index = offset + along_j[:, None] + along_i
                in_slice &= (index >= lowest) & (index <= highest)
    return inside


def anti_aliasing_sigma(volume_grid: Grid, grid: Grid) -> np.ndarray:
    """Width (standard deviation, in voxels of `volume_grid`) of the low-pass per source axis (i, j, k); 0 for none.

    The spacing of `grid` along a source axis is the length along that axis over which its index changes by 1.
    """
    _, steps = _index_map(grid, volume_grid)
    ratio = 1 / np.linalg.norm(steps, axis=1)
    return np.where(ratio > _ANTI_ALIASING_FROM, np.sqrt(np.maximum(ratio**2 - 1, 0) / (8 * np.log(2))), 0.0)


def _copied(volume: Volume, grid: Grid) -> np.ndarray | None:
    """(K, J, I) on a grid whose voxels lie on the volume's, shifted or stored otherwise; None for all other grids."""
    start, steps = _index_map(volume.grid, grid)
    first, turned = np.rint(start).astype(int), np.rint(steps).astype(int)
    off = np.abs(start - first).max() + (np.abs(steps - turned) * np.array(grid.shape_ijk)[:, None]).sum(axis=0).max()
    if off > _SAME_PLACE or not np.array_equal(np.abs(turned) @ np.abs(turned).T, np.eye(3)):
        return None
    result = np.zeros(grid.shape_kji, dtype=np.float32)
    # By axis of the grid (k, j, i): the volume's axis that it runs along, the places there, and which of them exist.
    axes = [int(np.flatnonzero(turned[axis])[0]) for axis in (2, 1, 0)]
    places = [
        first[a] + turned[axis, a] * np.arange(grid.shape_ijk[axis]) for axis, a in zip((2, 1, 0), axes, strict=True)
    ]
    inside = [(p >= 0) & (p < volume.grid.shape_ijk[a]) for p, a in zip(places, axes, strict=True)]
    source = volume.array_kji.transpose([2 - a for a in axes])
    result[np.ix_(*inside)] = source[np.ix_(*(p[there] for p, there in zip(places, inside, strict=True)))]
    return result


def _slabs(grid: Grid, voxels: int) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """A grid in parts along its longest axis, enough of them for a number of voxels: (place in the array, part)."""
    axis = int(np.argmax(grid.shape_ijk))
    size = grid.shape_ijk[axis]
    thickness = -(-size // -(-voxels // _SLAB_VOXELS))
    for start in range(0, size, thickness):
        origin, shape = [0, 0, 0], list(grid.shape_ijk)
        origin[axis], shape[axis] = start, min(thickness, size - start)
        where = tuple(slice(o, o + n) for o, n in zip(origin[::-1], shape[::-1], strict=True))
        yield where, crop_grid(grid, tuple(origin), tuple(shape))  # type: ignore[arg-type]


def _sampled(volume: Volume, grid: Grid, slab: Grid, interpolation: str) -> sitk.Image:
    """The samples of a part of a grid, whatever ITK gives outside the source's box."""
    start, steps = _index_map(volume.grid, slab)
    sigma = anti_aliasing_sigma(volume.grid, grid) * (interpolation != "nearest")
    # Only the part of the source that these samples depend on.
    corners = start + np.array(list(np.ndindex(2, 2, 2))) * (np.array(slab.shape_ijk) - 1) @ steps
    margin = _SPLINE_REACH + _reach(sigma)
    first, last = corners.min(axis=0) - margin, corners.max(axis=0) + margin
    size = np.array(volume.grid.shape_ijk)
    low = np.clip(np.floor(first), 0, size - 1).astype(int)
    high = np.clip(np.ceil(last), low, size - 1).astype(int) + 1
    part = volume.array_kji[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]
    image = _low_passed(sitk.GetImageFromArray(np.ascontiguousarray(part)), sigma)
    # The spline needs its support along every axis, and ITK leaves out the far face of the box, which belongs to it.
    padding = [max(1, _SPLINE_SUPPORT - n) for n in image.GetSize()]
    image = sitk.ZeroFluxNeumannPad(image, padding, padding)
    to_source = sitk.AffineTransform(steps.T.ravel().tolist(), (start - low).tolist())
    method = _INTERPOLATORS[interpolation]
    return sitk.Resample(image, list(slab.shape_ijk), to_source, method, (0.0,) * 3, (1.0,) * 3)


def _low_passed(image: sitk.Image, sigma: np.ndarray) -> sitk.Image:
    if not sigma.any():
        return image
    return sitk.DiscreteGaussian(image, (sigma**2).tolist(), 2 * _reach(sigma) + 1, 0.005)


def _reach(sigma: np.ndarray) -> int:
    """Voxels to each side that the low-pass reads, at most."""
    return int(np.ceil(4 * sigma.max()))


def _index_map(source: Grid, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Source index of voxel (0, 0, 0) of `grid`, (3,), and its change per voxel step along i, j, k as rows, (3, 3)."""
    start = source.to_ijk(grid.to_ras((0, 0, 0)))
    return start, source.to_ijk(grid.to_ras(np.eye(3))) - start
