"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.table import Table

from . import __version__
from .cli_console import Console

if TYPE_CHECKING:
    from .job import Result

app = typer.Typer(
    help="Super-resolve one MRI contrast with the help of another of the same patient. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The models and their weights.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Model = Annotated[str, typer.Option(help="Model; see `mcsr models list`.")]
Scale = Annotated[int, typer.Option(help="In-plane factor: 2, 3 or 4.")]
Plane = Annotated[str, typer.Option(help="Plane of the slices: auto, axial, sagittal or coronal.")]
Json = Annotated[bool, typer.Option("--json", help="Events as json lines on stdout.")]
WeightsFile = Annotated[Path | None, typer.Option("--weights", help="Weights file instead of the shipped one.")]
RegistrationKind = Annotated[str, typer.Option(help="Registration of the reference: rigid or none.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"mcsr {__version__}")
        raise typer.Exit


@app.command()
def enhance(
    target: Annotated[Path, typer.Argument(help="Low-resolution volume, or a folder of DICOM files.")],
    reference: Annotated[Path, typer.Argument(help="Finer volume of another contrast of the same patient.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = "dcamsr-s",
    scale: Scale = 4,
    weights: WeightsFile = None,
    plane: Plane = "auto",
    registration: RegistrationKind = "rigid",
    device: Device = "auto",
    precision: Precision = "auto",
    consistency: Annotated[bool, typer.Option(help="Make the result agree with what was acquired.")] = True,
    ground_truth: Annotated[Path | None, typer.Option(help="Original high-resolution target, for scores.")] = None,
    seed: Seed = 0,
    json_lines: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Accept a reference that is not finer.")] = False,
) -> None:
    """Enhance TARGET with REFERENCE; write sr.nii.gz, residual.nii.gz, result.h5, report.json, report.png."""
    from .imageio import read_volume
    from .job import Settings
    from .outputs import output_folder, write_result
    from .pipeline import enhance as run

    console = Console(json_lines)
    with console.exit_on_error():
        settings = Settings(model, scale, weights, plane, registration, device, precision, consistency, seed, force)
        inputs = [path for path in (target, reference, ground_truth) if path is not None]
        volumes = [read_volume(path) for path in inputs]
        with output_folder(output, inputs), console.progress() as progress:
            result = run(
                volumes[0],
                volumes[1],
                settings,
                ground_truth=volumes[2] if ground_truth else None,
                progress=progress,
                cancelled=console.cancelled,
            )
            files = write_result(result, output)
        _tell(console, result, files)


@app.command()
def simulate(
    volume: Annotated[Path, typer.Argument(help="High-resolution volume, or a folder of DICOM files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the low-resolution volume.")],
    scale: Scale = 4,
    degradation: Annotated[str, typer.Option(help="kspace, kspace-official, bicubic or average.")] = "kspace",
    noise: Annotated[float, typer.Option(help="Deviation of Rician noise, fraction of the intensity scale.")] = 0.0,
    signed: Annotated[bool, typer.Option("--signed", help="Keep negative values instead of the magnitude.")] = False,
    plane: Plane = "auto",
    seed: Seed = 0,
    json_lines: Json = False,
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
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("demo"),
    target: Annotated[
        Path | None, typer.Option(help="Your own high-resolution volume, to degrade and enhance.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Its reference contrast.")] = None,
    model: Model = "dcamsr-s",
    scale: Scale = 4,
    seed: Seed = 0,
    json_lines: Json = False,
) -> None:
    """Degrade a brain phantom (or your own volume), enhance it, and show how near the result comes to the truth."""
    from .demo import DEMO_FILES, demo_volumes, run_demo
    from .job import Settings
    from .outputs import output_folder

    console = Console(json_lines)
    with console.exit_on_error():
        inputs = [path for path in (target, reference) if path is not None]
        if target is None:
            console.say("Making the brain phantom ...")
        truth, other = demo_volumes(target, reference, seed)
        with output_folder(output, inputs, DEMO_FILES), console.progress() as progress:
            result, files = run_demo(
                truth, other, Settings(model, scale, seed=seed), output, progress, console.cancelled
            )
        _tell(console, result, files)


@app.command()
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


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, for example shipped/dcamsr-s-x4, or a .toml file.")],
    data: Annotated[Path, typer.Option(help="Folder of HDF5 subject files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoints, log and weights.")],
    initial: Annotated[Path | None, typer.Option(help="Weights file to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False,
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
            network = run(chosen, data, output, initial=initial, resume=resume, cancelled=console.cancelled)
        if console.cancelled():
            raise Cancelled(f"Stopped; the checkpoint is in {output}: go on with --resume.")
        file = export_weights(network, chosen, data, output / "weights.safetensors")
        console.say(f"Wrote {file}.")


@models_app.command("list")
def models_list(json_lines: Json = False) -> None:
    """List models and the weights that ship."""
    from .networks import network_names, network_summary
    from .weights import shipped_models

    console = Console(json_lines)
    with console.exit_on_error():
        shipped: dict[str, list[int]] = {}
        for entry in shipped_models():
            shipped.setdefault(entry["architecture"], []).append(entry["scale"])
        if json_lines:
            for name in network_names():
                console.emit("model", name=name, summary=network_summary(name), scales=shipped.get(name, []))
            return
        table = Table("model", "weights", "what it is")
        for name in network_names():
            scales = ", ".join(f"x{scale}" for scale in sorted(shipped.get(name, [])))
            baseline = network_summary(name).startswith("Baseline")
            table.add_row(name, "needs none" if baseline else scales or "none", network_summary(name))
        RichConsole().print(table)


@models_app.command("show")
def models_show(name: Annotated[str, typer.Argument(help="A model's name.")]) -> None:
    """Show what the weights of a model say of themselves."""
    from .networks import network_summary
    from .weights import load_weights, shipped_models

    console = Console()
    with console.exit_on_error():
        out = RichConsole()
        out.print(network_summary(name))
        entries = [entry for entry in shipped_models() if entry["architecture"] == name]
        if not entries:
            out.print("No weights ship for it.")
        for entry in entries:
            weights = load_weights(entry["path"], expected_sha256=entry["sha256"])
            card = {key: value for key, value in weights.metadata.items() if key != "figures"}
            out.print(f"\n[bold]{entry['id']}[/bold]")
            out.print_json(json.dumps({**card, "sha256": weights.sha256}))
            typer.echo(_figures_table(entry["id"], weights.metadata["figures"]))


def _figures_table(name: str, figures: dict[str, dict[str, float]]) -> str:
    """The figures of a card as a markdown table: with the reference, with the target as its own, and sinc."""
    lines = [
        f"| {name} | PSNR (dB) | over sinc | no reference | sinc | SSIM | no reference | sinc |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair, f in figures.items():
        lines.append(
            f"| {pair} | {f['psnr']:.2f} | {f['psnr'] - f['psnr_sinc']:+.2f} | {f['psnr_self']:.2f} "
            f"| {f['psnr_sinc']:.2f} | {f['ssim']:.3f} | {f['ssim_self']:.3f} | {f['ssim_sinc']:.3f} |"
        )
    return "\n".join(lines)


def _tell(console: Console, result: Result, files: list[Path]) -> None:
    """The end of a job in words, or as one json event."""
    for warning in result.warnings:
        console.warn(warning)
    if console.as_json:
        console.emit("result", files=[str(file) for file in files], report=result.provenance)
        return
    console.say(result.provenance["registration"]["message"])
    for method, score in result.scores.items():
        label = {"result": "Result", "interpolated": "Interpolation (sinc)"}[method]
        console.say(f"{label}: PSNR {score.psnr:.2f} dB, SSIM {score.ssim:.3f} against the truth.")
    console.say(f"Wrote {', '.join(file.name for file in files)} to {files[0].parent}.")
    picture = next((file for file in files if file.suffix == ".png"), None)
    if picture is None:
        console.warn("No figure was made; for one, run: pip install matplotlib")
    else:
        console.say(f"Research use only. Look at {picture}")


def main() -> Any:
    """Entry point of the console script."""
    return app()


if __name__ == "__main__":
    main()
