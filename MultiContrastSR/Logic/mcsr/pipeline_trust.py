"""Step 8, second half: trust maps. For them the network runs again, on mirrored inputs and without the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .canvas import Canvas
from .inference import Plan, enhance_slices
from .intensity import foreground
from .job import Job
from .pipeline_inputs import LaidOut, own_slices
from .trust import SPECS, consistency_error, error_features, expected_error
from .trust_calibration import find_calibration
from .trust_fit import local_agreement

# A mirrored brain is a brain as well: what the network makes of it and mirrored back is a second opinion.
_MIRRORED_AXES = (1, 2)
_OTHER_SEEDS = 100_003

Finish = Callable[[np.ndarray], np.ndarray]
"""From a network's scaled slices to a volume (K, H, W) that is consistent with the input, in its units."""


def trust_maps(
    job: Job, given: LaidOut, sr: np.ndarray, finish: Finish, update: Callable[[float], None]
) -> dict[str, np.ndarray]:
    """The trust maps of a result by name, (K, H, W) float32 each; see `trust.SPECS`.

    Args:
        job: whose weights, plan and settings made the result.
        given: what the network was given.
        sr: the result, (K, H, W) in the target's units.
        finish: steps after the network.
        update: receives the fraction done.
    """
    found: dict[str, np.ndarray] = {}
    percent, in_noise = consistency_error(sr, job.target.array_kji, job.factors_kji, job.card["degradation"])
    found["consistency_error"] = percent
    if in_noise is not None:
        found["consistency_error_sd"] = in_noise
    if job.network.uses_reference:
        assert job.plan is not None
        bright = 100 / given.target_scale
        if job.fit is not None:
            alone = finish(_run(job, given, own_slices(given), job.plan, lambda done: update(done / 3)))
            found["reference_influence"] = (sr - alone) * bright
            found["registration_quality"] = _agreement(job, given)
        calibration = find_calibration(job.weights.sha256) if job.weights else None
        if calibration is None:
            job.warnings.append("The expected error is left out: these weights were not calibrated for it.")
        else:
            features = spread_features(job, given, sr, finish, lambda done: update((1 + 2 * done) / 3))
            found["expected_error"] = 100 * expected_error(features, calibration.coefficients)
    return {name: found[name].astype(np.float32) for name in SPECS if name in found}


def spread_features(
    job: Job, given: LaidOut, sr: np.ndarray, finish: Finish, update: Callable[[float], None]
) -> np.ndarray:
    """`trust.error_features` of a result; the network runs once for each in-plane direction, mirrored along it."""
    assert job.plan is not None
    results = [sr]
    for number, axis in enumerate(_MIRRORED_AXES):
        target, reference = (np.ascontiguousarray(np.flip(array, axis)) for array in given.slices)
        plan = replace(job.plan, canvas=_mirrored(job.plan.canvas, given.slices[0].shape, axis))

        def so_far(done: float, before: int = number) -> None:
            update((before + done) / len(_MIRRORED_AXES))

        mirrored = _run(job, given, (target, reference), plan, so_far, seed=_OTHER_SEEDS * (number + 1))
        results.append(finish(np.flip(mirrored, axis)))
    return error_features([r / given.target_scale for r in results], given.interpolated / given.target_scale)


def _run(
    job: Job,
    given: LaidOut,
    slices: tuple[np.ndarray, np.ndarray],
    plan: Plan,
    update: Callable[[float], None],
    seed: int = 0,
) -> np.ndarray:
    return enhance_slices(job.network, *slices, plan, seeds=[seed + s for s in given.seeds], update=update)[0]


def _mirrored(canvas: Canvas, shape_lr: tuple[int, ...], axis: int) -> Canvas:
    """The canvas over the same anatomy of slices (K, h, w) mirrored along rows (axis 1) or columns (axis 2)."""
    if axis == 1:
        return replace(canvas, row=shape_lr[1] - canvas.row - canvas.rows)
    return replace(canvas, column=shape_lr[2] - canvas.column - canvas.columns)


def _agreement(job: Job, given: LaidOut) -> np.ndarray:
    """Local agreement on the high-resolution grid, 0 in slices without signal."""
    lr = np.zeros(job.target.array_kji.shape, dtype=np.float32)
    lr[given.lit] = local_agreement(given.slices[0], given.offered, job.factors_kji)
    lr *= foreground(job.target.array_kji)
    _, rows, columns = job.factors_kji
    return np.clip(np.repeat(np.repeat(lr, rows, axis=1), columns, axis=2), 0, 1)
