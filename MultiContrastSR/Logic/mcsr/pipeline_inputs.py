"""Steps 1 to 4 of a job: the inputs checked, in display orientation, on one grid; what the network will be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .canvas import Canvas, native_canvas, signal_canvas
from .checks import check_pair, check_scalar_mri, check_scale, detail_limit
from .conventions import Conventions
from .degradation import upsample
from .errors import DeviceError, InputError, WeightsError
from .geometry import Grid, crop_grid, display_order, plane_name, slice_axis, slice_axis_of_plane
from .inference import Plan, make_plan
from .inference_cost import MOST_BYTES_PER_PIXEL
from .intensity import foreground, foreground_level, intensity_scale
from .job import Job, Memory, Settings
from .maps import choose_views
from .memory import WORKING_BYTES, Slices, blocks, memory_bound, resident_bytes, size_text
from .networks import Network, create_network, network_class
from .progress import JobProgress
from .registration import Registration, register_rigid
from .resampling import coverage, resample
from .trust import SPECS
from .trust_fit import reference_fit
from .trust_summary import slice_ranges
from .volume import Volume, crop_to_grid
from .weights import Weights, find_weights

BASELINE_CARD: Mapping[str, Any] = {"degradation": "kspace", "plane": "axial"}
INPUT_STAGES = {"Registering": 3.0, "Resampling the reference": 1.0}
_BARE_SLICE = 0.05
_EMPTY_SLICE = 0.01
_RESERVE = 8
"""One part in so many of the memory that is left stays free: what a network takes is foretold, not measured."""

_KEPT = 4
"""Encoded references, which the next job may want or not, take one part in so many of what nothing else takes."""

_TRUST_VOLUMES = 4
"""What trust maps take beside themselves: second opinions, and what the expected error is told from."""


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
    memory = memory or Memory(keeps=False)
    network, card, weights = _load(settings, memory)
    warnings = check_scalar_mri(target) + (check_scalar_mri(reference) if reference else [])
    axis = slice_axis(target.grid, settings.plane, card["plane"])
    order = display_order(target.grid, axis)
    job = Job(
        settings=settings,
        given=target,
        target=target.reordered(order),
        reference=reference,
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
    if job.reference:
        placed = job.reference if reference_to_target is None else job.reference.moved(reference_to_target)
        job.warnings += check_pair(job.target, placed, force=settings.force)
        job.reference_detail = detail_limit(job.target, placed, settings.scale)
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


@dataclass(frozen=True)
class LaidOut:
    """Both images on their grids, and what the network is given of them.

    Slices on the result's grid are made when they are asked for: of these large arrays only the reference is kept.

    Args:
        reference: on the result's grid, in the target's storage order.
        interpolated: the target's slices (K, H, W) there.
        target_scale: what the target is divided by for the network.
        lit: the slices (K,) that hold signal: the network, which never saw others, runs on these.
        slices: of them, scaled: target (k, h, w) and reference (k, H, W), the target itself where that does not fit.
        offered: of them the reference (k, H, W) before that was found out.
        own: of them the interpolated target (k, H, W).
        seeds: one for each of them, by its place in the volume.
        made_from: all that `slices` depend on.
    """

    reference: Volume
    interpolated: Slices
    target_scale: np.float32
    lit: np.ndarray
    slices: tuple[np.ndarray, Slices]
    offered: Slices
    own: Slices
    seeds: list[int]
    made_from: tuple[Any, ...]

    @cached_property
    def signal_level(self) -> float:
        """What the interpolated target exceeds where it holds signal, see `intensity.foreground_level`."""
        return level_of(self.interpolated)


def lay_out(job: Job, report: JobProgress) -> LaidOut:
    """Steps 3 and 4: register the reference, bring both images onto the result's grid, choose slices."""
    with report.stage("Registering"):
        job.registration = _register(job, report)
        if job.registration.uncertain:
            job.warnings.append("Where the reference lies is uncertain: lay it over the result and look.")
    with report.stage("Resampling the reference"):
        target, fine = job.target.array_kji, job.hr_grid.shape_kji
        scale = np.float32(intensity_scale(target, job.target.name))
        interpolated = Slices(fine, lambda numbers: upsample(target[numbers], job.factors_kji))
        scaled_up = Slices(fine, lambda numbers: interpolated[numbers] / scale)
        reference, slices = _reference_on_grid(job, interpolated, scaled_up)
        lit = foreground(target).mean(axis=(1, 2)) >= _EMPTY_SLICE
        rows = np.flatnonzero(lit)
        low, offered, own = target[lit] / scale, _chosen(slices, rows), _chosen(scaled_up, rows)
        fitting, unfit = _fitting(job, low, offered, own, rows)
    matrix = job.registration.reference_to_target
    placed = () if job.reference is None else (job.reference.ijk_to_ras, job.reference.array_kji.shape)
    made_from = (target, reference.array_kji, matrix, *placed, unfit)
    seeds = [job.settings.seed + int(number) for number in rows]
    return LaidOut(reference, interpolated, scale, lit, (low, fitting), offered, own, seeds, made_from)


def level_of(slices: Slices) -> float:
    """`intensity.foreground_level` of slices that are made when they are asked for."""
    return foreground_level((slices[block] for block in blocks(slices.shape)), int(np.prod(slices.shape)))


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
    """How the network will be run, within the memory that the job's volumes leave.

    Raises:
        DeviceError: a device or a precision that cannot be used; too little memory.
    """
    settings, bound, references = job.settings, memory_bound(job.settings.memory), job.memory.references
    left = bound - resident_bytes() - declared_bytes(job) + (references.held_bytes if references else 0)
    if left < WORKING_BYTES:
        needed = size_text(bound - left + WORKING_BYTES)
        allowed, remedy = f"the {size_text(bound)} that can be used", "close other programs"
        if settings.memory is not None:
            allowed, remedy = f"--memory {size_text(bound)}", f"give --memory {needed}"
        raise DeviceError(
            f"This job takes {needed} of memory, more than {allowed}; {remedy}, ask for fewer maps, or enhance a part "
            "of the volume."
        )
    conventions, budget = Conventions.of(job.card), left - left // _RESERVE
    canvas, maps = canvas_of(job), bool(job.views)
    plan = make_plan(job.network, canvas, settings.device, settings.precision, conventions, budget=budget, maps=maps)
    if references:
        references.begin(_room_for_encodings(job, plan, budget))
    return plan


def _room_for_encodings(job: Job, plan: Plan, budget: int) -> int:
    """Bytes of the budget in which encoded references may be kept: a part of what the network leaves of it."""
    pixels = plan.canvas.rows * plan.canvas.columns * job.factors_kji[1] ** 2
    return max(0, budget - pixels * MOST_BYTES_PER_PIXEL) // _KEPT


def declared_bytes(job: Job) -> int:
    """What the arrays that a job will hold take beside its inputs: known before any work is done."""
    fine = 4 * int(np.prod(job.hr_grid.shape_ijk, dtype=np.int64))
    volumes = 2 + job.memory.keeps  # the reference and the result; this once more as the next job finds it
    if job.views:
        volumes += 1 + sum(view.spec.kind != "table" for view in job.views)
    if job.settings.trust:
        volumes += len(SPECS) + _TRUST_VOLUMES
    return volumes * fine + job.target.array_kji.nbytes


def made_from(job: Job, given: LaidOut, plan: Plan) -> tuple[Any, ...]:
    """All that the network's result depends on: what the memory knows it by."""
    return (job.settings.model, job.weights and job.weights.sha256, *given.made_from, given.seeds, plan)


def stored_volume(job: Job, array: np.ndarray, name: str, dtype: str = "float32") -> Volume:
    """An array on the result's grid as a volume: from display orientation back to the target's storage order."""
    stored = job.order.inverse().apply(array)
    return replace(job.given.on_grid(stored, job.stored_grid, name=name), source_dtype=dtype)


def display_truth(truth: Volume | None, job: Job) -> Volume | None:
    """The ground truth on the result's grid, in display orientation, whatever its own storage order."""
    if truth is None:
        return None
    check_scalar_mri(truth)
    axis = slice_axis_of_plane(truth.grid, plane_name(job.target.grid, 2))
    return crop_to_grid(truth.reordered(display_order(truth.grid, axis)), job.hr_grid, "The ground truth")


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
        message = "Registration was skipped." if job.reference else "There was no reference to register."
        return Registration(np.eye(4), False, float("nan"), float("nan"), message)
    target, reference, seed = job.target, job.reference, job.settings.seed
    order = display_order(reference.grid, slice_axis(reference.grid))

    def register() -> Registration:
        # In display orientation: how the reference is stored must not matter.
        shown = reference.reordered(order)
        return register_rigid(target, shown, seed=seed, progress=report.update, cancelled=report.cancelled)

    return job.memory.recall("registration", (target, reference, seed), register)


def _fitting(job: Job, low: np.ndarray, offered: Slices, own: Slices, numbers: np.ndarray) -> tuple[Slices, np.ndarray]:
    """The reference (k, H, W), replaced by the interpolated target in slices (k,) that it does not fit at all."""
    unfit = np.zeros(len(low), dtype=bool)
    if job.reference is None or not job.network.uses_reference:
        return offered, unfit
    job.fit = reference_fit(low, offered, job.factors_kji)
    if not job.settings.fallback or not (job.fit.weights <= 0).any():
        return offered, unfit
    unfit = job.fit.weights <= 0
    where = "in any slice" if unfit.all() else f"in slices {slice_ranges(list(numbers[unfit]))}"
    job.warnings.append(f"The reference does not fit the target {where}; there the target helps itself.")

    def fitting(chosen: np.ndarray) -> np.ndarray:
        slices = np.array(offered[chosen])
        slices[unfit[chosen]] = own[chosen[unfit[chosen]]]
        return slices

    return Slices(offered.shape, fitting), unfit


def _chosen(slices: Slices, rows: np.ndarray) -> Slices:
    return Slices((len(rows), *slices.shape[1:]), lambda numbers: slices[rows[numbers]])


def _reference_on_grid(job: Job, interpolated: Slices, scaled_up: Slices) -> tuple[Volume, Slices]:
    """Step 4: the reference on the result's grid, and its slices as the network sees them, scaled."""
    if job.reference is None:
        array = job.new_array()
        for block in blocks(array.shape):
            array[block] = interpolated[block]
        return stored_volume(job, array, f"{job.target.name}, its own reference"), scaled_up
    assert job.registration is not None
    name = job.reference.name
    moved = job.reference.moved(job.registration.reference_to_target)
    name_there = f"{name} on the result's grid"
    made_from = (moved, job.stored_grid.ijk_to_ras, job.stored_grid.shape_ijk)
    resampled = job.memory.recall("reference", made_from, lambda: resample(moved, job.stored_grid))
    on_grid = replace(resampled, name=name_there, source_dtype="float32")
    if job.network.uses_reference:
        return on_grid, _reference_slices(job, name, moved.grid, on_grid, scaled_up)
    array = job.order.apply(on_grid.array_kji)
    return on_grid, Slices(array.shape, lambda numbers: array[numbers])


def _reference_slices(job: Job, name: str, grid: Grid, on_grid: Volume, scaled_up: Slices) -> Slices:
    """The scaled reference; where it does not reach, the target stands in for it.

    A reference that was resampled onto a larger box before is padded with zeros: whole slices of them count as bare.
    """
    array = job.order.apply(on_grid.array_kji)
    scale = np.float32(intensity_scale(array, name))
    holds_signal = array.max(axis=(1, 2)) > foreground_level(array, array.size)

    def covered(number: int) -> np.ndarray:
        columns, rows, _ = job.hr_grid.shape_ijk
        in_plane = crop_grid(job.hr_grid, (0, 0, number), (columns, rows, 1))
        return coverage(grid, in_plane)[0] & holds_signal[number]

    partly = np.array([not covered(number).all() for number in range(len(array))])
    _warn_of_bare_slices(job, partly, covered, scaled_up)

    def slices(numbers: np.ndarray) -> np.ndarray:
        made = array[numbers] / scale
        for place, number in enumerate(numbers):
            if partly[number]:
                made[place] = np.where(covered(number), made[place], scaled_up[number])
        return made

    return Slices(array.shape, slices)


def _warn_of_bare_slices(job: Job, partly: np.ndarray, covered: Callable[[int], np.ndarray], scaled_up: Slices) -> None:
    if not partly.any():
        return
    level, bare = level_of(scaled_up), 0
    for number in np.flatnonzero(partly).tolist():
        signal = scaled_up[number] > level
        bare += (signal & ~covered(number)).sum() > _BARE_SLICE * signal.sum()
    if bare:
        job.warnings.append(
            f"The reference does not reach all of {bare} of {len(partly)} slices; there the target helps itself."
        )
