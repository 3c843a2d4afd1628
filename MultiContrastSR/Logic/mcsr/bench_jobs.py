"""What a user waits for: the stages of a whole job, the start of the command, a second job with a warm worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .bench_machine import use_threads
from .bench_timing import Check, Spread, Timed, in_own_process, in_turn, spread
from .imageio import read_volume, write_volume
from .job import Memory, Settings
from .outputs import write_result
from .phantom import DEMO_MOTION, demo_case
from .pipeline import enhance, simulate
from .progress import never_cancelled
from .subjects import find_subject_pairs
from .worker_arrays import write_array
from .worker_jobs import read_request, run_job
from .worker_messages import REQUEST_FILE, ArrayFile, Matrix, Request

TARGET_FILE, REFERENCE_FILE = "target.nii.gz", "reference.nii.gz"
NETWORK_STAGE = "Enhancing"
_START, _READ, _PREPARE, _WRITE = "Starting Python, PyTorch", "Reading", "Loading the model, checks", "Writing"

FIRST, OTHER_SCANS, SAME_SCANS = "first job", "second job, other scans", "second job, same scans, other setting"
PLACED, OTHER_TARGET = "other scans, reference placed by hand", "another target, reference as before"
_JOBS: dict[str, tuple[float, float, dict[str, Any], bool]] = {
    FIRST: (1.0, 1.0, {}, False),
    OTHER_SCANS: (0.9, 0.9, {}, False),
    SAME_SCANS: (0.9, 0.9, {"consistency": False}, False),
    PLACED: (0.8, 0.8, {}, True),
    OTHER_TARGET: (0.7, 0.8, {}, True),
}
"""Brightness of target and reference, which makes them other scans; settings that differ from the first job's; and
whether the reference's place is given: registering two targets leads to two places, a little apart, and so to two
references."""

COMMANDS = {
    "Python alone": "pass",
    "import of PyTorch": "import torch",
    "mcsr --help": "import sys; sys.argv = ['mcsr', '--help']; from mcsr.cli import main; main()",
}
"""Code by what it is called; the first two are there to compare with."""


@dataclass(frozen=True)
class JobCost:
    """A whole job as `mcsr enhance` does it, in a process of its own.

    Args:
        model: used.
        scans: what they are.
        shape: of the result, voxels (i, j, k).
        stages: seconds by stage, in order, of the run with the median of all.
        totals: seconds of every run, as the process that started it saw it.
        on_request: seconds of what is made beside the result when it is asked for.
    """

    model: str
    scans: str
    shape: tuple[int, int, int]
    stages: Mapping[str, float]
    totals: tuple[float, ...]
    on_request: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds of the stages."""
        return sum(self.stages.values())

    @property
    def outside_network(self) -> float:
        """Seconds of all stages but the network's."""
        return self.total - self.stages[NETWORK_STAGE]


def write_scans(folder: Path, size: str, data: Path | None = None) -> str:
    """Write the two scans of a job, the target in low resolution, and say what they are.

    Args:
        folder: to write to.
        size: of the phantom, see `demo_case`.
        data: folder of subjects, whose first validation pair is taken in place of the phantom. Pairs lie on one grid;
            the reference is moved as the phantom's head is, so that there is something to register.
    """
    if data is None:
        case = demo_case(size=size)
        target, reference, name = case.target_hr, case.reference, "the brain phantom"
    else:
        pair = find_subject_pairs(data, "val")[0]
        target, reference = pair.read(pair.target), pair.read(pair.reference).moved(DEMO_MOTION)
        name = f"{pair.path.stem}, {pair.target} with {pair.reference}"
    low, _ = simulate(target, Settings.scale)
    write_volume(low, folder / TARGET_FILE)
    write_volume(reference, folder / REFERENCE_FILE)
    return name


def measure_job(
    folder: Path,
    scans: str,
    settings: Settings,
    threads: int,
    rounds: int,
    check: Check,
    passed: Callable[[float], None],
) -> JobCost:
    """Run the job on the scans that `write_scans` wrote; settings choose model and device."""
    runs: list[tuple[float, dict[str, float]]] = []
    for number in range(rounds):
        started = time.time()
        stages, shape = in_own_process(run_whole_job, folder, settings, threads, started, check=check)
        runs.append((time.time() - started, stages))
        passed((number + 1) / (rounds + 1))
    maps = replace(settings, maps="all", trust=True)
    on_request = in_own_process(draw_on_request, folder, maps, threads, check=check)
    runs.sort(key=lambda run: sum(run[1].values()))
    middle = runs[len(runs) // 2][1]
    return JobCost(settings.model, scans, shape, middle, tuple(total for total, _ in runs), on_request)


def run_whole_job(
    folder: Path, settings: Settings, threads: int, started: float
) -> tuple[dict[str, float], tuple[int, int, int]]:
    """Seconds of the stages of one job, from the moment (`time.time`) its process was started; the result's shape."""
    use_threads(threads)
    clock, stages = [started], {}

    def ended(stage: str) -> None:
        now = time.time()
        stages[stage] = now - clock[0]
        clock[0] = now

    ended(_START)
    target, reference = (read_volume(folder / name) for name in (TARGET_FILE, REFERENCE_FILE))
    ended(_READ)
    result = enhance(target, reference, settings)
    ended(_PREPARE)
    inner = dict(result.provenance["seconds"])
    stages[_PREPARE] -= sum(inner.values())
    stages |= inner
    place = folder / "result"
    place.mkdir(exist_ok=True)
    clock[0] = time.time()
    write_result(result, place)
    ended(_WRITE)
    return stages, result.sr.grid.shape_ijk


def draw_on_request(folder: Path, settings: Settings, threads: int) -> dict[str, float]:
    """Seconds of the stages that draw maps and trust maps."""
    use_threads(threads)
    target, reference = (read_volume(folder / name) for name in (TARGET_FILE, REFERENCE_FILE))
    seconds = enhance(target, reference, settings).provenance["seconds"]
    return {stage: value for stage, value in seconds.items() if stage.startswith("Drawing")}


def measure_start(rounds: int, passed: Callable[[float], None]) -> Timed:
    """Start Python for each of `COMMANDS`, in turn."""
    logic = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([logic, os.environ.get("PYTHONPATH", "")])}

    # Out of reach of Ctrl-C, which reaches the whole group and is for this process alone.
    apart: dict[str, Any] = {
        "start_new_session": True,
        "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    }

    def runner(code: str) -> Callable[[], object]:
        command = [sys.executable, "-c", code]
        return lambda: subprocess.run(command, env=environment, capture_output=True, check=True, **apart)

    return in_turn({name: runner(code) for name, code in COMMANDS.items()}, rounds, passed)


@dataclass(frozen=True)
class WorkerCost:
    """What jobs cost in a worker process that the panel in Slicer keeps.

    Args:
        jobs: seconds by job.
        network: of them the network's.
    """

    jobs: Timed
    network: Timed

    def outside_network(self, name: str) -> Spread:
        """Share (0..1) of a job that is not the network's."""
        rounds = zip(self.jobs.seconds[name], self.network.seconds[name], strict=True)
        return spread([1 - network / whole for whole, network in rounds])


def measure_worker(
    folder: Path, settings: Settings, threads: int, rounds: int, check: Check, passed: Callable[[float], None]
) -> WorkerCost:
    """Let a worker process do `_JOBS`, one after the other, as the panel in Slicer does; a new process each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _JOBS}
    chosen = {**asdict(settings), "weights": None}
    for number in range(rounds):
        names = [f"job{number}-{turn}" for turn in range(len(_JOBS))]
        for name, (target, reference, others, placed) in zip(names, _JOBS.values(), strict=True):
            place = np.linalg.inv(DEMO_MOTION) if placed else None
            hand_in(folder, name, chosen | others, target, reference, place)
        started = time.time()
        seconds = in_own_process(do_jobs, folder, names, threads, started, check=check)
        for name, value in zip(found, seconds, strict=True):
            found[name].append(value)
        passed((number + 1) / rounds)
    jobs, network = ({name: tuple(pair[part] for pair in found[name]) for name in found} for part in (0, 1))
    return WorkerCost(Timed(jobs), Timed(network))


def do_jobs(folder: Path, names: list[str], threads: int, started: float) -> list[tuple[float, float]]:
    """Seconds of each job and of its network; those of the first from when (`time.time`) its process was started."""
    use_threads(threads)
    memory, seconds = Memory(), []
    for name in names:
        clock = _NetworkClock()
        run_job(read_request(folder / name), folder / name, memory, clock.hear, never_cancelled)
        seconds.append((time.time() - started, clock.seconds))
        started = time.time()
    return seconds


class _NetworkClock:
    """Tells from a job's events how long its network took: from the first of that stage to the first of another."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began: float | None = None

    def hear(self, event: str, **fields: Any) -> None:
        is_network = fields.get("stage") == NETWORK_STAGE
        if is_network and self._began is None:
            self._began = time.time()
        elif not is_network and self._began is not None:
            self.seconds, self._began = self.seconds + time.time() - self._began, None


def hand_in(
    folder: Path,
    name: str,
    settings: dict[str, Any],
    target: float,
    reference: float,
    reference_to_target: np.ndarray | None = None,
) -> None:
    """A job's folder as the panel writes it; a scan that is so many times as bright is another to the worker."""
    place = folder / name
    place.mkdir()
    files = []
    for role, file, factor in (("target", TARGET_FILE, target), ("reference", REFERENCE_FILE, reference)):
        volume = read_volume(folder / file)
        write_array(place / f"{role}.npy", (factor * volume.array_kji).astype(np.float32))
        files.append(ArrayFile(f"{role}.npy", _rows(volume.ijk_to_ras), role))
    placed = None if reference_to_target is None else _rows(reference_to_target)
    request = Request(name, "enhance", files[0], files[1], settings=settings, reference_to_target_ras=placed)
    (place / REQUEST_FILE).write_text(request.to_json(), encoding="utf-8")


def _rows(matrix: np.ndarray) -> Matrix:
    return tuple(tuple(float(x) for x in row) for row in matrix)
