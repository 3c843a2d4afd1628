"""Scores of models where the truth is known, through the very pipeline that users run.

Each target of a split is degraded, enhanced with each reference of its session under each condition, and compared with
itself. What is the same for several runs is computed once: the degraded target, and the runs that use no reference.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from .canvas import signal_canvas
from .degradation import crop_to_multiple, degradation_named, upsample
from .errors import InputError, WeightsError
from .evaluation_conditions import (
    CONDITIONS,
    GROUPS,
    NO_REFERENCE,
    References,
    find_candidates,
)
from .evaluation_noise import noise_ceiling
from .evaluation_pairs import PairChoice
from .evaluation_protocols import acquire, fitted, protocol_scores
from .evaluation_study import BASELINE, Case, Run, Study
from .geometry import coarsen_grid, crop_grid
from .intensity import intensity_scale
from .metrics import compare_slices, lit_slices, psnr
from .networks import network_class, network_names
from .pipeline import enhance
from .progress import CancelQuery, Event, JobProgress, ProgressCallback, never_cancelled, no_progress
from .resampling import resample
from .subjects import SubjectPair
from .volume import Volume
from .weights import added_models, find_weights, shipped_models

Task = tuple[str, str]
"""A model and a condition."""


def evaluate(
    study: Study, *, progress: ProgressCallback = no_progress, cancelled: CancelQuery = never_cancelled
) -> Iterator[Case]:
    """Run a study pair by pair, scale by scale.

    Args:
        study: what to evaluate.
        progress: receives events.
        cancelled: asked between batches.

    Raises:
        InputError: for an unknown condition, session or model, or data that cannot be used.
        WeightsError: when none of the networks asked for has weights at any of the scales.
        Cancelled: where asked to.
    """
    tasks, notes = _tasks(study)
    pairs = PairChoice(study.data, study.split, study.sessions).find()
    candidates = find_candidates(study.data, study.split) if "foreign" in study.conditions else []
    parts = {f"{pair.key} x{scale}": (pair, scale) for pair in pairs for scale in tasks}
    report = JobProgress(progress, cancelled, {label: float(len(tasks[scale])) for label, (_, scale) in parts.items()})
    known: dict[tuple[object, ...], Run] = {}
    before = pairs[0]
    for label, (pair, scale) in parts.items():
        if (pair.path, pair.target) != (before.path, before.target):
            known, before = {}, pair
        with report.stage(label):
            case = _PairRuns(study, pair, scale, candidates, report).case(tasks[scale], known)
        yield dataclasses.replace(case, notes=(*notes, *case.notes))
        notes = ()


def _tasks(study: Study) -> tuple[dict[int, list[Task]], tuple[str, ...]]:
    """What runs at each scale, the baseline first; and sentences on what does not."""
    unknown = set(study.conditions) - set(CONDITIONS)
    if unknown or not study.conditions:
        known = ", ".join([*CONDITIONS, *GROUPS])
        raise InputError(f"Unknown condition '{', '.join(sorted(unknown))}'; known are {known}.")
    everything = "all" in study.models
    names = dict.fromkeys([BASELINE, *(network_names() if everything else study.models)])
    installed = {(entry["architecture"], entry["scale"]) for entry in [*shipped_models(), *added_models()]}
    tasks: dict[int, list[Task]] = {scale: [] for scale in study.scales}
    left_out, notes = [], []
    for name in names:
        for scale, found in tasks.items():
            if not network_class(name).uses_reference:
                found.append((name, NO_REFERENCE))
            elif study.settings.weights or (name, scale) in installed:
                found += [(name, condition) for condition in study.conditions]
                notes += _mismatch(study, name, scale)
            else:
                left_out.append(f"{name} x{scale}")
    wanted = [name for name in names if network_class(name).uses_reference]
    if wanted and not everything and not any(name in wanted for found in tasks.values() for name, _ in found):
        raise WeightsError(f"No weights are installed for {', '.join(left_out)}; see `mcsr models list`.")
    if left_out:
        notes.append(f"Left out, because no weights are installed: {', '.join(left_out)}.")
    return tasks, tuple(notes)


def _mismatch(study: Study, name: str, scale: int) -> list[str]:
    trained = degradation_named(find_weights(name, scale, study.settings.weights).metadata["degradation"]).name
    if trained == degradation_named(study.degradation).name:
        return []
    return [
        f"{name} x{scale} was trained with the degradation '{trained}', the protocol's is '{study.degradation}': its "
        "scores do not tell how good the paper's network is."
    ]


class _PairRuns:
    """All runs on a pair at a scale, and what they share.

    Attributes:
        truth: the original, fitted to the protocol, a multiple of the scale, and thinned out.
        references: by condition.
        numbers: of the truth's slices, in the volume as it is stored.
        lit: indices of those that are scored.
        target: degraded.
        shown: index of the slice of the pictures.
    """

    def __init__(
        self, study: Study, pair: SubjectPair, scale: int, candidates: Sequence[SubjectPair], report: JobProgress
    ) -> None:
        self.study, self.pair, self.scale, self.report = study, pair, scale, report
        stored = pair.read(pair.target)
        whole = fitted(stored, study.protocol) if study.protocol else stored
        whole = crop_to_multiple(whole, (1, scale, scale))[0]
        chosen = _thinned(len(whole.array_kji), study.limit_slices)

        def fit(reference: Volume) -> Volume:
            # Thinned out like the truth: resampled onto slices far apart it would be smoothed across them.
            return reference if chosen.step == 1 else _every(resample(reference, whole.grid), chosen)

        self.references = References(pair, whole, candidates, study.settings.seed, fit)
        self.truth = _every(whole, chosen)
        left_out = (len(stored.array_kji) - len(whole.array_kji)) // 2
        self.numbers = pair.slices.start + left_out + np.array(chosen)
        self.target = acquire(self.truth, scale, study.degradation)
        self.lit = lit_slices(self.truth.array_kji)
        self._intensity = intensity_scale(whole.array_kji, whole.name)
        self._canvas = signal_canvas(self.truth.array_kji, 1)
        self.shown = self._typical_slice()
        self._notes: dict[str, None] = {}

    def case(self, tasks: Sequence[Task], known: dict[tuple[object, ...], Run]) -> Case:
        """Run all tasks; `known` keeps the runs without a reference for other pairs with the same target."""
        runs = []
        for index, (model, condition) in enumerate(tasks):
            key = (*self.numbers, self.scale, model, condition)
            run = known.get(key) or self._run(model, condition, range(index, len(tasks)))
            if run is None:
                continue
            if condition in (NO_REFERENCE, "self"):
                known[key] = run
            runs.append(run)
        rows, columns = (float(mm) for mm in self.truth.grid.spacing_ijk_mm[1::-1])
        return Case(
            session=self.pair.session.name,
            subject=self.pair.subject,
            target=self.pair.target,
            reference=self.pair.reference,
            scale=self.scale,
            slices=tuple(int(n) for n in self.numbers[self.lit]),
            ceiling=self._ceiling(),
            shown=int(self.numbers[self.shown]),
            truth_picture=self._picture(self.truth.array_kji[self.shown], self._intensity),
            reference_picture=self._reference_picture(),
            spacing_mm=(rows, columns),
            plane=self.pair.plane,
            runs=tuple(runs),
            notes=tuple(self._notes),
        )

    def _run(self, model: str, condition: str, place: range) -> Run | None:
        """One task, at its place among all; None where there is no reference of that kind."""

        def progress(event: Event) -> None:
            self.report.update((place.start + event.fraction) / place.stop)

        study = self.study
        reference = self.references.of(condition)
        if condition == "foreign":
            self._notes[self._lender()] = None
            if reference is None:
                return None
        settings = dataclasses.replace(
            study.settings,
            model=model,
            scale=self.scale,
            plane=self.pair.plane,
            weights=None if condition == NO_REFERENCE else study.settings.weights,
            registration="rigid" if condition == "registered" else "none",
            # A wrong reference may be coarser than the target, or hardly overlap it.
            force=study.settings.force or condition in GROUPS["wrong"],
        )
        started = time.monotonic()
        result = enhance(self.target, reference, settings, progress=progress, cancelled=self.report.cancelled)
        seconds = time.monotonic() - started
        if condition not in (NO_REFERENCE, "self"):
            self._notes |= dict.fromkeys(f"{self.pair.key}, {condition}: {words}" for words in result.warnings)
        sr, truth = result.sr.array_kji, self.truth.array_kji
        return Run(
            model,
            condition,
            compare_slices(sr, truth, self._intensity, lpips=study.lpips),
            protocol_scores(sr, truth, self.scale, study.protocol) if study.protocol else {},
            seconds,
            self._picture(sr[self.shown], self._intensity),
        )

    def _typical_slice(self) -> int:
        """The slice whose PSNR of the baseline is the median."""
        interpolated = np.maximum(upsample(self.target.array_kji, (1, self.scale, self.scale)), 0)
        truth = self.truth.array_kji
        order = sorted(self.lit, key=lambda n: psnr(interpolated[n], truth[n]))
        return int(order[(len(order) - 1) // 2])

    def _ceiling(self) -> np.ndarray | None:
        protocol = self.study.protocol
        if self.pair.auxiliary or (protocol and protocol.resized):
            return None
        return noise_ceiling(self.truth.array_kji, self.scale, self._intensity)[self.lit]

    def _picture(self, pixels: np.ndarray, intensity: float) -> np.ndarray:
        return self._canvas.crop(pixels / np.float32(intensity)).copy()

    def _reference_picture(self) -> np.ndarray:
        columns, rows, _ = self.truth.grid.shape_ijk
        grid = crop_grid(self.truth.grid, (0, 0, self.shown), (columns, rows, 1))
        reference = self.references.true
        pixels = resample(reference, grid).array_kji[0]
        return self._picture(pixels, intensity_scale(reference.array_kji, reference.name))

    def _lender(self) -> str:
        contrast, lender = self.pair.reference, self.references.lender
        if lender is None:
            return f"{self.pair.key}: no other subject has {contrast}, so there is no foreign reference."
        return f"{self.pair.key}: the foreign reference is {contrast} of {lender.session.name}."


def _thinned(count: int, limit: int) -> range:
    """At most `limit` of `count` slices (all for 0), evenly spread about the middle."""
    step = -(-count // limit) if limit else 1
    kept = -(-count // step)
    first = (count - 1 - (kept - 1) * step) // 2
    return range(first, count, step)


def _every(volume: Volume, chosen: range) -> Volume:
    """Some slices of a volume, each where it lay."""
    if chosen.step == 1:
        return volume
    columns, rows, _ = volume.grid.shape_ijk
    grid = crop_grid(volume.grid, (0, 0, chosen.start), (columns, rows, len(chosen) * chosen.step))
    return volume.on_grid(
        volume.array_kji[chosen.start :: chosen.step], coarsen_grid(grid, (1, 1, chosen.step), "corner")
    )
