"""Steps 5 to 7 of a job: from what the network is given to a volume that agrees with what was acquired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .consistency import Consistent, acquired_band, enforce_consistency, misfit
from .degradation import degradation_named
from .inference import Encode, Plan, enhance_slices
from .intensity import is_magnitude
from .job import Job
from .memory import SliceSource
from .pipeline_inputs import LaidOut, made_from
from .progress import JobProgress
from .trust_summary import Findings, slice_ranges, summarise


def super_resolved(job: Job, given: LaidOut, plan: Plan, report: JobProgress) -> np.ndarray:
    """Step 5: the network on all slices that hold signal, scaled (K, H, W), nothing in the others; sets `job.plan`.

    Slices whose reference fits in part are mixed with what the network makes of the target alone.
    """
    doubtful = _doubtful(job)
    share = len(given.seeds) / max(1, len(given.seeds) + len(doubtful))
    scaled, job.plan = job.memory.recall(
        "result",
        made_from(job, given, plan),
        lambda: run_network(
            job,
            given,
            given.slices,
            plan,
            encode=_kept_encodings(job, plan),
            update=lambda done: report.update(share * done),
        ),
    )
    if job.plan.tile not in (None, job.network.native_size):
        job.warnings.append(
            f"Memory was short, so slices were run in tiles of {job.plan.tile} pixels; "
            "whole slices give a slightly different result."
        )
    if job.memory.keeps:  # for the next job
        kept, scaled = scaled, job.new_array()
        scaled[...] = kept
    if not len(doubtful):
        return scaled
    assert job.fit is not None
    rows = np.flatnonzero(given.lit)[doubtful]
    numbers = slice_ranges(list(rows))
    job.warnings.append(f"The reference fits the target poorly in slices {numbers}; there it is used in part.")
    for place, (which, row) in enumerate(zip(doubtful, rows, strict=True)):
        own = (given.slices[0][[which]], given.own[[which]])
        alone, _ = enhance_slices(job.network, *own, job.plan, seeds=[given.seeds[which]])
        weight = job.fit.weights[which].astype(scaled.dtype)
        scaled[row] = weight * scaled[row] + (1 - weight) * alone[0]
        report.update(share + (1 - share) * (place + 1) / len(doubtful))
    return scaled


def run_network(
    job: Job,
    given: LaidOut,
    slices: tuple[np.ndarray, SliceSource],
    plan: Plan,
    *,
    encode: Encode | None = None,
    update: Callable[[float], None],
    seed: int = 0,
) -> tuple[np.ndarray, Plan]:
    """The network on slices (k, h, w) and (k, H, W) of those that hold signal: (K, H, W), and the plan that worked."""
    into, seeds = (job.new_array(), np.flatnonzero(given.lit)), [seed + s for s in given.seeds]
    return enhance_slices(job.network, *slices, plan, seeds=seeds, into=into, encode=encode, update=update)


def finished(job: Job, given: LaidOut, scaled: np.ndarray) -> np.ndarray:
    """Steps 6 and 7: a volume (K, H, W) in the target's units, consistent with it if that is wanted, and clipped.

    Args:
        job: whose result or second opinion it is.
        given: what the network was given.
        scaled: what it made of that (K, H, W); it becomes the volume, since memory may not hold both.
    """
    return _projected(job, given, scaled)[0]


def checked(job: Job, given: LaidOut, scaled: np.ndarray) -> np.ndarray:
    """The same for the result itself, with its figures in `job.consistency`."""
    result, fixed = _projected(job, given, scaled)
    if fixed is None:
        if job.settings.consistency and job.network.uses_reference:
            name = degradation_named(job.card["degradation"]).name
            job.warnings.append(f"Data consistency is off: '{name}' of these weights is not linear.")
        return result
    acquired = job.target.array_kji
    band = acquired_band(acquired)
    remaining = misfit(result, acquired, job.factors_kji, job.card["degradation"], band)
    job.consistency = {
        "applied": True,
        "acquired_band_rows_columns": [round(b, 3) for b in band],
        "error_before_percent_rms": round(100 * fixed.error_before, 4),
        "error_after_percent_max": round(100 * fixed.error_after, 6),
        "error_after_clip_percent_rms": round(100 * float(np.sqrt(np.mean(remaining**2, dtype=np.float64))), 4),
    }
    if min(band) < 1:
        job.warnings.append(
            f"The target is zero-filled or filtered: {100 * band[0]:.0f} % (rows) and {100 * band[1]:.0f} % (columns) "
            "of its band hold acquired detail."
        )
    return result


def summary_of(job: Job, given: LaidOut, expected_error: np.ndarray | None = None) -> list[str]:
    """What was checked, in three sentences; `expected_error` (K, H, W) in percent where it is known."""
    of_slices = None
    if expected_error is not None:
        of_slices = np.full(len(given.lit), np.nan)
        for number in np.flatnonzero(given.lit):
            inside = given.interpolated[number] > given.signal_level
            if inside.any():
                of_slices[number] = expected_error[number][inside].mean()
    without_fit = "Reference not used: this method uses none."
    if job.network.uses_reference:
        without_fit = "Reference not used: none was given, so that the target, interpolated, was its own."
    fit = job.fit if job.settings.fallback else None
    if job.fit is not None and fit is None:
        detail = f"; {job.reference_detail}" if job.reference_detail else ""
        without_fit = f"Reference used in all slices: whether it fits was not acted upon, as was asked for{detail}."
    return summarise(
        Findings(job.consistency, fit, job.reference_detail, given.lit, without_fit, of_slices, job.warnings)
    )


def _kept_encodings(job: Job, plan: Plan) -> Encode | None:
    """Encodings of references that an earlier job of this process may have left, and the next one may find."""
    known = job.memory.references
    if known is None or plan.device != "cpu" or not job.network.uses_reference:
        return None
    made_by = job.weights and job.weights.sha256, plan.precision, plan.fast, plan.threads
    return lambda network, reference: known.encoding(network, reference, made_by)


def _doubtful(job: Job) -> np.ndarray:
    """Indices, among the slices that hold signal, of those whose reference is used in part."""
    if job.fit is None or not job.settings.fallback:
        return np.zeros(0, dtype=int)
    return np.flatnonzero((job.fit.weights > 0) & (job.fit.weights < 1))


def _projected(job: Job, given: LaidOut, scaled: np.ndarray) -> tuple[np.ndarray, Consistent | None]:
    """The volume, written over `scaled`; and what consistency changed, None where it is not wanted or impossible."""
    acquired = job.target.array_kji
    for number, lit in enumerate(given.lit):
        scaled[number] = scaled[number] * given.target_scale if lit else given.interpolated[number]
    degradation, fixed = degradation_named(job.card["degradation"]), None
    if job.settings.consistency and job.network.uses_reference and degradation.linear:
        band = acquired_band(acquired)
        fixed = enforce_consistency(scaled, acquired, job.factors_kji, degradation.name, band, out=scaled)
    if is_magnitude(acquired):
        np.maximum(scaled, 0, out=scaled)
    return scaled, fixed
