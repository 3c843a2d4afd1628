"""The story of one job, top to bottom: `enhance` and `simulate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .checks import check_scalar_mri, check_scale
from .degradation import FactorsKJI, add_noise, crop_to_multiple, degradation_named, degrade_volume
from .errors import InputError
from .geometry import display_order, slice_axis
from .intensity import intensity_scale
from .job import DrawnMaps, Job, Memory, Result, Settings
from .maps import Maps, collect_maps
from .memory import shortage_said
from .metrics import compare
from .pipeline_inputs import INPUT_STAGES, LaidOut, display_truth, lay_out, made_from, plan_of, prepare, stored_volume
from .pipeline_steps import checked, finished, summary_of, super_resolved
from .pipeline_trust import spread_features, trust_maps
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .trust import trust_views
from .volume import Volume

_RESULT_STAGES = {"Enhancing": 12.0, "Checking consistency": 1.5}
_MAPS_STAGE, _TRUST_STAGE = {"Drawing maps": 15.0}, {"Drawing trust maps": 40.0}


def enhance(
    target: Volume,
    reference: Volume | None,
    settings: Settings | None = None,
    *,
    ground_truth: Volume | None = None,
    reference_to_target: np.ndarray | None = None,
    memory: Memory | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Result:
    """Super-resolve a target contrast with the help of a reference contrast of the same patient.

    Args:
        target: low-resolution volume, any orientation.
        reference: finer volume of another contrast, on any grid, overlapping in space; None: the interpolated target is
            its own reference.
        settings: see `Settings`.
        ground_truth: the original high-resolution target, on the result's grid (a larger box is cropped).
        reference_to_target: affine (4, 4), RAS mm in the reference's header to RAS mm in the target's; the reference is
            then not registered.
        memory: what jobs before this one left; it will hold what this one leaves.
        on_result: receives the result before its maps are drawn, where maps or trust maps are asked for.
        progress: receives events.
        cancelled: asked between steps.

    Raises:
        InputError, WeightsError, DeviceError, Cancelled: each with one sentence on what to do.
    """
    settings = settings or Settings()
    with shortage_said(settings.memory):
        job = prepare(target, reference, settings, reference_to_target, memory)
        report = JobProgress(progress, cancelled, INPUT_STAGES | _RESULT_STAGES | _stages_of_maps(job))
        truth = display_truth(ground_truth, job)
        # Made before anything slow, so that too little memory or an unusable device is said at once.
        plan = plan_of(job)

        given = lay_out(job, report)
        with report.stage("Enhancing"):
            scaled = super_resolved(job, given, plan, report)
        with report.stage("Checking consistency"):
            sr = checked(job, given, scaled)
            report.update(1.0)  # the last moment to cancel: from here on the result is complete
        job.seconds = report.seconds
        job.summary = summary_of(job, given)
        result = _result(job, sr, given.reference, truth)
        if not (job.views or job.settings.trust):
            return result
        on_result(result)
        drawn = _drawn(job, given, sr, report)
    return replace(result, maps=drawn.maps, tables=drawn.tables, provenance=drawn.provenance, warnings=drawn.warnings)


def draw_maps(
    target: Volume,
    reference: Volume | None,
    settings: Settings,
    *,
    reference_to_target: np.ndarray | None = None,
    memory: Memory | None = None,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> DrawnMaps:
    """The maps of the result that `enhance` gives for the same arguments, without making that result again.

    The network runs once, and its maps are kept; what of registration, weights and, for trust maps, the result the
    memory does not hold is done anew. For arguments and errors see `enhance`.

    Raises:
        InputError: also when no maps are asked for.
    """
    with shortage_said(settings.memory):
        job = prepare(target, reference, settings, reference_to_target, memory)
        if not (job.views or job.settings.trust):
            raise InputError("No maps were asked for; name some, or all.")
        result_stages = _RESULT_STAGES if job.settings.trust else {}
        report = JobProgress(progress, cancelled, INPUT_STAGES | result_stages | _stages_of_maps(job))
        plan = plan_of(job)
        given = lay_out(job, report)
        sr = None
        if job.settings.trust:
            with report.stage("Enhancing"):
                scaled = super_resolved(job, given, plan, report)
            with report.stage("Checking consistency"):
                sr = checked(job, given, scaled)
        else:
            known = job.memory.known("result", made_from(job, given, plan))
            job.plan = known[1] if known else plan  # where memory ran short then, it does now
        job.seconds = report.seconds
        return _drawn(job, given, sr, report)


class Observation(NamedTuple):
    """A result and what its error may be told from, (K, H, W) and (3, K, H, W) in display orientation."""

    sr: np.ndarray
    features: np.ndarray


def observe(
    target: Volume,
    reference: Volume,
    settings: Settings,
    *,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Observation:
    """Enhance for the calibration of the expected error; for arguments and errors see `enhance`."""
    job = prepare(target, reference, settings)
    report = JobProgress(progress, cancelled, INPUT_STAGES | _RESULT_STAGES | _TRUST_STAGE)
    plan = plan_of(job)
    given = lay_out(job, report)
    with report.stage("Enhancing"):
        scaled = super_resolved(job, given, plan, report)
    with report.stage("Checking consistency"):
        sr = finished(job, given, scaled)
    with report.stage("Drawing trust maps"):
        parts = spread_features(job, given, sr, lambda again: finished(job, given, again), report.update)
        features = np.concatenate([part for _, part in parts], axis=1)
    return Observation(sr, features)


def simulate(
    volume: Volume,
    scale: int,
    *,
    degradation: str = "kspace",
    noise: float = 0.0,
    signed: bool = False,
    plane: str = "auto",
    seed: int = 0,
) -> tuple[Volume, tuple[int, int, int]]:
    """Make the low-resolution volume that a coarser acquisition of `volume` would have given.

    Args:
        volume: high-resolution volume.
        scale: in-plane factor, 2, 3 or 4.
        degradation: see `degradation.DEGRADATIONS`.
        noise: standard deviation of Rician noise (Gaussian with `signed`) as a fraction of the intensity scale.
        signed: keep negative values instead of the magnitude.
        plane: "auto" or an anatomical plane.
        seed: of the noise.

    Returns:
        The volume, in the storage order and (where its values fit) the type of the input; and the voxels lost per axis
        (i, j, k) of the display orientation because a size was no multiple of the scale.
    """
    check_scale(scale)
    if not 0 <= noise < 1:
        raise InputError(f"Noise {noise} is no fraction of the intensity scale; give 0 to 1, for example 0.02.")
    spec = degradation_named(degradation)
    check_scalar_mri(volume)
    order = display_order(volume.grid, slice_axis(volume.grid, plane))
    factors: FactorsKJI = (1, scale, scale)
    cropped, lost = crop_to_multiple(volume.reordered(order), factors)
    low = degrade_volume(cropped, factors, spec.name, signed=signed)
    if noise > 0:
        sigma = noise * intensity_scale(low.array_kji, volume.name)
        kind = "gaussian" if signed else "rician"
        low = low.with_array(add_noise(low.array_kji, sigma, kind=kind, seed=seed))
    stored = low.source_dtype if _fits(low.array_kji, low.source_dtype) else "float32"
    return replace(low.reordered(order.inverse()), name=f"{volume.name}_x{scale}", source_dtype=stored), lost


def _fits(array: np.ndarray, dtype: str) -> bool:
    """Whether rounding to an integer type would keep the values; overshoot under 1 % of the range may be clipped."""
    if not np.issubdtype(np.dtype(dtype), np.integer):
        return True
    limits, slack = np.iinfo(dtype), 0.01 * float(np.ptp(array))
    return float(array.min()) >= limits.min - slack and float(array.max()) <= limits.max + slack


def _stages_of_maps(job: Job) -> dict[str, float]:
    return (_MAPS_STAGE if job.views else {}) | (_TRUST_STAGE if job.settings.trust else {})


def _drawn(job: Job, given: LaidOut, sr: np.ndarray | None, report: JobProgress) -> DrawnMaps:
    """Step 8, and the maps in the target's storage order; trust maps are of the result `sr`."""
    images: dict[str, np.ndarray] = {}
    tables: dict[str, np.ndarray] = {}
    if job.views:
        with report.stage("Drawing maps"):
            maps = _maps(job, given, report)
        images, tables = dict(maps.images), maps.tables
    job.drawn = job.views
    if job.settings.trust:
        assert sr is not None
        with report.stage("Drawing trust maps"):
            trust = trust_maps(job, given, sr, lambda again: finished(job, given, again), report.update)
        images |= trust
        job.drawn = [*job.views, *trust_views(list(trust))]
        job.summary = summary_of(job, given, trust.get("expected_error"))
    # One by one: what is stored otherwise than it is shown is copied.
    volumes = {key: stored_volume(job, images.pop(key), f"{job.target.name} {key}") for key in list(images)}
    return DrawnMaps(volumes, tables, job.order.axes_ijk[2], job.provenance(), tuple(job.warnings))


def _maps(job: Job, given: LaidOut, report: JobProgress) -> Maps:
    """Step 8: what the network says of its own work, for all slices of the volume."""
    assert job.plan is not None
    found = collect_maps(job.network, *given.slices, job.plan, job.views, seeds=given.seeds, update=report.update)
    left_out = [view.name for view in job.views if view.name not in {*found.images, *found.tables}]
    if left_out:
        job.warnings.append(
            f"Left out, because they hold too many values or differ from tile to tile: {', '.join(left_out)}."
        )
        job.views = [view for view in job.views if view.name not in left_out]

    def of_volume(values: np.ndarray, elsewhere: float) -> np.ndarray:
        if given.lit.all():
            return values
        full = np.full((len(given.lit), *values.shape[1:]), elsewhere, dtype=np.float32)
        full[given.lit] = values
        return full

    return Maps(
        {name: of_volume(found.images.pop(name), 0.0) for name in list(found.images)},
        {name: of_volume(array, np.nan) for name, array in found.tables.items()},
    )


def _result(job: Job, sr: np.ndarray, reference: Volume, truth: Volume | None) -> Result:
    """Steps 7 and 9: back to the target's storage order and type, and scores; maps may follow."""
    result = Result(
        sr=stored_volume(job, sr, f"{job.target.name} SRx{job.factors_kji[1]}", job.target.source_dtype),
        target=job.given,
        reference=reference,
        truth=truth and truth.reordered(job.order.inverse()),
        slice_axis=job.order.axes_ijk[2],
        scores=job.scores,
        provenance={},
        warnings=(),
    )
    if truth is not None:
        scale = intensity_scale(truth.array_kji, truth.name)
        for method, volume in (("result", result.sr), ("interpolated", result.interpolated)):
            job.scores[method] = compare(job.order.apply(volume.array_kji), truth.array_kji, scale)
    return replace(result, provenance=job.provenance(), warnings=tuple(job.warnings))
