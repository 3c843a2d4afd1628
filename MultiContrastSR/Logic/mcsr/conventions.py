"""What weights expect of their input beside its scale: where low-resolution samples lie, and how slices are normalised.

Our own weights take slices as the engine has them. Those of the papers' authors saw slices sampled and normalised in
their own ways (docs/networks says which), which are reproduced here and undone in the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .canvas import Canvas
from .degradation import apply_axis_matrices, degradation_named, degrade, upsampling_matrix
from .errors import WeightsError
from .intensity import is_magnitude

INTENSITIES = ("percentile", "zscore-lr", "minmax-slice")
_CLAMP = 6.0


@dataclass(frozen=True)
class Conventions:
    """How slices are handed to a network.

    Args:
        sampling: "centred", a low-resolution pixel lies amid the high-resolution ones that it covers; "corner", on the
            first of them.
        intensity: "percentile", as they are (the volume was scaled); "zscore-lr", DCAMSR's, by mean and deviation of
            each low-resolution slice as `kspace-official` gives it; "minmax-slice", CD-DPE's, each slice to 0..1.
    """

    sampling: str = "centred"
    intensity: str = "percentile"

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Conventions:
        """Those of weights.

        Raises:
            WeightsError: for an intensity convention that this version does not know.
        """
        intensity = card.get("intensity_convention", "percentile")
        if intensity not in INTENSITIES:
            raise WeightsError(f"The weights use the intensity convention '{intensity}', unknown here; update.")
        return cls(degradation_named(card["degradation"]).sampling, intensity)


OWN = Conventions()
"""Those of our own weights."""


class GivenSlices(NamedTuple):
    """What a network is given, on the whole canvas; sr * gain + offset has the units that the slices came in.

    Args:
        target_lr: (K, h, w).
        reference: (K, H, W).
        gain: (K, 1, 1).
        offset: (K, 1, 1).
    """

    target_lr: np.ndarray
    reference: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


def given_slices(
    target_lr: np.ndarray, reference: np.ndarray, factor: int, canvas: Canvas, conventions: Conventions
) -> GivenSlices:
    """Slices as the weights saw them in training.

    Args:
        target_lr: (K, h, w) centred samples, scaled.
        reference: (K, H, W), scaled.
        factor: between the two.
        canvas: what the network sees; its statistics are those of the slice.
        conventions: of the weights.
    """
    if conventions.sampling == "corner":
        target_lr = corner_samples(target_lr, factor)
    lr, ref = canvas.padded(target_lr), canvas.padded(reference, factor)
    if conventions.intensity == "zscore-lr":
        return _zscore(lr, ref, factor)
    if conventions.intensity == "minmax-slice":
        return _minmax(lr, ref)
    return GivenSlices(lr, ref, np.ones((len(lr), 1, 1), np.float32), np.zeros((len(lr), 1, 1), np.float32))


def corner_samples(slices: np.ndarray, factor: int) -> np.ndarray:
    """Move the samples of slices (K, h, w) from f j + (f - 1)/2 to f j on the fine grid, by sinc interpolation."""
    matrices = [np.eye(len(slices)), *(upsampling_matrix(n, factor)[::factor] for n in slices.shape[1:])]
    moved = apply_axis_matrices(slices, matrices)
    return np.maximum(moved, 0) if is_magnitude(slices) else moved


def _zscore(lr: np.ndarray, reference: np.ndarray, factor: int) -> GivenSlices:
    # The published crop of k-space comes out brighter by the factor, and mean and deviation are of that bright image:
    # the target itself does not notice, reference and result do.
    mean, deviation = _moments(factor * lr)
    own_mean, own_deviation = _moments(degrade(reference, (1, factor, factor), "kspace-official"))
    return GivenSlices(
        np.clip((factor * lr - mean) / deviation, -_CLAMP, _CLAMP),
        np.clip((reference - own_mean) / own_deviation, -_CLAMP, _CLAMP),
        deviation,
        mean,
    )


def _minmax(lr: np.ndarray, reference: np.ndarray) -> GivenSlices:
    (low, extent), (own_low, own_extent) = _range(lr), _range(reference)
    return GivenSlices((lr - low) / extent, (reference - own_low) / own_extent, extent, low)


def _moments(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased deviation of each slice, (K, 1, 1)."""
    mean = slices.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    deviation = slices.std(axis=(1, 2), keepdims=True, dtype=np.float64, ddof=1) + 1e-11
    return mean.astype(np.float32), deviation.astype(np.float32)


def _range(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and extent of each slice, (K, 1, 1)."""
    low = slices.min(axis=(1, 2), keepdims=True)
    return low, slices.max(axis=(1, 2), keepdims=True) - low + np.float32(1e-10)
