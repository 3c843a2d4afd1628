"""Draw the pictures of docs/ from the engine itself: its parts, its grids, and what the networks show of the phantom.

    .venv/bin/python tools/draw_docs.py                     # all of them
    .venv/bin/python tools/draw_docs.py geometry cd-dpe     # only these

Run it when one of them is no longer true; it prints what it wrote.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from draw_docs_parts import COLUMNS, PARTS, PROCESSES, STEPS, Part
from mcsr import report_maps
from mcsr.degradation import degrade, upsample
from mcsr.geometry import Grid, coarsen_grid
from mcsr.imageio import complete_file
from mcsr.job import Settings
from mcsr.phantom import demo_case
from mcsr.pipeline import enhance, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH = 1080
"""Of a picture in pixels; a page is not wider."""

INK, FAINT, FINE, COARSE = "#22272e", "#6b7480", "#2f7ed8", "#d8572f"
_LAYER_COLOURS = ("#fff3e0", "#fde7d6", "#e8f1fb", "#e6f4ea", "#f3eefb", "#f0f1f3")
_SMALL, _PLAIN, _LARGE = 8.5, 10, 13

MAPS = {
    "cd-dpe": "mask_reference_1,displacement_reference_1.columns,displacement_reference_1.rows,"
    "x_unique,x_common,y_unique,y_common",
    "daasr": "score_g4,displacement_g4.columns,displacement_g4.rows,added,structure,texture,texture_minus_structure",
    "dcamsr": "attention_spread_lv1,gain_lv1,added,texture_lv1,texture_lv1.pc1,texture_lv1.pc2,texture_lv1.pc3,"
    "fused_lv1",
    "diffmsr": "effect_of_prior,spread_over_seeds,added,reference_contribution,attention_spread_reference,"
    "features_fused",
    "hftn-sr": "high_band,low_band,added,added_by_reference_edges,relevance_stage1,"
    "displacement_stage1.columns,displacement_stage1.rows",
}
"""The maps on each network's page: two rows of four images, target and reference first."""

MAPS_SCALE, FIRST_SLICE, SLICES = 4, 5, 3


def main(names: list[str]) -> None:
    """Draw the named pictures, or all."""
    drawings: dict[str, Callable[[], Figure]] = {"architecture": architecture, "geometry": geometry}
    drawings |= {name: lambda name=name: network_maps(name) for name in MAPS}  # type: ignore[misc]
    unknown = sorted(set(names) - set(drawings))
    if unknown:
        sys.exit(f"There is no picture {', '.join(unknown)}; there are {', '.join(drawings)}.")
    PICTURES.mkdir(exist_ok=True)
    for name in names or drawings:
        path = save(PICTURES / f"{name}.{'webp' if name in MAPS else 'png'}", drawings[name]())
        print(f"{path.relative_to(PICTURES.parents[1])}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def save(path: Path, figure: Figure) -> Path:
    """Write a figure small, which keeps a clone small: lines as PNG of few colours, images as WebP."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * WIDTH / figure.get_figwidth(), facecolor=figure.get_facecolor())
    with Image.open(drawn) as large, complete_file(path) as temporary:
        image = large.convert("RGB").reduce(2)
        if path.suffix == ".png":
            few = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(temporary, format="png", optimize=True)
        else:
            image.save(temporary, format="webp", quality=82, method=6)
    return path


def new_figure(width: float, height: float, colour: str = "white") -> Figure:
    """An empty figure in inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Axes without a frame."""
    axes = figure.add_axes(box)
    axes.set_axis_off()
    return axes


# --- What an import may reach, and what a job does


def architecture() -> Figure:
    """The parts as layers, whose arrows run downward only, and beside them the steps of a job."""
    figure = new_figure(11, 7.6)
    axes = plain_axes(figure, (0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, 11)
    axes.set_ylim(0, 7.6)
    axes.text(0.25, 7.35, 'Parts: an arrow reads "imports"; all run downward', fontsize=_LARGE, color=INK, va="top")
    axes.text(7.65, 7.35, "Steps of a job", fontsize=_LARGE, color=INK, va="top")
    for layer in sorted({part.layer for part in PARTS}):
        bottom = _bottom(layer)
        _box(axes, 0.25, bottom - 0.1, 7.1, 0.95, _LAYER_COLOURS[layer], edge="none")
    for part in PARTS:
        left, width = _across(part.column) + 0.05, _across(part.columns) - _across(0) - 0.1
        _box(axes, left, _bottom(part.layer), width, 0.75, "white")
        middle = left + width / 2
        axes.text(
            middle, _bottom(part.layer) + 0.49, part.title, fontsize=_PLAIN - 0.5, color=INK, ha="center", va="center"
        )
        axes.text(
            middle, _bottom(part.layer) + 0.2, part.files, fontsize=_SMALL - 0.5, color=FAINT, ha="center", va="center"
        )
    by_title = {part.title: part for part in PARTS}
    for part in PARTS:
        for title, column in part.arrows:
            _arrow(axes, column, part, by_title[title])
    _talk(axes, *(by_title[title] for title in PROCESSES))
    for number, (what, where) in enumerate(STEPS):
        top = 6.85 - 0.72 * number
        axes.text(7.65, top, str(number + 1), fontsize=_LARGE, color=COARSE, va="top")
        axes.text(7.98, top, what, fontsize=_PLAIN, color=INK, va="top")
        axes.text(7.98, top - 0.24, where, fontsize=_SMALL, color=FAINT, va="top")
    return figure


def _bottom(layer: int) -> float:
    return 6.0 - 1.13 * layer


def _across(column: float) -> float:
    return 0.35 + 6.9 / COLUMNS * column


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, edge: str = "#aab2bd") -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=colour, edgecolor=edge, zorder=1))


def _arrow(axes: Axes, column: float, part: Part, other: Part) -> None:
    """Down from the lower edge of a part to the upper edge of another."""
    axes.annotate(
        "",
        xy=(_across(column), _bottom(other.layer) + 0.75),
        xytext=(_across(column), _bottom(part.layer)),
        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0},
        zorder=3,
    )


def _talk(axes: Axes, one: Part, other: Part) -> None:
    """A dashed line between two parts of a layer that are different processes."""
    left, right = _across(one.column + one.columns) - 0.05, _across(other.column) + 0.05
    y = _bottom(one.layer) + 0.33
    style = {"arrowstyle": "<->", "color": COARSE, "lw": 1.2, "ls": "--", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(right, y), xytext=(left, y), arrowprops=style, zorder=3)
    axes.text((left + right) / 2, y + 0.13, "files and lines", fontsize=_SMALL, color=COARSE, ha="center", va="center")


# --- Where samples lie

FACTOR, COARSE_PIXELS = 4, 3


def geometry() -> Figure:
    """Fine and coarse pixels over each other for both conventions, and a row of the phantom sampled in both ways."""
    figure = new_figure(11, 7.8)
    fine = Grid((FACTOR * COARSE_PIXELS, FACTOR * COARSE_PIXELS, 1), np.eye(4))
    titles = {
        "centred": "centred: a coarse sample lies amid the pixels that it covers",
        "corner": "corner: coarse sample j lies on fine pixel s j",
    }
    for number, (sampling, title) in enumerate(titles.items()):
        coarse = coarsen_grid(fine, (FACTOR, FACTOR, 1), sampling)
        axes = figure.add_axes((0.03 + 0.49 * number, 0.455, 0.45, 0.435))
        _draw_grids(axes, fine, coarse)
        middle = 0.255 + 0.49 * number
        figure.text(middle, 0.945, title, fontsize=_PLAIN + 1, color=INK, ha="center")
        figure.text(middle, 0.915, _shift_words(fine, coarse), fontsize=_PLAIN - 0.5, color=FAINT, ha="center")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="center", bbox_to_anchor=(0.5, 0.44), ncols=2, frameon=False, fontsize=_PLAIN - 0.5
    )
    _draw_profile(figure.add_axes((0.06, 0.07, 0.91, 0.28)))
    return figure


def _draw_grids(axes: Axes, fine: Grid, coarse: Grid) -> None:
    from matplotlib.patches import Rectangle

    styles = ((fine, "fine pixels", FINE, 0.6, ".", 22), (coarse, "coarse pixels, s = 4", COARSE, 2.0, "o", 70))
    for grid, label, colour, width, marker, size in styles:
        columns, rows, _ = grid.shape_ijk
        indices = np.stack(np.meshgrid(range(columns), range(rows), [0], indexing="ij"), axis=-1).reshape(-1, 3)
        centres = grid.to_ras(indices)
        spacing = float(grid.spacing_ijk_mm[0])
        for x, y, _ in centres:
            corner = (x - spacing / 2, y - spacing / 2)
            axes.add_patch(Rectangle(corner, spacing, spacing, fill=False, edgecolor=colour, linewidth=width))
        axes.scatter(centres[:, 0], centres[:, 1], s=size, c=colour, marker=marker, zorder=3, label=label)
    axes.set_xlim(-2.3, FACTOR * COARSE_PIXELS + 0.3)
    axes.set_ylim(FACTOR * COARSE_PIXELS, -2.3)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _shift_words(fine: Grid, coarse: Grid) -> str:
    shift = float(fine.ras_bounds()[0, 0] - coarse.ras_bounds()[0, 0])
    return f"the coarse box begins (s - 1)/2 = {shift:g} fine pixels earlier" if shift else "both grids fill one box"


def _draw_profile(axes: Axes) -> None:
    """A stretch of one row: as it is, what the central part of k-space keeps, and its samples in both conventions."""
    from matplotlib.ticker import MultipleLocator

    row, start, stop = 100, 40, 92
    line = demo_case(size="small").target_hr.array_kji[3:4, row : row + 1].astype(np.float64)
    factors = (1, 1, FACTOR)
    low = {name: degrade(line, factors, name)[0, 0] for name in ("kspace", "kspace-official")}
    low["kspace-official"] /= np.sqrt(FACTOR)  # its orthonormal transforms brighten by the root along each axis
    kept = upsample(low["kspace"][None, None], factors)[0, 0]
    fine = np.arange(start, stop)
    axes.plot(fine, line[0, 0, fine], color=FINE, lw=1.2, marker=".", ms=5, label="a row of fine pixels")
    axes.plot(fine, kept[fine], color=FAINT, lw=1.0, ls="--", label="its central quarter of k-space")
    for name, colour, marker, offset in (
        ("kspace", COARSE, "o", (FACTOR - 1) / 2),
        ("kspace-official", "#3a9c5a", "s", 0.0),
    ):
        places = FACTOR * np.arange(len(low[name])) + offset
        shown = (places >= start) & (places < stop)
        label = f"{name}: {'centred' if offset else 'corner'}"
        axes.plot(places[shown], low[name][shown], color=colour, ls="none", marker=marker, ms=7, label=label)
    axes.set_xlim(start - 0.5, stop - 0.5)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MultipleLocator(FACTOR))
    axes.set_xlabel("number of the fine pixel", fontsize=_SMALL, color=INK)
    axes.set_ylabel("signal of the phantom", fontsize=_SMALL, color=INK)
    axes.tick_params(labelsize=_SMALL, colors=INK)
    axes.grid(axis="x", color="#e3e6ea", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=_PLAIN - 0.5, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


# --- What networks show


_phantom = cache(demo_case)


def network_maps(name: str) -> Figure:
    """The figure of the maps that `mcsr enhance --maps` writes, of a few slices of the phantom of `mcsr demo`."""
    case = _phantom()
    columns, rows, _ = case.target_hr.grid.shape_ijk
    truth = case.target_hr.cropped((0, 0, FIRST_SLICE), (columns, rows, SLICES))
    low, _ = simulate(truth, MAPS_SCALE)
    settings = Settings(f"{name}-s", MAPS_SCALE, plane="axial", maps=MAPS[name])
    result = enhance(low, case.reference, settings, reference_to_target=np.linalg.inv(case.true_motion))
    report_maps.MOST_COLUMNS = 4  # a page is narrower than a report
    figure = report_maps.maps_figure(result)
    figure.set_facecolor("black")
    return figure


if __name__ == "__main__":
    main(sys.argv[1:])
