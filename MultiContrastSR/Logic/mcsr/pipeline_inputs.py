"""Steps 1 to 4 of a job: the inputs checked, in display orientation, on one grid; what the network will be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .canvas import Canvas, native_canvas, signal_canvas
from .checks import check_pair, check_scalar_mri, check_scale
from .conventions import Conventions
from .degradation import upsample
from .errors import InputError, WeightsError
from .geometry import display_order, plane_name, slice_axis, slice_axis_of_plane
from .inference import Plan, make_plan
from .intensity import foreground, intensity_scale
from .job import Job, Memory, Settings
from .maps import choose_views
from .networks import Network, create_network, network_class
from .progress import JobProgress
from .registration import Registration, register_rigid
from .resampling import coverage, resample
from .trust_fit import reference_fit
from .trust_summary import slice_ranges
from .volume import Volume, crop_to_grid
from .weights import Weights, find_weights

BASELINE_CARD: Mapping[str, Any] = {"degradation": "kspace", "plane": "axial"}
INPUT_STAGES = {"Registering": 3.0, "Resampling the reference": 1.0}
_MOST_MAPS_GB = 8.0
_BARE_SLICE = 0.05
_EMPTY_SLICE = 0.01


def prepare(
    target: Volume,
    reference: Volume | None,
    settings: Settings,
    reference_to_target: np.ndarray | None = None,
    memory: Memory | None = None,
) -> Job:
    """Steps 1 and 2: check the inputs, choose weights, plane and scale; for the arguments see `pipeline.enhance`."""
    check_scale(settings.scale)
    if settings.registration not in ("rigid", "none"):
        raise InputError(f"Unknown registration '{settings.registration}'; known are rigid, none.")
    memory = memory or Memory()
    network, card, weights = _load(settings, memory)
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
        memory=memory,
        reference_to_target=reference_to_target,
        warnings=warnings,
        views=choose_views(network, settings.maps),
    )
    _check_size_of_maps(job)
    if job.reference:
        placed = job.reference if reference_to_target is None else job.reference.moved(reference_to_target)
        job.warnings += check_pair(job.target, placed, settings.scale, force=settings.force)
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


class LaidOut(NamedTuple):
    """Both images on their grids, and what the network is given of them.

    Args:
        reference: on the result's grid.
        interpolated: the target (K, H, W) there.
        target_scale: what the target is divided by for the network.
        lit: the slices (K,) that hold signal: the network, which never saw others, runs on these.
        slices: of them, scaled: target (k, h, w) and reference (k, H, W), the target itself where that does not fit.
        offered: of them the reference (k, H, W) before that was found out.
        seeds: one for each of them, by its place in the volume.
    """

    reference: Volume
    interpolated: np.ndarray
    target_scale: np.float32
    lit: np.ndarray
    slices: tuple[np.ndarray, np.ndarray]
    offered: np.ndarray
    seeds: list[int]


def lay_out(job: Job, report: JobProgress) -> LaidOut:
    """Steps 3 and 4: register the reference, bring both images onto the result's grid, choose slices."""
    with report.stage("Registering"):
        job.registration = _register(job, report)
    with report.stage("Resampling the reference"):
        target = job.target.array_kji
        interpolated = upsample(target, job.factors_kji)
        scale = np.float32(intensity_scale(target, job.target.name))
        reference, slices = _reference_on_grid(job, interpolated, scale)
        lit = foreground(target).mean(axis=(1, 2)) >= _EMPTY_SLICE
        seeds = [job.settings.seed + int(number) for number in np.flatnonzero(lit)]
        low, offered = target[lit] / scale, slices[lit]
        fitting = _fitting(job, low, offered, interpolated[lit] / scale, np.flatnonzero(lit))
    return LaidOut(reference, interpolated, scale, lit, (low, fitting), offered, seeds)


def own_slices(given: LaidOut) -> tuple[np.ndarray, np.ndarray]:
    """What the network is given when the target is its own reference."""
    return given.slices[0], given.interpolated[given.lit] / given.target_scale


def degradation_for(settings: Settings) -> str:
    """The degradation that the chosen weights undo: what a simulation for them has to do."""
    if not network_class(settings.model).uses_reference:
        return str(BASELINE_CARD["degradation"])
    return str(find_weights(settings.model, settings.scale, settings.weights).metadata["degradation"])


def canvas_of(job: Job) -> Canvas:
    """What the network sees of each slice."""
    slices = job.target.array_kji
    canvas = job.card.get("canvas", {})
    if canvas.get("kind") == "native":
        return native_canvas(slices, job.factors_kji[1], canvas["size"])
    if job.network.uses_reference:
        return signal_canvas(slices, job.factors_kji[1], job.network.multiple)
    return Canvas(0, 0, *slices.shape[1:])


def plan_of(job: Job) -> Plan:
    """How the network will be run; refuses a device or a precision that cannot be used."""
    settings = job.settings
    return make_plan(job.network, canvas_of(job), settings.device, settings.precision, Conventions.of(job.card))


def made_from(job: Job, given: LaidOut, plan: Plan) -> tuple[Any, ...]:
    """All that the network's result depends on: what the memory knows it by."""
    return (job.settings.model, job.weights and job.weights.sha256, *given.slices, given.seeds, plan)


def stored_volume(job: Job, array: np.ndarray, name: str, dtype: str = "float32") -> Volume:
    """An array on the result's grid as a volume: from display orientation back to the target's storage order."""
    return replace(job.target.on_grid(array, job.hr_grid, name=name).reordered(job.order.inverse()), source_dtype=dtype)


def display_truth(truth: Volume | None, job: Job) -> Volume | None:
    """The ground truth on the result's grid, in display orientation, whatever its own storage order."""
    if truth is None:
        return None
    check_scalar_mri(truth)
    axis = slice_axis_of_plane(truth.grid, plane_name(job.target.grid, 2))
    return crop_to_grid(truth.reordered(display_order(truth.grid, axis)), job.hr_grid, "The ground truth")


def _check_size_of_maps(job: Job) -> None:
    """Maps of all slices are held in memory: refused before the work, not lost after it."""
    images = sum(view.spec.kind != "table" for view in job.views)
    gigabytes = images * np.prod(job.hr_grid.shape_ijk, dtype=float) * 4e-9
    if gigabytes > _MOST_MAPS_GB:
        raise InputError(
            f"{images} maps of this volume take {gigabytes:.0f} GB, more than {_MOST_MAPS_GB:.0f}; name fewer of them."
        )


def _load(settings: Settings, memory: Memory) -> tuple[Network, Mapping[str, Any], Weights | None]:
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
    network = memory.recall("network", (weights.sha256,), weights.build)
    return network, weights.metadata, weights


def _register(job: Job, report: JobProgress) -> Registration:
    if job.reference is not None and job.reference_to_target is not None:
        message = "The reference lies where the given transform puts it."
        return Registration(np.array(job.reference_to_target), True, float("nan"), float("nan"), message)
    if job.reference is None or job.settings.registration == "none" or not job.network.uses_reference:
        return Registration(np.eye(4), False, float("nan"), float("nan"), "Registration was skipped.")
    target, reference, seed = job.target, job.reference, job.settings.seed
    return job.memory.recall(
        "registration",
        (target, reference, seed),
        lambda: register_rigid(target, reference, seed=seed, progress=report.update, cancelled=report.cancelled),
    )


def _fitting(job: Job, low: np.ndarray, offered: np.ndarray, own: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The reference (k, H, W), replaced by the interpolated target in slices that it does not fit at all."""
    if job.reference is None or not job.network.uses_reference:
        return offered
    job.fit = reference_fit(low, offered, job.factors_kji)
    unfit = job.fit.weights <= 0
    if not job.settings.fallback or not unfit.any():
        return offered
    where = "in any slice" if unfit.all() else f"in slices {slice_ranges(list(numbers[unfit]))}"
    job.warnings.append(f"The reference does not fit the target {where}; there the target helps itself.")
    return np.where(unfit[:, None, None], own, offered).astype(offered.dtype, copy=False)


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
