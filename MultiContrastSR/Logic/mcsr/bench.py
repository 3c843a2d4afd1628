"""The story of `mcsr bench`: what is measured, in which order, and what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from .bench_canvas import CanvasGain, measure_canvas, volumes_of
from .bench_jobs import JobCost, WorkerCost, measure_job, measure_start, measure_worker, write_scans
from .bench_machine import CONV, Peaks, Probe, is_busy, machine_facts, measure_peaks, probes_for, use_threads
from .bench_networks import (
    SCALE,
    NetworkCost,
    Scene,
    foretold_seconds,
    has_weights,
    make_scene,
    measure_memory,
    measure_network,
    plan_for,
    variants_of,
)
from .bench_timing import Timed
from .bench_training import TrainingCost, measure_training
from .canvas import Canvas
from .errors import Cancelled, InputError, McsrError
from .inference import choose_device, make_plan
from .job import Settings
from .networks import create_network, network_class, network_names
from .progress import CancelQuery, JobProgress, ProgressCallback
from .subjects import find_subject_pairs

PUBLISHED = ("cd-dpe", "dcamsr")
"""Measured by default beside the models with weights: the largest networks that were published."""

_START, _JOB, _WORKER, _CANVAS, _TRAINING = "Start-up", "Whole job", "Second job", "Canvas", "Training"
_SMALLEST_SIZE, _QUICK_SIZE, _QUICK_ROUNDS = 64, 128, 2
_STEPS, _QUICK_STEPS = 6, 3
_PROCESS_SECONDS = 4.0
"""To start a process with PyTorch, roughly."""

_JOB_SECONDS = {"small": 8.0, "full": 25.0}
"""Of a job on the phantom, start included, roughly."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        models: names; empty for the default ones, ("all",) for all networks.
        precisions: of the fast paths, of "fp32", "bf16" and, on GPUs, "fp16"; the first is the one that is shown most.
        size: rows and columns of a slice of the result, a multiple of 4.
        threads: CPU threads; None: as many as torch takes.
        rounds: how often each thing is measured.
        quick: slim networks, smaller slices, few rounds.
        device: of `inference.DEVICES`.
        data: folder of subjects whose validation volumes canvas and whole jobs are measured on; None: the phantom.
    """

    models: Sequence[str] = ()
    precisions: Sequence[str] = ("fp32", "bf16")
    size: int = 256
    threads: int | None = None
    rounds: int = 3
    quick: bool = False
    device: str = "auto"
    data: Path | None = None

    @property
    def phantom(self) -> str:
        """Size of the phantom that whole jobs run on."""
        return "small" if self.quick else "full"

    @property
    def side(self) -> int:
        """Rows and columns of the slices that are measured."""
        return min(self.size, _QUICK_SIZE) if self.quick else self.size

    @property
    def short_rounds(self) -> int:
        """Of what is quickly done."""
        return min(self.rounds, _QUICK_ROUNDS) if self.quick else self.rounds

    @property
    def long_rounds(self) -> int:
        """Of what takes many seconds each time."""
        return 1 if self.quick else self.rounds

    @property
    def steps(self) -> int:
        """Of training, in each round."""
        return _QUICK_STEPS if self.quick else _STEPS


@dataclass
class Findings:
    """What is known so far; a part that was not reached is empty or None."""

    facts: dict[str, Any]
    peaks: Peaks
    size: int
    precisions: Sequence[str]
    start: Timed | None = None
    job: JobCost | None = None
    worker: WorkerCost | None = None
    canvas: list[CanvasGain] = field(default_factory=list)
    training: TrainingCost | None = None
    networks: list[NetworkCost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Bench:
    """One run of the measurements; when it is made it finds out what the machine can do, which takes seconds.

    Args:
        options: what to measure.

    Raises:
        InputError: for unknown models, a size that is no multiple of 4, or data that cannot be used.
        DeviceError: for a device or precision that cannot be used.
    """

    def __init__(self, options: Options) -> None:
        use_threads(options.threads)
        self.options = options
        self.device = choose_device(options.device)
        self.models = chosen_models(options)
        _check(options, self.device)
        variants = variants_of(options.precisions)
        self._remembered = variants[1:2] if options.quick else variants
        """The variants whose memory is measured."""
        busy = is_busy()
        peaks, self._probes = measure_peaks(probes_for(self.device, list(options.precisions)))
        self.findings = Findings(machine_facts(self.device), peaks, options.side, options.precisions)
        if busy:
            self.findings.notes.append(
                "Other programs were using the machine: seconds are too high; ratios, taken in turn, hold better."
            )
        self._seconds = {name: foretold_seconds(name, options.side, peaks) for name in self.models}
        self.models.sort(key=self._seconds.__getitem__)

    def expected_seconds(self) -> dict[str, float]:
        """About how long each stage will take, by its name, in order."""
        job = _JOB_SECONDS[self.options.phantom]
        stages = {
            _START: (self.options.short_rounds + 1) * _PROCESS_SECONDS,
            _JOB: (self.options.long_rounds + 2) * job,
            _WORKER: 2 * self.options.long_rounds * job,
            _CANVAS: 0.5 * job,
        }
        if find_spec("lightning"):
            stages[_TRAINING] = 2 * self.options.long_rounds * job
        for name in self.models:
            passes, remembered = 1 + 0.7 * len(self.options.precisions), len(self._remembered)
            stages[name] = (self.options.short_rounds + 1) * (passes * self._seconds[name] + 0.2)
            stages[_memory_stage(name)] = remembered * (self._seconds[name] + _PROCESS_SECONDS)
        return stages

    def run(self, progress: ProgressCallback, cancelled: CancelQuery) -> None:
        """Measure everything, what is quick first; `findings` holds what is complete at any time.

        Raises:
            Cancelled: when asked for.
        """
        report = JobProgress(progress, cancelled, self.expected_seconds())

        def check() -> None:
            if cancelled():
                raise Cancelled("Stopped.")

        with tempfile.TemporaryDirectory() as place:
            self._waiting(Path(place), report, check)
        with report.stage(_CANVAS):
            for name, slices in volumes_of(self.options.data):
                gain = measure_canvas(
                    name, slices, Settings.model, self.device, self.options.short_rounds, lambda share: check()
                )
                self.findings.canvas.append(gain)
        if find_spec("lightning"):
            with report.stage(_TRAINING):
                options = self.options
                self.findings.training = measure_training(
                    options.phantom, options.long_rounds, options.steps, report.update
                )
        else:
            self.findings.notes.append("Training was not measured; for it, run: pip install lightning")
        for name in self.models:
            self._network(name, report, check)

    def _waiting(self, folder: Path, report: JobProgress, check: Callable[[], None]) -> None:
        """What a user waits for."""
        findings, threads = self.findings, torch.get_num_threads()
        settings = Settings(device=self.device)
        with report.stage(_START):
            findings.start = measure_start(self.options.short_rounds, report.update)
        with report.stage(_JOB):
            scans = write_scans(folder, self.options.phantom, self.options.data)
            findings.job = measure_job(folder, scans, settings, threads, self.options.long_rounds, check, report.update)
        with report.stage(_WORKER):
            findings.worker = measure_worker(folder, settings, threads, self.options.long_rounds, check, report.update)

    def _network(self, name: str, report: JobProgress, check: Callable[[], None]) -> None:
        findings, options = self.findings, self.options
        probe: Probe = self._probes[findings.peaks.best(CONV, "fp32")[0]]
        scene = make_scene(options.side)
        batch = plan_for(create_network(name, scale=SCALE), scene, self.device, "fp32").batch
        scene = Scene(*(array.repeat(batch, axis=0) for array in scene))
        with report.stage(name):
            cost = measure_network(
                name, scene, self.device, options.precisions, options.short_rounds, probe, report.update
            )
            findings.networks.append(cost)
        with report.stage(_memory_stage(name)):
            try:
                findings.networks[-1] = measure_memory(
                    cost, self._remembered, scene, self.device, torch.get_num_threads(), check, report.update
                )
            except Cancelled:
                raise
            except McsrError as error:
                findings.notes.append(f"{name}: {error}")


def _memory_stage(name: str) -> str:
    return f"{name}: memory"


def _check(options: Options, device: str) -> None:
    """Refuse what would fail later."""
    if options.size < _SMALLEST_SIZE or options.size % SCALE:
        raise InputError(
            f"Slices of {options.size} pixels cannot be measured; give a multiple of {SCALE} from {_SMALLEST_SIZE} on."
        )
    if not options.precisions or "auto" in options.precisions:
        raise InputError("Name the precisions to measure, for example fp32,bf16.")
    for precision in options.precisions:
        make_plan(create_network("sinc"), Canvas(0, 0, 8, 8), device, precision)
    if options.data is not None:
        find_subject_pairs(options.data, "val")


def chosen_models(options: Options) -> list[str]:
    """The models to measure.

    Raises:
        InputError: for one that is unknown, or no network.
    """
    networks = [name for name in network_names() if network_class(name).uses_reference]
    if options.models and tuple(options.models) != ("all",):
        for name in options.models:
            if not network_class(name).uses_reference:
                raise InputError(f"{name} is an interpolation, no network; choose of {', '.join(networks)}.")
        return list(dict.fromkeys(options.models))
    if options.models:
        return networks
    return [name for name in networks if has_weights(name) or (name in PUBLISHED and not options.quick)]
