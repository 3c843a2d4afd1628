"""The results of a study as csv and markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .evaluation_conditions import CONDITIONS, NO_REFERENCE
from .evaluation_protocols import Protocol
from .evaluation_statistics import Difference, Summary, summarise
from .evaluation_study import BASELINE, Case
from .imageio import complete_file

CEILING = "noise ceiling"
MOST_PAIRS = 24
"""With more pairs the markdown holds the data set alone; the csv files hold everything."""

_PROTOCOL_METRICS = ("psnr", "ssim", "nmse")
_HEADINGS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "nmse": "NMSE",
    "psnr_foreground": "foreground PSNR",
    "ssim_foreground": "foreground SSIM",
    "nmse_foreground": "foreground NMSE",
    "lpips": "LPIPS",
    "lpips_foreground": "foreground LPIPS",
}


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows with the same keys as a csv file, whole or not at all."""
    rows = list(rows)
    with complete_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def slice_rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row for every slice of every run."""
    return [
        {
            **_pair(case),
            "model": run.model,
            "condition": run.condition,
            "slice": number,
            **{metric: f"{values[n]:.6g}" for metric, values in run.scores.items()},
            "noise_ceiling_psnr": "" if case.ceiling is None else f"{case.ceiling[n]:.4g}",
        }
        for case in cases
        for run in case.runs
        for n, number in enumerate(case.slices)
    ]


def summary_rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row for every model and condition, by pair, by subject and for the data set."""
    return [
        {
            "level": row.level,
            "name": row.name,
            "scale": row.scale,
            "model": row.model,
            "condition": row.condition,
            "count": row.count,
            **{f"{metric}_mean": f"{value:.6g}" for metric, value in row.mean.items()},
            **{f"{metric}_sd": f"{value:.6g}" for metric, value in row.deviation.items()},
            "seconds": f"{row.seconds:.2f}",
        }
        for level in ("pair", "subject", "data set")
        for row in summarise(cases, level)
    ]


def difference_rows(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """One row for every comparison."""
    return [
        {
            "scale": d.scale,
            "first_model": d.first[0],
            "first_condition": d.first[1],
            "second_model": d.second[0],
            "second_condition": d.second[1],
            "metric": d.metric,
            "unit": d.unit,
            "count": d.count,
            "mean_difference": f"{d.mean:.6g}",
            "low_95": f"{d.low:.6g}",
            "high_95": f"{d.high:.6g}",
            "p_holm": f"{d.p:.4g}",
        }
        for d in differences
    ]


def markdown(
    cases: Sequence[Case], differences: Sequence[Difference], protocol: Protocol | None = None, name: str = ""
) -> str:
    """All tables of a study with their captions.

    Args:
        cases: of the study.
        differences: for several metrics, see `compare_runs`.
        protocol: of the study.
        name: of the protocol.
    """
    parts = []
    if protocol:
        parts += [_protocol_table(cases, protocol, name), _protocol_caption(protocol)]
    if len({case.pair for case in cases}) <= MOST_PAIRS:
        parts += [_score_table(cases, summarise(cases, "pair"), "pair"), _score_caption(cases)]
    if len({case.subject for case in cases}) > 1:
        parts.append(_score_table(cases, summarise(cases, "data set"), "data set"))
        parts.append("Mean and standard deviation over the subjects' means.")
    if differences:
        parts += [_difference_table(differences), _difference_caption(differences)]
    return "\n\n".join(parts)


def _score_table(cases: Sequence[Case], rows: Sequence[Summary], level: str) -> str:
    metrics = list(rows[0].mean)
    sinc = {(row.name, row.scale): row.mean for row in rows if row.model == BASELINE}
    shown = [m for m in metrics if m not in ("nmse_foreground", "lpips_foreground")]
    head = [level, "scale", "model", "reference", *(_HEADINGS[m] for m in shown), "s"]
    for metric in ("psnr", "ssim"):
        head.insert(head.index(_HEADINGS[metric]) + 1, "over sinc")
    lines = []
    for n, row in enumerate(rows):
        cells = [row.name, f"x{row.scale}", row.model, "-" if row.condition == NO_REFERENCE else row.condition]
        for metric in shown:
            cells.append(_with_deviation(row, metric))
            if metric in ("psnr", "ssim"):
                cells.append(f"{row.mean[metric] - sinc[row.name, row.scale][metric]:+.{_digits(metric)}f}")
        lines.append([*cells, f"{row.seconds:.1f}"])
        last = n + 1 == len(rows) or (rows[n + 1].name, rows[n + 1].scale) != (row.name, row.scale)
        ceiling = _ceiling(cases, row.name, row.scale) if last else None
        if ceiling is not None:
            base = sinc[row.name, row.scale]["psnr"]
            cells = [row.name, f"x{row.scale}", CEILING, "-", f"{ceiling:.2f}", f"{ceiling - base:+.2f}"]
            lines.append(cells + [""] * (len(head) - len(cells)))
    return _table(head if level == "pair" else head[1:], lines if level == "pair" else [cells[1:] for cells in lines])


def _ceiling(cases: Sequence[Case], name: str, scale: int) -> float | None:
    """Mean over the slices of the cases of that name (all for "") at that scale."""
    chosen = [case.ceiling for case in cases if case.scale == scale and name in ("", case.pair)]
    known = [ceiling for ceiling in chosen if ceiling is not None]
    return float(np.concatenate(known).mean()) if known and len(known) == len(chosen) else None


def _score_caption(cases: Sequence[Case]) -> str:
    used = dict.fromkeys(run.condition for case in cases for run in case.runs)
    references = "; ".join(f"{name}: {CONDITIONS[name]}" for name in used if name in CONDITIONS)
    words = [
        "Mean and standard deviation over the slices with foreground. Data range 1 after division by the original's "
        "99.9 foreground percentile and clipping at 0; nothing is cropped. Foreground: above a tenth of the original's "
        f"bright tissue. s: seconds of the whole job. Reference: {references or 'none'}."
    ]
    if any(case.ceiling is not None for case in cases):
        words.append(
            f"The {CEILING} is an estimate, from the outer acquired k-space, of what a perfect result would have "
            "against this noisy original; the true one is there or above."
        )
    return " ".join(words)


def _difference_table(differences: Sequence[Difference]) -> str:
    by_pair: dict[tuple[Any, ...], dict[str, Difference]] = {}
    for d in differences:
        by_pair.setdefault((d.scale, d.first, d.second), {})[d.metric] = d
    metrics = list(dict.fromkeys(d.metric for d in differences))
    head = ["scale", "compared", "minus", "n"]
    head += [words for metric in metrics for words in (f"{_HEADINGS[metric]}, 95 % interval", "p")]
    lines = []
    for (scale, first, second), found in by_pair.items():
        count = next(iter(found.values()))
        cells = [f"x{scale}", _words(first), _words(second), f"{count.count} {count.unit}"]
        for metric in metrics:
            d, digits = found[metric], _digits(metric)
            cells.append(f"{d.mean:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]")
            cells.append("<0.001" if d.p < 0.001 else f"{d.p:.3f}")
        lines.append(cells)
    return _table(head, lines)


def _difference_caption(differences: Sequence[Difference]) -> str:
    words = (
        "Mean paired difference, 95 % interval by bootstrap, p by Wilcoxon's signed-rank test with Holm's correction "
        "over the table. A target slice counts once, averaged over its references."
    )
    if any(d.unit == "slices" for d in differences):
        words += (
            " Slices of one patient are not independent, so intervals are too narrow and p too small: they tell of "
            "these patients, not of others."
        )
    return words


def _protocol_table(cases: Sequence[Case], protocol: Protocol, name: str) -> str:
    lines = []
    for scale in dict.fromkeys(case.scale for case in cases):
        chosen = [case for case in cases if case.scale == scale]
        for model, condition in dict.fromkeys((run.model, run.condition) for case in chosen for run in case.runs):
            runs = [r for case in chosen for r in case.runs if (r.model, r.condition) == (model, condition)]
            scores = {m: float(np.concatenate([r.protocol_scores[m] for r in runs]).mean()) for m in _PROTOCOL_METRICS}
            data = ", ".join(dict.fromkeys(f"{case.target}<-{case.reference}" for case in chosen))
            what = _words((model, condition))
            lines.append([f"x{scale}", what, f"these data, {data}", *(_number(m, scores[m]) for m in scores)])
        for entry in protocol.published:
            if entry.scale == scale:
                # With the digits that the paper prints.
                values = (_number(m, getattr(entry, m)).rstrip("0" if m != "psnr" else "") for m in _PROTOCOL_METRICS)
                lines.append([f"x{scale}", f"published: {name}", entry.data, *values])
    return _table(["scale", "model", "data", *(_HEADINGS[m] for m in _PROTOCOL_METRICS)], lines)


def _protocol_caption(protocol: Protocol) -> str:
    size = f", slices of {protocol.size} x {protocol.size}" if protocol.size else ""
    span = "volumes" if protocol.by_volume else "slices"
    return (
        f"Metric and degradation ({protocol.degradation}{size}) of {protocol.paper}; means over {span}. Lines marked "
        "as published are the paper's own numbers, on its own data and split: compare with them only what was measured "
        f"on those. {protocol.departures}"
    ).strip()


def _pair(case: Case) -> dict[str, Any]:
    names = ("session", "subject", "target", "reference", "scale")
    return {name: getattr(case, name) for name in names}


def _words(key: tuple[str, str]) -> str:
    model, condition = key
    return model if condition == NO_REFERENCE else f"{model}, {condition}"


def _with_deviation(row: Summary, metric: str) -> str:
    value = f"{row.mean[metric]:.{_digits(metric)}f}"
    return value if np.isnan(row.deviation[metric]) else f"{value} ± {row.deviation[metric]:.{_digits(metric)}f}"


def _number(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{_digits(metric)}f}"


def _digits(metric: str) -> int:
    return 2 if metric.startswith("psnr") else 4


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
