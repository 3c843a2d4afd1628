"""The command line: `mcsr evaluate`."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_console import Console
from .cli_options import Data, Device, Fallback, LimitSlices, Scales, Seed, Sessions, Split, names_in

if TYPE_CHECKING:
    from .evaluation_study import Case, Study


def evaluate(
    data: Data,
    models: Annotated[
        str, typer.Option(help="Comma-separated models, or all: networks with weights, and baselines.")
    ] = "dcamsr-s",
    scales: Scales = "2,4",
    conditions: Annotated[
        str,
        typer.Option(
            help="Comma-separated: true, self, foreign, misregistered (all: these four), registered; anatomy, motion, "
            "void, cropped, resampled, inverted (wrong: these, self, foreign and misregistered)."
        ),
    ] = "true,self",
    protocol: Annotated[
        str, typer.Option(help="Also as a paper measures: cd-dpe, daasr, hftn-sr, dcamsr or diffmsr.")
    ] = "",
    split: Split = "val",
    sessions: Sessions = "",
    limit_slices: LimitSlices = 0,
    fallback: Fallback = True,
    device: Device = "auto",
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New folder for tables, csv files and figures.")
    ] = None,
) -> None:
    """Score models where the truth is known: with the right reference, without one, with a wrong or a moved one."""
    from .errors import InputError
    from .evaluation_conditions import GROUPS
    from .evaluation_files import complete_folder
    from .evaluation_protocols import protocol_named
    from .evaluation_study import Study
    from .job import Settings
    from .metrics_lpips import find_lpips

    console = Console()
    with console.exit_on_error():
        factors = [int(scale) for scale in names_in(scales) if scale.isdigit()]
        if not factors or len(factors) != len(scales.split(",")):
            raise InputError(f"--scales {scales} is not a list of numbers; give for example 2,4.")
        lpips = find_lpips("cpu" if device == "auto" else device)
        if isinstance(lpips, str):
            console.warn(lpips)
        study = Study(
            data,
            names_in(models),
            factors,
            conditions=GROUPS.get(conditions, tuple(names_in(conditions))),
            split=split,
            sessions=names_in(sessions),
            protocol=protocol_named(protocol) if protocol else None,
            limit_slices=limit_slices,
            settings=Settings(device=device, seed=seed, fallback=fallback),
            lpips=None if isinstance(lpips, str) else lpips,
        )
        with complete_folder(output) if output else nullcontext() as folder:
            tables = _run(study, console, folder, protocol)
        typer.echo(tables)
        if output:
            console.say(f"Wrote the results to {output}.")
            if not find_spec("matplotlib"):
                console.warn("No figures were made; for them, run: pip install matplotlib")


def _run(study: Study, console: Console, folder: Path | None, protocol: str) -> str:
    """All cases of a study, written into a folder as they come where there is one; returns the tables."""
    from .evaluation import evaluate as run
    from .evaluation_files import write_case, write_study
    from .evaluation_statistics import compare_runs
    from .evaluation_tables import markdown

    cases: list[Case] = []
    with console.progress() as progress:
        for case in run(study, progress=progress, cancelled=console.cancelled):
            if folder:
                write_case(folder, case)
            cases.append(case.without_pictures())
    notes = list(dict.fromkeys(note for case in cases for note in case.notes))
    for note in notes:
        console.warn(note)
    differences = []
    if find_spec("scipy"):
        differences = [d for metric in ("psnr", "ssim") for d in compare_runs(cases, metric, study.settings.seed)]
    else:
        console.warn("No paired tests were made; for them, run: pip install scipy")
    tables = markdown(cases, differences, study.protocol, protocol)
    if folder:
        write_study(folder, cases, differences, "\n".join([tables, "", *(f"- {note}" for note in notes)]))
    return tables
