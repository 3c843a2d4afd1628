"""A 3-D image with its place in space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .errors import GeometryError, InputError
from .geometry import AxisOrder, Grid, crop_grid, moved_grid, same_space

MAX_REPLACED_FRACTION = 0.01
"""NaN and infinite voxels up to this fraction are replaced by 0 and reported; more is refused."""


STORED_DTYPES = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32"})
"""Types that voxels are stored in: those that Slicer and the file formats share."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar 3-D image.

    Args:
        array_kji: voxels (K, J, I); converted to float32, read-only from then on.
        ijk_to_ras: (4, 4) index (i, j, k) to RAS mm, float64.
        name: what the user calls it; nothing else of the patient is kept.
        source_dtype: numpy name of the stored type, restored on writing.
        facts: acquisition facts where known, for example {"modality": "MR"}.

    Raises:
        InputError: when the array is not 3-D or holds too many NaN or infinite voxels.
        GeometryError: when the matrix is degenerate.
    """

    array_kji: np.ndarray
    ijk_to_ras: np.ndarray
    name: str = "volume"
    source_dtype: str = "float32"
    facts: Mapping[str, str] = field(default_factory=dict)
    replaced_voxels: int = 0

    def __post_init__(self) -> None:
        if self.array_kji.ndim != 3:
            raise InputError(f"{self.name} has {self.array_kji.ndim} dimensions; a 3-D scalar volume is needed.")
        # One conversion to float32: a sum or difference of float64 voxels would else overflow silently.
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(self.array_kji, dtype=np.float32)
        bad = ~np.isfinite(array)
        count = int(bad.sum())
        if count:
            if count > MAX_REPLACED_FRACTION * array.size:
                raise InputError(
                    f"{self.name}: {100 * count / array.size:.1f} % of the voxels are NaN or infinite "
                    f"(at most {100 * MAX_REPLACED_FRACTION:.0f} % are accepted); export the image again."
                )
            array = np.where(bad, np.float32(0), array)
            object.__setattr__(self, "replaced_voxels", self.replaced_voxels + count)
        elif array is self.array_kji:
            array = array.view()
        array.setflags(write=False)
        object.__setattr__(self, "array_kji", array)
        try:
            object.__setattr__(self, "ijk_to_ras", self.grid.ijk_to_ras)
        except GeometryError as error:
            raise GeometryError(f"{self.name}: {error}") from error

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        k, j, i = self.array_kji.shape
        return Grid((i, j, k), self.ijk_to_ras)

    def stored(self, dtype: str = "") -> np.ndarray:
        """The voxels (k, j, i) as they are stored.

        Args:
            dtype: numpy name, `source_dtype` by default. Integers are rounded and clipped to their range; what is none
                of `STORED_DTYPES` (bool, 64 bit, half) becomes float32, which is exact for what a volume holds.
        """
        name = dtype or self.source_dtype
        stored = np.dtype(name if name in STORED_DTYPES else "float32")
        if stored.kind == "f":
            return self.array_kji
        limits = np.iinfo(stored)
        return np.clip(np.rint(self.array_kji.astype(np.float64)), limits.min, limits.max).astype(stored)

    def with_array(self, array_kji: np.ndarray, *, name: str | None = None) -> Volume:
        """The same grid with other voxels."""
        if array_kji.shape != self.array_kji.shape:
            raise ValueError(f"shape {array_kji.shape} does not fit the grid {self.array_kji.shape}")
        return replace(self, array_kji=array_kji, name=name or self.name, replaced_voxels=0)

    def on_grid(self, array_kji: np.ndarray, grid: Grid, *, name: str | None = None) -> Volume:
        """Other voxels on another grid, with this volume's name and facts."""
        if array_kji.shape != grid.shape_kji:
            raise ValueError(f"shape {array_kji.shape} does not fit the grid {grid.shape_kji}")
        return replace(self, array_kji=array_kji, ijk_to_ras=grid.ijk_to_ras, name=name or self.name, replaced_voxels=0)

    def reordered(self, order: AxisOrder) -> Volume:
        """The same voxels at the same places, in another storage order."""
        return replace(self, array_kji=order.apply(self.array_kji), ijk_to_ras=order.apply_grid(self.grid).ijk_to_ras)

    def moved(self, ras_to_ras: np.ndarray) -> Volume:
        """The same voxels carried through space by a (4, 4) transform in RAS mm."""
        return replace(self, ijk_to_ras=moved_grid(self.grid, ras_to_ras).ijk_to_ras)

    def cropped(self, start_ijk: tuple[int, int, int], shape_ijk: tuple[int, int, int]) -> Volume:
        """The sub-box that starts at voxel `start_ijk`; it must lie inside."""
        (i, j, k), (ni, nj, nk) = start_ijk, shape_ijk
        stops = (i + ni, j + nj, k + nk)
        if min(start_ijk) < 0 or any(stop > n for stop, n in zip(stops, self.grid.shape_ijk, strict=True)):
            raise ValueError(f"crop {start_ijk} + {shape_ijk} leaves the grid {self.grid.shape_ijk}")
        array = self.array_kji[k : k + nk, j : j + nj, i : i + ni]
        return self.on_grid(array, crop_grid(self.grid, start_ijk, shape_ijk))


def crop_to_grid(volume: Volume, grid: Grid, what: str) -> Volume:
    """The part of a volume that lies on `grid`, whose voxels must be voxels of the volume.

    Raises:
        GeometryError: when the grids do not coincide.
    """
    start = tuple(int(n) for n in np.rint(volume.grid.to_ijk(grid.to_ras((0, 0, 0)))))
    stop = tuple(s + n for s, n in zip(start, grid.shape_ijk, strict=True))
    inside = min(start) >= 0 and all(s <= n for s, n in zip(stop, volume.grid.shape_ijk, strict=True))
    tolerance = 0.05 * float(grid.spacing_ijk_mm.min())
    if not inside or not same_space(crop_grid(volume.grid, start, grid.shape_ijk), grid, tolerance):  # type: ignore[arg-type]
        raise GeometryError(
            f"{what} {volume.name} is not on the result's grid (shape {grid.shape_ijk}, spacing "
            f"{np.round(grid.spacing_ijk_mm, 3).tolist()} mm); give the volume that the target was simulated from."
        )
    return volume.cropped(start, grid.shape_ijk)  # type: ignore[arg-type]
