"""The figure of expected against real errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .evaluation_trust import Reliability
from .report_style import MARK, TEXT, new_figure, save_figure, write_words

_COLOURS = ("#56b4e9", "#f0e442", "#e06c4f", "#cc79a7", "#009e73", "#b0b0b0")
_PANEL, _GAP, _LEFT, _TOP, _BOTTOM = 2.7, 0.55, 0.75, 1.15, 0.75
_COLUMNS = 4


def write_reliability(path: Path, found: Mapping[str, Sequence[Reliability]]) -> None:
    """Draw one panel for each weights file, a line for each case: the mean real error of each tenth of the voxels over
    their mean expected error.

    Args:
        path: of the PNG file.
        found: by weights.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    columns = min(_COLUMNS, max(1, len(found)))
    rows = -(-max(1, len(found)) // columns)
    width = max(8.0, _LEFT + columns * (_PANEL + _GAP))
    height = _TOP + rows * (_PANEL + _GAP + 0.25) + _BOTTOM
    figure = new_figure(width, height)
    subtitle = "Mean absolute error in % of the target's bright tissue. Each dot is a tenth of the foreground's voxels."
    write_words(figure, 0.2, "Expected and real error", subtitle, "On the dashed line what is expected is right.")
    limit = 1.05 * max(
        (float(max(c.expected.max(), c.real.max())) for cases in found.values() for c in cases), default=1
    )
    for number, (name, cases) in enumerate(found.items()):
        row, column = divmod(number, columns)
        left = _LEFT + column * (_PANEL + _GAP)
        bottom = height - _TOP - (row + 1) * (_PANEL + _GAP + 0.25) + _GAP
        axes = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
        axes.set_facecolor("black")
        axes.plot([0, limit], [0, limit], color=MARK, linestyle="--", linewidth=1)
        for colour, case in zip(_COLOURS, cases, strict=False):
            label = f"{case.key} (r = {case.correlation:.2f})"
            axes.plot(case.expected, case.real, "o-", color=colour, markersize=3.5, linewidth=1.2, label=label)
        axes.set_xlim(0, limit)
        axes.set_ylim(0, limit)
        axes.set_title(name, color=TEXT, fontsize=11)
        axes.tick_params(colors=TEXT, labelsize=9)
        axes.legend(loc="upper left", frameon=False, labelcolor=TEXT, fontsize=6.5)
        axes.set_xlabel("expected (%)", color=TEXT, fontsize=9)
        if not column:
            axes.set_ylabel("real (%)", color=TEXT, fontsize=9)
        for spine in axes.spines.values():
            spine.set_color("#555555")
    save_figure(path, figure)
