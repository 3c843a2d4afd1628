"""The command line: `mcsr prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_console import Console


def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of fastMRI, M4Raw, IXI or BraTS as published.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the HDF5 subject files.")],
) -> None:
    """Write a published data set as HDF5 subject files, which training reads quickly slice by slice."""
    from .imageio import prepare_output_folder
    from .subjects import prepare_subjects

    console = Console()
    with console.exit_on_error():
        files = prepare_subjects(data, prepare_output_folder(output, [data]), started=console.say)
        typer.echo(f"{len(files)} subject files are in {output}.")
