"""Options that several commands have, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Events as json lines on stdout.")]

# Of a job
Model = Annotated[str, typer.Option(help="Model; see `mcsr models list`.")]
Scale = Annotated[int, typer.Option(help="In-plane factor: 2, 3 or 4.")]
WeightsFile = Annotated[Path | None, typer.Option("--weights", help="Weights file instead of the shipped one.")]
Plane = Annotated[str, typer.Option(help="Plane of the slices: auto, axial, sagittal or coronal.")]
RegistrationKind = Annotated[str, typer.Option(help="Registration of the reference: rigid or none.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Consistency = Annotated[bool, typer.Option(help="Make the result agree with what was acquired.")]
Maps = Annotated[str, typer.Option(help="Maps of the model: none, all, or a list such as texture_lv1,texture_lv1.pc1.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Also trust maps: expected error, influence of the reference, ... (slower).")
]
Fallback = Annotated[bool, typer.Option(help="Where the reference does not fit, the target helps itself.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
ResultsFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")]
Force = Annotated[bool, typer.Option("--force", help="Accept a reference that is not finer.")]

# Of a measurement where the truth is known
Data = Annotated[Path, typer.Argument(help="Folder of subjects.")]
Models = Annotated[str, typer.Option(help="Comma-separated models, or all that have weights.")]
Scales = Annotated[str, typer.Option(help="Comma-separated scales.")]
Split = Annotated[str, typer.Option(help="Which subjects.")]
Sessions = Annotated[str, typer.Option(help="Only these sessions, comma-separated.")]
LimitSlices = Annotated[int, typer.Option(min=0, help="At most so many slices of a pair; 0 for all.")]


def names_in(text: str) -> list[str]:
    """The words of a comma-separated option."""
    return [name.strip() for name in text.split(",") if name.strip()]
