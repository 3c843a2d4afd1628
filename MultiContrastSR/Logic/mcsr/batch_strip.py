"""The pictures of one subject for the overview of a batch: input, result, change and reference side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .geometry import display_order
from .imageio import complete_file
from .intensity import foreground
from .job import Result
from .report_panels import Panels, View
from .report_style import colour_map, mark_sides, new_figure, show_slice

STRIP_FILE = "overview.jpg"
PICTURES = ("Input, interpolated", "Result", "Result - input", "Reference")
"""What a strip shows, from the left, each in a square of `SIDE` pixels."""

SIDE = 176
CHANGE_PERCENT = 10.0
"""End of the colour scale of the change, percent of the range: one for all subjects, so that the odd one stands out."""

_SMALLEST_SHARE = 0.01
_JPEG_QUALITY = 82


def write_strip(path: Path, result: Result) -> None:
    """Draw the middle slice of the signal of a result as JPEG; the file appears only when complete.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    # Without the truth: a strip shows what can be judged of any subject.
    view = View(replace(Panels.of(result), truth=None), _middle_slice(result))
    figure = new_figure(len(PICTURES) * SIDE / 100, SIDE / 100)
    for column, tile in enumerate(view.rows[0]):
        low, high = (-CHANGE_PERCENT, CHANGE_PERCENT) if tile.map == "residual" else tile.limits
        axes = figure.add_axes((column / len(PICTURES), 0, 1 / len(PICTURES), 1))
        axes.set_axis_off()
        axes.set_anchor("C")
        window = {"cmap": colour_map(tile.map), "vmin": low, "vmax": high}
        show_slice(axes, tile.box.crop(tile.pixels), view.spacing, **window, interpolation="antialiased")
        if column == 0:
            mark_sides(axes, view.plane, 7)
    with complete_file(path) as temporary:
        how = {"quality": _JPEG_QUALITY, "optimize": True}
        figure.savefig(temporary, format="jpeg", dpi=100, facecolor="black", pil_kwargs=how)


def _middle_slice(result: Result) -> int:
    """The middle, in display order, of the slices that hold signal."""
    shown = result.sr.reordered(display_order(result.sr.grid, result.slice_axis)).array_kji
    lit = np.flatnonzero(foreground(shown).mean(axis=(1, 2)) >= _SMALLEST_SHARE)
    return int(lit[len(lit) // 2]) if len(lit) else len(shown) // 2
