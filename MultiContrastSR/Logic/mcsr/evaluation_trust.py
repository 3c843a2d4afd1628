"""Is the expected error right? Measured where the truth is known; and the calibration that makes it so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .degradation import crop_to_multiple, degrade_volume
from .errors import InputError
from .geometry import crop_grid
from .intensity import foreground, intensity_scale
from .job import Settings
from .pipeline import observe
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .subjects import SubjectPair, find_subject_pairs
from .trust import expected_error
from .trust_calibration import Calibration, calibrate
from .volume import Volume

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
        sha256: of the weights.
    """

    key: str
    features: np.ndarray
    errors: np.ndarray
    sha256: str


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


def observe_cases(
    data: Path,
    split: str,
    settings: Settings,
    *,
    sessions: Sequence[str] = (),
    limit_slices: int = 0,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Iterator[Observed]:
    """Enhance degraded targets with their references where they lie, and look at the errors.

    Args:
        data: folder of subjects.
        split: "train", "val" or "test".
        settings: model, scale, device.
        sessions: only these.
        limit_slices: at most so many, the middle ones; 0 for all.
        progress: receives events.
        cancelled: asked between steps.

    Raises:
        InputError: when there is no such session.
    """
    pairs = [p for p in find_subject_pairs(data, split) if not sessions or p.path.stem in sessions]
    if not pairs:
        raise InputError(f"{data} has no session {', '.join(sessions)} in split '{split}'.")
    report = JobProgress(progress, cancelled, {pair.key: 1.0 for pair in pairs})
    for pair in pairs:
        with report.stage(pair.key):
            found = _observed(pair, settings, limit_slices, report)
        yield found


def _observed(pair: SubjectPair, settings: Settings, limit_slices: int, report: JobProgress) -> Observed:
    factors = (1, settings.scale, settings.scale)
    truth, reference = (_middle(pair.read(contrast), limit_slices) for contrast in (pair.target, pair.reference))
    truth = crop_to_multiple(truth, factors)[0]
    target = degrade_volume(truth, factors)
    settings = replace(settings, plane=pair.plane, registration="none")
    seen = observe(
        target,
        reference,
        settings,
        progress=lambda event: report.update(event.fraction),
        cancelled=report.cancelled,
    )
    scale = intensity_scale(target.array_kji, target.name)
    inside = np.flatnonzero(foreground(truth.array_kji))
    if len(inside) > _MOST_VOXELS:
        inside = np.random.default_rng(_SEED).choice(inside, _MOST_VOXELS, replace=False)
    errors = np.abs(seen.sr - truth.array_kji).reshape(-1)[inside] / scale
    return Observed(pair.key, seen.features.reshape(len(seen.features), -1)[:, inside], errors, seen.sha256)


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


def _middle(volume: Volume, limit: int) -> Volume:
    """At most `limit` slices in the middle."""
    count = len(volume.array_kji)
    if not limit or count <= limit:
        return volume
    first = (count - limit) // 2
    columns, rows, _ = volume.grid.shape_ijk
    grid = crop_grid(volume.grid, (0, 0, first), (columns, rows, limit))
    return volume.on_grid(volume.array_kji[first : first + limit], grid)
