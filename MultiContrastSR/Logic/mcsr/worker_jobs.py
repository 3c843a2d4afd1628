"""One job of the worker: a request's folder becomes a call of the pipeline, and what that gives becomes parts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from .errors import InputError
from .intensity import is_magnitude
from .job import Memory, Result, Settings
from .outputs import output_folder, write_result
from .pipeline import draw_maps, enhance, simulate
from .pipeline_inputs import degradation_for
from .progress import CancelQuery, Event
from .temporary import sole_writer
from .volume import Volume
from .worker_arrays import read_array
from .worker_messages import REQUEST_FILE, ArrayFile, Request, read_text
from .worker_points import draw_point_maps
from .worker_results import write_maps_part, write_result_part, write_scores_part

Emit = Callable[..., None]

_SECONDS_BETWEEN_EVENTS = 0.1
_COMPUTING = 0.95
"""Share of the progress that is computed; the rest is written."""


def read_request(folder: Path) -> Request:
    """The request in a job's folder, checked.

    Raises:
        InputError: for whatever a request cannot be.
    """
    request = Request.from_json(read_text(folder, REQUEST_FILE))
    if request.id != folder.name:
        raise InputError("The request is another job's than its folder says; start the job again.")
    return request


def run_job(request: Request, folder: Path, memory: Memory, emit: Emit, cancelled: CancelQuery) -> None:
    """Do what is asked; parts are written into the folder and announced as they come.

    Args:
        request: of the folder.
        folder: of the job.
        memory: what earlier jobs left.
        emit: receives the name and the fields of events "progress" and "part".
        cancelled: asked between steps.

    Raises:
        McsrError: see `enhance` and `write_result`; `Cancelled` when asked for.
        MemoryError, OSError: as they come.
    """
    memory.recalled.clear()
    job = _WorkerJob(request, folder, memory, emit, cancelled)
    if request.point_ras is not None:
        job.draw_point_maps(request.point_ras)
    elif request.kind == "maps" and request.output_folder is None:
        job.draw_maps()
    elif request.output_folder is None:
        job.enhance()
    else:
        inputs = [Path(file) for file in request.input_files]
        with output_folder(Path(request.output_folder), inputs) as place, sole_writer(place):
            result = job.enhance()
            job.tell_writing()
            write_result(result, place, cancelled=cancelled)


def read_settings(record: Mapping[str, Any]) -> Settings:
    """Settings of a request.

    Raises:
        InputError: for a field that there is not, or a value of another type.
    """
    types = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in record.items():
        if name not in types:
            raise InputError(f"There is no setting '{name}'; this version knows {', '.join(types)}.")
        value = Path(value) if name == "weights" and isinstance(value, str) else value
        if type(value) not in (get_args(types[name]) or (types[name],)) and not isinstance(value, Path):
            raise InputError(f"The setting '{name}' cannot be {value!r}; choose another.")
        values[name] = value
    return dataclasses.replace(Settings(), **values)


class _WorkerJob:
    def __init__(self, request: Request, folder: Path, memory: Memory, emit: Emit, cancelled: CancelQuery) -> None:
        self._request, self._folder, self._emit = request, folder, emit
        self._last_progress = ("", 0.0)
        self._has_result = False
        settings = read_settings(request.settings)
        target = self._volume(request.target)
        reference = request.reference and self._volume(request.reference)
        self._truth = self._volume(request.ground_truth) if request.ground_truth else None
        self._simulated: Volume | None = None
        if request.simulate:
            signed = not is_magnitude(target.array_kji)
            self._truth = target
            self._simulated, _ = simulate(
                target,
                settings.scale,
                degradation=degradation_for(settings),
                signed=signed,
                plane=settings.plane,
            )
            target = self._simulated
        matrix = request.reference_to_target_ras
        self._arguments: tuple[Any, ...] = (target, reference, settings)
        self._options: dict[str, Any] = {
            "reference_to_target": None if matrix is None else np.array(matrix),
            "memory": memory,
            "progress": self._tell_progress,
            "cancelled": cancelled,
        }

    def enhance(self) -> Result:
        """The result, then its scores, then its maps; of a job for maps the maps alone are announced."""
        result = enhance(*self._arguments, ground_truth=self._truth, on_result=self._tell_result, **self._options)
        if not self._has_result:
            self._tell_result(result)
        if result.provenance["maps"]:
            self._announce("maps", write_maps_part(self._folder, result))
        return result

    def draw_maps(self) -> None:
        """Maps alone."""
        self._announce("maps", write_maps_part(self._folder, draw_maps(*self._arguments, **self._options)))

    def draw_point_maps(self, point_ras: Sequence[float]) -> None:
        """Maps of one pixel, which are for looking at: none go into the user's folder."""
        drawn = draw_point_maps(*self._arguments, point_ras=point_ras, **self._options)
        self._announce("maps", write_maps_part(self._folder, drawn, "point_map"))

    def tell_writing(self) -> None:
        """The last stage."""
        self._emit("progress", fraction=_COMPUTING, stage="Writing files", remaining_s=None)

    def _volume(self, array: ArrayFile) -> Volume:
        voxels = read_array(self._folder, array.file)
        return Volume(voxels, np.array(array.ijk_to_ras), name=array.name, source_dtype=voxels.dtype.name)

    def _tell_result(self, result: Result) -> None:
        self._has_result = True
        if self._request.kind == "maps":
            return
        self._announce("result", write_result_part(self._folder, result, self._simulated))
        if result.truth is not None:
            self._announce("scores", write_scores_part(self._folder, result))

    def _announce(self, name: str, file: str) -> None:
        self._emit("part", name=name, file=file)

    def _tell_progress(self, event: Event) -> None:
        stage, when = self._last_progress
        now = time.monotonic()
        if event.stage == stage and event.fraction < 1 and now - when < _SECONDS_BETWEEN_EVENTS:
            return
        self._last_progress = (event.stage, now)
        remaining = None if event.remaining_s is None else round(event.remaining_s, 1)
        self._emit("progress", fraction=round(_COMPUTING * event.fraction, 4), stage=event.stage, remaining_s=remaining)
