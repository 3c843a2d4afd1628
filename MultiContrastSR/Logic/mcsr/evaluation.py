"""Scores of models on HDF5 subject files, through the very pipeline that users run."""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .degradation import crop_to_multiple
from .imageio import complete_file
from .job import Settings
from .networks import network_class
from .pipeline import enhance, simulate
from .subjects import SubjectPair, find_subject_pairs
from .volume import Volume


@dataclass(frozen=True)
class Row:
    """One model on one pair at one scale.

    Args:
        session: file name without extension.
        target: contrast.
        reference: contrast, or "self" (the interpolated target stands in for the reference).
        scale: in-plane factor.
        model: name.
        psnr: dB, mean over slices, data range 1 (see `metrics`).
        ssim: mean over slices.
        nmse: of the volume.
        seconds: of the whole job.
    """

    session: str
    target: str
    reference: str
    scale: int
    model: str
    psnr: float
    ssim: float
    nmse: float
    seconds: float


def evaluate(
    data: Path,
    models: Iterable[str],
    scales: Iterable[int],
    *,
    split: str = "val",
    sessions: Iterable[str] = (),
    settings: Settings | None = None,
    started: Callable[[str], None] = lambda what: None,
) -> Iterator[Row]:
    """Simulate each target of a split, enhance it with each reference and with itself, and score it.

    Args:
        data: folder of HDF5 subject files.
        models: registered names; "sinc" is scored in any case.
        scales: in-plane factors.
        split: which files.
        sessions: only these file names (without extension); all by default.
        settings: everything but model, scale and registration (the files are aligned already).
        started: told what is about to run.
    """
    chosen = set(sessions)
    base = dataclasses.replace(settings or Settings(), registration="none")
    for pair in find_subject_pairs(data, split):
        if chosen and pair.path.stem not in chosen:
            continue
        for scale in scales:
            started(f"{pair.key} x{scale}")
            yield from _score_pair(pair, models, scale, base)


def _score_pair(pair: SubjectPair, models: Iterable[str], scale: int, base: Settings) -> Iterator[Row]:
    truth = crop_to_multiple(pair.read(pair.target), (1, scale, scale))[0]
    target = simulate(truth, scale, plane="axial")[0]
    reference = pair.read(pair.reference)
    settings = dataclasses.replace(base, scale=scale, plane="axial")
    baseline = dataclasses.replace(settings, model="sinc", weights=None)
    row, interpolated = _score(pair, pair.reference, target, reference, truth, baseline)
    yield row
    for model in models:
        if model == "sinc":
            continue
        settings = dataclasses.replace(settings, model=model)
        yield _score(pair, pair.reference, target, reference, truth, settings)[0]
        if network_class(model).uses_reference:
            yield _score(pair, "self", target, interpolated, truth, settings)[0]


def _score(
    pair: SubjectPair, reference_name: str, target: Volume, reference: Volume, truth: Volume, settings: Settings
) -> tuple[Row, Volume]:
    started = time.monotonic()
    result = enhance(target, reference, settings, ground_truth=truth)
    scores = result.scores["result"]
    row = Row(
        pair.path.stem,
        pair.target,
        reference_name,
        settings.scale,
        settings.model,
        round(scores.psnr, 3),
        round(scores.ssim, 4),
        round(scores.nmse, 5),
        round(time.monotonic() - started, 1),
    )
    return row, result.interpolated


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a csv file, whole or not at all."""
    with complete_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in dataclasses.fields(Row)])
        writer.writerows(dataclasses.astuple(row) for row in rows)


def markdown_table(rows: Iterable[Row]) -> str:
    """Rows as a markdown table, with the gain over sinc of the same target and scale."""
    rows = list(rows)
    sinc = {(r.session, r.target, r.scale): r for r in rows if r.model == "sinc"}
    lines = [
        "| session | target | reference | scale | model | PSNR (dB) | over sinc | SSIM | over sinc | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = sinc[row.session, row.target, row.scale]
        lines.append(
            f"| {row.session} | {row.target} | {row.reference} | x{row.scale} | {row.model} | {row.psnr:.2f} "
            f"| {row.psnr - base.psnr:+.2f} | {row.ssim:.4f} | {row.ssim - base.ssim:+.4f} | {row.seconds:.1f} |"
        )
    return "\n".join(lines)
