"""The table of a batch: one row for each subject, made from the report in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .batch_manifest import Subject
from .batch_subject import RECORD, read_report
from .evaluation_tables import write_csv
from .trust_summary import LARGEST_MISFIT_PERCENT

TABLE_FILE = "batch.csv"
DONE, FAILED, WAITING = "done", "failed", "not run"
_WORSE_DB = 0.05  # than interpolation, in PSNR: less is rounding


@dataclass(frozen=True)
class Row:
    """One subject; the fields are the table's columns. None: not known, or does not apply.

    Args:
        subject: name.
        status: `DONE`, `FAILED` or `WAITING`.
        error: what went wrong, one sentence.
        flags: why to look closely, in a few words each.
        model: name.
        scale: in-plane factor.
        seconds: for reading and enhancing.
        peak_memory_gb: largest resident memory of the process at that.
        registration: what was done with the reference, one sentence.
        gradient_correlation_before: of the registration, its independent measure of fit, with the header geometry.
        gradient_correlation_after: with the registered one.
        reference_edge_agreement: fit of the reference, mean over slices, see `trust_fit`.
        slices: that hold signal and were compared with the reference.
        slices_without_reference: of them those where the target helped itself.
        slices_with_part_of_it: of them those where the reference was used in part.
        consistency_error_percent_rms: the result, degraded again, minus the input, percent of its range.
        psnr_db: against the truth, like all below.
        psnr_gain_db: over the interpolated input.
        ssim: -1..1.
        ssim_gain: over the interpolated input.
        checks: the summary's sentences.
        doubts: see there.
        reference: see there.
        warnings: of the job.
        date: of the result.
        software: and its version.
    """

    subject: str
    status: str
    error: str = ""
    flags: Sequence[str] = ()
    model: str = ""
    scale: int | None = None
    seconds: float | None = None
    peak_memory_gb: float | None = None
    registration: str = ""
    gradient_correlation_before: float | None = None
    gradient_correlation_after: float | None = None
    reference_edge_agreement: float | None = None
    slices: int | None = None
    slices_without_reference: int | None = None
    slices_with_part_of_it: int | None = None
    consistency_error_percent_rms: float | None = None
    psnr_db: float | None = None
    psnr_gain_db: float | None = None
    ssim: float | None = None
    ssim_gain: float | None = None
    checks: str = ""
    doubts: str = ""
    reference: str = ""
    warnings: Sequence[str] = ()
    date: str = ""
    software: str = ""

    @property
    def sentences(self) -> list[str]:
        """The summary, and the warnings it counts."""
        return [self.checks, self.doubts, self.reference, *self.warnings]


def row_of(subject: Subject, folder: Path, error: str | None) -> Row:
    """The row of a subject.

    Args:
        subject: of the manifest.
        folder: of the batch.
        error: what went wrong, empty where nothing did; None: the subject has not been run.
    """
    settings = subject.settings
    if error is None:
        return Row(subject.name, WAITING, model=settings.model, scale=settings.scale)
    report = None if error else read_report(folder / subject.name)
    if report is None:
        error = error or f"Its worker wrote no result to {folder}; all workers must see it under the same path."
        return Row(subject.name, FAILED, error, model=settings.model, scale=settings.scale)
    return _done(subject.name, report)


def write_table(folder: Path, rows: Iterable[Row]) -> None:
    """Write `TABLE_FILE`, whole or not at all."""
    names = [field.name for field in fields(Row)]
    write_csv(folder / TABLE_FILE, [{name: _cell(getattr(row, name)) for name in names} for row in rows])


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """Failed, then flagged, then all other subjects; each in the order given."""
    return sorted(rows, key=lambda row: (row.status != FAILED, row.status != DONE or not row.flags))


def _done(name: str, report: Mapping[str, Any]) -> Row:
    fit, registration = report["reference_fit"] or {}, report["registration"]
    weights = fit.get("weights")
    scores = report["scores"]
    result, plain = scores.get("result"), scores.get("interpolated")
    checks, doubts, reference = report["summary"]
    return Row(
        subject=name,
        status=DONE,
        flags=_flags(report),
        model=report["settings"]["model"],
        scale=report["settings"]["scale"],
        seconds=report[RECORD]["seconds"],
        peak_memory_gb=report[RECORD]["peak_memory_gb"],
        registration=registration["message"],
        gradient_correlation_before=registration["gradient_correlation_before"],
        gradient_correlation_after=registration["gradient_correlation_after"],
        reference_edge_agreement=fit.get("mean_edge_agreement"),
        slices=None if weights is None else len(weights),
        slices_without_reference=None if weights is None else sum(w <= 0 for w in weights),
        slices_with_part_of_it=None if weights is None else sum(0 < w < 1 for w in weights),
        consistency_error_percent_rms=report["consistency"].get("error_after_clip_percent_rms"),
        psnr_db=result and result["psnr"],
        psnr_gain_db=result and result["psnr"] - plain["psnr"],
        ssim=result and result["ssim"],
        ssim_gain=result and result["ssim"] - plain["ssim"],
        checks=checks,
        doubts=doubts,
        reference=reference,
        warnings=report["warnings"],
        date=report["date"],
        software=report["software"],
    )


def _flags(report: Mapping[str, Any]) -> list[str]:
    """What of a result stands out. Unlike its summary, nothing that holds for every subject of some settings."""
    flags = []
    weights, scores = (report["reference_fit"] or {}).get("weights", []), report["scores"]
    poor = sum(weight < 1 for weight in weights)
    if poor:
        flags.append(f"reference fits poorly in {poor} of {len(weights)} slices")
    if report["consistency"].get("error_after_clip_percent_rms", 0) > LARGEST_MISFIT_PERCENT:
        flags.append("disagrees with the input")
    if scores and scores["result"]["psnr"] < scores["interpolated"]["psnr"] - _WORSE_DB:
        flags.append("worse than interpolation")
    count = len(report["warnings"])
    if count:
        flags.append("1 warning" if count == 1 else f"{count} warnings")
    return flags


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return " | ".join(value) if isinstance(value, list | tuple) else value
