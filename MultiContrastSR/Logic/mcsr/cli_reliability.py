"""The command line: `mcsr reliability`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_console import Console
from .cli_models import entries_named

if TYPE_CHECKING:
    from .evaluation_trust import Reliability


def reliability(
    data: Annotated[Path, typer.Argument(help="Folder of subjects.")],
    models: Annotated[str, typer.Option(help="Comma-separated models, or all that have weights.")] = "all",
    scales: Annotated[str, typer.Option(help="Comma-separated scales.")] = "2,4",
    split: Annotated[str, typer.Option(help="Which subjects.")] = "val",
    sessions: Annotated[str, typer.Option(help="Only these sessions, comma-separated.")] = "",
    limit_slices: Annotated[int, typer.Option(min=0, help="At most so many slices of a pair; 0 for all.")] = 8,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Figure to write (.png).")] = None,
) -> None:
    """Compare the expected error of the trust maps with the real one, where the truth is known."""
    from .evaluation_trust import observe_cases, reliability_of
    from .imageio import check_folder_of, check_output_path
    from .job import Settings
    from .trust_calibration import find_calibration
    from .weights import shipped_models

    console = Console()
    with console.exit_on_error():
        if output is not None:
            check_output_path(output, [])
            check_folder_of(output)
        entries = entries_named(shipped_models(), models, scales)
        chosen = [name.strip() for name in sessions.split(",") if name.strip()]
        found: dict[str, list[Reliability]] = {}
        for entry in entries:
            calibration = find_calibration(entry["sha256"])
            if calibration is None:
                console.warn(f"{entry['id']} was not calibrated and is left out.")
                continue
            console.say(f"{entry['id']} ...")
            settings = Settings(model=entry["architecture"], scale=entry["scale"])
            with console.progress() as progress:
                cases = observe_cases(
                    data,
                    split,
                    settings,
                    sessions=chosen,
                    limit_slices=limit_slices,
                    progress=progress,
                    cancelled=console.cancelled,
                )
                found[entry["id"]] = [reliability_of(case, calibration) for case in cases]
        typer.echo(_table(found))
        if output is not None:
            from .evaluation_trust_plot import write_reliability

            write_reliability(output, found)
            console.say(f"Wrote {output}.")


def _table(found: dict[str, list[Reliability]]) -> str:
    """A markdown row for each weights file and case."""
    lines = [
        "| weights | case | correlation | expected / real | lowest tenth: expected, real (%) | highest tenth (%) |",
        "|---|---|---|---|---|---|",
    ]
    for name, cases in found.items():
        for case in cases:
            lines.append(
                f"| {name} | {case.key} | {case.correlation:.2f} | {case.ratio:.2f} "
                f"| {case.expected[0]:.1f}, {case.real[0]:.1f} | {case.expected[-1]:.1f}, {case.real[-1]:.1f} |"
            )
    return "\n".join(lines)
