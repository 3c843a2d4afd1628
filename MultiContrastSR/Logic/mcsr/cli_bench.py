"""The command line: `mcsr bench`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Column, Table

from .cli_console import Console
from .cli_options import names_in

if TYPE_CHECKING:
    from .bench import Bench, Findings


def bench(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New folder for tables (markdown, csv) and a plot.")
    ] = None,
    models: Annotated[
        str, typer.Option(help="Comma-separated models, or all.", show_default="with weights; cd-dpe, dcamsr")
    ] = "",
    precisions: Annotated[str, typer.Option(help="Comma-separated: fp32, bf16; fp16 on GPUs.")] = "fp32,bf16",
    size: Annotated[int, typer.Option(help="Rows and columns of a slice of the result.")] = 256,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="as `mcsr enhance`")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that each thing is measured in.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute: slim models, smaller, two rounds.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of subjects, on whose validation volumes canvas and whole jobs are measured."),
    ] = None,
) -> None:
    """Measure this machine: networks, whole jobs, start-up, training; plain against fast, in turn, as ratios.

    Models without installed weights get random ones, which take as long. Ctrl-C stops; what is measured by then is
    shown and written.
    """
    from .bench import Bench, Options
    from .errors import Cancelled
    from .evaluation_files import complete_folder

    console = Console()
    with console.exit_on_error():
        options = Options(names_in(models), names_in(precisions), size, threads, repeats, quick, device, data)
        with complete_folder(output) if output else nullcontext() as folder:
            console.say("Measuring what the machine can do ...")
            measurement = Bench(options)
            findings = measurement.findings
            stopped = _run(measurement, console)
            _show(findings)
            if folder:
                from .bench_files import write_findings

                files = write_findings(folder, findings)
        for note in findings.notes:
            console.warn(note)
        if output:
            console.say(f"Wrote {', '.join(files)} to {output}.")
        if stopped:
            raise Cancelled("Stopped; what was measured until then is complete.")


def _run(measurement: Bench, console: Console) -> bool:
    """Measure, telling how long it takes; whether the user stopped it."""
    from .errors import Cancelled

    expected = measurement.expected_seconds()
    slowest = max(measurement.models, key=expected.__getitem__, default="")
    about = f", {slowest} alone {_duration(expected[slowest])}" if slowest and expected[slowest] > 60 else ""
    total = _duration(sum(expected.values()))
    console.say(f"This takes about {total}{about}. Ctrl-C stops it and keeps what is measured by then.")
    try:
        with console.progress() as progress:
            measurement.run(progress, console.cancelled)
    except (Exception, KeyboardInterrupt) as error:
        # Processes beside this one may die of the same Ctrl-C before it is noticed here.
        if not (console.cancelled() or isinstance(error, Cancelled | KeyboardInterrupt)):
            raise
        measurement.findings.notes.append("The measurement was stopped before it was complete.")
        return True
    return False


def _show(findings: Findings) -> None:
    """The tables on stdout."""
    from .bench_tables import facts_sentence, sheets

    out = RichConsole(highlight=False)
    out.print(escape(facts_sentence(findings)))
    for sheet in sheets(findings):
        first, *others = sheet.columns
        columns = [Column(first, no_wrap=True), *(Column(name, justify="right") for name in others)]
        table = Table(*columns, title=sheet.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for row in sheet.rows:
            table.add_row(*map(escape, row))
        out.print(table)
        for note in sheet.notes:
            out.print(escape(note), style="dim")
        out.print()


def _duration(seconds: float) -> str:
    return f"{max(10, round(seconds, -1)):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
