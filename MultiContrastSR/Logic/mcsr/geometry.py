"""Grids in space: the only place that does affine arithmetic.

World coordinates are RAS millimetres. A grid's index order is (i, j, k), its arrays are stored as (k, j, i).
Index 0 is the centre of the first voxel, so a grid of n voxels covers the indices -0.5 to n - 0.5.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .errors import GeometryError

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Converts LPS millimetres (ITK, DICOM) to RAS millimetres and back: it is its own inverse."""

_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
PLANES = ("sagittal", "coronal", "axial")
"""The anatomical planes, in the order of the RAS axis that is normal to them."""

SPACING_TIE = 1.1
"""Spacings within this ratio do not tell which axis runs through the slices."""

# How a radiologist's display runs through an image: (columns, rows, slices) as directions in RAS. Axial slices are
# numbered feet to head, sagittal right to left, coronal front to back.
_DISPLAY_AXES = {
    "axial": ("L", "P", "S"),
    "sagittal": ("P", "I", "L"),
    "coronal": ("L", "I", "P"),
}


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in RAS space, possibly oblique, anisotropic, left-handed or sheared.

    Args:
        shape_ijk: number of voxels along (i, j, k), each at least 1.
        ijk_to_ras: float64 (4, 4), index to RAS mm, last row (0, 0, 0, 1).

    Raises:
        GeometryError: when the matrix is not finite, not affine or has no volume.
    """

    shape_ijk: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        shape = tuple(int(n) for n in self.shape_ijk)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise GeometryError("The image's geometry is not a finite 4x4 affine matrix; export the image again.")
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"An image of shape {shape} has no voxels along some axis; a 3-D image is needed.")
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if spacing.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / spacing)) < 1e-3:
            raise GeometryError(
                "The image's axes do not span a volume (zero spacing or parallel axes); export the image again."
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "ijk_to_ras", matrix)
        object.__setattr__(self, "shape_ijk", shape)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape_ijk == other.shape_ijk
            and np.array_equal(self.ijk_to_ras, other.ijk_to_ras)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Shape of an array on this grid."""
        i, j, k = self.shape_ijk
        return (k, j, i)

    @property
    def spacing_ijk_mm(self) -> np.ndarray:
        """Voxel size along (i, j, k) in mm, float64 (3,)."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors of the axes i, j, k as columns, in RAS, float64 (3, 3)."""
        return self.ijk_to_ras[:3, :3] / self.spacing_ijk_mm

    @property
    def is_orthogonal(self) -> bool:
        """Whether the axes stand at right angles; a sheared grid is something that not all file formats can hold."""
        return bool(np.abs(self.directions.T @ self.directions - np.eye(3)).max() < 1e-4)

    @property
    def centre_ras(self) -> np.ndarray:
        """Centre of the box in RAS mm, float64 (3,)."""
        return self.to_ras((np.array(self.shape_ijk) - 1) / 2)

    @property
    def axis_codes(self) -> str:
        """Direction towards which each axis runs, nearest anatomical letter, for example 'LPS'."""
        return "".join(
            _AXIS_LETTERS[ras_axis][int(self.directions[ras_axis, axis] > 0)]
            for axis, ras_axis in enumerate(_nearest_ras_axes(self.directions))
        )

    def to_ras(self, ijk: np.ndarray | tuple[float, ...]) -> np.ndarray:
        """Map indices (..., 3) in (i, j, k) order to RAS mm (..., 3)."""
        return transform_points(self.ijk_to_ras, np.asarray(ijk, dtype=np.float64))

    def to_ijk(self, ras: np.ndarray) -> np.ndarray:
        """Map RAS mm (..., 3) to continuous indices (..., 3) in (i, j, k) order."""
        return transform_points(np.linalg.inv(self.ijk_to_ras), np.asarray(ras, dtype=np.float64))

    def box_corners_ras(self) -> np.ndarray:
        """The eight outer corners of the box (voxel faces, not centres) in RAS mm, float64 (8, 3)."""
        faces = [(-0.5, n - 0.5) for n in self.shape_ijk]
        return self.to_ras(np.array(list(itertools.product(*faces))))

    def ras_bounds(self) -> np.ndarray:
        """Smallest and largest R, A, S of the box in mm, float64 (2, 3)."""
        corners = self.box_corners_ras()
        return np.stack([corners.min(axis=0), corners.max(axis=0)])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) affine to points (..., 3)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def refine_grid(grid: Grid, factors_ijk: tuple[int, int, int]) -> Grid:
    """Divide every voxel into (fi, fj, fk) voxels: the same box, the first centre moved by (1/f - 1)/2 voxel."""
    factors = np.asarray(factors_ijk, dtype=np.float64)
    shape = tuple(int(n * f) for n, f in zip(grid.shape_ijk, factors_ijk, strict=True))
    return Grid(shape, _rescaled(grid.ijk_to_ras, 1 / factors, (1 / factors - 1) / 2))  # type: ignore[arg-type]


def coarsen_grid(grid: Grid, factors_ijk: tuple[int, int, int], sampling: str = "centred") -> Grid:
    """Join (fi, fj, fk) voxels into one.

    Args:
        grid: its shape must be a multiple of the factors (`crop_to_multiple` first).
        factors_ijk: integer factors per axis.
        sampling: "centred", a coarse voxel lies amid the voxels it joins (same box, inverse of `refine_grid`);
            "corner", it lies on the first of them (an ordinary k-space crop; the box moves).
    """
    if any(n % f for n, f in zip(grid.shape_ijk, factors_ijk, strict=True)):
        raise GeometryError(f"Shape {grid.shape_ijk} is not a multiple of {factors_ijk}; crop the image first.")
    factors = np.asarray(factors_ijk, dtype=np.float64)
    start = (factors - 1) / 2 if sampling == "centred" else np.zeros(3)
    shape = tuple(n // f for n, f in zip(grid.shape_ijk, factors_ijk, strict=True))
    return Grid(shape, _rescaled(grid.ijk_to_ras, factors, start))  # type: ignore[arg-type]


def crop_grid(grid: Grid, start_ijk: tuple[int, int, int], shape_ijk: tuple[int, int, int]) -> Grid:
    """The grid of the sub-box that starts at voxel `start_ijk`; a negative start or a larger shape pads."""
    return Grid(shape_ijk, _rescaled(grid.ijk_to_ras, np.ones(3), np.asarray(start_ijk, dtype=np.float64)))


def moved_grid(grid: Grid, ras_to_ras: np.ndarray) -> Grid:
    """The same voxels carried through space by a (4, 4) transform in RAS mm."""
    return Grid(grid.shape_ijk, np.asarray(ras_to_ras, dtype=np.float64) @ grid.ijk_to_ras)


def same_space(a: Grid, b: Grid, tolerance_mm: float = 1e-3) -> bool:
    """Whether two grids of equal shape put every corner at the same place, to `tolerance_mm`."""
    return a.shape_ijk == b.shape_ijk and bool(np.abs(a.box_corners_ras() - b.box_corners_ras()).max() <= tolerance_mm)


def overlap_fraction(of: Grid, within: Grid, samples: int = 24) -> float:
    """Fraction (0 to 1) of the box of `of` that lies in the box of `within`, from a lattice of samples**3 points."""
    axes = [(np.arange(samples) + 0.5) / samples * n - 0.5 for n in of.shape_ijk]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    ijk = within.to_ijk(of.to_ras(points))
    inside = (ijk >= -0.5) & (ijk <= np.array(within.shape_ijk) - 0.5)
    return float(inside.all(axis=-1).mean())


def rigid_matrix(
    rotation_deg: tuple[float, float, float], translation_mm: np.ndarray, centre_ras: np.ndarray
) -> np.ndarray:
    """Rigid RAS-to-RAS transform (4, 4): turn about R, then A, then S through `centre_ras`, then shift."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rotation_deg)):
        turn = np.eye(4)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = centre_ras - matrix[:3, :3] @ centre_ras + translation_mm
    return matrix


@dataclass(frozen=True)
class AxisOrder:
    """How a storage order is turned into another: new axis n is old axis `axes_ijk[n]`, reversed where `flips[n]`."""

    axes_ijk: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array_kji: np.ndarray) -> np.ndarray:
        """Reorder an array (k, j, i); a view."""
        moved = array_kji.transpose([2 - self.axes_ijk[2 - n] for n in range(3)])
        return moved[tuple(slice(None, None, -1 if self.flips[2 - n] else 1) for n in range(3))]

    def inverse(self) -> AxisOrder:
        """The order that undoes this one."""
        axes = tuple(self.axes_ijk.index(axis) for axis in range(3))
        return AxisOrder(axes, tuple(self.flips[axis] for axis in axes))  # type: ignore[arg-type]

    def apply_grid(self, grid: Grid) -> Grid:
        """The grid of an array that `apply` reordered: each voxel keeps its place in space."""
        matrix = grid.ijk_to_ras.copy()
        shape = tuple(grid.shape_ijk[axis] for axis in self.axes_ijk)
        columns = []
        origin = matrix[:3, 3].copy()
        for axis, flip in zip(self.axes_ijk, self.flips, strict=True):
            column = matrix[:3, axis]
            if flip:
                origin = origin + column * (grid.shape_ijk[axis] - 1)
                column = -column
            columns.append(column)
        result = np.eye(4)
        result[:3, :3] = np.stack(columns, axis=1)
        result[:3, 3] = origin
        return Grid(shape, result)  # type: ignore[arg-type]


def display_order(grid: Grid, slice_axis: int) -> AxisOrder:
    """The reordering that puts slices in a radiologist's display orientation.

    Args:
        grid: any orientation.
        slice_axis: the storage axis (0 = i, 1 = j, 2 = k) along which slices are stacked.

    Returns:
        An order whose new k is the slice axis and whose (i, j) run as columns and rows on a display in LPS
        convention, whatever the storage order was.
    """
    ras_axes = _nearest_ras_axes(grid.directions)
    plane = PLANES[ras_axes[slice_axis]]
    axes, flips = [], []
    for letter in _DISPLAY_AXES[plane]:
        ras_axis = next(n for n, letters in enumerate(_AXIS_LETTERS) if letter in letters)
        axis = ras_axes.index(ras_axis)
        runs_towards = _AXIS_LETTERS[ras_axis][int(grid.directions[ras_axis, axis] > 0)]
        axes.append(axis)
        flips.append(runs_towards != letter)
    return AxisOrder(tuple(axes), tuple(flips))  # type: ignore[arg-type]


def plane_name(grid: Grid, slice_axis: int) -> str:
    """The anatomical plane nearest to the slices stacked along `slice_axis`."""
    return PLANES[_nearest_ras_axes(grid.directions)[slice_axis]]


def slice_axis_of_plane(grid: Grid, plane: str) -> int:
    """The storage axis (0 = i, 1 = j, 2 = k) that is normal to an anatomical plane."""
    return _nearest_ras_axes(grid.directions).index(PLANES.index(plane))


def slice_axis(grid: Grid, plane: str = "auto", tie_plane: str = "axial") -> int:
    """The storage axis (0 = i, 1 = j, 2 = k) along which slices are stacked, from the spacing or normal to a plane.

    It is the coarsest axis; where the two coarsest tie, the third (a thin-slice volume of coarse square pixels).

    Args:
        grid: of the volume.
        plane: "auto" or an anatomical plane.
        tie_plane: what to take when all spacings are within 10 % of each other.
    """
    if plane != "auto":
        if plane not in PLANES:
            raise GeometryError(f"Unknown plane '{plane}'; known are auto, {', '.join(PLANES)}.")
        return slice_axis_of_plane(grid, plane)
    single = [axis for axis, n in enumerate(grid.shape_ijk) if n == 1]
    if len(single) == 1:
        return single[0]
    spacing = grid.spacing_ijk_mm
    finest, middle, coarsest = (int(axis) for axis in np.argsort(spacing, kind="stable"))
    if spacing[coarsest] > SPACING_TIE * spacing[middle]:
        return coarsest
    if spacing[middle] > SPACING_TIE * spacing[finest]:
        return finest
    return slice_axis_of_plane(grid, tie_plane)


def _nearest_ras_axes(directions: np.ndarray) -> tuple[int, int, int]:
    """For each grid axis the RAS axis it runs along, one to one, largest sum of cosines."""
    cosines = np.abs(directions)
    return max(itertools.permutations(range(3)), key=lambda order: sum(cosines[order[a], a] for a in range(3)))  # type: ignore[return-value]


def _rescaled(ijk_to_ras: np.ndarray, factors: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Matrix of a grid whose voxel n lies at the old index start + n * factors."""
    matrix = ijk_to_ras.copy()
    matrix[:3, :3] = ijk_to_ras[:3, :3] * factors
    matrix[:3, 3] = ijk_to_ras[:3, :3] @ start + ijk_to_ras[:3, 3]
    return matrix
