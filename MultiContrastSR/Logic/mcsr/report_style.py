"""What the figures share: colours, the letters of a display's sides, title and footer, and a file that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .errors import McsrError
from .imageio import complete_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DISPLAY_LETTERS = {"axial": "RLAP", "sagittal": "APSI", "coronal": "RLSI"}
"""What lies at the left, right, top and bottom of a display, by plane."""

TEXT, FAINT, MARK = "#ececec", "#a8a8a8", "#ffb000"
NOTICE = "Research use only."
_DPI = 110
# The fastest: a file somewhat larger, in half the time.
_PNG_LEVEL = 1
_NICE_PERCENT = (1, 2, 5, 10, 15, 20, 30, 50, 100)


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """An empty figure that can be drawn without a screen.

    Raises:
        McsrError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise McsrError("The figure needs matplotlib; run: pip install matplotlib") from error
    figure = Figure(figsize=(width_inch, height_inch), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG on black; the file appears only when complete.

    Raises:
        OutputError: the file cannot be written.
    """
    with complete_file(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black", pil_kwargs={"compress_level": _PNG_LEVEL})


def show_slice(axes: Axes, pixels: np.ndarray, spacing: np.ndarray, **how: Any) -> tuple[float, float, float, float]:
    """Draw pixels (rows, columns, ...) of a slice in mm; `how` goes to imshow.

    Args:
        axes: to draw into.
        pixels: in display orientation.
        spacing: of rows and columns, mm.
        how: for `Axes.imshow`.

    Returns:
        Left, right, bottom and top in mm; the top is the smaller.
    """
    rows_mm, columns_mm = spacing
    extent = (0.0, pixels.shape[1] * float(columns_mm), pixels.shape[0] * float(rows_mm), 0.0)
    axes.set_facecolor("black")
    axes.imshow(pixels, extent=extent, **how)
    axes.set_xticks([])
    axes.set_yticks([])
    return extent


def mark_sides(axes: Axes, plane: str, size: float = 9) -> None:
    """Write at each side of a display which side of the patient it is."""
    places = [
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    ]
    for letter, (x, y, horizontal, vertical) in zip(DISPLAY_LETTERS[plane], places, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, color=MARK, fontsize=size, ha=horizontal, va=vertical)


def colour_map(name: str) -> Colormap:
    """A colour map of matplotlib, or "residual": blue below zero, red above."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if name != "residual":
        return colormaps[name]
    # Zero is black, as everything around the images: what was not changed does not show.
    return LinearSegmentedColormap.from_list("residual", ["#9fe8ff", "#1f78d1", "#000000", "#d1441f", "#ffe29f"])


def nice_limit(percent: np.ndarray, share: float) -> float:
    """The end of a colour scale, percent of the range: a round number that `share` percent of the pixels stay below."""
    wanted = float(np.percentile(percent, share))
    return float(next((nice for nice in _NICE_PERCENT if nice >= wanted), _NICE_PERCENT[-1]))


def text_width_inch(figure: Figure, words: str, size: float, *, bold: bool = False) -> float:
    """Width of one line of text."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    renderer = cast(Any, figure.canvas).get_renderer()  # of the canvas that `new_figure` made
    return float(renderer.get_text_width_height_descent(words, font, ismath=False)[0] / figure.dpi)


def write_words(figure: Figure, margin_inch: float, title: str, subtitle: str, caption: str) -> None:
    """Title and subtitle above, caption and notice below; what is too long for the figure is written smaller."""
    width, height = figure.get_size_inches()
    left, right, room = margin_inch / width, 1 - margin_inch / width, width - 2 * margin_inch
    room_below = room - text_width_inch(figure, f"    {NOTICE}", 10)

    def write(words: str, y_inch: float, size: float, room: float, *, bold: bool = False, **how: Any) -> None:
        # Step by step: hinted letters do not shrink evenly.
        while size > 1 and text_width_inch(figure, words, size, bold=bold) > room:
            size *= 0.95
        weight = "bold" if bold else "normal"
        figure.text(left, y_inch / height, words, fontsize=size, weight=weight, parse_math=False, **how)

    write(title, height - 0.14, 13, room, bold=True, color=TEXT, va="top")
    write(subtitle, height - 0.38, 10, room, color=FAINT, va="top")
    write(caption, 0.2, 10, room_below, color=FAINT, va="bottom")
    figure.text(right, 0.2 / height, NOTICE, color=TEXT, fontsize=10, va="bottom", ha="right")
