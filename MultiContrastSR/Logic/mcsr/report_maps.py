"""The figure of a model's maps: every map on the slice of the job's figure, by family, with what its colours say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .job import Result
from .report_maps_panels import MapPanel, head_mask, map_panels
from .report_panels import Panels, View
from .report_style import (
    FAINT,
    MARK,
    TEXT,
    colour_map,
    mark_sides,
    new_figure,
    save_figure,
    show_slice,
    text_width_inch,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 6
FEWEST_COLUMNS = 4

# Sizes of the figure in inches, of its letters in points.
_PANEL, _GAP, _LEFT, _HEADER, _FOOTER = 2.75, 0.3, 0.25, 0.85, 0.5
_TALLEST_PANEL = 1.4 * _PANEL
_SCALE, _BETWEEN_ROWS = 0.52, 0.22
_HEADING_SIZE, _TITLE_SIZE, _SMALL_SIZE = 11.5, 9.5, 7.5
_LINE = 1.32 / 72  # inches a line takes for each point of its letters

_COLOUR_MAPS = {"grey": "gray", "sequential": "inferno", "diverging": "residual"}
_MOST_SWATCHES = 6
_DIMMED = 0.65


@dataclass(frozen=True)
class _Cell:
    """One panel and its words, broken into lines."""

    panel: MapPanel
    column: int
    title: str
    meaning: str


@dataclass(frozen=True)
class _Row:
    """Cells side by side, and the headings (column, width in columns, words) above them; heights in inches."""

    cells: list[_Cell]
    headings: list[tuple[int, int, str]]

    @property
    def heading(self) -> float:
        return _HEADING_SIZE * _LINE + 0.12 if self.headings else 0.0

    @property
    def words(self) -> float:
        sizes = [_height(cell.title, _TITLE_SIZE) + _height(cell.meaning, _SMALL_SIZE) for cell in self.cells]
        return max(sizes) + 0.08


def write_maps_figure(path: Path, result: Result) -> None:
    """Draw all maps of a result and write them as PNG; the file appears only when complete.

    Args:
        path: of the PNG file.
        result: of a job that was asked for maps.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    save_figure(path, maps_figure(result))


def maps_figure(result: Result) -> Figure:
    """The figure that `write_maps_figure` writes.

    Raises:
        McsrError: matplotlib is not installed.
    """
    view = View(Panels.of(result), None)
    inside = head_mask(result, view)
    panels = map_panels(result, view, inside)
    columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, len(panels)))
    width = 2 * _LEFT + columns * _PANEL + (columns - 1) * _GAP
    figure = new_figure(width, 1.0)
    rows = _arranged(figure, panels, columns)
    tall = min(_PANEL * view.head.rows * view.spacing[0] / (view.head.columns * view.spacing[1]), _TALLEST_PANEL)
    height = _HEADER + sum(row.heading + row.words + tall + _SCALE for row in rows) + _FOOTER
    height += _BETWEEN_ROWS * (len(rows) - 1)
    figure.set_size_inches(width, height)
    top = height - _HEADER
    for row in rows:
        _draw_row(figure, row, view, inside, top, tall)
        top -= row.heading + row.words + tall + _SCALE + _BETWEEN_ROWS
    slice_words = (
        f"{view.plane.capitalize()} slice {view.index + 1} of {view.slice_count}; colours span what the maps hold "
        "within the head of this slice, around it they are dimmed"
    )
    write_words(figure, _LEFT, f"Maps: {view.panels.title}", slice_words, view.panels.caption)
    return figure


def _arranged(figure: Figure, panels: Sequence[MapPanel], columns: int) -> list[_Row]:
    """Panels in rows: a family begins beside the last one where all of it fits there, otherwise on a new row."""
    rows: list[_Row] = []
    column = columns
    for family in dict.fromkeys(panel.family for panel in panels):
        members = [panel for panel in panels if panel.family == family]
        if column + len(members) > columns:
            column = columns
        for number, panel in enumerate(members):
            if column == columns:
                rows.append(_Row([], []))
                column = 0
            if number == 0:
                span = min(len(members), columns - column)
                room = span * (_PANEL + _GAP) - _GAP
                rows[-1].headings.append((column, span, _cut(figure, family, room, _HEADING_SIZE)))
            title = _wrapped(figure, panel.title, _TITLE_SIZE, bold=True)
            rows[-1].cells.append(_Cell(panel, column, title, _wrapped(figure, panel.meaning, _SMALL_SIZE)))
            column += 1
    return rows


def _draw_row(figure: Figure, row: _Row, view: View, inside: np.ndarray, top: float, tall: float) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    for column, span, words in row.headings:
        left = _left(column)
        right = left + span * (_PANEL + _GAP) - _GAP
        figure.text(left / width, top / height, words, color=MARK, fontsize=_HEADING_SIZE, va="top", parse_math=False)
        rule = (top - _HEADING_SIZE * _LINE - 0.02) / height
        figure.add_artist(Line2D([left / width, right / width], [rule, rule], color=MARK, linewidth=0.6, alpha=0.6))
    top -= row.heading
    for cell in row.cells:
        left = _left(cell.column)
        lines: dict[str, Any] = {"va": "top", "linespacing": 1.15, "parse_math": False}
        figure.text(left / width, top / height, cell.title, color=TEXT, fontsize=_TITLE_SIZE, weight="bold", **lines)
        below = top - _height(cell.title, _TITLE_SIZE)
        figure.text(left / width, below / height, cell.meaning, color=FAINT, fontsize=_SMALL_SIZE, **lines)
        bottom = top - row.words - tall
        axes = figure.add_axes((left / width, bottom / height, _PANEL / width, tall / height))
        _draw_panel(axes, cell.panel, view, inside)
        _draw_scale(figure, cell.panel, left, bottom)


def _draw_panel(axes: Axes, panel: MapPanel, view: View, inside: np.ndarray) -> None:
    low, high = panel.limits
    if low == high and panel.colours == "diverging":
        low, high = low - 1, high + 1  # one value has the colour of nothing
    if panel.colours in _COLOUR_MAPS:
        window = {"cmap": colour_map(_COLOUR_MAPS[panel.colours]), "vmin": low, "vmax": high}
        show_slice(axes, panel.pixels, view.spacing, interpolation="antialiased", **window)
    elif panel.colours == "labels":
        # Between two labels lies no third.
        show_slice(axes, label_colours(panel.pixels), view.spacing, interpolation="nearest")
    else:
        pixels = wheel_colours(panel.pixels / high) if panel.colours == "wheel" else panel.pixels
        show_slice(axes, pixels, view.spacing, interpolation="antialiased")
    if panel.names:
        # Maps of air are loud and say nothing.
        veil = np.zeros((*inside.shape, 4))
        veil[..., 3] = np.where(inside, 0, _DIMMED)
        show_slice(axes, veil, view.spacing, interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    mark_sides(axes, view.plane, size=7.5)


def label_colours(labels: np.ndarray) -> np.ndarray:
    """A colour for every whole number, the same in all maps: (...) -> (..., 3), 0..1; neighbours differ most."""
    from matplotlib.colors import hsv_to_rgb

    number = np.rint(labels).astype(int)
    hue = np.mod(number * (math.sqrt(5) - 1) / 2, 1)
    saturation = np.choose(number % 3, (0.55, 0.95, 0.75))
    value = np.choose(number // 3 % 3, (1.0, 0.7, 0.85))
    return np.asarray(hsv_to_rgb(np.stack([hue, saturation, value], axis=-1)))


def wheel_colours(displacement: np.ndarray) -> np.ndarray:
    """Hue for the direction on the display, brightness for the length: (..., 2) in parts of the longest -> (..., 3)."""
    from matplotlib.colors import hsv_to_rgb

    right, down = displacement[..., 0], displacement[..., 1]
    hue = np.mod(np.arctan2(-down, right) / (2 * np.pi), 1)
    length = np.clip(np.hypot(right, down), 0, 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.9), length], axis=-1)))


def _draw_scale(figure: Figure, panel: MapPanel, left: float, bottom: float) -> None:
    """What the colours say, below a panel; nothing for images and mixtures."""
    if panel.colours == "labels":
        _draw_swatches(figure, panel, left, bottom)
    elif panel.colours == "wheel":
        _draw_wheel(figure, panel, left, bottom)
    elif panel.colours in _COLOUR_MAPS and panel.names:
        _draw_bar(figure, panel, left, bottom)


def _draw_bar(figure: Figure, panel: MapPanel, left: float, bottom: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    if panel.limits[0] == panel.limits[1]:
        _write_unit(figure, f"{panel.limits[0]:.3g} everywhere in the head", left, bottom - 0.06)
        _write_unit(figure, _cut(figure, panel.unit, _PANEL, 7), left, bottom - 0.2)
        return
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, (bottom - 0.14) / height, _PANEL / width, 0.08 / height))
    axes.set_label(f"scale of {panel.names[0]}")
    colours = ScalarMappable(Normalize(*panel.limits), colour_map(_COLOUR_MAPS[panel.colours]))
    bar = figure.colorbar(colours, cax=axes, orientation="horizontal")
    bar.locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
    bar.update_ticks()
    bar.outline.set_edgecolor(FAINT)
    bar.outline.set_linewidth(0.5)
    axes.tick_params(colors=TEXT, labelsize=7, length=2, width=0.5, pad=1.5)
    axes.xaxis.get_offset_text().set(color=TEXT, fontsize=7)
    _write_unit(figure, _cut(figure, panel.unit, _PANEL, 7), left, bottom - 0.34)


def _draw_wheel(figure: Figure, panel: MapPanel, left: float, bottom: float) -> None:
    width, height = figure.get_size_inches()
    side = 0.44
    axes = figure.add_axes((left / width, (bottom - 0.05 - side) / height, side / width, side / height))
    axes.set_label(f"wheel of {panel.names[0]}")
    down, right = np.mgrid[-1:1:64j, -1:1:64j]
    disc = np.where((np.hypot(right, down) <= 1)[..., None], wheel_colours(np.stack([right, down], axis=-1)), 0)
    axes.imshow(disc)
    axes.set_axis_off()
    words = f"colour: direction on the display\nrim: {panel.limits[1]:.3g} {panel.unit} or more"
    _write_unit(figure, words, left + side + 0.1, bottom - 0.12)


def _draw_swatches(figure: Figure, panel: MapPanel, left: float, bottom: float) -> None:
    """The labels that cover most, in their colours."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    labels, counts = np.unique(np.rint(panel.pixels).astype(int), return_counts=True)
    common = labels[np.argsort(-counts, kind="stable")][:_MOST_SWATCHES]
    for place, label in enumerate(common):
        x, y = left + place * _PANEL / _MOST_SWATCHES, bottom - 0.18
        colour = label_colours(np.array(label))
        swatch = Rectangle((x / width, y / height), 0.12 / width, 0.12 / height, color=colour, figure=figure)
        figure.add_artist(swatch)
        figure.text((x + 0.16) / width, (y + 0.06) / height, str(label), color=TEXT, fontsize=7, va="center")
    words = [panel.unit or "label"]
    if len(common) < len(labels):
        words.append(f"the {len(common)} most frequent of {len(labels)} here")
    _write_unit(figure, ", ".join(words), left, bottom - 0.3)


def _write_unit(figure: Figure, words: str, left: float, top: float) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, top / height, words, color=FAINT, fontsize=7, va="top", parse_math=False)


def _left(column: int) -> float:
    return _LEFT + column * (_PANEL + _GAP)


def _height(words: str, size: float) -> float:
    return (words.count("\n") + 1) * size * _LINE if words else 0.0


def _wrapped(figure: Figure, words: str, size: float, *, bold: bool = False) -> str:
    """Words broken into lines as wide as a panel."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width_inch(figure, longer, size, bold=bold) <= _PANEL:
            lines[-1] = longer
        else:
            lines.append(_cut(figure, word, _PANEL, size, bold=bold))
    return "\n".join(lines)


def _cut(figure: Figure, words: str, room: float, size: float, *, bold: bool = False) -> str:
    """Words that end in an ellipsis where they are too long for their place."""
    if text_width_inch(figure, words, size, bold=bold) <= room:
        return words
    while words and text_width_inch(figure, f"{words}…", size, bold=bold) > room:
        words = words[:-1]
    return f"{words}…"
