"""Is the expected error right? Measured where the truth is known; and the calibration that makes it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation_pairs import DegradedPair
from .intensity import foreground, intensity_scale
from .pipeline import observe
from .progress import JobProgress
from .trust import expected_error
from .trust_calibration import Calibration, calibrate

BINS = 10
_SEED = 0
_MOST_VOXELS = 200_000


@dataclass(frozen=True)
class Observed:
    """A case whose truth is known.

    Args:
        key: session, target and reference.
        features: (3, N) at voxels of the foreground, see `trust.error_features`.
        errors: (N,) absolute, in the same units: 1 is the target's bright tissue.
    """

    key: str
    features: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Reliability:
    """Expected against real error.

    Args:
        key: of the case.
        correlation: of expected and real absolute error, voxel by voxel (Pearson).
        expected: (BINS,) mean expected error of each tenth of the voxels, in order, percent of bright tissue.
        real: (BINS,) mean real error of the same voxels.
    """

    key: str
    correlation: float
    expected: np.ndarray
    real: np.ndarray

    @property
    def ratio(self) -> float:
        """Mean expected over mean real error: 1 is right."""
        return float(self.expected.mean() / self.real.mean())


def observe_pair(pair: DegradedPair, report: JobProgress) -> Observed:
    """Enhance a pair, and look at the errors and at what foretells them. For `measure_pairs`."""
    seen = observe(
        pair.target,
        pair.reference,
        pair.settings,
        progress=lambda event: report.update(event.fraction),
        cancelled=report.cancelled,
    )
    truth, scale = pair.truth.array_kji, intensity_scale(pair.target.array_kji, pair.target.name)
    inside = np.flatnonzero(foreground(truth))
    if len(inside) > _MOST_VOXELS:
        inside = np.random.default_rng(_SEED).choice(inside, _MOST_VOXELS, replace=False)
    errors = np.abs(seen.sr - truth).reshape(-1)[inside] / scale
    return Observed(pair.key, seen.features.reshape(len(seen.features), -1)[:, inside], errors)


def calibration_of(cases: Sequence[Observed]) -> Calibration:
    """The calibration that fits these cases."""
    return calibrate([c.features for c in cases], [c.errors for c in cases], [c.key for c in cases])


def reliability_of(case: Observed, calibration: Calibration) -> Reliability:
    """How expected and real errors of a case go together."""
    expected = expected_error(case.features, calibration.coefficients)
    parts = np.array_split(np.argsort(expected), BINS)
    means = [[100 * float(values[part].mean()) for part in parts] for values in (expected, case.errors)]
    correlation = float(np.corrcoef(expected, case.errors)[0, 1])
    return Reliability(case.key, correlation, np.array(means[0]), np.array(means[1]))
