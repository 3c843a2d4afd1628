"""The command line: `mcsr train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_console import Console


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, for example shipped/dcamsr-s-x4, or a .toml file.")],
    data: Annotated[Path, typer.Option(help="Folder of HDF5 subject files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoints, log and weights.")],
    initial: Annotated[Path | None, typer.Option(help="Weights file to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches beside the training.")] = 0,
) -> None:
    """Train a network by a recipe; writes weights.safetensors when done."""
    import logging

    from .errors import Cancelled, McsrError

    console = Console()
    with console.exit_on_error():
        try:
            from .training.loop import train as run
            from .training.recipe import load_recipe
            from .training.weights import export_weights
        except ModuleNotFoundError as error:
            raise McsrError(f"Training needs {error.name}; run: pip install lightning tomli") from error
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        chosen = load_recipe(recipe)
        with console.progress():  # Ctrl-C stops after a checkpoint
            network = run(
                chosen, data, output, initial=initial, resume=resume, workers=workers, cancelled=console.cancelled
            )
        if console.cancelled():
            raise Cancelled(f"Stopped; the checkpoint is in {output}: go on with --resume.")
        file = export_weights(network, chosen, data, output / "weights.safetensors")
        console.say(f"Wrote {file}.")
