"""Step 8, second half: trust maps. For them the network runs again, on mirrored inputs and without the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from .canvas import Canvas
from .consistency import acquired_band, misfit
from .intensity import foreground
from .job import Job
from .memory import Slices, blocks
from .pipeline_inputs import LaidOut
from .pipeline_steps import run_network
from .trust import SPECS, consistency_error, error_features, expected_error
from .trust_calibration import find_calibration
from .trust_fit import local_agreement

# A mirrored brain is a brain as well: what the network makes of it and mirrored back is a second opinion.
_MIRRORED_AXES = (1, 2)
_OTHER_SEEDS = 100_003

Finish = Callable[[np.ndarray], np.ndarray]
"""From a network's scaled volume (K, H, W) to one that is consistent with the input, in its units, in its place."""


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
    acquired = job.target.array_kji
    remaining = misfit(sr, acquired, job.factors_kji, job.card["degradation"], acquired_band(acquired))
    percent, in_noise = consistency_error(remaining, acquired, job.factors_kji)
    found["consistency_error"] = percent
    if in_noise is not None:
        found["consistency_error_sd"] = in_noise
    if job.network.uses_reference:
        assert job.plan is not None
        if job.fit is not None:
            own = (given.slices[0], given.own)
            alone = finish(run_network(job, given, own, job.plan, update=lambda done: update(done / 3))[0])
            np.subtract(sr, alone, out=alone)
            alone *= 100 / given.target_scale
            found["reference_influence"] = alone
            found["registration_quality"] = _agreement(job, given)
        calibration = find_calibration(job.weights.sha256) if job.weights else None
        if calibration is None:
            job.warnings.append("The expected error is left out: these weights were not calibrated for it.")
        else:
            expected = job.new_array()
            for block, features in spread_features(job, given, sr, finish, lambda done: update((1 + 2 * done) / 3)):
                expected[block] = 100 * expected_error(features, calibration.coefficients)
            found["expected_error"] = expected
    return {name: found[name] for name in SPECS if name in found}


def spread_features(
    job: Job, given: LaidOut, sr: np.ndarray, finish: Finish, update: Callable[[float], None]
) -> Iterator[tuple[slice, np.ndarray]]:
    """`trust.error_features` of a result, some slices at a time: (which, features (3, k, H, W)).

    The network runs once for each in-plane direction, mirrored along it.
    """
    assert job.plan is not None
    results = [sr]
    low, reference = given.slices
    for number, axis in enumerate(_MIRRORED_AXES):
        mirrored = Slices(reference.shape, partial(_flipped, reference, axis))
        plan = replace(job.plan, canvas=_mirrored(job.plan.canvas, low.shape, axis))

        def so_far(done: float, before: int = number) -> None:
            update((before + done) / len(_MIRRORED_AXES))

        slices = (np.ascontiguousarray(np.flip(low, axis)), mirrored)
        seed = _OTHER_SEEDS * (number + 1)
        opinion, _ = run_network(job, given, slices, plan, update=so_far, seed=seed)
        results.append(finish(np.flip(opinion, axis)))
    for block in blocks(sr.shape):
        scaled = [result[block] / given.target_scale for result in results]
        yield block, error_features(scaled, given.interpolated[block] / given.target_scale)


def _flipped(slices: Slices, axis: int, chosen: np.ndarray) -> np.ndarray:
    return np.flip(slices[chosen], axis)


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
    fine = job.new_array()
    for number, pixels in enumerate(np.clip(lr, 0, 1)):
        fine[number] = np.repeat(np.repeat(pixels, rows, axis=0), columns, axis=1)
    return fine
