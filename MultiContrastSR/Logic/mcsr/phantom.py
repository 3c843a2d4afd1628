"""A brain phantom that is scanned like a patient: other grids, other contrasts, a head that moves in between.

The anatomy is a function of position (`phantom_anatomy`), so every scan samples the same head, whatever its grid.
Each voxel averages several points of its box, the tissues by their fractions (partial volume) and with their signed
signals; then comes the magnitude, and Rician noise.

What is seen where (`phantom_tissue` has the numbers): six white-matter lesions are bright on T2 and FLAIR and nearly
invisible on T1; two are dark on T1 and FLAIR and nearly invisible on T2. They are made to test whether a network that
is helped by T1 invents or hides findings on T2, not to look like a disease.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .degradation import add_noise
from .errors import InputError
from .geometry import Grid, rigid_matrix, transform_points
from .phantom_anatomy import Anatomy
from .phantom_tissue import CONTRASTS, TISSUES, tissue_signals
from .volume import Volume

SIGNAL_UNIT = 1000.0
"""The signal of the brightest of white matter, grey matter and CSF; noise is given as a fraction of it."""

# Small enough for the processor's cache, large enough that numpy's overhead does not count.
_CHUNK = 16_384
_THICK_MM = 2.0

# Voxels and spacing (mm) of the T2 along (L, P, S), then of the T1 along (P, I, L).
_Shape = tuple[int, int, int]
_Spacing = tuple[float, float, float]
_DEMO_GRIDS: dict[str, tuple[_Shape, _Spacing, _Shape, _Spacing]] = {
    "full": ((320, 384, 12), (0.6, 0.6, 4.0), (280, 54, 232), (0.8, 1.5, 0.8)),
    "small": ((160, 192, 6), (1.2, 1.2, 4.0), (150, 26, 124), (1.5, 2.0, 1.5)),
}
_DEMO_CENTRE = np.array([1.5, -16.0, 17.0])
DEMO_MOTION = rigid_matrix((2.0, -1.2, 1.9), np.array([2.4, -2.2, 2.3]), _DEMO_CENTRE)
"""RAS to RAS mm, rigid: 3 degrees and 4 mm."""


@dataclass(frozen=True)
class DemoCase:
    """Two scans of one head.

    Args:
        target_hr: T2, axial slices tilted by a few degrees, the truth of the demonstration.
        reference: T1 of the same head after it moved, stored as sagittal slices.
        true_motion: float64 (4, 4), RAS to RAS mm: anatomy at p in the target lies at true_motion @ p in the reference.
    """

    target_hr: Volume
    reference: Volume
    true_motion: np.ndarray


def tissue_fractions(points_ras: np.ndarray, seed: int = 0, *, lesions: bool = True) -> np.ndarray:
    """Share of every tissue at points of the head.

    Args:
        points_ras: (..., 3) mm, origin near the anterior commissure.
        seed: which head.
        lesions: leave them out when False.

    Returns:
        float32 (..., len(TISSUES)), in the order of `TISSUES`, summing to 1.
    """
    points = np.asarray(points_ras, dtype=np.float32)
    identity = np.eye(len(TISSUES), dtype=np.float32)
    fractions = Anatomy(seed).paint(points.reshape(-1, 3), identity, lesions=lesions)
    return fractions.reshape(*points.shape[:-1], len(TISSUES))


def make_phantom(
    grid: Grid,
    contrast: str,
    *,
    seed: int = 0,
    noise: float = 0.01,
    motion: np.ndarray | None = None,
    lesions: bool = True,
) -> Volume:
    """Scan the phantom.

    Args:
        grid: where the voxels lie; stays the header of the scan, however the head moved.
        contrast: one of `CONTRASTS`.
        seed: which head, and the noise, which differs between contrasts.
        noise: standard deviation per channel as a fraction of `SIGNAL_UNIT`.
        motion: rigid (4, 4), RAS to RAS mm: the head's point p is found at motion @ p. The identity by default.
        lesions: leave them out when False.

    Returns:
        Magnitude image, stored as int16 when written.

    Raises:
        InputError: unknown contrast.
    """
    signals = tissue_signals(contrast)[:, None]
    anatomy = Anatomy(seed)
    to_head = np.linalg.inv(np.eye(4) if motion is None else np.asarray(motion, dtype=np.float64)) @ grid.ijk_to_ras
    offsets = _voxel_samples(grid) @ to_head[:3, :3].T
    image = np.zeros(grid.shape_kji, dtype=np.float32)
    voxels = image.reshape(-1)
    for start, ijk in _voxel_chunks(grid):
        centres = transform_points(to_head, ijk)
        for offset in offsets:
            voxels[start : start + len(ijk)] += anatomy.paint(centres + offset, signals, lesions=lesions)[:, 0]
    image = np.abs(image / len(offsets))
    if noise > 0:
        noise_seed = len(CONTRASTS) * seed + CONTRASTS.index(contrast)
        image = add_noise(image, noise * SIGNAL_UNIT, seed=noise_seed)
    return Volume(image, grid.ijk_to_ras, name=f"phantom {contrast}", source_dtype="int16")


def demo_case(seed: int = 0, size: str = "full") -> DemoCase:
    """A T2 and a T1 of the phantom, on different grids, the head moved by 3 degrees and 4 mm in between.

    Args:
        seed: which head.
        size: "full" (0.6 x 0.6 x 4 mm, twelve slices; seconds to make) or "small" (1.2 x 1.2 x 4 mm, six slices).
    """
    if size not in _DEMO_GRIDS:
        raise InputError(f"Unknown size '{size}' of the phantom; known are {', '.join(_DEMO_GRIDS)}.")
    t2_shape, t2_mm, t1_shape, t1_mm = _DEMO_GRIDS[size]
    t2_grid = _grid(t2_shape, t2_mm, "LPS", (4.0, -2.0, 3.0), _DEMO_CENTRE)
    t1_grid = _grid(t1_shape, t1_mm, "PIL", (-2.0, 1.0, -2.5), _DEMO_CENTRE + np.array([1.0, 2.0, -1.0]))
    target_hr = make_phantom(t2_grid, "T2", seed=seed)
    return DemoCase(target_hr, make_phantom(t1_grid, "T1", seed=seed, motion=DEMO_MOTION), DEMO_MOTION)


def _grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    codes: str,
    rotation_deg: tuple[float, float, float],
    centre_ras: np.ndarray,
) -> Grid:
    """A grid whose axes run towards `codes`, then turned, with its middle at `centre_ras`."""
    matrix = np.eye(4)
    for axis, letter in enumerate(codes):
        ras_axis = next(n for n, letters in enumerate(("RL", "AP", "SI")) if letter in letters)
        matrix[:3, axis] = 0
        matrix[ras_axis, axis] = spacing_mm[axis] if letter in "RAS" else -spacing_mm[axis]
    matrix = rigid_matrix(rotation_deg, np.zeros(3), np.zeros(3)) @ matrix
    matrix[:3, 3] = centre_ras - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, matrix)


def _voxel_samples(grid: Grid) -> np.ndarray:
    """Where in its box a voxel is sampled: offsets (N, 3) in voxels, (i, j, k).

    A rank-one lattice: every axis is sampled at N different, evenly spaced levels, and the offsets come in opposite
    pairs, so that the mean lies exactly at the centre.
    """
    count = 7 if grid.spacing_ijk_mm.max() > _THICK_MM else 5
    steps = (np.arange(count)[:, None] + 0.5) / count
    return np.mod(steps * np.array([3, 7, 1] if count == 5 else [3, 5, 1]), 1) - 0.5


def _voxel_chunks(grid: Grid) -> Iterator[tuple[int, np.ndarray]]:
    """The indices (N, 3) of all voxels, in storage order, in pieces; with the place of each piece's first voxel."""
    total = int(np.prod(grid.shape_ijk))
    for start in range(0, total, _CHUNK):
        k, j, i = np.unravel_index(np.arange(start, min(total, start + _CHUNK)), grid.shape_kji)
        yield start, np.stack([i, j, k], axis=1).astype(np.float64)
