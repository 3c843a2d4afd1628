"""The command line: `mcsr lesions`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_console import Console
from .cli_models import entries_named
from .cli_options import Device, Models, Scales


def lesions(
    models: Models = "all",
    scales: Scales = "2,4",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Which head of the phantom, and where its lesions lie.")] = 0,
) -> None:
    """Measure on a phantom how much of a lesion survives, and how much of one in the reference alone appears."""
    from .evaluation_lesions import lesion_scene, markdown, measure
    from .job import Settings
    from .weights import added_models, shipped_models

    console = Console()
    with console.exit_on_error():
        entries = entries_named([*shipped_models(), *added_models()], models, scales)
        runs = list(dict.fromkeys((entry["architecture"], entry["scale"]) for entry in entries))
        console.say("Making the brain phantom ...")
        scene = lesion_scene(seed)
        with console.progress() as progress:
            measured = measure(
                scene, runs, Settings(device=device, seed=seed), progress=progress, cancelled=console.cancelled
            )
            effects = {(model, scale): found for model, scale, found in measured}
        typer.echo(markdown(scene, effects))
