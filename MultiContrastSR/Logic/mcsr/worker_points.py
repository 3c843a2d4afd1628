"""The maps of one pixel as a job: the point found in the result, and the network run on its slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .errors import InputError
from .job import DrawnMaps, Job, Memory, Settings
from .maps_point import choose_point_views, collect_point_maps
from .pipeline_inputs import INPUT_STAGES, LaidOut, lay_out, made_from, plan_of, prepare, stored_volume
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .volume import Volume

_STAGES = INPUT_STAGES | {"Drawing maps": 2.0}


def draw_point_maps(
    target: Volume,
    reference: Volume | None,
    settings: Settings,
    *,
    point_ras: Sequence[float],
    reference_to_target: np.ndarray | None = None,
    memory: Memory | None = None,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> DrawnMaps:
    """What the network looked at when it made one pixel of the result that `enhance` gives for the same arguments.

    A second point of the same result takes only a run on one slice: the memory keeps what the network is given.

    Args:
        target: see `pipeline.enhance`, as for what is not named here.
        reference: see there.
        settings: `maps` names maps of one pixel, or says "all".
        point_ras: of the pixel, RAS mm.
        reference_to_target: see there.
        memory: see there.
        progress: see there.
        cancelled: see there.

    Returns:
        Maps on the result's grid, 0 outside the pixel's slice.

    Raises:
        InputError: also for a point that the network did not make, or a model that has no such maps.
    """
    job = prepare(target, reference, replace(settings, maps="none"), reference_to_target, memory)
    job.settings, job.views = settings, choose_point_views(job.network, settings.maps)
    report = JobProgress(progress, cancelled, _STAGES)
    column, row, number = _voxel(job, point_ras)
    plan = plan_of(job)
    given = _laid_out(job, report)
    if not given.lit[number]:
        raise InputError("The slice of the point holds no signal, so the network left it out; choose another point.")
    known = job.memory.known("result", made_from(job, given, plan))
    job.plan = known[1] if known else plan
    lit = int(given.lit[:number].sum())
    target_lr, on_grid = (slices[lit] for slices in given.slices)
    with report.stage("Drawing maps"):
        found = collect_point_maps(
            job.network, target_lr, on_grid, job.plan, job.views, (row, column), seed=given.seeds[lit]
        )
    job.seconds, job.drawn = report.seconds, job.views
    volumes = {}
    for name, image in found.items():
        array = np.zeros(job.hr_grid.shape_kji, dtype=np.float32)
        array[number] = image
        volumes[name] = stored_volume(job, array, f"{job.target.name} {name}")
    facts = {view.name: view.as_dict() | {"family": f"{view.spec.family} of a point"} for view in job.views}
    provenance = job.provenance() | {"maps": facts, "point_ras": [float(mm) for mm in point_ras]}
    return DrawnMaps(volumes, {}, job.order.axes_ijk[2], provenance, tuple(job.warnings))


def _voxel(job: Job, point_ras: Sequence[float]) -> tuple[int, int, int]:
    """Column, row and slice of the result that a point lies in, in display orientation."""
    ijk = np.rint(job.hr_grid.to_ijk(np.asarray(point_ras, dtype=np.float64))).astype(int)
    if ((ijk < 0) | (ijk >= job.hr_grid.shape_ijk)).any():
        raise InputError("The point lies outside the result; choose one inside.")
    return int(ijk[0]), int(ijk[1]), int(ijk[2])


def _laid_out(job: Job, report: JobProgress) -> LaidOut:
    """Steps 3 and 4 of the pipeline, done once for all points of a result."""
    settings, before = job.settings, len(job.warnings)

    def make() -> tuple[LaidOut, Job]:
        given = lay_out(job, report)
        return given, replace(job, warnings=job.warnings[before:])

    made = (job.target, job.reference, job.reference_to_target, job.factors_kji, settings.registration, settings.seed)
    given, then = job.memory.recall("slices", made, make)
    job.registration, job.fit, job.warnings[before:] = then.registration, then.fit, then.warnings
    return given
