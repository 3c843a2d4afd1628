"""The figure of `mcsr bench`: time and rate of the networks, and where the time of a whole job goes."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from .bench import Findings
from .bench_jobs import NETWORK_STAGE
from .bench_machine import CONV, MATMUL
from .bench_networks import PLAIN, variants_of
from .bench_tables import RANDOM_MARK, label, number
from .report_style import FAINT, TEXT, new_figure, save_figure, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with any kind of colour vision, and on black.
_PLAIN_COLOUR, _FAST_COLOURS = "#9a9a9a", ("#56b4e9", "#f0e442", "#009e73")
_NETWORK_COLOUR, _WORKER_COLOUR = _FAST_COLOURS[0], "#6b6b6b"
_STAGE_COLOURS = ("#8d8d8d", "#009e73", "#cc79a7", "#e69f00", "#f0e442", "#e06c4f", "#6a8fd8", "#88ccaa")

# Sizes in inches.
_WIDTH, _MARGIN, _HEADER, _FOOTER = 13.0, 0.25, 0.75, 0.55
_LEGEND_LINE, _AXIS, _ROW, _BAR_ROW = 0.24, 0.68, 0.46, 0.42
_NAMES, _FASTER, _BETWEEN, _LONG_NAMES = 1.15, 1.35, 0.45, 2.5
_NAME_LETTERS = 34
"""In a line of `_LONG_NAMES`."""

_NICE = (1, 2, 5)


def write_plot(path: Path, findings: Findings) -> None:
    """Draw what has been measured of networks and jobs, of which there is one at least.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    networks, bars = len(findings.networks) * _ROW, (1 + _warm_jobs(findings)) * _BAR_ROW if findings.job else 0.0
    height = _HEADER + _FOOTER
    height += 2 * _LEGEND_LINE + networks + _AXIS if networks else 0
    height += 3 * _LEGEND_LINE + bars + _AXIS if bars else 0
    figure = new_figure(_WIDTH, height)

    def axes_at(left: float, top: float, width: float, tall: float) -> Axes:
        axes = figure.add_axes((left / _WIDTH, (height - top - tall) / height, width / _WIDTH, tall / height))
        _style(axes)
        return axes

    top = _HEADER
    if networks:
        top += 2 * _LEGEND_LINE
        wide = (_WIDTH - 2 * _MARGIN - 2 * _NAMES - _FASTER - _BETWEEN) / 2
        left = _MARGIN + _NAMES
        _draw_seconds(axes_at(left, top, wide, networks), findings, _FASTER / wide)
        _draw_rates(axes_at(left + wide + _FASTER + _BETWEEN + _NAMES, top, wide, networks), findings)
        top += networks + _AXIS
    if bars:
        top += 3 * _LEGEND_LINE
        left = _MARGIN + _LONG_NAMES
        _draw_job(axes_at(left, top, _WIDTH - left - _MARGIN, bars), findings)
    facts = findings.facts
    threads = f"{facts['threads']} thread" + "s" * (facts["threads"] > 1)
    processor = facts.get("graphics processor") or f"{facts['processor']}, {threads}"
    random = f" {RANDOM_MARK} random weights." if any(not cost.has_weights for cost in findings.networks) else ""
    write_words(
        figure,
        _MARGIN,
        "Speed on this machine",
        f"{processor}; PyTorch {facts['torch']}; mcsr {facts['mcsr']}; slices of {findings.size} x {findings.size} "
        "pixels at x4",
        f"Medians of rounds in turn; lines: lowest to highest round. GFLOP/s: of the published network.{random}",
    )
    save_figure(path, figure)


def _draw_seconds(axes: Axes, findings: Findings, beside: float) -> None:
    """A row for each network, on a logarithmic axis; `beside` it, in widths of the axes, is room for the ratios."""
    variants = _variants(findings)
    outside = axes.get_yaxis_transform()
    every = [cost.seconds(variant) for cost in findings.networks for variant in variants]
    for row, cost in enumerate(findings.networks):
        middles = [cost.seconds(variant).middle for variant in variants]
        axes.plot([min(middles), max(middles)], [row, row], color="#3d3d3d", linewidth=5, zorder=1)
        for column, (variant, colour) in enumerate(variants.items()):
            seconds, name = cost.seconds(variant), variant if row == 0 else "_nolegend_"
            axes.plot([seconds.lowest, seconds.highest], [row, row], color=colour, linewidth=1.4, zorder=2)
            axes.plot(seconds.middle, row, "o", color=colour, markersize=8, zorder=3, label=name)
            if variant != PLAIN:
                words = f"{cost.speedup(variant).middle:.1f}x"
                place = 1 + beside * column / len(variants)
                axes.text(place, row, words, color=colour, ha="center", va="center", transform=outside)
    axes.text(1 + beside / 2, -0.75, "faster", color=TEXT, ha="center", transform=outside)
    axes.set_xscale("log")
    ticks = _nice_between(min(s.lowest for s in every), max(s.highest for s in every))
    axes.set_xlim(ticks[0], ticks[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    _rows(axes, findings, "Seconds for a slice")
    _legend(axes, 3)


def _draw_rates(axes: Axes, findings: Findings) -> None:
    """Bars for each network, and what the machine can do as lines."""
    variants = _variants(findings)
    tall = 0.8 / len(variants)
    for row, cost in enumerate(findings.networks):
        if cost.gmac is None:
            axes.text(0, row, "  in tiles: no whole slice fits", color=FAINT, fontsize=9, va="center")
        for place, (variant, colour) in enumerate(variants.items()):
            reached = cost.gflops(variant)
            if reached is not None:
                axes.barh(row + (place - (len(variants) - 1) / 2) * tall, reached.middle, 0.85 * tall, color=colour)
    for kind, style in ((CONV, "--"), (MATMUL, ":")):
        for precision in dict.fromkeys(["fp32", *findings.precisions]):
            rate, colour = findings.peaks.best(kind, precision)[1], variants.get(f"fast {precision}", FAINT)
            axes.axvline(rate, color=colour, linestyle=style, linewidth=1.5, label=f"{kind} {precision}")
    axes.set_xlim(left=0)
    _rows(axes, findings, "GFLOP/s reached; lines: what the machine can do")
    _legend(axes, max(2, len(variants) - 1))


def _draw_job(axes: Axes, findings: Findings) -> None:
    """The stages of a job as one bar, and what a warm worker takes, the network's part of it last."""
    job, left, colours = findings.job, 0.0, iter(_STAGE_COLOURS)
    assert job is not None
    names = [f"mcsr enhance, {job.model}"]
    for stage, seconds in job.stages.items():
        is_network = stage == NETWORK_STAGE
        words = f"{stage}{' (the network)' if is_network else ''}: {seconds:.2f} s, {100 * seconds / job.total:.0f} %"
        colour = _NETWORK_COLOUR if is_network else next(colours)
        axes.barh(0, seconds, 0.62, left=left, color=colour, label=words)
        left += seconds
    totals = [left]
    for row, name in enumerate(findings.worker.jobs.seconds if findings.worker else (), start=1):
        assert findings.worker is not None
        whole, outside = findings.worker.jobs.of(name).middle, findings.worker.outside_network(name).middle
        axes.barh(row, outside * whole, 0.62, color=_WORKER_COLOUR)
        axes.barh(row, (1 - outside) * whole, 0.62, left=outside * whole, color=_NETWORK_COLOUR)
        names.append(fill(f"worker, {name}", _NAME_LETTERS))
        totals.append(whole)
    for row, seconds in enumerate(totals):
        axes.text(seconds, row, f"  {number(seconds)} s", color=TEXT, fontsize=9.5, va="center")
    axes.set_xlim(0, 1.09 * max(totals))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("Seconds", color=TEXT, fontsize=10)
    _legend(axes, 3)


def _warm_jobs(findings: Findings) -> int:
    return len(findings.worker.jobs.seconds) if findings.worker else 0


def _variants(findings: Findings) -> dict[str, str]:
    """What was measured of the networks, with its colour."""
    plain, *fast = variants_of(findings.precisions)
    return {plain: _PLAIN_COLOUR, **dict(zip(fast, _FAST_COLOURS, strict=False))}


def _nice_between(low: float, high: float) -> list[float]:
    """Round numbers from below the lowest value to above the highest."""
    below, above = low * 0.95, high * 1.05
    decades = range(math.floor(math.log10(below)), math.ceil(math.log10(above)) + 1)
    nice = [digit * 10.0**decade for decade in decades for digit in _NICE]
    return nice[bisect_right(nice, below) - 1 : bisect_left(nice, above) + 1]


def _rows(axes: Axes, findings: Findings, words: str) -> None:
    names = [label(cost) for cost in findings.networks]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(words, color=TEXT, fontsize=10)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        labelcolor=TEXT,
        fontsize=9,
        columnspacing=1.4,
        handlelength=1.5,
        borderaxespad=0.3,
        borderpad=0.1,
    )


def _style(axes: Axes) -> None:
    axes.set_facecolor("black")
    axes.tick_params(colors=TEXT, labelsize=9.5, which="both")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#2c2c2c", linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color("#444444")
