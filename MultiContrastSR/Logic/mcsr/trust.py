"""How far to believe a result: maps that every model has, from what it does and not from what it holds.

All arrays are in display orientation: low resolution (K, h, w), high resolution (K, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .degradation import FactorsKJI
from .errors import InputError
from .maps import MapView
from .networks import MapSpec
from .noise import noise_density

FAMILY = "Trust"

SPECS = {
    "consistency_error": MapSpec(
        title="Consistency error",
        meaning="The result, degraded again, minus the acquired input: how far the result leaves what was measured.",
        family=FAMILY,
        unit="% of the input's range",
        colours="diverging",
        smooth=False,
    ),
    "consistency_error_sd": MapSpec(
        title="Consistency error in noise",
        meaning="The same, divided by the standard deviation of the input's noise (estimated from the outer k-space; "
        "fine anatomy counts as noise there): beyond 3, noise does not explain it.",
        family=FAMILY,
        unit="noise standard deviations",
        colours="diverging",
        smooth=False,
    ),
    "reference_influence": MapSpec(
        title="Influence of the reference",
        meaning="The result minus the one with the target as its own reference: what came from the reference alone.",
        family=FAMILY,
        unit="% of the target's bright tissue",
        colours="diverging",
    ),
    "expected_error": MapSpec(
        title="Expected error",
        meaning="Estimate of the mean absolute error, from how much the result changes when the input is mirrored, "
        "from what was added to the interpolation, and from edges; calibrated on training sessions.",
        family=FAMILY,
        unit="% of the target's bright tissue",
        limits=(0.0, None),
    ),
    "registration_quality": MapSpec(
        title="Agreement with the reference",
        meaning="How much better edges of reference and target agree here than with the reference moved aside by two "
        "low-resolution pixels: 0, no better (or no reference here); 1, twice as well.",
        family=FAMILY,
        unit="0: no better, 1: twice as well",
        limits=(0.0, 1.0),
    ),
}

FEATURES = ("spread", "residual", "edge")
"""What the expected error is told from, see `error_features`."""

_SMOOTHING_PASSES = 2


def trust_views(names: Sequence[str]) -> list[MapView]:
    """Views of trust maps by name, as of a network's maps."""
    return [MapView(name, name, "", SPECS[name]) for name in names]


def consistency_error(
    misfit: np.ndarray, acquired: np.ndarray, factors_kji: FactorsKJI
) -> tuple[np.ndarray, np.ndarray | None]:
    """How far a result, degraded again, is from what was acquired; each low-resolution pixel repeated (K, H, W).

    Args:
        misfit: (K, h, w), fractions of the input's range, see `consistency.misfit`.
        acquired: (K, h, w), intensity units of the input.
        factors_kji: between input and result.

    Returns:
        In percent of the input's range; and in noise standard deviations, None where no noise can be told.
    """
    sigma = noise_sd(acquired)
    percent = _repeated(100 * misfit, factors_kji)
    if sigma is None:
        return percent, None
    extent = float(np.ptp(acquired)) or 1.0
    return percent, _repeated(misfit * (extent / sigma[:, None, None]).astype(misfit.dtype), factors_kji)


def noise_sd(acquired: np.ndarray) -> np.ndarray | None:
    """Standard deviation of the noise of each slice (K,), in the image's units; None for images too small to tell."""
    if min(acquired.shape[1:]) < 16:
        return None
    density, measured = noise_density(acquired)
    sigma = np.sqrt(density * measured.mean())
    return sigma if (sigma > 0).all() else None


def error_features(results: Sequence[np.ndarray], interpolated: np.ndarray) -> np.ndarray:
    """What the expected error is told from (3, K, H, W), in the order of `FEATURES`, smoothed over about 4 pixels.

    Args:
        results: (K, H, W) each: the result first, then those of mirrored inputs (mirrored back); scaled to about 0..1.
        interpolated: (K, H, W), the input without a network.
    """
    sr = results[0]
    spread = np.std(np.stack(results), axis=0)
    residual = np.abs(sr - interpolated)
    edge = np.hypot(_slope(sr, 1), _slope(sr, 2))
    return np.stack([_smoothed(values) for values in (spread, residual, edge)])


def expected_error(features: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """The mean absolute error (K, H, W) that features let expect, in their units; never negative.

    Args:
        features: see `error_features`.
        coefficients: of the features, then a constant, see `trust_calibration`.

    Raises:
        InputError: when there are not as many coefficients as features and one.
    """
    if len(coefficients) != len(features) + 1:
        raise InputError(f"A calibration has {len(features) + 1} numbers, not {len(coefficients)}; calibrate again.")
    weighted = sum(c * f for c, f in zip(coefficients, features, strict=False))
    return np.maximum(weighted + coefficients[-1], 0).astype(np.float32)


def _slope(array: np.ndarray, axis: int) -> np.ndarray:
    return np.gradient(array, axis=axis) if array.shape[axis] > 1 else np.zeros_like(array)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Twice the mean over 5 x 5 pixels of each slice."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[:, None]
    for _ in range(_SMOOTHING_PASSES):
        tensor = F.avg_pool2d(tensor, 5, stride=1, padding=2, count_include_pad=False)
    return tensor[:, 0].numpy()


def _repeated(values: np.ndarray, factors_kji: FactorsKJI) -> np.ndarray:
    for axis, factor in enumerate(factors_kji):
        values = np.repeat(values, factor, axis=axis)
    return values.astype(np.float32)
