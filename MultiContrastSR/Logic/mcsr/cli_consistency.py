"""The command line: `mcsr consistency`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_console import Console
from .cli_models import entries_named

if TYPE_CHECKING:
    from .evaluation_consistency import ConsistencyEffect


def consistency(
    data: Annotated[Path, typer.Argument(help="Folder of subjects.")],
    models: Annotated[str, typer.Option(help="Comma-separated models, or all that have weights.")] = "all",
    scales: Annotated[str, typer.Option(help="Comma-separated scales.")] = "2,3,4",
    split: Annotated[str, typer.Option(help="Which subjects.")] = "val",
    sessions: Annotated[str, typer.Option(help="Only these sessions, comma-separated.")] = "",
    limit_slices: Annotated[int, typer.Option(min=0, help="At most so many slices of a pair; 0 for all.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Measure what data consistency does to PSNR, and how well it holds, where the truth is known."""
    from .degradation import degradation_named
    from .evaluation_consistency import consistency_effects
    from .job import Settings
    from .pipeline_inputs import degradation_for
    from .weights import added_models, shipped_models

    console = Console()
    with console.exit_on_error():
        entries = entries_named([*shipped_models(), *added_models()], models, scales)
        chosen = [name.strip() for name in sessions.split(",") if name.strip()]
        found: dict[str, list[ConsistencyEffect]] = {}
        for entry in entries:
            settings = Settings(model=entry["architecture"], scale=entry["scale"], device=device)
            if not degradation_named(degradation_for(settings)).linear:
                console.warn(f"{entry['id']} is left out: its degradation is not linear, so nothing can be enforced.")
                continue
            console.say(f"{entry['id']} ...")
            with console.progress() as progress:
                effects = consistency_effects(
                    data,
                    split,
                    settings,
                    sessions=chosen,
                    limit_slices=limit_slices,
                    progress=progress,
                    cancelled=console.cancelled,
                )
                found[entry["id"]] = list(effects)
        typer.echo(_table(found))


def _table(found: dict[str, list[ConsistencyEffect]]) -> str:
    """A markdown row for each weights file and case; misfits in percent of the input's range."""
    lines = [
        "| weights | case | PSNR without (dB) | with | change | misfit without (%, RMS) | with | with, largest (%) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, effects in found.items():
        for effect in effects:
            change = effect.psnr_with - effect.psnr_without
            lines.append(
                f"| {name} | {effect.key} | {effect.psnr_without:.2f} | {effect.psnr_with:.2f} | {change:+.2f} "
                f"| {effect.misfit_without:.2f} | {effect.misfit_with:.3f} | {effect.largest_with:.1f} |"
            )
    return "\n".join(lines)
