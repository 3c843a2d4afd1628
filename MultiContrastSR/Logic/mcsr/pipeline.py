"""The story of one job, top to bottom: `enhance` and `simulate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .canvas import Canvas, native_canvas, signal_canvas
from .checks import check_pair, check_scalar_mri, check_scale
from .consistency import acquired_band, enforce_consistency
from .conventions import Conventions
from .degradation import (
    FactorsKJI,
    add_noise,
    crop_to_multiple,
    degradation_named,
    degrade,
    degrade_volume,
    upsample,
)
from .errors import InputError, WeightsError
from .geometry import (
    display_order,
    plane_name,
    slice_axis,
    slice_axis_of_plane,
)
from .inference import Plan, enhance_slices, make_plan
from .intensity import foreground, intensity_scale, is_magnitude
from .job import Job, Result, Settings
from .maps import Maps, choose_views, collect_maps
from .metrics import compare
from .networks import Network, create_network, network_class
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .registration import Registration, register_rigid
from .resampling import coverage, resample
from .volume import Volume, crop_to_grid
from .weights import Weights, find_weights

BASELINE_CARD: Mapping[str, Any] = {"degradation": "kspace", "plane": "axial"}
_STAGES = {"Registering": 3.0, "Resampling the reference": 1.0, "Enhancing": 12.0, "Checking consistency": 1.5}
_MAPS_SHARE = 15.0
_MOST_MAPS_GB = 8.0
_BARE_SLICE = 0.05
_EMPTY_SLICE = 0.01


def enhance(
    target: Volume,
    reference: Volume | None,
    settings: Settings | None = None,
    *,
    ground_truth: Volume | None = None,
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
        progress: receives events.
        cancelled: asked between steps.

    Raises:
        InputError, WeightsError, DeviceError, Cancelled: each with one sentence on what to do.
    """
    settings = settings or Settings()
    job = _prepare(target, reference, settings)
    report = JobProgress(progress, cancelled, _STAGES | ({"Drawing maps": _MAPS_SHARE} if job.views else {}))
    truth = _display_truth(ground_truth, job)
    canvas = _canvas(job)
    # Made before anything slow, so that an unusable device or precision is said at once.
    plan = make_plan(job.network, canvas, settings.device, settings.precision, Conventions.of(job.card))

    with report.stage("Registering"):
        job.registration = _register(job, report)
    with report.stage("Resampling the reference"):
        interpolated = upsample(job.target.array_kji, job.factors_kji)
        target_scale = np.float32(intensity_scale(job.target.array_kji, target.name))
        reference_hr, reference_slices = _reference_on_grid(job, interpolated, target_scale)
        _choose_slices(job, target_scale, reference_slices)
    with report.stage("Enhancing"):
        sr = _enhanced(job, plan, interpolated, target_scale, report)
    with report.stage("Checking consistency"):
        sr = _clipped(job, _consistent(job, sr))
        interpolated = _clipped(job, interpolated)
        report.update(1.0)  # the last moment to cancel: from here on the result is complete
    maps = Maps({}, {})
    if job.views:
        with report.stage("Drawing maps"):
            maps = _maps(job, report)
    job.seconds = report.seconds
    return _result(job, sr, interpolated, reference_hr, truth, maps)


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


def _prepare(target: Volume, reference: Volume | None, settings: Settings) -> Job:
    """Steps 1 and 2: check the inputs, choose weights, plane and scale."""
    check_scale(settings.scale)
    if settings.registration not in ("rigid", "none"):
        raise InputError(f"Unknown registration '{settings.registration}'; known are rigid, none.")
    network, card, weights = _load(settings)
    warnings = check_scalar_mri(target) + (check_scalar_mri(reference) if reference else [])
    axis = slice_axis(target.grid, settings.plane, card["plane"])
    order = display_order(target.grid, axis)
    job = Job(
        settings=settings,
        target=target.reordered(order),
        reference=reference and reference.reordered(display_order(reference.grid, slice_axis(reference.grid))),
        order=order,
        factors_kji=(1, settings.scale, settings.scale),
        network=network,
        card=card,
        weights=weights,
        warnings=warnings,
        views=choose_views(network, settings.maps),
    )
    _check_size_of_maps(job)
    if job.reference:
        job.warnings += check_pair(job.target, job.reference, settings.scale, force=settings.force)
    elif network.uses_reference:
        job.warnings.append("No reference was given: the target, interpolated, is its own.")
    plane = plane_name(target.grid, axis)
    if plane != card["plane"] and network.uses_reference:
        job.warnings.append(f"These weights were trained on {card['plane']} slices; yours are {plane}: look closely.")
    if "spacing_mm" in card:
        low, high = card["spacing_mm"]
        spacing = float(job.hr_grid.spacing_ijk_mm[:2].max())
        if not 0.8 * low <= spacing <= 1.25 * high:
            job.warnings.append(
                f"The result's pixels are {spacing:.2f} mm; these weights saw {low:.2f} to {high:.2f} mm: look closely."
            )
    return job


def _check_size_of_maps(job: Job) -> None:
    """Maps of all slices are held in memory: refused before the work, not lost after it."""
    images = sum(view.spec.kind != "table" for view in job.views)
    gigabytes = images * np.prod(job.hr_grid.shape_ijk, dtype=float) * 4e-9
    if gigabytes > _MOST_MAPS_GB:
        raise InputError(
            f"{images} maps of this volume take {gigabytes:.0f} GB, more than {_MOST_MAPS_GB:.0f}; name fewer of them."
        )


def _load(settings: Settings) -> tuple[Network, Mapping[str, Any], Weights | None]:
    if not network_class(settings.model).uses_reference:
        if settings.weights is not None:
            raise WeightsError(f"{settings.model} has no weights; leave {settings.weights.name} out.")
        return create_network(settings.model, scale=settings.scale).eval(), BASELINE_CARD, None
    weights = find_weights(settings.model, settings.scale, settings.weights)
    if weights.metadata.get("stage") == 1:
        raise WeightsError(
            f"{weights.path.name} is a network of the first training stage, which needs the high-resolution truth as "
            "an input; import the checkpoint of the second stage."
        )
    return weights.build(), weights.metadata, weights


def _fits(array: np.ndarray, dtype: str) -> bool:
    """Whether rounding to an integer type would keep the values; overshoot under 1 % of the range may be clipped."""
    if not np.issubdtype(np.dtype(dtype), np.integer):
        return True
    limits, slack = np.iinfo(dtype), 0.01 * float(np.ptp(array))
    return float(array.min()) >= limits.min - slack and float(array.max()) <= limits.max + slack


def _canvas(job: Job) -> Canvas:
    slices = job.target.array_kji
    canvas = job.card.get("canvas", {})
    if canvas.get("kind") == "native":
        return native_canvas(slices, job.factors_kji[1], canvas["size"])
    if job.network.uses_reference:
        return signal_canvas(slices, job.factors_kji[1], job.network.multiple)
    return Canvas(0, 0, *slices.shape[1:])


def _register(job: Job, report: JobProgress) -> Registration:
    if job.reference is None or job.settings.registration == "none" or not job.network.uses_reference:
        return Registration(np.eye(4), False, float("nan"), float("nan"), "Registration was skipped.")
    return register_rigid(
        job.target, job.reference, seed=job.settings.seed, progress=report.update, cancelled=report.cancelled
    )


def _reference_on_grid(job: Job, interpolated: np.ndarray, target_scale: np.float32) -> tuple[Volume, np.ndarray]:
    """Step 4: the reference on the result's grid, and its slices as the network sees them, scaled."""
    if job.reference is None:
        own = job.target.on_grid(interpolated, job.hr_grid, name=f"{job.target.name}, its own reference")
        return own, interpolated / target_scale
    assert job.registration is not None
    name = job.reference.name
    moved = job.reference.moved(job.registration.reference_to_target)
    on_hr = replace(resample(moved, job.hr_grid), name=f"{name} on the result's grid")
    if not job.network.uses_reference:
        return on_hr, on_hr.array_kji
    return on_hr, _reference_slices(job, name, moved, on_hr, interpolated / target_scale)


def _reference_slices(job: Job, name: str, moved: Volume, on_hr: Volume, target_up: np.ndarray) -> np.ndarray:
    """The scaled reference; where it does not reach, the target stands in for it.

    A reference that was resampled onto a larger box before is padded with zeros: whole slices of them count as bare.
    """
    slices = on_hr.array_kji / np.float32(intensity_scale(on_hr.array_kji, name))
    covered = coverage(moved.grid, job.hr_grid) & foreground(on_hr.array_kji).any(axis=(1, 2), keepdims=True)
    signal = foreground(target_up)
    missing = (signal & ~covered).sum(axis=(1, 2)) > _BARE_SLICE * signal.sum(axis=(1, 2))
    if missing.any():
        job.warnings.append(
            f"The reference does not reach all of {int(missing.sum())} of {len(missing)} slices; "
            "there the target helps itself."
        )
    return np.where(covered, slices, target_up)


def _choose_slices(job: Job, target_scale: np.float32, reference_slices: np.ndarray) -> None:
    """The slices that hold signal: the network never saw empty ones, so they stay interpolated."""
    job.lit = foreground(job.target.array_kji).mean(axis=(1, 2)) >= _EMPTY_SLICE
    job.slices = job.target.array_kji[job.lit] / target_scale, reference_slices[job.lit]


def _enhanced(
    job: Job, plan: Plan, interpolated: np.ndarray, target_scale: np.float32, report: JobProgress
) -> np.ndarray:
    """Step 5: the network on all slices that hold signal."""
    assert job.slices is not None
    scaled, job.plan = enhance_slices(job.network, *job.slices, plan, seeds=job.seeds, update=report.update)
    if job.plan.tile != plan.tile:
        job.warnings.append(
            f"Memory was short, so slices were run in tiles of {job.plan.tile} pixels; "
            "whole slices give a slightly different result."
        )
    sr = interpolated.copy()
    sr[job.lit] = scaled * target_scale
    return sr


def _maps(job: Job, report: JobProgress) -> Maps:
    """Step 8: what the network says of its own work, for all slices of the volume."""
    assert job.slices is not None
    assert job.plan is not None
    lit = job.lit
    assert lit is not None
    found = collect_maps(job.network, *job.slices, job.plan, job.views, seeds=job.seeds, update=report.update)
    left_out = [view.name for view in job.views if view.name not in {*found.images, *found.tables}]
    if left_out:
        job.warnings.append(
            f"Left out, because they hold too many values or differ from tile to tile: {', '.join(left_out)}."
        )
        job.views = [view for view in job.views if view.name not in left_out]

    def of_volume(values: np.ndarray, elsewhere: float) -> np.ndarray:
        full = np.full((len(lit), *values.shape[1:]), elsewhere, dtype=np.float32)
        full[lit] = values
        return full

    return Maps(
        {name: of_volume(array, 0.0) for name, array in found.images.items()},
        {name: of_volume(array, np.nan) for name, array in found.tables.items()},
    )


def _consistent(job: Job, sr: np.ndarray) -> np.ndarray:
    """Step 6: make the result agree with what was acquired."""
    if not (job.settings.consistency and job.network.uses_reference):
        return sr
    degradation = degradation_named(job.card["degradation"])
    if not degradation.linear:
        job.warnings.append(f"Data consistency is off: '{degradation.name}' of these weights is not linear.")
        return sr
    band = acquired_band(job.target.array_kji)
    fixed = enforce_consistency(sr, job.target.array_kji, job.factors_kji, degradation.name, band)
    job.consistency = {
        "applied": True,
        "acquired_band_rows_columns": [round(b, 3) for b in band],
        "error_before_percent_rms": round(100 * fixed.error_before, 4),
        "error_after_percent_max": round(100 * fixed.error_after, 6),
        "error_after_clip_percent_rms": round(100 * _misfit_rms(job, _clipped(job, fixed.array_kji)), 4),
    }
    if min(band) < 1:
        job.warnings.append(
            f"The target is zero-filled or filtered: {100 * band[0]:.0f} % (rows) and {100 * band[1]:.0f} % (columns) "
            "of its band hold acquired detail."
        )
    return fixed.array_kji


def _misfit_rms(job: Job, sr: np.ndarray) -> float:
    """RMS difference between the acquired input and the result degraded again, as a fraction of the input's range."""
    acquired = job.target.array_kji
    degraded = degrade(sr, job.factors_kji, job.card["degradation"], signed=not is_magnitude(acquired))
    return float(np.sqrt(np.mean((degraded - acquired) ** 2)) / (np.ptp(acquired) or 1.0))


def _clipped(job: Job, array: np.ndarray) -> np.ndarray:
    return np.maximum(array, 0) if is_magnitude(job.target.array_kji) else array


def _display_truth(truth: Volume | None, job: Job) -> Volume | None:
    """The ground truth on the result's grid, in display orientation, whatever its own storage order."""
    if truth is None:
        return None
    check_scalar_mri(truth)
    axis = slice_axis_of_plane(truth.grid, plane_name(job.target.grid, 2))
    return crop_to_grid(truth.reordered(display_order(truth.grid, axis)), job.hr_grid, "The ground truth")


def _result(
    job: Job, sr: np.ndarray, interpolated: np.ndarray, reference: Volume, truth: Volume | None, maps: Maps
) -> Result:
    """Steps 7 and 9: scores, then back to the target's storage order and type."""
    if truth is not None:
        scale = intensity_scale(truth.array_kji, truth.name)
        for method, array in (("result", sr), ("interpolated", interpolated)):
            job.scores[method] = compare(array, truth.array_kji, scale)
    back = job.order.inverse()
    name, scale_name = job.target.name, f"x{job.factors_kji[1]}"

    def stored(array: np.ndarray, name: str, dtype: str = "float32") -> Volume:
        return replace(job.target.on_grid(array, job.hr_grid, name=name).reordered(back), source_dtype=dtype)

    return Result(
        sr=stored(sr, f"{name} SR{scale_name}", job.target.source_dtype),
        interpolated=stored(interpolated, f"{name} sinc {scale_name}", job.target.source_dtype),
        residual=stored(sr - interpolated, f"{name} residual"),
        reference=stored(
            reference.array_kji, f"{reference.name} on the result's grid" if job.reference else reference.name
        ),
        truth=truth and truth.reordered(back),
        slice_axis=job.order.axes_ijk[2],
        scores=job.scores,
        provenance=job.provenance(),
        warnings=tuple(job.warnings),
        maps={key: stored(array, f"{name} {key}") for key, array in maps.images.items()},
        tables=maps.tables,
    )
