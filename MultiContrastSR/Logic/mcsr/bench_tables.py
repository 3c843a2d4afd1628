"""What was measured as tables: for the screen, as markdown, and every figure as a row of a csv file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .bench import Findings
from .bench_canvas import ON_CANVAS, WHOLE
from .bench_jobs import FIRST, NETWORK_STAGE
from .bench_machine import CONV, LAST, MATMUL
from .bench_networks import PLAIN, NetworkCost, variants_of
from .bench_timing import Spread, spread
from .bench_training import LOADING, PLAIN_LOOP, WORKERS

VOLUME_SLICES = 24
CSV_COLUMNS = ("part", "item", "figure", "median", "lowest", "highest", "unit")
RANDOM_MARK = "*"


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        title: a few words.
        columns: headings, which may have several lines; the first column is text, the others are numbers.
        rows: cells.
        notes: sentences below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def sheets(findings: Findings) -> list[Sheet]:
    """All tables that there are figures for."""
    made = [_peaks(findings)]
    if findings.networks:
        made += [_times(findings), _volumes(findings), _work(findings)]
    if findings.job:
        made.append(_job(findings))
    if findings.start or findings.worker:
        made.append(_waiting(findings))
    if findings.canvas:
        made.append(_canvas(findings))
    if findings.training:
        made.append(_training(findings))
    return made


def markdown(findings: Findings) -> str:
    """Machine, tables and notes."""
    lines = ["# mcsr bench", "", facts_sentence(findings), ""]
    for sheet in sheets(findings):
        headings = (column.replace("\n", " ") for column in sheet.columns)
        lines += [f"## {sheet.title}", "", f"| {' | '.join(headings)} |"]
        lines.append("|---" + "|---:" * (len(sheet.columns) - 1) + "|")
        lines += [f"| {' | '.join(row)} |" for row in sheet.rows]
        lines += ["", *(line for note in sheet.notes for line in (note, ""))]
    lines += [f"- {note}" for note in findings.notes]
    return "\n".join(lines).rstrip()


def facts_sentence(findings: Findings) -> str:
    """The machine and the software in one line."""
    return "; ".join(f"{name}: {value}" for name, value in findings.facts.items()) + "."


def csv_rows(findings: Findings) -> list[dict[str, Any]]:
    """Every figure under `CSV_COLUMNS`."""
    return [dict(zip(CSV_COLUMNS, row, strict=True)) for row in _csv_rows(findings)]


def _csv_rows(findings: Findings) -> Iterator[tuple[Any, ...]]:
    for name, value in findings.facts.items():
        yield "machine", name, "is", value, "", "", ""
    for name, rate in findings.peaks.gflops.items():
        yield "peak", name, "rate", rate, "", "", "GFLOP/s"
    for cost in findings.networks:
        yield from _csv_of_network(cost)
    if findings.job:
        yield "job", findings.job.model, "all, as seen from outside", *spread(findings.job.totals), "s"
        for stage, seconds in {**findings.job.stages, **findings.job.on_request}.items():
            yield "job", findings.job.model, stage, seconds, "", "", "s"
    worker = findings.worker
    for part, timed in (("start", findings.start), ("worker", worker and worker.jobs)):
        if timed:
            yield from ((part, name, "time", *timed.of(name), "s") for name in timed.seconds)
    if worker:
        for name in worker.jobs.seconds:
            yield "worker", name, "share outside the network", *worker.outside_network(name), "ratio"
    for gain in findings.canvas:
        yield "canvas", gain.name, "pixels, whole slice / canvas", gain.pixels, "", "", "ratio"
        yield "canvas", gain.name, "time, whole slice / canvas", *gain.timed.ratio(WHOLE, ON_CANVAS), "ratio"
    if findings.training:
        for name in findings.training.timed.seconds:
            yield "training", name, "rate", *findings.training.images_per_second(name), "images/s"


def _csv_of_network(cost: NetworkCost) -> Iterator[tuple[Any, ...]]:
    yield "network", cost.name, "weights", "own" if cost.has_weights else "random", "", "", ""
    yield "network", cost.name, "parameters", cost.parameters, "", "", ""
    if cost.gmac is not None:
        yield "network", cost.name, "work of a slice", cost.gmac, "", "", "GMAC"
    for variant in cost.variants:
        seconds = cost.seconds(variant)
        yield "network", cost.name, f"{variant}: slice", *seconds, "s"
        yield "network", cost.name, f"{variant}: {VOLUME_SLICES} slices", *(VOLUME_SLICES * s for s in seconds), "s"
        yield "network", cost.name, f"{variant}: times as fast as {PLAIN}", *cost.speedup(variant), "ratio"
        for figure, values, unit in (
            ("rate", cost.gflops(variant), "GFLOP/s"),
            ("share of the fp32 convolution's rate", cost.share_of_peak(variant), "ratio"),
        ):
            if values:
                yield "network", cost.name, f"{variant}: {figure}", *values, unit
        if variant in cost.memory:
            yield "network", cost.name, f"{variant}: peak memory", cost.memory[variant], "", "", "bytes"


def _peaks(findings: Findings) -> Sheet:
    precisions = list(dict.fromkeys(["fp32", *findings.precisions]))
    kinds = {
        f"{MATMUL}, 1024 x 1024": (MATMUL, ""),
        f"{CONV}, 3x3, 64 channels, 256 x 256": (CONV, ""),
        f"the same, {LAST}": (CONV, f", {LAST}"),
    }
    rates = findings.peaks.gflops
    rows = [
        [words, *(number(rates[f"{kind} {p}{layout}"]) for p in precisions)] for words, (kind, layout) in kinds.items()
    ]
    return Sheet("What the machine can do (GFLOP/s)", ["operation", *precisions], rows)


def _times(findings: Findings) -> Sheet:
    plain, *fast = variants_of(findings.precisions)
    columns = ["model", _heading(plain, "s")]
    for variant in fast:
        columns += [_heading(variant, "s"), "faster"]
    rows = []
    for cost in findings.networks:
        row = [label(cost), number(cost.seconds(plain).middle)]
        for variant in fast:
            row += [number(cost.seconds(variant).middle), times(cost.speedup(variant))]
        rows.append(row)
    notes = [
        f"Medians for one slice of {findings.size} x {findings.size} pixels at x4; plain: as published. Faster: than "
        "plain; in brackets the lowest and the highest round."
    ]
    if not all(cost.has_weights for cost in findings.networks):
        notes.append(f"Marked {RANDOM_MARK}: random weights, which take as long; none are installed.")
    return Sheet("Networks: seconds for a slice", columns, rows, notes)


def _volumes(findings: Findings) -> Sheet:
    variants = variants_of(findings.precisions)
    remembered = [v for v in variants if any(v in cost.memory for cost in findings.networks)]
    columns = ["model", *(_heading(v, "s") for v in variants), *(_heading(v, "MB") for v in remembered)]
    rows = [
        [label(cost)]
        + [number(VOLUME_SLICES * cost.seconds(v).middle) for v in variants]
        + [f"{cost.memory[v] / 1e6:.0f}" if v in cost.memory else "-" for v in remembered]
        for cost in findings.networks
    ]
    note = "Memory: the largest of a process that runs a slice, PyTorch included; on a GPU, of the GPU."
    return Sheet(f"Networks: a volume of {VOLUME_SLICES} slices, and peak memory", columns, rows, [note])


def _work(findings: Findings) -> Sheet:
    variants = variants_of(findings.precisions)
    rows = []
    for cost in findings.networks:
        row = [label(cost), f"{cost.parameters:,}", "-" if cost.gmac is None else f"{cost.gmac:.1f}"]
        row += [number(rate.middle) if (rate := cost.gflops(v)) else "-" for v in variants]
        share = cost.share_of_peak(variants[1])
        rows.append([*row, f"{100 * share.middle:.0f} %" if share else "-"])
    columns = ["model", "parameters", "GMAC", *("\n".join(("GFLOP/s", *v.split())) for v in variants)]
    columns.append("\n".join(("of peak", *variants[1].split())))
    note = (
        "GFLOP/s: twice the GMAC a second, however they are computed. Of peak: of the machine's fastest fp32 "
        "convolution, which runs in the same rounds."
    )
    return Sheet("Networks: work", columns, rows, [note])


def _job(findings: Findings) -> Sheet:
    job = findings.job
    assert job is not None

    def row(words: str, seconds: float) -> list[str]:
        return [words, f"{seconds:.2f}", f"{100 * seconds / job.total:.1f} %"]

    rows = [row(f"{stage} (the network)" if stage == NETWORK_STAGE else stage, s) for stage, s in job.stages.items()]
    rows += [row("all", job.total), row("outside the network", job.outside_network)]
    rows += [row(f"on request: {stage}", seconds) for stage, seconds in job.on_request.items()]
    shape = " x ".join(str(n) for n in job.shape)
    longest = f"{number(min(job.totals))} to {number(max(job.totals))} s" if len(job.totals) > 1 else "one run"
    note = f"`mcsr enhance` with {job.model} at x4 on {job.scans}, result {shape}, in a new process: {longest}."
    return Sheet("A whole job", ["stage", "seconds", "of the job"], rows, [note])


def _waiting(findings: Findings) -> Sheet:
    rows = []
    if findings.start:
        rows += [[name, number(findings.start.of(name).middle), "", ""] for name in findings.start.seconds]
    if findings.worker:
        jobs = findings.worker.jobs
        for name in jobs.seconds:
            faster = "" if name == FIRST else times(jobs.ratio(FIRST, name))
            outside = f"{100 * findings.worker.outside_network(name).middle:.0f} %"
            rows.append([name, number(jobs.of(name).middle), faster, outside])
    note = (
        "Second and later jobs: in the worker process that Slicer keeps, which knows the network and, of the same "
        "scans, more; of a reference in the same place what the network made of it."
    )
    notes = [note] if findings.worker else []
    columns = ["what", "seconds", "faster than\nthe first job", "outside\nthe network"]
    return Sheet("Start-up and second job", columns, rows, notes)


def _canvas(findings: Findings) -> Sheet:
    rows = [
        [
            gain.name,
            " x ".join(map(str, gain.whole)),
            " x ".join(map(str, gain.canvas)),
            f"{gain.pixels:.2f}",
            times(gain.timed.ratio(WHOLE, ON_CANVAS)),
        ]
        for gain in findings.canvas
    ]
    columns = ["volume", "whole slice", "canvas", "pixels,\nwhole / canvas", "faster on\nthe canvas"]
    return Sheet("Canvas against whole slices", columns, rows)


def _training(findings: Findings) -> Sheet:
    training = findings.training
    assert training is not None
    rows = []
    for name in training.timed.seconds:
        faster = "" if name in (PLAIN_LOOP, LOADING) else times(training.timed.ratio(PLAIN_LOOP, name))
        rows.append([name, number(training.images_per_second(name).middle), faster])
    bare, helped = (f"{100 * training.waiting(workers):.0f} %" for workers in (0, WORKERS))
    note = (
        f"{training.recipe}, {training.batch} images a step, on the brain phantom. Of a step in {training.precision}, "
        f"data take {bare}; with {WORKERS} workers {helped}."
    )
    return Sheet("Training", ["way", "images/s", "faster than\nthe plain loop"], rows, [note])


def _heading(variant: str, unit: str) -> str:
    return f"{variant} ({unit})".replace(" ", "\n", 1)


def label(cost: NetworkCost) -> str:
    """A model's name, marked where its weights are random."""
    return cost.name + ("" if cost.has_weights else RANDOM_MARK)


def number(value: float) -> str:
    """Three digits that count."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def times(ratio: Spread) -> str:
    """A ratio with its spread."""
    low, high = f"{ratio.lowest:.1f}", f"{ratio.highest:.1f}"
    within = "" if low == high else f" ({low}-{high})"
    return f"{ratio.middle:.1f}x{within}"
