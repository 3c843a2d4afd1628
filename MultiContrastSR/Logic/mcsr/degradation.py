"""How a low-resolution image arises from a high-resolution one, and back.

A degradation acts on each axis by itself, so it is one matrix per axis: D = A_k (x) A_j (x) A_i. Factors are per axis
and in (k, j, i) order here, as arrays are. `kspace` keeps the central 1/f of k-space and the intensity, and places the
coarse samples amid the voxels they replace (the half-voxel phase), so that nothing moves in space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np

from .errors import InputError
from .geometry import coarsen_grid
from .volume import Volume

FactorsKJI = tuple[int, int, int]


@dataclass(frozen=True)
class Degradation:
    """What is to know of a degradation: whether it is linear and where its samples lie ("centred" or "corner")."""

    name: str
    linear: bool
    sampling: str


DEGRADATIONS = {
    "kspace": Degradation("kspace", linear=True, sampling="centred"),
    "kspace-official": Degradation("kspace-official", linear=False, sampling="corner"),
    "dcamsr-official": Degradation("kspace-official", linear=False, sampling="corner"),  # under its paper's name
    "diffmsr-official": Degradation("diffmsr-official", linear=False, sampling="corner"),
    "cddpe-official": Degradation("cddpe-official", linear=False, sampling="centred"),
    "bicubic": Degradation("bicubic", linear=True, sampling="centred"),
    "average": Degradation("average", linear=True, sampling="centred"),
}


def degradation_named(name: str) -> Degradation:
    """Look a degradation up; an unknown name is an `InputError` that lists the known ones."""
    try:
        return DEGRADATIONS[name]
    except KeyError:
        raise InputError(f"Unknown degradation '{name}'; known are {', '.join(DEGRADATIONS)}.") from None


@lru_cache(maxsize=64)
def axis_matrix(name: str, size_hr: int, factor: int) -> np.ndarray:
    """The matrix of a degradation along one axis: (size_hr / factor, size_hr), float64.

    Those of kspace-official and diffmsr-official are complex, cddpe-official (a maximum) has none.
    """
    if size_hr % factor:
        raise ValueError(f"size {size_hr} is not a multiple of {factor}")
    if factor == 1:
        return np.eye(size_hr)
    builders = {
        "kspace": _kspace_matrix,
        "kspace-official": _kspace_official_matrix,
        "diffmsr-official": _diffmsr_official_matrix,
        "bicubic": _bicubic_matrix,
        "average": _average_matrix,
    }
    matrix = builders[name](size_hr, factor)
    matrix.setflags(write=False)
    return matrix


def dirichlet_matrix(places: np.ndarray, size: int, lines: int) -> np.ndarray:
    """The kernel of the central `lines` of a spectrum at places (voxels) of a period of `size` voxels.

    The two Nyquist lines of an even number are averaged: one cosine of weight 1 where inner lines count twice.
    """
    phase = 2 * np.pi * places / size
    matrix = np.ones_like(phase)
    for line in range(1, (lines - 1) // 2 + 1):
        matrix += 2 * np.cos(line * phase)
    if lines % 2 == 0:
        matrix += np.cos(lines // 2 * phase)
    return matrix / size


def degrade(
    array_kji: np.ndarray, factors_kji: FactorsKJI, name: str = "kspace", *, signed: bool = False
) -> np.ndarray:
    """D(x): the low-resolution image of an array (K, J, I) whose shape is a multiple of the factors.

    Args:
        array_kji: float32 or float64.
        factors_kji: integer factors per axis, 1 leaves an axis alone.
        name: one of `DEGRADATIONS`.
        signed: keep the sign of a linear D(x) instead of its magnitude, which scanners store.

    Returns:
        Array (K/fk, J/fj, I/fi) of the same type.
    """
    spec = degradation_named(name)
    if spec.name == "cddpe-official":
        # CD-DPE's published code: max-pooling, kernel = stride = factor; bilinear upsampling follows in the network.
        return _joined_cells(array_kji, factors_kji, np.maximum)
    if spec.name == "average":
        # What the matrices do, without their zeros.
        low = _joined_cells(array_kji, factors_kji, np.add) / int(np.prod(factors_kji))
        return low if signed else np.abs(low)
    matrices = [axis_matrix(spec.name, n, f) for n, f in zip(array_kji.shape, factors_kji, strict=True)]
    low = apply_axis_matrices(array_kji, matrices)
    if spec.linear and signed:
        return low
    return np.abs(low).astype(array_kji.dtype, copy=False)


def upsample(array_kji: np.ndarray, factors_kji: FactorsKJI) -> np.ndarray:
    """U(y): zero-filled (sinc) interpolation, the adjoint of `kspace` scaled to keep the intensity.

    D(U(y)) = y but for the Nyquist line of an even axis, which comes back halved.
    """
    matrices = [upsampling_matrix(n, f) for n, f in zip(array_kji.shape, factors_kji, strict=True)]
    return apply_axis_matrices(array_kji, matrices)


def upsampling_matrix(size_lr: int, factor: int) -> np.ndarray:
    """U along one axis, (size_lr * factor, size_lr), float64."""
    return axis_matrix("kspace", size_lr * factor, factor).T * factor


def apply_axis_matrices(array: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Multiply each axis of an array by its matrix (n_out, n_in); square identities are skipped.

    Real matrices are rounded to the array's own type; a complex one makes the result complex.
    """
    for axis, matrix in enumerate(matrices):
        if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
            continue
        if not np.iscomplexobj(matrix) and not np.iscomplexobj(array):
            matrix = matrix.astype(array.dtype)
        array = np.moveaxis(np.moveaxis(array, axis, -1) @ matrix.T, -1, axis)
    return np.ascontiguousarray(array)


def crop_to_multiple(volume: Volume, factors_kji: FactorsKJI) -> tuple[Volume, tuple[int, int, int]]:
    """Crop at the far end of each axis to a multiple of its factor; also returns the voxels lost per axis (i, j, k)."""
    factors_ijk = factors_kji[::-1]
    shape = tuple(n - n % f for n, f in zip(volume.grid.shape_ijk, factors_ijk, strict=True))
    if min(shape) == 0:
        raise InputError(
            f"{volume.name} has only {volume.grid.shape_ijk} voxels (i, j, k), fewer than the factors {factors_ijk}."
        )
    lost = tuple(n - m for n, m in zip(volume.grid.shape_ijk, shape, strict=True))
    return (volume.cropped((0, 0, 0), shape) if any(lost) else volume), lost  # type: ignore[arg-type, return-value]


def degrade_volume(volume: Volume, factors_kji: FactorsKJI, name: str = "kspace", *, signed: bool = False) -> Volume:
    """`degrade` with the matching grid; the shape must be a multiple of the factors."""
    grid = coarsen_grid(volume.grid, factors_kji[::-1], degradation_named(name).sampling)
    return volume.on_grid(degrade(volume.array_kji, factors_kji, name, signed=signed), grid)


def add_noise(array: np.ndarray, sigma: float, *, kind: str = "rician", seed: int = 0) -> np.ndarray:
    """Add noise of standard deviation `sigma` (intensity units of the array) per channel: "rician" or "gaussian"."""
    rng = np.random.default_rng(seed)
    real = array + rng.normal(0, sigma, array.shape)
    if kind == "gaussian":
        return real.astype(array.dtype)
    if kind != "rician":
        raise InputError(f"Unknown noise '{kind}'; known are rician, gaussian.")
    return np.hypot(real, rng.normal(0, sigma, array.shape)).astype(array.dtype)


def _kspace_matrix(size_hr: int, factor: int) -> np.ndarray:
    # Row j is the Dirichlet kernel of the kept band around the coarse sample's place f j + (f - 1)/2.
    size_lr = size_hr // factor
    place = factor * np.arange(size_lr)[:, None] + (factor - 1) / 2 - np.arange(size_hr)[None, :]
    return dirichlet_matrix(place, size_hr, size_lr)


def _kspace_official_matrix(size_hr: int, factor: int, off_centre: int = 0) -> np.ndarray:
    # DCAMSR's published code: orthonormal transforms, centred crop, no phase, Nyquist not averaged.
    # The coarse sample lies on HR voxel f j and the image comes out sqrt(f) brighter per axis.
    size_lr = size_hr // factor
    lines = np.arange(size_lr) - size_lr // 2 - off_centre
    place = factor * np.arange(size_lr)[:, None] - np.arange(size_hr)[None, :]
    kernel = np.exp(2j * np.pi * lines[:, None, None] * place / size_hr).sum(axis=0)
    return kernel / np.sqrt(size_hr * size_lr)


def _diffmsr_official_matrix(size_hr: int, factor: int) -> np.ndarray:
    # DiffMSR's published data: the reference's k-space already has its centre one line too far, and each crop
    # to a half begins one line too early again: 2 lines for x2, 3 for x4. That is a phase ramp, gone in the magnitude,
    # and a band that reaches further on one side; the samples lie where those of kspace-official do. x3 (none is
    # published) is one crop.
    return _kspace_official_matrix(size_hr, factor, off_centre=3 if factor == 4 else 2)


def _joined_cells(array_kji: np.ndarray, factors_kji: FactorsKJI, join: np.ufunc) -> np.ndarray:
    for axis, factor in enumerate(factors_kji):
        shape = (*array_kji.shape[:axis], -1, factor, *array_kji.shape[axis + 1 :])
        array_kji = reduce(join, np.moveaxis(array_kji.reshape(shape), axis + 1, 0))
    return np.ascontiguousarray(array_kji)


def _average_matrix(size_hr: int, factor: int) -> np.ndarray:
    return np.kron(np.eye(size_hr // factor), np.full((1, factor), 1 / factor))


def _bicubic_matrix(size_hr: int, factor: int) -> np.ndarray:
    # Keys' cubic (a = -0.5) widened by the factor (anti-aliased), borders mirrored, as Matlab's imresize does.
    size_lr = size_hr // factor
    matrix = np.zeros((size_lr, size_hr))
    for row in range(size_lr):
        centre = factor * row + (factor - 1) / 2
        taps = np.arange(int(np.floor(centre - 2 * factor)), int(np.ceil(centre + 2 * factor)) + 1)
        weights = _keys_cubic(np.abs(taps - centre) / factor)
        folded = np.mod(taps, 2 * size_hr)
        folded = np.where(folded >= size_hr, 2 * size_hr - 1 - folded, folded)
        np.add.at(matrix[row], folded, weights / weights.sum())
    return matrix


def _keys_cubic(distance: np.ndarray) -> np.ndarray:
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
