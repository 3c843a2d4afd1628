"""The command line: `mcsr batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cli_options as option
from .cli_console import Console

if TYPE_CHECKING:
    from .batch_table import Row


def batch(
    manifest: Annotated[Path, typer.Argument(help="CSV file, one row per subject; see above.")],
    output: option.ResultsFolder,
    model: option.Model = "dcamsr-s",
    scale: option.Scale = 4,
    weights: option.WeightsFile = None,
    plane: option.Plane = "auto",
    registration: option.RegistrationKind = "rigid",
    device: option.Device = "auto",
    precision: option.Precision = "auto",
    consistency: option.Consistency = True,
    maps: option.Maps = "none",
    trust: option.Trust = False,
    fallback: option.Fallback = True,
    seed: option.Seed = 0,
    force: option.Force = False,
    memory: Annotated[
        str,
        typer.Option(help="Main memory for a subject: auto (an equal share of what is free), or a size such as 4G."),
    ] = "auto",
    processes: Annotated[
        int | None, typer.Option(min=1, help="Subjects at a time on this machine.", show_default="one per core")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads per subject.", show_default="cores // processes, or 1")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="Use the workers of this dask scheduler, tcp://HOST:8786.")] = "",
    redo: Annotated[
        bool, typer.Option("--redo", help="Make those again, too, that were made with other settings.")
    ] = False,
    json_lines: option.Json = False,
) -> None:
    """Enhance all subjects of MANIFEST as `mcsr enhance` does, each into FOLDER/SUBJECT; one table, one overview.

    MANIFEST is a CSV file; its files are relative to it. An empty cell means none, or the option given here:

    subject,target,reference,scale

    sub-01,sub-01/t2.nii.gz,sub-01/t1.nii.gz,

    sub-02,sub-02/t2.nii.gz,,2

    More columns: truth (the original high-resolution target, for scores), and any option from --model to --memory.

    To make one for a folder of data takes a few lines of Python: see docs/batch.md.

    The same command again skips what is done and goes on with the rest.

    Exit code 1: some subjects failed; they are listed at the end and in batch.csv.
    """
    from .batch import BATCH_FILES, plan_batch, run_batch, write_overviews
    from .batch_cluster import local_client, remote_client
    from .batch_manifest import read_manifest
    from .bench_machine import cores
    from .job import Settings
    from .memory import USABLE, free_bytes, parse_bytes
    from .outputs import output_folder
    from .temporary import sole_writer

    console = Console(json_lines)
    with console.exit_on_error():
        processes = processes or cores()
        share = None if scheduler else int(USABLE * free_bytes()) // processes
        settings = Settings(
            model=model,
            scale=scale,
            weights=weights and weights.absolute(),  # workers may start elsewhere
            plane=plane,
            registration=registration,
            device=device,
            precision=precision,
            consistency=consistency,
            maps=maps,
            trust=trust,
            fallback=fallback,
            seed=seed,
            force=force,
            memory=share if memory == "auto" else parse_bytes(memory),
        )
        subjects = read_manifest(manifest, settings)
        workers = remote_client(scheduler) if scheduler else local_client(min(processes, len(subjects)))
        threads = threads or (1 if scheduler else max(1, cores() // processes))
        inputs = [manifest, *(path for subject in subjects for path in subject.inputs.values())]
        with output_folder(output, inputs, BATCH_FILES), sole_writer(output):
            plan = plan_batch(subjects, output, redo=redo)
            if len(plan.waiting) < len(subjects):
                console.say(f"{len(subjects) - len(plan.waiting)} of {len(subjects)} subjects are done already.")
            if plan.changed:
                console.warn(f"Made again, because their inputs changed: {', '.join(plan.changed)}.")
            with console.progress() as progress:
                rows = run_batch(plan, workers, threads, progress=progress, cancelled=console.cancelled)
            console.say("Drawing the overview ...")
            files = write_overviews(plan.folder, rows, f"Batch {manifest.stem}")
        _tell(console, rows, output, files)


def _tell(console: Console, rows: list[Row], folder: Path, files: list[Path]) -> None:
    """The end of a batch in words, or as one json event; exit code 1 where subjects failed."""
    from .batch_overview import OVERVIEW_FILE, count_words
    from .batch_table import FAILED

    failed = {row.subject: row.error for row in rows if row.status == FAILED}
    if console.as_json:
        console.emit("result", files=[str(file) for file in files], subjects=len(rows), failed=failed)
    else:
        for subject, error in failed.items():
            console.warn(f"{subject} failed: {error}")
        console.say(count_words(rows))
        console.say(f"Wrote {', '.join(file.name for file in files)} to {folder}.")
        console.say(f"Research use only. Look at {folder / OVERVIEW_FILE}")
    if failed:
        raise SystemExit(1)
