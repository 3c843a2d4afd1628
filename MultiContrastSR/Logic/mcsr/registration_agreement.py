"""The second measure of a registration, which its optimiser has not seen: do edges lie on edges, and only there?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .geometry import Grid, moved_grid, rigid_matrix
from .intensity import foreground
from .resampling import coverage, resample
from .volume import Volume

NOTICED = 0.01
"""The part of the gradient correlation whose loss shows that an image lies elsewhere."""


@dataclass(frozen=True)
class Sampled:
    """A volume on a working grid of isotropic voxels along R, A and S, and which of them lie in the volume's box."""

    volume: Volume
    covered: np.ndarray


def edges(image: np.ndarray) -> np.ndarray:
    """Length of the gradient, of the same shape: edges lie where edges lie, whatever the contrast."""
    return sitk.GetArrayFromImage(sitk.GradientMagnitude(sitk.GetImageFromArray(image)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two lists (N,); 0 where it is not defined."""
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def correlations(fixed: Sampled, reference: Volume, motion: np.ndarray) -> tuple[float, float, float]:
    """Gradient correlation without and with the motion, over the target's signal that the reference covers in both.

    The third value is the share of that signal in what the reference covers without the motion.
    """
    grid = fixed.volume.grid
    moved = _moved(reference, motion)
    # A gradient reaches one voxel far, and the rim of a field of view is not an edge.
    covered = eroded(fixed.covered & coverage(reference.grid, grid)) & foreground(fixed.volume.array_kji)
    mask = covered & eroded(coverage(moved.grid, grid))
    of_target = edges(fixed.volume.array_kji)[mask]
    with ThreadPoolExecutor(2) as pool:
        there = pool.map(lambda image: _edges_there(image, grid)[mask], (reference, moved))
        before, after = (correlation(of_target, lengths) for lengths in there)
    return before, after, float(mask.sum() / max(1, covered.sum()))


def slack_mm(fixed: Sampled, reference: Volume, motion: np.ndarray, centre_ras: np.ndarray, radius_mm: float) -> float:
    """How far a registered reference can be moved before it shows, in the direction in which it shows least.

    The gradient correlation is measured where the reference lies and one voxel of `fixed` to each side: shifted along
    R, A and S, and turned about them. A parabola through the three tells how far it is to a loss of `NOTICED`.

    Args:
        fixed: the target on a working grid; its voxel should be no finer than a registration errs.
        reference: on a grid as fine.
        motion: (4, 4), of the registration: RAS mm in the reference's header to RAS mm in the target's.
        centre_ras: (3,), of the signal, in mm: what turns are about.
        radius_mm: of the signal: a turn is told by the way of a point so far from the centre.

    Returns:
        mm; infinite where nothing speaks for this place rather than another.
    """
    grid, found = fixed.volume.grid, _moved(reference, motion)
    of_target, here = edges(fixed.volume.array_kji), _edges_there(found, grid)
    both = eroded(fixed.covered & coverage(found.grid, grid)) & foreground(fixed.volume.array_kji)

    def lost(small: np.ndarray) -> float:
        aside = _moved(found, small)
        mask = both & eroded(coverage(aside.grid, grid))
        return correlation(of_target[mask], here[mask]) - correlation(of_target[mask], _edges_there(aside, grid)[mask])

    step_mm = float(grid.spacing_ijk_mm[0])
    with ThreadPoolExecutor(2) as pool:
        forth, back = zip(*_small_motions(step_mm, centre_ras, radius_mm), strict=True)
        least = min((a + b) / 2 for a, b in zip(pool.map(lost, forth), pool.map(lost, back), strict=True))
    agreement = correlation(of_target[both], here[both])
    return float(step_mm * np.sqrt(NOTICED * agreement / least)) if agreement > 0 and least > 0 else float("inf")


def eroded(mask: np.ndarray) -> np.ndarray:
    """Voxels whose six neighbours all belong to the mask, which ends at the border of the array."""
    result = mask.copy()
    for axis in range(mask.ndim):
        kept, there = np.moveaxis(result, axis, 0), np.moveaxis(mask, axis, 0)
        kept[1:] &= there[:-1]
        kept[:-1] &= there[1:]
        kept[[0, -1]] = False
    return result


def _moved(volume: Volume, motion: np.ndarray) -> Volume:
    return Volume(volume.array_kji, moved_grid(volume.grid, motion).ijk_to_ras)


def _edges_there(volume: Volume, grid: Grid) -> np.ndarray:
    return edges(resample(volume, grid, "linear").array_kji)


def _small_motions(step_mm: float, centre_ras: np.ndarray, radius_mm: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of the six rigid motions (4, 4), forth and back."""
    for axis in np.eye(3):
        turn = np.rad2deg(step_mm / radius_mm) * axis
        forth, back = (rigid_matrix(tuple(sign * turn), np.zeros(3), centre_ras) for sign in (1, -1))
        yield forth, back
        forth, back = (rigid_matrix((0.0, 0.0, 0.0), sign * step_mm * axis, centre_ras) for sign in (1, -1))
        yield forth, back
