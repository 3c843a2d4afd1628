"""How the papers measure: degradation, size, normalisation and metric of each, and the numbers that they print.

One record for each paper; what no record holds is the same for all. Sources: the papers and the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .degradation import FactorsKJI, degradation_named, degrade, dirichlet_matrix, upsampling_matrix
from .degradation import apply_axis_matrices as applied
from .errors import InputError
from .geometry import coarsen_grid, crop_grid, refine_grid
from .intensity import intensity_scale
from .metrics import nmse, psnr, ssim
from .volume import Volume


class Published(NamedTuple):
    """A line of a paper's table; None where the paper gives no number."""

    data: str
    scale: int
    psnr: float
    ssim: float | None = None
    nmse: float | None = None


@dataclass(frozen=True)
class Protocol:
    """How one paper degrades, normalises and compares.

    Args:
        paper: short citation.
        degradation: see `degradation.DEGRADATIONS`.
        normalisation: what intensities are divided by before they are compared: "none"; "minmax", each slice of result
            and truth is brought to 0..1 by its own extremes; "percentile", 99.9 of the truth's foreground;
            "slice-maximum", `white` times the maximum of the truth's slice.
        by_volume: one PSNR and NMSE for a volume, its data range the truth's maximum; else for each slice, range 1.
        window: of the SSIM, see `metrics.SSIM_WINDOWS`; always slice by slice.
        size: side of the square slices; None as they are stored.
        resized: to that size by cropping or padding k-space (else by cropping the image).
        central_slices: only so many in the middle of a volume; None for all.
        border: multiples of the scale left out at each border.
        clamp: the truth is clipped to so many deviations of its low-resolution slice about the mean; None for no clip.
        white: see `normalisation`.
        levels: grey levels that the images, clipped to 0..1, are rounded to; None for no rounding.
        low_band_of_truth: the result's k-space is replaced by the truth's inside the acquired band.
        departures: what the record cannot reproduce from magnitude images, a sentence.
        published: the paper's own numbers.
    """

    paper: str
    degradation: str
    normalisation: str
    by_volume: bool = False
    window: str = "uniform"
    size: int | None = None
    resized: bool = False
    central_slices: int | None = None
    border: int = 0
    clamp: float | None = None
    white: float = 1.0
    levels: int | None = None
    low_band_of_truth: bool = False
    departures: str = ""
    published: Sequence[Published] = ()


PROTOCOLS = {
    "cd-dpe": Protocol(
        "Gu et al., AAAI 2026",
        "cddpe-official",
        "minmax",
        central_slices=50,
        departures="The paper's slices were rounded to 8 bit first.",
        published=(
            Published("BraTS 2018, T2<-T1", 2, 40.70, 0.9885),
            Published("BraTS 2018, T2<-T1", 4, 36.00, 0.9716),
            Published("IXI, T2<-PD", 2, 43.22, 0.9876),
            Published("IXI, T2<-PD", 4, 38.59, 0.9735),
            Published("fastMRI, not trained on it", 4, 29.41, 0.8387),
        ),
    ),
    "daasr": Protocol(
        "Wang et al.",
        "bicubic",
        "percentile",
        window="gaussian",
        size=256,
        resized=True,
        border=1,
        departures="The paper names neither normalisation, nor SSIM window, nor the width of the cropped border: these "
        "are our reading.",
        published=(Published("fastMRI", 4, 33.41), Published("brain, in-house", 4, 36.64, 0.9571)),
    ),
    "hftn-sr": Protocol(
        "Jin",
        "kspace-official",
        "none",
        by_volume=True,
        size=320,
        departures="The paper describes neither degradation nor metric: these are those of the fastMRI works it "
        "follows, from magnitude images.",
        published=(
            Published("fastMRI knee, PD-FS<-PD", 2, 32.67, 0.731),
            Published("fastMRI knee, PD-FS<-PD", 4, 30.85, 0.671),
            Published("in-house, FLAIR<-T2", 2, 37.02, 0.933),
            Published("in-house, FLAIR<-T2", 4, 33.81, 0.857),
        ),
    ),
    "dcamsr": Protocol(
        "Huang et al., MICCAI 2023",
        "dcamsr-official",
        "none",
        by_volume=True,
        size=320,
        clamp=6.0,
        departures="The paper degrades complex images coil by coil; here it is the magnitude.",
        published=(
            Published("fastMRI knee, PD-FS<-PD", 2, 32.20, 0.721),
            Published("fastMRI knee, PD-FS<-PD", 4, 30.97, 0.637),
            Published("M4Raw, T2<-T1", 2, 32.31, 0.779),
            Published("M4Raw, T2<-T1", 4, 30.48, 0.728, 0.029),
            Published("M4Raw, T2 without T1", 4, 29.74, 0.709),
        ),
    ),
    "diffmsr": Protocol(
        "Li et al., CVPR 2024",
        "diffmsr-official",
        "slice-maximum",
        window="gaussian",
        size=256,
        resized=True,
        white=0.8,
        levels=255,
        low_band_of_truth=True,
        departures="The low band is the truth's in the compared image, as published.",
        published=(
            Published("fastMRI knee, PD-FS<-PD", 4, 33.78, 0.8765),
            Published("brain, in-house, T2-FLAIR<-T1", 4, 34.12, 0.9362),
            Published("brain tumours, in-house, T2-FLAIR<-T1", 4, 33.85, 0.9274),
            Published("pelvis, in-house, T2<-T1", 4, 35.47, 0.9607),
        ),
    ),
}


def protocol_named(name: str) -> Protocol:
    """Look a protocol up; an unknown name is an `InputError` that lists the known ones."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise InputError(f"Unknown protocol '{name}'; known are {', '.join(PROTOCOLS)}.") from None


def fitted(truth: Volume, protocol: Protocol) -> Volume:
    """A target in display order with the slices and the in-plane size of a protocol; where it lies stays true."""
    columns, rows, count = truth.grid.shape_ijk
    kept = min(count, protocol.central_slices or count)
    truth = truth.cropped((0, 0, (count - kept) // 2), (columns, rows, kept))
    size = protocol.size
    if size is None or (columns, rows) == (size, size):
        return truth
    if not protocol.resized:
        width, height = min(columns, size), min(rows, size)
        return truth.cropped(((columns - width) // 2, (rows - height) // 2, 0), (width, height, kept))
    side = max(columns, rows)
    left, top = (side - columns) // 2, (side - rows) // 2
    margins = ((0, 0), (top, side - rows - top), (left, side - columns - left))
    matrix = _fourier_matrix(side, size)
    square = applied(np.pad(truth.array_kji, margins), [np.eye(kept), matrix, matrix])
    grid = crop_grid(truth.grid, (-left, -top, 0), (side, side, kept))
    grid = coarsen_grid(refine_grid(grid, (size, size, 1)), (side, side, 1))
    return truth.on_grid(np.maximum(square, 0), grid)


def acquire(truth: Volume, scale: int, degradation: str) -> Volume:
    """A low-resolution volume of a degradation, as the engine takes it: samples centred, intensity kept.

    Published k-space crops are brighter by the scale, and their samples lie on the first of the voxels they replace.
    Both are undone here, by the inverse of what `conventions` does for weights that want them so: those are given the
    published image.

    Args:
        truth: in display order, its in-plane size a multiple of the scale.
        scale: in-plane factor.
        degradation: see `degradation.DEGRADATIONS`.
    """
    factors: FactorsKJI = (1, scale, scale)
    low = degrade(truth.array_kji, factors, degradation)
    if degradation_named(degradation).sampling == "corner":
        back = [np.linalg.inv(upsampling_matrix(n, scale)[::scale]) for n in low.shape[1:]]
        low = applied(low / np.float32(scale), [np.eye(len(low)), *back])
    return truth.on_grid(low, coarsen_grid(truth.grid, factors[::-1]))


def protocol_scores(result: np.ndarray, truth: np.ndarray, scale: int, protocol: Protocol) -> dict[str, np.ndarray]:
    """The paper's metric.

    Args:
        result: volume (K, H, W) in display order.
        truth: the original, of the same shape and unit.
        scale: in-plane factor.
        protocol: whose.

    Returns:
        psnr (dB), ssim and nmse: one value for each slice, or a single one `by_volume`.
    """
    result, truth = result.astype(np.float64), truth.astype(np.float64)
    if protocol.clamp:
        low = degrade(truth, (1, scale, scale), protocol.degradation)
        mean, deviation = low.mean(axis=(1, 2), keepdims=True), low.std(axis=(1, 2), keepdims=True, ddof=1)
        truth = np.clip(truth, mean - protocol.clamp * deviation, mean + protocol.clamp * deviation)
    if protocol.low_band_of_truth:
        result = _with_band_of(truth, result, scale)
    result, truth = _normalised(result, truth, protocol)
    if protocol.levels:
        result, truth = (np.rint(np.clip(a, 0, 1) * protocol.levels) / protocol.levels for a in (result, truth))
    rim = protocol.border * scale
    result, truth = (a[:, rim : a.shape[1] - rim, rim : a.shape[2] - rim] for a in (result, truth))
    data_range = float(truth.max()) if protocol.by_volume else 1.0
    rows = range(len(truth))
    parts: Sequence[int | slice] = [slice(None)] if protocol.by_volume else rows
    similarity = [ssim(result[n], truth[n], data_range, protocol.window) for n in rows]
    return {
        "psnr": np.array([psnr(result[n], truth[n], data_range) for n in parts]),
        "ssim": np.array([np.mean(similarity)] if protocol.by_volume else similarity),
        "nmse": np.array([nmse(result[n], truth[n]) for n in parts]),
    }


def _normalised(result: np.ndarray, truth: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    if protocol.normalisation == "minmax":
        return _minmax(result), _minmax(truth)
    if protocol.normalisation == "percentile":
        white: float | np.ndarray = intensity_scale(truth, "the original")
    elif protocol.normalisation == "slice-maximum":
        white = protocol.white * truth.max(axis=(1, 2), keepdims=True)
    else:
        white = 1.0
    return result / white, truth / white


def _minmax(slices: np.ndarray) -> np.ndarray:
    low = slices.min(axis=(1, 2), keepdims=True)
    return (slices - low) / (slices.max(axis=(1, 2), keepdims=True) - low + 1e-10)


def _with_band_of(truth: np.ndarray, result: np.ndarray, scale: int) -> np.ndarray:
    """The image that DiffMSR is measured on (I_dc); the mask of its code lies two lines off the centred band."""
    lines = [np.arange(n // scale) - n // scale // 2 - 2 for n in truth.shape[1:]]
    band = np.ix_(range(len(truth)), *lines)
    spectrum = np.fft.fft2(result)
    spectrum[band] = np.fft.fft2(truth)[band]
    return np.abs(np.fft.ifft2(spectrum))


def _fourier_matrix(size: int, new_size: int) -> np.ndarray:
    """Resampling of a line by cropping or padding its spectrum, the samples evenly over the same extent."""
    kept = min(size, new_size)
    places = (np.arange(new_size)[:, None] + 0.5) * size / new_size - 0.5 - np.arange(size)
    return dirichlet_matrix(places, size, kept)
