"""The command line: `mcsr train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_console import Console


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, for example shipped/dcamsr-s-x4, or a .toml file.")],
    data: Annotated[Path, typer.Option(help="Folder of subjects; docs/training.md says how it must look.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoints, log and weights.")],
    initial: Annotated[Path | None, typer.Option(help="Weights file to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False,
    devices: Annotated[str, typer.Option(help="GPUs, or processes without one; auto: all GPUs.")] = "1",
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed instead of the recipe's.")
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts that each device takes its share of a batch in.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches beside each training.")] = 0,
    backbone: Annotated[Path | None, typer.Option(help="VGG-19 (vgg19-*.pth) for a perceptual term.")] = None,
) -> None:
    """Train a network by a recipe; writes weights.safetensors when done. Runs under torchrun too."""
    import dataclasses
    import logging
    import signal
    from contextlib import ExitStack

    from .errors import Cancelled, InputError, McsrError
    from .progress import no_progress
    from .temporary import sole_writer

    console = Console()
    with console.exit_on_error():
        try:
            from .outputs import output_folder
            from .training.devices import open_fabric
            from .training.loop import train as run
            from .training.recipe import load_recipe
            from .training.weights import export_weights
        except ModuleNotFoundError as error:
            raise McsrError(f"Training needs {error.name}; run: pip install lightning tomli") from error
        if devices != "auto" and not (devices.isdecimal() and int(devices)):
            raise InputError(f"--devices takes a number or auto, not '{devices}'.")
        chosen = load_recipe(recipe)
        chosen = dataclasses.replace(chosen, precision=precision or chosen.precision)
        fabric = open_fabric(chosen.precision, devices)
        first = fabric.is_global_zero
        if not first:  # the first process talks to the user, and stops all others after a checkpoint
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with ExitStack() as alone:
            progress = no_progress
            if first:
                alone.enter_context(output_folder(output, (), ()))
                alone.enter_context(sole_writer(output))
                progress = alone.enter_context(console.progress())
                # In here, where the progress bar makes way for lines on stderr.
                logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
            network = run(
                chosen,
                data,
                output,
                fabric=fabric,
                initial=initial,
                resume=resume,
                workers=workers,
                accumulate=accumulate,
                backbone=backbone,
                progress=progress,
                cancelled=console.cancelled,
            )
            if console.cancelled():
                raise Cancelled(f"Stopped; the checkpoint is in {output}: go on with --resume.")
            if first:
                file = export_weights(network, chosen, data, output / "weights.safetensors")
        if first:
            console.say(f"Wrote {file}.")
