"""What was checked, in three sentences with their numbers. They never say that a result is safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .trust_fit import FIT, ReferenceFit

LARGEST_MISFIT_PERCENT = 1.0
"""RMS difference to the acquired input, of its range, up to which a result counts as consistent."""

BASIS = "limits set on our training and validation scans of patients with MS"


@dataclass(frozen=True)
class Findings:
    """What the sentences are made of.

    Args:
        consistency: see `Job.consistency`.
        fit: None where there was none, or where it was not acted upon.
        reference_detail: how coarse it is, a clause; empty where it is as fine as the result.
        lit: (K,) which slices hold signal; those that `fit` is of.
        without_fit: the sentence on the reference in that case.
        expected_error: (K,) mean over each slice's signal, percent of bright tissue; None where it was not asked for.
        warnings: the sentences of the job.
    """

    consistency: Mapping[str, Any]
    fit: ReferenceFit | None
    reference_detail: str
    lit: np.ndarray
    without_fit: str
    expected_error: np.ndarray | None
    warnings: Sequence[str]


def summarise(found: Findings) -> list[str]:
    """Three sentences: checks passed, what to look closely at, and the use of the reference."""
    passed, doubts = _consistency(found.consistency)
    reference, misfits = _reference(found)
    doubts += misfits
    if found.expected_error is not None and np.isfinite(found.expected_error).any():
        worst = int(np.nanargmax(found.expected_error))
        doubts.append(
            f"slice {worst + 1}, whose expected error is largest (mean {found.expected_error[worst]:.1f} % of bright "
            f"tissue; {np.nanmean(found.expected_error):.1f} % over all)"
        )
    if found.warnings:
        count = len(found.warnings)
        doubts.append("the warning of this job" if count == 1 else f"the {count} warnings of this job")
    return [
        f"Checks passed: {'; '.join(passed)}." if passed else "Checks passed: none.",
        f"Look closely at {'; '.join(doubts)}." if doubts else "Nothing else stood out, which these checks may miss.",
        reference,
    ]


def slice_ranges(numbers: Sequence[int]) -> str:
    """Slices counted from 1, as ranges: "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a + 1) if a == b else f"{a + 1}-{b + 1}" for a, b in runs)


def _consistency(consistency: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    if not consistency.get("applied"):
        return [], ["agreement with the input, which was not enforced"]
    misfit = consistency["error_after_clip_percent_rms"]
    words = f"the result, degraded again, differs from the input by {misfit:.2g} % of its range (RMS; "
    words += f"{LARGEST_MISFIT_PERCENT:g} % is allowed)"
    return ([words], []) if misfit <= LARGEST_MISFIT_PERCENT else ([], [words])


def _reference(found: Findings) -> tuple[str, list[str]]:
    """The sentence on the reference, and what of it gives rise to doubt."""
    if found.fit is None:
        return found.without_fit, []
    slices = np.flatnonzero(found.lit)
    unused, partly = slices[found.fit.weights <= 0], slices[(found.fit.weights > 0) & (found.fit.weights < 1)]
    numbers = f"edge agreement {found.fit.mean_agreement:.2f} on average, {FIT:g} is needed; {BASIS}"
    detail = f"; {found.reference_detail}" if found.reference_detail else ""
    if not len(unused) and not len(partly):
        return f"Reference used in all {len(slices)} slices ({numbers}){detail}.", []
    if len(unused) == len(slices):
        return f"Reference not used: it does not fit the target in any slice ({numbers}).", [
            "whose scan the reference is"
        ]
    parts = [f"not used in slices {slice_ranges(list(unused))}"] if len(unused) else []
    parts += [f"used in part in slices {slice_ranges(list(partly))}"] if len(partly) else []
    words = f"Reference {' and '.join(parts)}, where it fits poorly ({numbers}){detail}."
    return words, ["the slices where it fits poorly"]
