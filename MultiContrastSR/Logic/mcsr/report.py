"""The figure of a job: what went in, what came out, and how far it is from the truth, on one slice.

All panels share one orientation (a radiologist's display, whatever the storage order) and the true aspect ratio, those
of the target one window, the errors one scale. A row of crops shows the place where most detail was at stake, since
super-resolution is judged there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .report_panels import Panels, Tile, View
from .report_style import (
    FAINT,
    MARK,
    TEXT,
    colour_map,
    mark_sides,
    new_figure,
    save_figure,
    show_slice,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sizes of the figure in inches.
_PANEL, _GAP, _LABELS, _LEFT, _RIGHT, _HEADER, _FOOTER = 3.4, 0.12, 0.52, 0.2, 0.95, 0.8, 0.5
_TALLEST_PANEL = 1.6 * _PANEL


def write_figure(path: Path, panels: Panels, *, slice_index: int | None = None) -> None:
    """Draw the figure and write it as PNG; the file appears only when complete.

    Args:
        path: of the PNG file.
        panels: what to show.
        slice_index: in display order; the slice with most signal by default.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    view = View(panels, slice_index)
    figure = new_figure(*_size_inch(view))
    _draw(figure, view)
    save_figure(path, figure)


def _heights_inch(view: View) -> list[float]:
    """Height of the rows, from the top: crops are square, overviews as tall as the head needs."""
    aspect = view.head.rows * view.spacing[0] / (view.head.columns * view.spacing[1])
    overview = min(_PANEL * aspect, _TALLEST_PANEL)
    return [overview if any(tile.box is view.head for tile in row) else _PANEL for row in view.rows]


def _size_inch(view: View) -> tuple[float, float]:
    columns = len(view.rows[0])
    width = _LEFT + columns * _PANEL + (columns - 1) * _GAP + _RIGHT
    return width, _HEADER + sum(_heights_inch(view)) + _LABELS * len(view.rows) + _FOOTER


def _draw(figure: Figure, view: View) -> None:
    width, height = figure.get_size_inches()
    top = height - _HEADER
    for row, tall in zip(view.rows, _heights_inch(view), strict=True):
        for column, tile in enumerate(row):
            left = _LEFT + column * (_PANEL + _GAP)
            axes = figure.add_axes((left / width, (top - tall) / height, _PANEL / width, tall / height))
            _draw_tile(axes, tile, view)
        coloured = [tile for tile in row if tile.map != "gray" and tile.box is view.head]
        if coloured:
            left = width - _RIGHT + 0.15
            bar = figure.add_axes((left / width, (top - 0.9 * tall) / height, 0.14 / width, 0.8 * tall / height))
            _draw_colour_bar(figure, bar, coloured[0])
        top -= tall + _LABELS
    _draw_words(figure, view)


def _draw_tile(axes: Axes, tile: Tile, view: View) -> None:
    rows_mm, columns_mm = view.spacing
    box = tile.box
    low, high = tile.limits
    window = {"cmap": colour_map(tile.map), "vmin": low, "vmax": high}
    extent = show_slice(axes, box.crop(tile.pixels), view.spacing, **window, interpolation="bicubic")
    whole = box is view.head
    for spine in axes.spines.values():
        spine.set_visible(not whole)
        spine.set_color(MARK)
    axes.set_title(tile.title, color=TEXT, fontsize=11, pad=5)
    axes.set_xlabel(tile.note, color=FAINT, fontsize=9.5, labelpad=4)
    if whole:
        mark_sides(axes, view.plane)
        left, upper = (view.detail.column - box.column) * columns_mm, (view.detail.row - box.row) * rows_mm
        right, lower = left + view.detail.columns * columns_mm, upper + view.detail.rows * rows_mm
        axes.plot([left, right, right, left, left], [upper, upper, lower, lower, upper], color=MARK, linewidth=0.9)
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
    elif tile.map == "gray":
        end, level = extent[1] - 3, extent[2] - 3
        axes.plot([end - 10, end], [level, level], color=MARK, linewidth=2)
        axes.text(end - 5, level - 1.2, "10 mm", color=MARK, fontsize=8, ha="center", va="bottom")


def _draw_colour_bar(figure: Figure, axes: Axes, tile: Tile) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(*tile.limits), colour_map(tile.map)), cax=axes)
    bar.outline.set_edgecolor(FAINT)
    axes.tick_params(colors=TEXT, labelsize=9)
    word = "Change" if tile.map == "residual" else "Error, magnitude"
    axes.set_ylabel(f"{word} (% of range)", color=TEXT, fontsize=9.5)


def _draw_words(figure: Figure, view: View) -> None:
    slice_words = f"{view.plane.capitalize()} slice {view.index + 1} of {view.slice_count}"
    if view.panels.scores:
        slice_words += "; PSNR and SSIM are means over all slices"
    write_words(figure, _LEFT, view.panels.title, slice_words, view.panels.caption)
