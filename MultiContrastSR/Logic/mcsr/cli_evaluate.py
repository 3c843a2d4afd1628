"""The command line: `mcsr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_console import Console


def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of HDF5 subject files.")],
    models: Annotated[str, typer.Option(help="Comma-separated models.")] = "dcamsr-s",
    scales: Annotated[str, typer.Option(help="Comma-separated scales.")] = "2,4",
    split: Annotated[str, typer.Option(help="Which files, by their attribute.")] = "val",
    sessions: Annotated[str, typer.Option(help="Only these sessions, comma-separated.")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the table to this csv file.")
    ] = None,
) -> None:
    """Print PSNR and SSIM of models on HDF5 subject files, with the reference and with the target as its own."""
    from .errors import InputError
    from .evaluation import evaluate as run
    from .evaluation import markdown_table, write_csv
    from .imageio import check_output_path

    console = Console()
    with console.exit_on_error():
        names = [name for name in models.split(",") if name]
        factors = [int(scale) for scale in scales.split(",") if scale.strip().isdigit()]
        if not factors or len(factors) != len(scales.split(",")):
            raise InputError(f"--scales {scales} is not a list of numbers; give for example 2,4.")
        if output:
            if output.suffix != ".csv" or not output.parent.is_dir():
                raise InputError(f"-o {output} is no .csv file in a folder that exists; give another name.")
            check_output_path(output, list(data.glob("*.h5")))
        wanted = [name for name in sessions.split(",") if name]
        rows = list(run(data, names, factors, split=split, sessions=wanted, started=console.say))
        typer.echo(markdown_table(rows))
        if output:
            write_csv(rows, output)
