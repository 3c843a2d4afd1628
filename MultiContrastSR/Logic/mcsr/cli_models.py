"""The command line's part on models: list, show, add, verify, and the import of the authors' checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Column, Table

from .cli_console import Console
from .cli_options import Json, names_in
from .weights_card import FIGURES

_CARD_ROWS = {
    "contrasts": "trained for",
    "data": "data",
    "licence": "licence",
    "degradation": "low resolution by",
    "intensity": "intensities",
    "recipe": "recipe",
    "git_revision": "revision",
    "sha256": "sha256",
}
"""What is shown of a card, by its key."""

models_app = typer.Typer(help="The models and their weights.", no_args_is_help=True)


@models_app.command("list")
def models_list(
    json_lines: Json = False,
    costs: Annotated[bool, typer.Option("--costs", help="Also parameters and work of each (takes a while).")] = False,
) -> None:
    """List models and the weights that ship or were added."""
    from .model_facts import model_costs
    from .networks import network_names, network_summary
    from .weights import added_models, shipped_models

    console = Console(json_lines)
    with console.exit_on_error():
        scales: dict[str, set[int]] = {name: set() for name in network_names()}
        for entry in [*shipped_models(), *added_models()]:
            scales[entry["architecture"]].add(entry["scale"])
        if json_lines:
            for name in scales:
                extra = model_costs(name) if costs else {}
                console.emit("model", name=name, summary=network_summary(name), scales=sorted(scales[name]), **extra)
            return
        columns = ("parameters", "GMAC at 256x256", "at 348x384") if costs else ()
        table = Table("model", "weights", *columns, "what it is")
        for name, found in scales.items():
            baseline = network_summary(name).startswith("Baseline")
            weights = "needs none" if baseline else ", ".join(f"x{scale}" for scale in sorted(found)) or "none"
            table.add_row(name, weights, *(_cost_cells(model_costs(name)) if costs else ()), network_summary(name))
        RichConsole().print(table)


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    json_lines: Json = False,
) -> None:
    """Show what a model is, its paper, cost, maps and weights."""
    from .model_facts import model_facts

    console = Console(json_lines)
    with console.exit_on_error():
        facts = model_facts(name)
        if json_lines:
            console.emit("model", **facts)
            return
        out = RichConsole()
        out.print(f"[bold]{name}[/bold]  {escape(facts['summary'])}\n\n{escape(facts['about'])}\n")
        out.print(_cost_sentence(facts))
        if facts["maps"]:
            out.print(_maps_table(facts["maps"]))
        if not facts["weights"]:
            out.print("No weights are installed for it.")
        for weights in facts["weights"]:
            card = weights["card"]
            out.print(f"\n[bold]{escape(weights['id'])}[/bold]")
            out.print(_card_table(name, {**card, "sha256": weights["sha256"]}))
            if "figures" in card:
                typer.echo(_figures_table(weights["id"], card["figures"]))


@models_app.command("figures")
def models_figures(json_lines: Json = False) -> None:
    """Compare the figures that the weights' cards hold, in one table."""
    from .weights import added_models, load_weights, shipped_models

    console = Console(json_lines)
    with console.exit_on_error():
        entries = [*shipped_models(), *added_models()]
        cards = {e["id"]: load_weights(e["path"], expected_sha256=e.get("sha256")).metadata for e in entries}
        figures = {name: card["figures"] for name, card in cards.items() if card.get("figures")}
        if json_lines:
            for name, found in figures.items():
                console.emit("figures", weights=name, figures=found)
            return
        typer.echo(_summary_table(figures))


@models_app.command("add")
def models_add(
    file: Annotated[Path, typer.Argument(help="Weights file (.safetensors), trained or imported.")],
    json_lines: Json = False,
) -> None:
    """Check a weights file and copy it into your models folder (the variable MCSR_MODELS names another)."""
    from .weights import add_model

    console = Console(json_lines)
    with console.exit_on_error():
        path = add_model(file)
        console.say(f"Added {path}.", file=str(path))


@models_app.command("verify")
def models_verify(json_lines: Json = False) -> None:
    """Hash all weights again, shipped and added; exit with 4 when one is not whole."""
    from .errors import WeightsError
    from .weights import verify_models

    console = Console(json_lines)
    with console.exit_on_error():
        found = verify_models()
        table = Table("weights", "from", "state")
        for weights in found:
            table.add_row(escape(weights.name), weights.origin, escape(weights.problem) or "whole")
            if json_lines:
                console.emit("weights", **weights._asdict())
        if not json_lines:
            RichConsole().print(table)
        wrong = [weights.name for weights in found if weights.problem]
        if wrong:
            raise WeightsError(f"Not whole: {', '.join(wrong)}; get them again.")


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Checkpoint as the authors' code writes it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Weights file to write (.safetensors).")],
    architecture: Annotated[str, typer.Option(help="auto, cd-dpe, dcamsr or diffmsr.")] = "auto",
    scale: Annotated[int | None, typer.Option(help="2, 3 or 4; CD-DPE and DCAMSR need it.")] = None,
    json_lines: Json = False,
) -> None:
    """Turn the authors' checkpoint of CD-DPE, DCAMSR or DiffMSR into a weights file; nothing in it is run."""
    from .checkpoints import import_checkpoint as run
    from .imageio import check_output_path

    console = Console(json_lines)
    with console.exit_on_error():
        check_output_path(output, [file])
        report = run(file, output, architecture=architecture, scale=scale)
        for note in report.notes:
            console.warn(note)
        found = f"{report.architecture} x{report.card['scale']}"
        console.say(
            f"Wrote {output} ({found}); use it with --model {report.architecture} --scale {report.card['scale']} "
            f"--weights {output}, or add it: mcsr models add {output}",
            file=str(output),
            sha256=report.sha256,
        )


def entries_named(entries: Iterable[dict[str, Any]], models: str, scales: str) -> list[dict[str, Any]]:
    """Those of weights that two comma-separated options ask for.

    Args:
        entries: see `weights.shipped_models`.
        models: names, or "all".
        scales: numbers.

    Raises:
        WeightsError: when there is none.
    """
    from .errors import WeightsError

    wanted, factors = names_in(models), names_in(scales)
    found = [e for e in entries if (models == "all" or e["architecture"] in wanted) and str(e["scale"]) in factors]
    if not found:
        raise WeightsError(f"No weights are installed for {models} at scale {scales}; see `mcsr models list`.")
    return found


def _cost_cells(costs: dict[str, Any]) -> list[str]:
    work = [f"{value:.1f}" if value is not None else "-" for value in costs["gmac"].values()]
    return [f"{costs['parameters']:,}", *work]


def _cost_sentence(facts: dict[str, Any]) -> str:
    sizes = [
        f"{value:.1f} for a slice of {size}"
        if value is not None
        else f"none for {size}, which these weights do not fit"
        for size, value in facts["gmac"].items()
    ]
    scales = ", ".join(f"x{scale}" for scale in facts["scales"])
    work = f"Multiply-accumulates (1e9) at x{facts['config']['scale']}: {'; '.join(sizes)}."
    return f"Scales: {scales}. Parameters: {facts['parameters']:,}. {work}\n"


def _card_table(name: str, card: dict[str, Any]) -> Table:
    """What weights are for, where to be careful, and what they were made of. A card may lack most entries."""
    slices = f"{card['plane']} slices" if "plane" in card else "slices"
    low, high = card.get("spacing_mm", (None, None))
    pixels = f", pixels of the result {low:.2f} to {high:.2f} mm" if low else ""
    rows = {
        "intended use": f"research only; {slices} at x{card['scale']}{pixels}",
        "limits": "Other anatomy, scanners and pixels than those of its data may come out worse. A lesion that one "
        f"scan alone shows may fade, or leak from the reference: `mcsr lesions --models {name}` measures it.",
    }
    for key, words in _CARD_ROWS.items():
        value = card.get(key, "")
        entries = value if isinstance(value, list | tuple) else [value]
        rows[words] = ("\n" if key == "data" else ", ").join(map(str, entries))
    table = Table(Column(style="bold", no_wrap=True), Column(overflow="fold"), show_header=False, box=None)
    for words, text in rows.items():
        if text:
            table.add_row(words, escape(text))
    return table


def _maps_table(maps: dict[str, dict[str, Any]]) -> Table:
    """Name, meaning and unit of every map; tables and maps of a pixel are marked."""
    table = Table(Column("map", no_wrap=True), "family", "what it says", "unit")
    for name, spec in maps.items():
        mark = " (of one pixel)" if spec["of_point"] else " (table)" if spec["kind"] == "table" else ""
        table.add_row(name, spec["family"], escape(f"{spec['title']}{mark}: {spec['meaning']}"), escape(spec["unit"]))
    return table


def _summary_table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """A markdown row for each weights file: PSNR and gain by pair, then means over the pairs."""
    pairs = list(dict.fromkeys(pair for found in figures.values() for pair in found))
    columns = ["weights", *pairs, "mean over sinc", "over no reference", "SSIM", "no reference", "sinc"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in figures.items():
        cells = [f"{f['psnr']:.2f} ({f['psnr'] - f['psnr_sinc']:+.2f})" if (f := found.get(p)) else "-" for p in pairs]
        mean = {key: sum(f[key] for f in found.values()) / len(found) for key in FIGURES}
        cells += [f"{mean['psnr'] - mean[key]:+.2f}" for key in ("psnr_sinc", "psnr_self")]
        cells += [f"{mean[key]:.3f}" for key in ("ssim", "ssim_self", "ssim_sinc")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
