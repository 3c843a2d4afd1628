"""What data consistency does to a result, measured where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .consistency import misfit
from .degradation import crop_to_multiple, degrade_volume
from .errors import InputError
from .intensity import intensity_scale
from .job import Memory, Settings
from .metrics import compare
from .pipeline import enhance
from .pipeline_inputs import degradation_for
from .progress import CancelQuery, JobProgress, ProgressCallback, never_cancelled, no_progress
from .subjects import SubjectPair, find_subject_pairs
from .volume import Volume


@dataclass(frozen=True)
class ConsistencyEffect:
    """One case without and with data consistency; misfits are in percent of the input's range.

    Args:
        key: session, target and reference.
        psnr_without: mean over slices (dB), as the network left it.
        psnr_with: with data consistency.
        misfit_without: RMS difference of the result, clipped and degraded again, to the input.
        misfit_with: the same with data consistency.
        largest_with: the largest such difference.
    """

    key: str
    psnr_without: float
    psnr_with: float
    misfit_without: float
    misfit_with: float
    largest_with: float


def consistency_effects(
    data: Path,
    split: str,
    settings: Settings,
    *,
    sessions: Sequence[str] = (),
    limit_slices: int = 0,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Iterator[ConsistencyEffect]:
    """Enhance degraded targets with their references where they lie, and compare; the network runs once for each.

    Args:
        data: folder of subjects.
        split: "train", "val" or "test".
        settings: model, scale, device.
        sessions: only these.
        limit_slices: at most so many, the middle ones; 0 for all.
        progress: receives events.
        cancelled: asked between steps.

    Raises:
        InputError: when there is no such session.
    """
    pairs = [p for p in find_subject_pairs(data, split) if not sessions or p.path.stem in sessions]
    if not pairs:
        raise InputError(f"{data} has no session {', '.join(sessions)} in split '{split}'.")
    report = JobProgress(progress, cancelled, {pair.key: 1.0 for pair in pairs})
    for pair in pairs:
        with report.stage(pair.key):
            effect = _effect(pair, settings, limit_slices, report)
        yield effect


def _effect(pair: SubjectPair, settings: Settings, limit_slices: int, report: JobProgress) -> ConsistencyEffect:
    factors, degradation = (1, settings.scale, settings.scale), degradation_for(settings)
    truth, reference = (_middle(pair.read(contrast), limit_slices) for contrast in (pair.target, pair.reference))
    truth = crop_to_multiple(truth, factors)[0]
    target = degrade_volume(truth, factors, degradation)
    scale, memory = intensity_scale(truth.array_kji, truth.name), Memory()

    def run(consistency: bool) -> tuple[float, float, float]:
        """PSNR, RMS misfit and largest misfit."""
        result = enhance(
            target,
            reference,
            replace(settings, plane=pair.plane, registration="none", consistency=consistency),
            memory=memory,
            progress=lambda event: report.update((consistency + event.fraction) / 2),
            cancelled=report.cancelled,
        ).sr.array_kji
        found = np.abs(100 * misfit(result, target.array_kji, factors, degradation))
        rms = float(np.sqrt(np.mean(found**2, dtype=np.float64)))
        return compare(result, truth.array_kji, scale).psnr, rms, float(found.max())

    without, held = run(False), run(True)
    return ConsistencyEffect(pair.key, without[0], held[0], without[1], held[1], held[2])


def _middle(volume: Volume, limit: int) -> Volume:
    """At most `limit` slices in the middle."""
    columns, rows, count = volume.grid.shape_ijk
    if not limit or count <= limit:
        return volume
    return volume.cropped((0, 0, (count - limit) // 2), (columns, rows, limit))
