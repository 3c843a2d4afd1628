"""Is this volume an MRI? What is refused, and what is worth a word to the user."""

from __future__ import annotations

import numpy as np

from .errors import GeometryError, InputError
from .geometry import Grid, overlap_fraction
from .volume import Volume

SCALES = (2, 3, 4)
"""In-plane factors that can be asked for."""

# A label map holds whole numbers only, and either very few of them, or a moderate number laid out in flat regions.
# Real MRI stays far from both: stored as 8 bit, 6 % of neighbouring voxels are equal; squeezed into 40 grey levels and
# then interpolated to three times the size, 60 %. Regions many voxels wide lie well above 80 %.
_ALWAYS_LABELS = 16
_MOST_LABELS = 256
_FLAT = 0.8
_SAMPLE = 100_000

_SMALLEST_SLICE = 8
_LITTLE_OVERLAP = 0.8


def check_scale(scale: int) -> None:
    """Refuse a factor that is not offered (`InputError`)."""
    if scale not in SCALES:
        raise InputError(f"Scale {scale} is not offered; choose {', '.join(map(str, SCALES))}.")


def check_scalar_mri(volume: Volume) -> list[str]:
    """Refuse what is no MRI; tell what is unusual.

    Args:
        volume: any grid.

    Returns:
        Warnings for the user, one sentence each: a single slice; NaN or infinite voxels that were replaced.

    Raises:
        InputError: a constant image, or a label map (whole numbers only, at most 16 different ones; or at most 256,
            with 80 % of neighbouring voxels equal).
    """
    array = volume.array_kji
    if array.min() == array.max():
        raise InputError(f"{volume.name} is constant (every voxel is {array.flat[0]:g}); choose an MRI volume.")
    if _is_label_map(array):
        raise InputError(f"{volume.name} is a label map or mask, not an image; choose the MRI it was drawn on.")
    warnings = []
    if min(array.shape) == 1:
        warnings.append(f"{volume.name} has a single slice, so its position is taken from the header alone.")
    if volume.replaced_voxels:
        warnings.append(f"{volume.replaced_voxels} NaN or infinite voxels of {volume.name} were replaced by 0.")
    return warnings


def check_pair(target: Volume, reference: Volume, *, force: bool = False) -> list[str]:
    """Refuse a target and a reference that cannot help each other; tell what limits the result.

    Args:
        target: low resolution, in display orientation (k runs through the slices).
        reference: any orientation.
        force: accept a reference that is not finer than the target in plane.

    Returns:
        Warnings for the user, one sentence each.

    Raises:
        GeometryError: the volumes do not overlap in space.
        InputError: slices under 8 pixels, or a reference that is not finer.
    """
    columns, rows, _ = target.grid.shape_ijk
    if min(rows, columns) < _SMALLEST_SLICE:
        raise InputError(
            f"The slices of {target.name} have {rows} x {columns} pixels; at least {_SMALLEST_SLICE} each way are "
            "needed (is the plane right?)."
        )
    overlap = overlap_fraction(target.grid, reference.grid)
    if overlap == 0:
        raise GeometryError(
            f"{target.name} and {reference.name} do not overlap in space; check that both are of the same patient and "
            "session, or align them first."
        )
    warnings = []
    if overlap < _LITTLE_OVERLAP:
        warnings.append(f"{reference.name} covers only {100 * overlap:.0f} % of {target.name}.")
    have, offered = _in_plane_mm(target.grid), _offered_mm(target, reference)
    if offered > 0.99 * have:
        message = f"{reference.name} ({offered:.2f} mm in plane) is not finer than {target.name} ({have:.2f} mm)"
        if not force:
            raise InputError(f"{message}; choose a finer reference, or --force to try all the same.")
        warnings.append(f"{message}; it can add little.")
    return warnings


def detail_limit(target: Volume, reference: Volume, scale: int) -> str:
    """How much coarser in plane the reference is than the result, a clause; empty where it is as fine."""
    finest = _in_plane_mm(target.grid) / scale
    offered = _offered_mm(target, reference)
    if offered <= 1.05 * finest:
        return ""
    return f"it carries detail to {offered:.2f} mm, the result's grid is {finest:.2f} mm"


def _in_plane_mm(grid: Grid) -> float:
    return float(grid.spacing_ijk_mm[:2].max())


def _offered_mm(target: Volume, reference: Volume) -> float:
    """The reference's voxel size in the plane of the target's slices."""
    return float(spacing_along(reference.grid, target.grid.directions[:, :2]).max())


def spacing_along(grid: Grid, directions: np.ndarray) -> np.ndarray:
    """Voxel size of a grid, mm, along its axis nearest to each of the unit vectors (3, N) in RAS."""
    cosines = np.abs(grid.directions.T @ directions)
    return grid.spacing_ijk_mm[cosines.argmax(axis=0)]


def _is_label_map(array: np.ndarray) -> bool:
    # Beyond 2**24 every float32 is a whole number, which then says nothing; no label is that large.
    if max(-array.min(), array.max()) >= 2**24:
        return False
    # A sample settles nearly every MRI; only what looks like labels is sorted as a whole.
    sample = array.ravel()[:: max(1, array.size // _SAMPLE)]
    for values in (sample, array):
        if np.any(values != np.rint(values)):
            return False
        distinct = np.unique(values).size
        if distinct > _MOST_LABELS:
            return False
    return distinct <= _ALWAYS_LABELS or _equal_neighbours(array) >= _FLAT


def _equal_neighbours(array: np.ndarray) -> float:
    """Fraction of the neighbouring voxel pairs outside the background (0) that are equal."""
    equal = pairs = 0
    for axis in range(3):
        moved = np.moveaxis(array, axis, 0)
        one, other = moved[:-1], moved[1:]
        inside = (one != 0) & (other != 0)
        pairs += int(inside.sum())
        equal += int((inside & (one == other)).sum())
    return equal / pairs if pairs else 0.0
