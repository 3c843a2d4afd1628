"""What data consistency does to a result, measured where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .consistency import misfit
from .evaluation_pairs import DegradedPair
from .intensity import intensity_scale
from .job import Memory
from .metrics import compare
from .pipeline import enhance
from .progress import JobProgress


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


def consistency_effect(pair: DegradedPair, report: JobProgress) -> ConsistencyEffect:
    """Enhance a pair without and with data consistency, and compare; the network runs once. For `measure_pairs`."""
    scale, memory = intensity_scale(pair.truth.array_kji, pair.truth.name), Memory()

    def run(consistency: bool) -> tuple[float, float, float]:
        """PSNR, RMS misfit and largest misfit."""
        result = enhance(
            pair.target,
            pair.reference,
            replace(pair.settings, consistency=consistency),
            memory=memory,
            progress=lambda event: report.update((consistency + event.fraction) / 2),
            cancelled=report.cancelled,
        ).sr.array_kji
        found = np.abs(100 * misfit(result, pair.target.array_kji, pair.factors_kji, pair.degradation))
        rms = float(np.sqrt(np.mean(found**2, dtype=np.float64)))
        return compare(result, pair.truth.array_kji, scale).psnr, rms, float(found.max())

    without, held = run(False), run(True)
    return ConsistencyEffect(pair.key, without[0], held[0], without[1], held[1], held[2])
