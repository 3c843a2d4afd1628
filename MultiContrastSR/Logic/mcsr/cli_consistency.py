"""The command line: `mcsr consistency`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .cli_console import Console
from .cli_models import entries_named
from .cli_options import Data, Device, LimitSlices, Models, Scales, Sessions, Split, names_in

if TYPE_CHECKING:
    from .evaluation_consistency import ConsistencyEffect


def consistency(
    data: Data,
    models: Models = "all",
    scales: Scales = "2,3,4",
    split: Split = "val",
    sessions: Sessions = "",
    limit_slices: LimitSlices = 4,
    device: Device = "auto",
) -> None:
    """Measure what data consistency does to PSNR, and how well it holds, where the truth is known."""
    from .degradation import degradation_named
    from .evaluation_consistency import consistency_effect
    from .evaluation_pairs import PairChoice, measure_pairs
    from .job import Settings
    from .pipeline_inputs import degradation_for
    from .weights import added_models, shipped_models

    console = Console()
    with console.exit_on_error():
        choice = PairChoice(data, split, names_in(sessions), limit_slices)
        found: dict[str, list[ConsistencyEffect]] = {}
        for entry in entries_named([*shipped_models(), *added_models()], models, scales):
            settings = Settings(model=entry["architecture"], scale=entry["scale"], device=device)
            if not degradation_named(degradation_for(settings)).linear:
                console.warn(f"{entry['id']} is left out: its degradation is not linear, so nothing can be enforced.")
                continue
            console.say(f"{entry['id']} ...")
            with console.progress() as progress:
                effects = measure_pairs(
                    consistency_effect, choice, settings, progress=progress, cancelled=console.cancelled
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
