"""Where the phantom's tissues lie: a head as a function of position, in millimetres.

Head coordinates are RAS mm with the origin near the anterior commissure. The cortex is a ribbon around a folded
surface: sulci are the sheets on which a band-limited noise changes sign. The noise is read on a shell around each
hemisphere, so the sheets run inwards from the surface; a slower noise says how deep each one goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .phantom_tissue import TISSUE_INDEX

EDGE_MM = 0.5
"""Width over which one tissue passes into the next."""

_SHELL_MM = 42.0
_HEAD_MM = 34.0
_HULL_CENTRE = (0.0, -17.0, 8.0)

# Polylines (|R|, A, S, radius) in mm; each lies on both sides.
_LATERAL_VENTRICLE = (
    (
        (11.5, 35, 5, 2.2),
        (8.8, 27, 11, 4.6),
        (8.5, 8, 21, 5.2),
        (11, -12, 24, 5.2),
        (16, -26, 20, 5.2),
        (24, -37, 11, 6.4),
    ),
    ((24, -37, 11, 6.4), (24, -52, 8, 3.2), (22, -64, 7, 1.4)),
    ((24, -37, 11, 6.4), (31, -26, -6, 3.0), (30, -8, -14, 2.0)),
)
_CAUDATE = (((13.5, 22, 5, 6.0), (14.5, 14, 12, 5.6), (17, 0, 20, 4.0), (20, -16, 24, 2.6), (25, -27, 19, 1.8)),)

# Ellipsoids: centre (|R|, A, S), half axes, turn about S in degrees (positive moves the front towards the midline).
_PUTAMEN = ((26.5, 2.0, 2.0), (6.2, 17.0, 11.0), 16.0)
_PALLIDUM = ((19.5, -2.0, 0.0), (4.6, 10.5, 7.5), 28.0)
_THALAMUS = ((10.8, -16.0, 8.0), (8.6, 15.0, 9.0), 22.0)

# Lesions: centre (R, A, S), half axes in mm. They lie in white matter; a sulcus that reaches one covers it.
_BRIGHT_LESIONS = (
    ((19.0, 33.0, 14.0), (3.2, 4.6, 3.6)),
    ((-24.0, -14.0, 27.0), (5.5, 3.0, 4.0)),
    ((25.0, -22.0, 27.0), (6.0, 3.2, 4.2)),
    ((-19.0, 24.0, 22.0), (3.0, 4.0, 4.0)),
    ((33.0, -42.0, 17.0), (3.0, 4.6, 4.0)),
    ((25.0, 2.0, 28.5), (2.6, 2.2, 3.2)),
)
_DARK_LESIONS = (((-27.0, -36.0, 22.0), (4.4, 4.8, 4.2)), ((-23.0, 4.0, 28.5), (3.0, 3.8, 3.4)))


@dataclass(frozen=True)
class _Waves:
    """Noise of unit variance: plane waves with random directions and phases about one wavelength."""

    vectors: np.ndarray  # (3, M), radians per mm
    phases: np.ndarray  # (M,)

    @staticmethod
    def draw(rng: np.random.Generator, wavelength_mm: float, count: int) -> _Waves:
        directions = rng.normal(size=(3, count))
        directions /= np.linalg.norm(directions, axis=0)
        vectors = directions * (2 * np.pi / wavelength_mm) * rng.uniform(0.8, 1.2, count)
        return _Waves(vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Value at points (N, 3) mm: float32 (N,)."""
        return np.cos(self._angles(points)) @ np.full_like(self.phases, np.sqrt(2 / len(self.phases)))

    def distance_to_zero(self, points: np.ndarray) -> np.ndarray:
        """First-order distance in mm to where the noise changes sign, float32 (N,)."""
        angles = self._angles(points)
        value = np.abs(np.cos(angles) @ np.ones_like(self.phases))
        slope = np.sin(angles) @ self.vectors.T
        # The floor keeps the distance finite at saddles and tops.
        floor = 0.1 * len(self.phases) * float((self.vectors**2).sum(axis=0).mean())
        return value / np.sqrt(_squared_length(slope) + floor)

    def _angles(self, points: np.ndarray) -> np.ndarray:
        return points @ self.vectors + self.phases


class Anatomy:
    """One head; the seed draws its folding, its asymmetry and the outlines of its lesions."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 0x6272])
        self._shape = [_Waves.draw(rng, 75.0, 6) for _ in range(3)]
        self._bend = [_Waves.draw(rng, 24.0, 6) for _ in range(3)]
        self._sulci = _Waves.draw(rng, 25.0, 24)
        self._depth = _Waves.draw(rng, 40.0, 8)
        self._width = _Waves.draw(rng, 30.0, 6)
        self._tracts = _Waves.draw(rng, 11.0, 8)
        self._outline = _Waves.draw(rng, 9.0, 8)
        self._lesion_shifts = rng.uniform(-1.0, 1.0, (len(_BRIGHT_LESIONS) + len(_DARK_LESIONS), 3))

    def paint(self, points: np.ndarray, values: np.ndarray, *, lesions: bool = True) -> np.ndarray:
        """Mean of a tissue property at points, weighted by the tissue fractions there.

        Args:
            points: (N, 3) head coordinates in mm.
            values: (len(TISSUES), C) the property of each tissue; the identity gives the fractions themselves.
            lesions: leave them out when False.

        Returns:
            float32 (N, C).
        """
        points = np.asarray(points, dtype=np.float32)
        values = np.asarray(values, dtype=np.float32)
        result = np.tile(values[TISSUE_INDEX["air"]], (len(points), 1))
        near = np.flatnonzero(_depth_in_hull(points) > -_HEAD_MM)
        if near.size:
            result[near] = self._paint_head(points[near], values, lesions)
        return result

    def _paint_head(self, points: np.ndarray, values: np.ndarray, lesions: bool) -> np.ndarray:
        points = points + 1.0 * _vector_noise(self._shape, points)
        depth = _depth_in_hull(points)
        canvas = _Canvas(len(points), values)
        self._scalp_and_skull(canvas, points, -depth)
        inside = np.flatnonzero(depth > -EDGE_MM)
        if inside.size:
            brain = _Canvas(len(inside), values)
            self._brain(brain, points[inside], depth[inside], lesions)
            alpha = _fill(-depth[inside])[:, None]
            canvas.values[inside] += alpha * (brain.values - canvas.values[inside])
        return canvas.values

    def _scalp_and_skull(self, canvas: _Canvas, points: np.ndarray, outside: np.ndarray) -> None:
        """Layers by the distance outside the brain's hull, painted from the skin inwards."""
        lateral, front, up = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        bone = 6.2 + 0.6 * self._shape[1](points)
        temple = np.exp(-(((front - 18) / 26) ** 2) - ((up + 2) / 26) ** 2) * np.clip((lateral - 40) / 20, 0, 1)
        muscle = bone + 7.5 * temple
        fat = muscle + 4.0 + 0.5 * self._shape[0](points)
        canvas.add("muscle", outside - fat - 1.4)
        canvas.add("fat", outside - fat)
        canvas.add("muscle", outside - muscle)
        canvas.add("cortical bone", outside - bone)
        middle = 0.5 * bone + 0.2
        canvas.add("marrow", np.abs(outside - middle) - (0.5 * bone - 2.0))

    def _brain(self, canvas: _Canvas, points: np.ndarray, depth: np.ndarray, lesions: bool) -> None:
        lateral = np.abs(points[:, 0])
        mirrored = np.concatenate([lateral[:, None], points[:, 1:]], axis=1)
        bend = _vector_noise(self._bend, points)
        block = _central_block(points)
        fissure = np.hypot(lateral, np.maximum(-block, 0)) - 0.7 - 0.07 * np.clip(14 - depth, 0, 14)
        pial = self._pial_distance(points, mirrored, bend, depth, fissure, block)
        ribbon = np.clip(2.9 + 0.3 * self._width(points), 2.5, 4.0)

        canvas.fill("white matter")
        # Crossing tracts: white matter is not one flat shade.
        canvas.fill("grey matter", np.clip(0.07 + 0.04 * self._tracts(points), 0, 0.2))
        if lesions:
            self._lesions(canvas, points)
        # The callosum joins the hemispheres beneath the fissure: no ribbon there.
        canvas.add("grey matter", pial - ribbon, 1 - _fill(block) * _fill(lateral - 13))
        _deep_structures(canvas, mirrored + 0.8 * bend)
        canvas.add("csf", pial)
        canvas.add("cortical bone", np.maximum(lateral - 0.35, 9 - block))

    def _pial_distance(
        self,
        points: np.ndarray,
        mirrored: np.ndarray,
        bend: np.ndarray,
        depth: np.ndarray,
        fissure: np.ndarray,
        block: np.ndarray,
    ) -> np.ndarray:
        """Distance in mm below the folded surface of the hemispheres, negative in the fluid outside, (N,)."""
        surface = _smooth_minimum(depth - 1.3, fissure, 3.0)
        spine = np.stack(
            [np.full(len(points), 27, np.float32), np.clip(points[:, 1], -62, 32), np.full(len(points), 9, np.float32)],
            axis=1,
        )
        ray = mirrored - spine
        radius = np.sqrt(_squared_length(ray)) + 1.0
        side = np.sign(points[:, :1]) * np.array([1.5, 5.0, 3.0], np.float32)
        shell = spine + ray * (_SHELL_MM / radius)[:, None] + side
        reach = np.clip(16.0 + 7.0 * self._depth(shell), 4.0, 26.0)
        shell += 2.4 * bend
        # On the medial wall sulci stay shallow, or they would open into the ventricles.
        reach = np.where(fissure < depth, 0.55 * reach, reach)
        sheet = self._sulci.distance_to_zero(shell) * (radius / _SHELL_MM)
        sulcus = np.hypot(sheet, np.maximum(np.maximum(surface - reach, 20 - radius), 0)) - 0.5
        sulcus = np.maximum(sulcus, np.minimum(-block, 15 - mirrored[:, 0]))
        folded = _smooth_minimum(surface, sulcus, 2.5)
        return _smooth_minimum(folded, _sylvian_fissure(mirrored + 0.8 * bend), 2.0)

    def _lesions(self, canvas: _Canvas, points: np.ndarray) -> None:
        names = ["bright lesion"] * len(_BRIGHT_LESIONS) + ["dark lesion"] * len(_DARK_LESIONS)
        places = (*_BRIGHT_LESIONS, *_DARK_LESIONS)
        for name, (centre, axes), shift in zip(names, places, self._lesion_shifts, strict=True):
            offset = points - np.asarray(np.add(centre, shift), dtype=np.float32)
            near = np.flatnonzero(_squared_length(offset) < (max(axes) + 3) ** 2)
            if near.size:
                distance = _ellipsoid(offset[near], axes) + 0.6 * self._outline(points[near])
                canvas.add_at(near, name, distance)


class _Canvas:
    """Points being painted: each structure covers what was there before, edge pixels in part."""

    def __init__(self, count: int, table: np.ndarray) -> None:
        self._table = table
        self.values = np.tile(table[TISSUE_INDEX["air"]], (count, 1))

    def fill(self, tissue: str, weight: np.ndarray | float = 1.0) -> None:
        """Paint everywhere, `weight` (N,) of it."""
        self._cover(slice(None), tissue, weight)

    def add(self, tissue: str, distance: np.ndarray, weight: np.ndarray | float = 1.0) -> None:
        """Paint where the signed distance (N,) in mm is negative."""
        self._cover(slice(None), tissue, _fill(distance) * weight)

    def add_at(self, index: np.ndarray, tissue: str, distance: np.ndarray) -> None:
        self._cover(index, tissue, _fill(distance))

    def _cover(self, index: slice | np.ndarray, tissue: str, alpha: np.ndarray | float) -> None:
        before = self.values[index]
        self.values[index] += np.asarray(alpha, np.float32)[..., None] * (self._table[TISSUE_INDEX[tissue]] - before)


def _deep_structures(canvas: _Canvas, mirrored: np.ndarray) -> None:
    """Nuclei and ventricles; only the core of the brain is looked at."""
    low, high = (-1, -75, -25), (42, 46, 40)
    core = np.flatnonzero(
        np.logical_and.reduce([(mirrored[:, n] > low[n]) & (mirrored[:, n] < high[n]) for n in range(3)])
    )
    if core.size == 0:
        return
    points = mirrored[core]
    lateral, front, up = points.T
    for name, (centre, axes, turn) in (("putamen", _PUTAMEN), ("pallidum", _PALLIDUM), ("thalamus", _THALAMUS)):
        canvas.add_at(core, name, _ellipsoid(_turned(points - np.array(centre, np.float32), turn), axes))
    ventricle = np.min([_tube(points, line) for line in _LATERAL_VENTRICLE], axis=0)
    # The septum pellucidum, a sheet of 1 mm, keeps the ventricles apart.
    canvas.add_at(core, "csf", np.maximum(ventricle, 0.6 - lateral))
    canvas.add_at(core, "caudate", np.min([_tube(points, line) for line in _CAUDATE], axis=0))
    third = np.maximum(np.abs(front + 9) - 14, np.abs(up - 0) - 9)
    canvas.add_at(core, "csf", np.hypot(lateral, np.maximum(third, 0)) - 1.6)
    cistern = points - np.array([0, -37, 0], np.float32)
    canvas.add_at(core, "csf", _ellipsoid(cistern, (7.0, 4.0, 5.5)))


def _depth_in_hull(points: np.ndarray) -> np.ndarray:
    """First-order distance in mm inside the hull of the brain (an egg, wider at the back), negative outside, (N,)."""
    offset = points - np.array(_HULL_CENTRE, np.float32)
    widths = 67 - 0.06 * offset[:, 1]
    heights = np.where(offset[:, 2] > 0, np.float32(67), np.float32(50))
    half = np.stack([widths, np.full_like(widths, 87), heights], axis=1)
    scaled = offset / half
    # The product term squares the outline seen from above, as heads are.
    corner = 0.3 * np.minimum((scaled[:, 0] * scaled[:, 1]) ** 2, 1)
    level = np.sqrt(_squared_length(scaled) - corner) + np.float32(1e-4)
    return (1 - level) * level / (np.sqrt(_squared_length(scaled / half)) + np.float32(1e-6))


def _central_block(points: np.ndarray) -> np.ndarray:
    """Signed distance in mm to the part that joins the hemispheres, callosum above and thalami within; (N,)."""
    return _ellipsoid(points[:, 1:] - np.array([-3, 5], np.float32), (39.0, 25.0))


def _sylvian_fissure(mirrored: np.ndarray) -> np.ndarray:
    """Distance to the fluid of the lateral fissure and over the insula, (N,)."""
    lateral, front, up = mirrored.T
    insula = np.stack(
        [
            lateral - 39.5 + 0.006 * (front - 2) ** 2,
            np.maximum(np.abs(front - 2) - 22, 0),
            np.maximum(np.abs(up - 5) - 14, 0),
        ]
    )
    opening = np.stack(
        [np.maximum(38 - lateral, 0), np.maximum(np.abs(front + 2) - 22, 0), (up - 2 + 0.5 * (front - 5)) * 0.89]
    )
    return np.minimum(np.sqrt((insula**2).sum(axis=0)), np.sqrt((opening**2).sum(axis=0))) - 0.8


def _ellipsoid(offset: np.ndarray, axes: np.ndarray | Sequence[float]) -> np.ndarray:
    """First-order signed distance to an ellipsoid of half axes `axes`, negative inside; offsets (N, n) -> (N,)."""
    scaled = offset / np.asarray(axes, np.float32)
    level = np.sqrt(_squared_length(scaled)) + 1e-4
    slope = np.sqrt(_squared_length(scaled / np.asarray(axes, np.float32))) + 1e-6
    return (level - 1) * level / slope


def _tube(points: np.ndarray, line: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Signed distance to a tube of varying radius about a polyline, (N,)."""
    nearest = np.full(len(points), np.inf, np.float32)
    for start, stop in itertools.pairwise(line):
        along = np.subtract(stop[:3], start[:3]).astype(np.float32)
        offset = points - np.array(start[:3], np.float32)
        share = np.clip(offset @ along / np.float32(along @ along), 0, 1)
        gap = offset - share[:, None] * along
        radius = start[3] + share * np.float32(stop[3] - start[3])
        nearest = np.minimum(nearest, np.sqrt(_squared_length(gap)) - radius)
    return nearest


def _turned(offset: np.ndarray, degrees: float) -> np.ndarray:
    cosine, sine = np.float32(np.cos(np.deg2rad(degrees))), np.float32(np.sin(np.deg2rad(degrees)))
    turned = offset.copy()
    turned[:, 0] = cosine * offset[:, 0] + sine * offset[:, 1]
    turned[:, 1] = cosine * offset[:, 1] - sine * offset[:, 0]
    return turned


def _squared_length(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("nm,nm->n", vectors, vectors)


def _vector_noise(waves: Sequence[_Waves], points: np.ndarray) -> np.ndarray:
    return np.stack([wave(points) for wave in waves], axis=1)


def _fill(distance: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, linear over `EDGE_MM`."""
    return np.clip(0.5 - distance * np.float32(1 / EDGE_MM), 0, 1)


def _smooth_minimum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The smaller of two distances, rounded where they are nearly equal."""
    blend = np.maximum(width - np.abs(a - b), 0)
    return np.minimum(a, b) - blend * blend / np.float32(4 * width)
