"""What goes wrong with a reference, made to measure: motion, metal, a field of view too small, a resampling, inversion.

All take and return a volume whose slices are along its third axis.
"""

from __future__ import annotations

import zlib

import numpy as np

from .geometry import Grid, crop_grid
from .intensity import foreground, intensity_scale, inverted
from .resampling import resample
from .volume import Volume

MOTION_STEP_MM = 5.0
MOTION_POSES = 8
VOID_MM = 20.0
RIM_MM = 4.0
KEPT_COLUMNS = 0.6
COARSER = 3


def with_motion(volume: Volume, seed: int) -> Volume:
    """As if the head had jerked in plane while its lines of k-space were acquired: ghosts and blur.

    Args:
        volume: to spoil; its name and the seed choose the jerks.
        seed: see above.
    """
    count, rows, columns = volume.array_kji.shape
    jerks = _random(volume, seed).normal(size=(MOTION_POSES, 2)) * MOTION_STEP_MM / volume.grid.spacing_ijk_mm[1::-1]
    # Lines are acquired from one edge of k-space to the other; the middle ones, which make the image, are one pose.
    down, across = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]
    pose = ((down + 0.5) * MOTION_POSES).astype(int).clip(0, MOTION_POSES - 1)
    jerks -= jerks[MOTION_POSES // 2]
    ramp = np.exp(-2j * np.pi * (down * jerks[pose, 0] + across * jerks[pose, 1]))
    moved = np.stack([np.abs(np.fft.ifft2(np.fft.fft2(volume.array_kji[k]) * ramp)) for k in range(count)])
    return volume.with_array(moved.astype(np.float32))


def with_void(volume: Volume, seed: int) -> Volume:
    """With a ball without signal about a point of the head, and a rim of signal piled up: metal.

    Args:
        volume: to spoil; its name and the seed choose the point.
        seed: see above.
    """
    places = np.argwhere(foreground(volume.array_kji))
    place = places[_random(volume, seed).integers(len(places))]
    k, j, i = (
        (np.arange(size) - middle) * mm
        for size, middle, mm in zip(volume.array_kji.shape, place, volume.grid.spacing_ijk_mm[::-1], strict=True)
    )
    beyond_mm = np.sqrt(k[:, None, None] ** 2 + j[:, None] ** 2 + i**2) - VOID_MM
    piled_up = np.where(beyond_mm < RIM_MM, 2 - np.clip(beyond_mm / RIM_MM, 0, 1), 1)
    return volume.with_array((volume.array_kji * np.where(beyond_mm < 0, 0, piled_up)).astype(np.float32))


def cropped(volume: Volume) -> Volume:
    """The first columns alone: a field of view that ends inside the head."""
    columns, rows, count = volume.grid.shape_ijk
    kept = max(1, round(KEPT_COLUMNS * columns))
    return volume.on_grid(volume.array_kji[..., :kept], crop_grid(volume.grid, (0, 0, 0), (kept, rows, count)))


def resampled(volume: Volume) -> Volume:
    """From pixels three times as large in plane: on the right grid, without the detail that it promises."""
    columns, rows, count = volume.grid.shape_ijk
    coarse = Grid(
        (-(-columns // COARSER), -(-rows // COARSER), count),
        volume.grid.ijk_to_ras @ np.diag([COARSER, COARSER, 1.0, 1.0]),
    )
    return resample(resample(volume, coarse), volume.grid)


def with_inversion(volume: Volume) -> Volume:
    """Bright made dark and the other way round; air stays dark."""
    scaled = volume.array_kji / intensity_scale(volume.array_kji, volume.name)
    return volume.with_array(inverted(scaled).astype(np.float32))


def _random(volume: Volume, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(volume.name.encode())])
