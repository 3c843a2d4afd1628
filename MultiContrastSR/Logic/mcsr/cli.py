"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from . import cli_options as option
from .cli_batch import batch
from .cli_bench import bench
from .cli_consistency import consistency
from .cli_console import Console
from .cli_evaluate import evaluate
from .cli_lesions import lesions
from .cli_models import import_checkpoint, models_app
from .cli_prepare import prepare
from .cli_reliability import reliability
from .cli_train import train
from .threads import leave_cores_to_torch

if TYPE_CHECKING:
    from .job import Result


class _Commands(TyperGroup):
    """Commands whose slow imports, too, can be stopped, and fail, in one sentence."""

    def invoke(self, context: Any) -> Any:
        with Console("--json" in sys.argv).exit_on_error():
            return super().invoke(context)


app = typer.Typer(
    cls=_Commands,
    help="Super-resolve one MRI contrast with the help of another of the same patient. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.command()(batch)
app.command()(bench)
app.command()(consistency)
app.command("import-checkpoint")(import_checkpoint)
app.command()(evaluate)
app.command()(lesions)
app.command()(prepare)
app.command()(reliability)
app.command()(train)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"mcsr {__version__}")
        raise typer.Exit


@app.command()
def enhance(
    target: Annotated[Path, typer.Argument(help="Low-resolution volume, or a folder of DICOM files.")],
    output: option.ResultsFolder,
    reference: Annotated[
        Path | None,
        typer.Argument(help="Finer volume of another contrast of the same patient; none: the target helps itself."),
    ] = None,
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
    ground_truth: Annotated[Path | None, typer.Option(help="Original high-resolution target, for scores.")] = None,
    seed: option.Seed = 0,
    json_lines: option.Json = False,
    force: option.Force = False,
    memory: Annotated[
        str, typer.Option(help="Main memory to keep within: auto (most of what is free), or a size such as 4G or 512M.")
    ] = "auto",
) -> None:
    """Enhance TARGET with REFERENCE; write sr.nii.gz, residual.nii.gz, maps, result.h5, report.json, report.png."""
    from .imageio import read_volume
    from .job import Settings
    from .memory import parse_bytes, shortage_said
    from .outputs import output_folder, write_result
    from .pipeline import enhance as run
    from .temporary import sole_writer

    console = Console(json_lines)
    with console.exit_on_error():
        bound = None if memory == "auto" else parse_bytes(memory)
        settings = Settings(
            model=model,
            scale=scale,
            weights=weights,
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
            memory=bound,
        )
        inputs = [path for path in (target, reference, ground_truth) if path is not None]
        volumes = {path: read_volume(path) for path in inputs}
        place = output_folder(output, inputs)
        with shortage_said(bound), place, sole_writer(output), console.progress() as progress:
            result = run(
                volumes[target],
                volumes[reference] if reference else None,
                settings,
                ground_truth=volumes[ground_truth] if ground_truth else None,
                progress=progress,
                cancelled=console.cancelled,
            )
            volumes.clear()  # room for what writing takes
            files = write_result(result, output)
        _tell(console, result, files, output)


@app.command()
def simulate(
    volume: Annotated[Path, typer.Argument(help="High-resolution volume, or a folder of DICOM files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the low-resolution volume.")],
    scale: option.Scale = 4,
    degradation: Annotated[
        str,
        typer.Option(help="kspace, bicubic, average; as published: dcamsr-official, diffmsr-official, cddpe-official."),
    ] = "kspace",
    noise: Annotated[float, typer.Option(help="Deviation of Rician noise, fraction of the intensity scale.")] = 0.0,
    signed: Annotated[bool, typer.Option("--signed", help="Keep negative values instead of the magnitude.")] = False,
    plane: option.Plane = "auto",
    seed: option.Seed = 0,
    json_lines: option.Json = False,
) -> None:
    """Make the low-resolution volume that a coarser acquisition would have given."""
    from .imageio import check_output_path, read_volume, write_volume
    from .pipeline import simulate as run

    console = Console(json_lines)
    with console.exit_on_error():
        original = read_volume(volume)
        check_output_path(output, [volume])
        low, lost = run(original, scale, degradation=degradation, noise=noise, signed=signed, plane=plane, seed=seed)
        write_volume(low, output)
        if any(lost):
            console.warn(f"Cropped by {lost[0]} columns and {lost[1]} rows at the far end to a multiple of {scale}.")
        spacing = " x ".join(f"{s:.2f}" for s in low.grid.spacing_ijk_mm)
        console.say(f"Wrote {output} ({spacing} mm).", file=str(output))


@app.command()
def demo(
    output: option.ResultsFolder = Path("demo"),
    target: Annotated[
        Path | None, typer.Option(help="Your own high-resolution volume, to degrade and enhance.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Its reference contrast.")] = None,
    model: option.Model = "dcamsr-s",
    scale: option.Scale = 4,
    seed: option.Seed = 0,
    json_lines: option.Json = False,
) -> None:
    """Degrade a brain phantom (or your own volume), enhance it, and show how near the result comes to the truth."""
    from .demo import DEMO_FILES, demo_volumes, run_demo
    from .job import Settings
    from .outputs import output_folder
    from .temporary import sole_writer

    console = Console(json_lines)
    with console.exit_on_error():
        inputs = [path for path in (target, reference) if path is not None]
        if target is None:
            console.say("Making the brain phantom ...")
        truth, other = demo_volumes(target, reference, seed)
        with output_folder(output, inputs, DEMO_FILES), sole_writer(output), console.progress() as progress:
            result, files = run_demo(
                truth, other, Settings(model, scale, seed=seed), output, progress, console.cancelled
            )
        _tell(console, result, files, output)


def _tell(console: Console, result: Result, files: list[Path], folder: Path) -> None:
    """The end of a job in words, or as one json event."""
    from .outputs import FIGURE_FILE

    for warning in result.warnings:
        console.warn(warning)
    if console.as_json:
        console.emit("result", files=[str(file) for file in files], report=result.provenance)
        return
    console.say(result.provenance["registration"]["message"])
    for sentence in result.provenance["summary"]:
        console.say(sentence)
    for method, score in result.scores.items():
        label = {"result": "Result", "interpolated": "Interpolation (sinc)"}[method]
        console.say(f"{label}: PSNR {score.psnr:.2f} dB, SSIM {score.ssim:.3f} against the truth.")
    names = [file.name for file in files if file.parent == folder]
    maps = f" and {len(files) - len(names)} maps" if len(names) < len(files) else ""
    console.say(f"Wrote {', '.join(names)}{maps} to {folder}.")
    if folder / FIGURE_FILE in files:
        console.say(f"Research use only. Look at {folder / FIGURE_FILE}")
    else:
        console.warn("No figure was made; for one, run: pip install matplotlib")


def main() -> Any:
    """Entry point of the console script."""
    leave_cores_to_torch()
    return app()


if __name__ == "__main__":
    main()
