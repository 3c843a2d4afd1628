"""Steps 5 to 7 of a job: from what the network is given to a volume that agrees with what was acquired."""

from __future__ import annotations

import numpy as np

from .consistency import Consistent, acquired_band, enforce_consistency
from .degradation import degradation_named, degrade
from .inference import Plan, enhance_slices
from .intensity import foreground, is_magnitude
from .job import Job
from .pipeline_inputs import LaidOut, made_from, own_slices
from .progress import JobProgress
from .trust_summary import Findings, slice_ranges, summarise


def super_resolved(job: Job, given: LaidOut, plan: Plan, report: JobProgress) -> np.ndarray:
    """Step 5: the network on all slices that hold signal, scaled (k, H, W); sets `job.plan`.

    Slices whose reference fits in part are mixed with what the network makes of the target alone.
    """
    doubtful = _doubtful(job)
    share = len(given.seeds) / max(1, len(given.seeds) + len(doubtful))
    scaled, job.plan = job.memory.recall(
        "result",
        made_from(job, given, plan),
        lambda: enhance_slices(
            job.network, *given.slices, plan, seeds=given.seeds, update=lambda done: report.update(share * done)
        ),
    )
    if job.plan.tile != plan.tile:
        job.warnings.append(
            f"Memory was short, so slices were run in tiles of {job.plan.tile} pixels; "
            "whole slices give a slightly different result."
        )
    if not len(doubtful):
        return scaled
    assert job.fit is not None
    target, own = own_slices(given)
    alone, _ = enhance_slices(
        job.network,
        target[doubtful],
        own[doubtful],
        job.plan,
        seeds=[given.seeds[n] for n in doubtful],
        update=lambda done: report.update(share + (1 - share) * done),
    )
    numbers = slice_ranges(list(np.flatnonzero(given.lit)[doubtful]))
    job.warnings.append(f"The reference fits the target poorly in slices {numbers}; there it is used in part.")
    mixed, weight = scaled.copy(), job.fit.weights[doubtful, None, None].astype(scaled.dtype)
    mixed[doubtful] = weight * scaled[doubtful] + (1 - weight) * alone
    return mixed


def finished(job: Job, given: LaidOut, scaled: np.ndarray, *, consistent: bool = True) -> np.ndarray:
    """Steps 6 and 7: a volume (K, H, W) in the target's units, consistent with it if that is wanted, and clipped.

    Args:
        job: whose result or second opinion it is.
        given: what the network was given.
        scaled: what it made of that (k, H, W).
        consistent: False: as the network left it.
    """
    sr = given.interpolated.copy()
    sr[given.lit] = scaled * given.target_scale
    if not consistent:
        return sr
    fixed = _projected(job, sr)
    return clipped(job, sr if fixed is None else fixed.array_kji)


def checked(job: Job, sr: np.ndarray) -> np.ndarray:
    """Step 6, with its figures in `job.consistency`."""
    fixed = _projected(job, sr)
    if fixed is None:
        if job.settings.consistency and job.network.uses_reference:
            name = degradation_named(job.card["degradation"]).name
            job.warnings.append(f"Data consistency is off: '{name}' of these weights is not linear.")
        return clipped(job, sr)
    band, result = acquired_band(job.target.array_kji), clipped(job, fixed.array_kji)
    job.consistency = {
        "applied": True,
        "acquired_band_rows_columns": [round(b, 3) for b in band],
        "error_before_percent_rms": round(100 * fixed.error_before, 4),
        "error_after_percent_max": round(100 * fixed.error_after, 6),
        "error_after_clip_percent_rms": round(100 * _misfit_rms(job, result), 4),
    }
    if min(band) < 1:
        job.warnings.append(
            f"The target is zero-filled or filtered: {100 * band[0]:.0f} % (rows) and {100 * band[1]:.0f} % (columns) "
            "of its band hold acquired detail."
        )
    return result


def clipped(job: Job, array: np.ndarray) -> np.ndarray:
    """Without the negative values that a magnitude image cannot have."""
    return np.maximum(array, 0) if is_magnitude(job.target.array_kji) else array


def summary_of(job: Job, given: LaidOut, expected_error: np.ndarray | None = None) -> list[str]:
    """What was checked, in three sentences; `expected_error` (K, H, W) in percent where it is known."""
    of_slices = None
    if expected_error is not None:
        inside = foreground(given.interpolated) & given.lit[:, None, None]
        voxels = inside.sum(axis=(1, 2))
        of_slices = np.where(voxels > 0, (expected_error * inside).sum(axis=(1, 2)) / np.maximum(voxels, 1), np.nan)
    why = "none was given" if job.network.uses_reference else "this method uses none"
    fit = job.fit if job.settings.fallback else None
    if job.fit is not None and fit is None:
        why = "whether it fits was not acted upon, as was asked for"
    return summarise(Findings(job.consistency, fit, given.lit, why, of_slices, job.warnings))


def _doubtful(job: Job) -> np.ndarray:
    """Indices, among the slices that hold signal, of those whose reference is used in part."""
    if job.fit is None or not job.settings.fallback:
        return np.zeros(0, dtype=int)
    return np.flatnonzero((job.fit.weights > 0) & (job.fit.weights < 1))


def _projected(job: Job, sr: np.ndarray) -> Consistent | None:
    """The result made to agree with what was acquired; None where that is not wanted or cannot be done."""
    degradation = degradation_named(job.card["degradation"])
    if not (job.settings.consistency and job.network.uses_reference and degradation.linear):
        return None
    acquired = job.target.array_kji
    return enforce_consistency(sr, acquired, job.factors_kji, degradation.name, acquired_band(acquired))


def _misfit_rms(job: Job, sr: np.ndarray) -> float:
    """RMS difference between the acquired input and the result degraded again, as a fraction of the input's range."""
    acquired = job.target.array_kji
    degraded = degrade(sr, job.factors_kji, job.card["degradation"], signed=not is_magnitude(acquired))
    return float(np.sqrt(np.mean((degraded - acquired) ** 2)) / (np.ptp(acquired) or 1.0))
