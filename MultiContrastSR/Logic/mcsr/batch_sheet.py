"""The quick look at a batch: sheets of small pictures, result and change of each subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .batch_overview import count_words
from .batch_strip import CHANGE_PERCENT, SIDE, STRIP_FILE
from .batch_table import DONE, FAILED, WAITING, Row, worst_first
from .report_style import FAINT, MARK, TEXT, new_figure, save_figure, write_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET_FILE = "overview.png"

_COLUMNS, _ROWS = 4, 7
# Sizes in inches: a picture, the space for its words, and the margins of the sheet.
_TILE, _WORDS, _GAP, _MARGIN, _HEADER, _FOOTER = 1.6, 0.3, 0.12, 0.25, 0.75, 0.5
_RED, _EMPTY = "#ff6b5e", "#1c1c1c"
_COLOURS = {FAILED: _RED, WAITING: FAINT}


def write_sheets(folder: Path, rows: Sequence[Row], title: str) -> list[Path]:
    """Write `SHEET_FILE` and, for many subjects, overview-2.png and so on; those of an earlier run are replaced.

    Args:
        folder: of the batch; pictures are taken from the subjects' folders.
        rows: of all subjects.
        title: of the sheets.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    ordered, each = worst_first(rows), _COLUMNS * _ROWS
    pages = [ordered[start : start + each] for start in range(0, len(ordered), each)]
    written = []
    for number, page in enumerate(pages, start=1):
        name = SHEET_FILE if number == 1 else SHEET_FILE.replace(".", f"-{number}.")
        of = f" Sheet {number} of {len(pages)}." if len(pages) > 1 else ""
        save_figure(folder / name, _sheet(folder, page, title, f"{count_words(rows)}{of}"))
        written.append(folder / name)
    for file in set(folder.glob(SHEET_FILE.replace(".", "-*."))) - set(written):
        file.unlink()
    return written


def _sheet(folder: Path, rows: Sequence[Row], title: str, subtitle: str) -> Figure:
    columns, lines = min(_COLUMNS, max(2, len(rows))), -(-len(rows) // _COLUMNS)
    width = 2 * _MARGIN + columns * (2 * _TILE + _GAP) - _GAP
    height = _HEADER + lines * (_TILE + _WORDS) + _FOOTER
    figure = new_figure(width, height)
    for number, row in enumerate(rows):
        line, column = divmod(number, _COLUMNS)
        left = _MARGIN + column * (2 * _TILE + _GAP)
        top = height - _HEADER - line * (_TILE + _WORDS)
        axes = figure.add_axes((left / width, (top - _TILE) / height, 2 * _TILE / width, _TILE / height))
        axes.set_xticks([])
        axes.set_yticks([])
        colour = _COLOURS.get(row.status, MARK if row.flags else TEXT)
        for spine in axes.spines.values():
            spine.set_visible(colour != TEXT)
            spine.set_color(colour)
            spine.set_linewidth(1.5)
        picture = _result_and_change(folder / row.subject / STRIP_FILE) if row.status == DONE else None
        if picture is None:
            axes.set_facecolor(_EMPTY)
            axes.text(0.5, 0.5, row.status, transform=axes.transAxes, color=colour, ha="center", va="center")
        else:
            axes.set_facecolor("black")
            axes.imshow(picture, aspect="auto")
        axes.set_xlabel(_shortened(_words(row)), color=colour, fontsize=8, labelpad=3)
    write_words(figure, _MARGIN, title, subtitle, f"Result, and what was changed (±{CHANGE_PERCENT:g} % of the range).")
    return figure


def _result_and_change(strip: Path) -> np.ndarray | None:
    """The second and third picture of a strip, (rows, columns, 3); None where there is none."""
    from matplotlib.image import imread

    return imread(strip)[:, SIDE : 3 * SIDE] if strip.is_file() else None


def _words(row: Row) -> str:
    gain = "" if row.psnr_gain_db is None else f"  {row.psnr_gain_db:+.2f} dB"
    return f"{row.subject}{gain}"


def _shortened(words: str, length: int = 40) -> str:
    return words if len(words) <= length else f"{words[: length - 1]}…"
