"""The command line: `mcsr reliability`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_console import Console
from .cli_models import entries_named
from .cli_options import Data, LimitSlices, Models, Scales, Sessions, Split, names_in

if TYPE_CHECKING:
    from .evaluation_trust import Reliability


def reliability(
    data: Data,
    models: Models = "all",
    scales: Scales = "2,4",
    split: Split = "val",
    sessions: Sessions = "",
    limit_slices: LimitSlices = 8,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Figure to write (.png).")] = None,
) -> None:
    """Compare the expected error of the trust maps with the real one, where the truth is known."""
    from .evaluation_pairs import PairChoice, measure_pairs
    from .evaluation_trust import observe_pair, reliability_of
    from .imageio import check_folder_of, check_output_path
    from .job import Settings
    from .trust_calibration import find_calibration
    from .weights import shipped_models

    console = Console()
    with console.exit_on_error():
        if output is not None:
            check_output_path(output, [])
            check_folder_of(output)
        choice = PairChoice(data, split, names_in(sessions), limit_slices)
        found: dict[str, list[Reliability]] = {}
        for entry in entries_named(shipped_models(), models, scales):
            calibration = find_calibration(entry["sha256"])
            if calibration is None:
                console.warn(f"{entry['id']} was not calibrated and is left out.")
                continue
            console.say(f"{entry['id']} ...")
            settings = Settings(model=entry["architecture"], scale=entry["scale"])
            with console.progress() as progress:
                cases = measure_pairs(observe_pair, choice, settings, progress=progress, cancelled=console.cancelled)
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
