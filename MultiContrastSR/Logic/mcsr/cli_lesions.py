"""The command line: `mcsr lesions`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_console import Console


def lesions(
    models: Annotated[str, typer.Option(help="Comma-separated models, or all that have weights.")] = "all",
    scales: Annotated[str, typer.Option(help="Comma-separated scales.")] = "2,4",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Which head of the phantom, and where its lesions lie.")] = 0,
) -> None:
    """Measure on a phantom how much of a lesion survives, and how much of one in the reference alone appears."""
    from .evaluation_lesions import lesion_scene, markdown, measure
    from .job import Settings

    console = Console()
    with console.exit_on_error():
        runs = _runs(models, scales)
        console.say("Making the brain phantom ...")
        scene = lesion_scene(seed)
        with console.progress() as progress:
            measured = measure(
                scene, runs, Settings(device=device, seed=seed), progress=progress, cancelled=console.cancelled
            )
            effects = {(model, scale): found for model, scale, found in measured}
        typer.echo(markdown(scene, effects))


def _runs(models: str, scales: str) -> list[tuple[str, int]]:
    """Which of the models asked for have weights, and at which scales."""
    from .errors import WeightsError
    from .weights import added_models, shipped_models

    wanted, factors = ([word.strip() for word in words.split(",")] for words in (models, scales))
    runs = [
        (entry["architecture"], entry["scale"])
        for entry in [*shipped_models(), *added_models()]
        if (models == "all" or entry["architecture"] in wanted) and str(entry["scale"]) in factors
    ]
    if not runs:
        raise WeightsError(f"No weights are installed for {models} at scale {scales}; see `mcsr models list`.")
    return list(dict.fromkeys(runs))
