"""The figures of a study: box plots of all models and conditions, and error maps of one slice of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluation_conditions import CONDITIONS, NO_REFERENCE
from .evaluation_study import BASELINE, Case, Run
from .report_style import (
    FAINT,
    MARK,
    TEXT,
    colour_map,
    mark_sides,
    new_figure,
    nice_limit,
    save_figure,
    show_slice,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart with any kind of colour vision, and on black.
_OF_CONDITIONS = ("#56b4e9", "#f0e442", "#e06c4f", "#cc79a7", "#009e73")
_OF_ARTEFACTS = ("#e69f00", "#6a8fd8", "#a6761d", "#88ccaa", "#aa4499", "#ddcc77")
_COLOURS = dict(zip(CONDITIONS, _OF_CONDITIONS + _OF_ARTEFACTS, strict=True))
_COLOURS[NO_REFERENCE] = "#b0b0b0"
_WORDS = {"psnr": ("PSNR", "PSNR (dB)"), "ssim": ("SSIM", "SSIM (1: equal)")}

# Sizes in inches.
_BOX_STEP, _BOX_HEIGHT, _LEFT, _RIGHT, _HEADER, _FOOTER = 0.42, 4.2, 0.85, 0.3, 0.85, 1.25
_PANEL, _GAP, _MARGIN, _BAR, _LABELS, _CAPTION = 2.9, 0.1, 0.2, 0.95, 0.5, 0.5
_NARROWEST = 9.5
_MOST_RUNS = 6
_BELOW_LIMIT_PERCENT = 99


def write_box_plot(path: Path, cases: Sequence[Case], metric: str) -> None:
    """Draw one metric of all slices at one scale: a group of boxes for each model, a colour for each condition.

    Args:
        path: of the PNG file.
        cases: at one scale.
        metric: "psnr" or "ssim".

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    groups = _groups(cases, metric)
    boxes = sum(len(found) for found in groups.values()) + len(groups)
    width = max(_NARROWEST, _LEFT + boxes * _BOX_STEP + _RIGHT)
    height = _HEADER + _BOX_HEIGHT + _FOOTER
    figure = new_figure(width, height)
    box = (_LEFT / width, _FOOTER / height, 1 - (_LEFT + _RIGHT) / width, _BOX_HEIGHT / height)
    axes = figure.add_axes(box)
    _draw_boxes(axes, groups)
    if metric == "psnr":
        _draw_ceiling(axes, cases)
    _style(axes, _WORDS[metric][1])
    pairs = dict.fromkeys(case.pair for case in cases)
    names = list(pairs) if len(pairs) <= 3 else [f"{len(pairs)} pairs of {len({c.subject for c in cases})} subjects"]
    count = sum(len(case.slices) for case in cases)
    write_words(
        figure,
        _MARGIN,
        f"{_WORDS[metric][0]} of the slices at x{cases[0].scale}",
        f"{'; '.join(names)}: {count} slices",
        "Box: quartiles and median; whiskers: to 1.5 times the box; points: slices beyond. Whole slices, data range 1.",
    )
    save_figure(path, figure)


def write_error_maps(path: Path, case: Case) -> None:
    """Draw the case's shown slice: above the truth and what came of it, below the reference and the errors' magnitudes.

    The errors have one scale. All runs are shown where there is room; else the baseline and each network under its
    first condition.

    Raises:
        McsrError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    runs = list(case.runs)
    if len(runs) > _MOST_RUNS:
        networks = [
            case.run(model) for model in dict.fromkeys(run.model for run in runs if run.condition in CONDITIONS)
        ]
        runs = [case.run(BASELINE), *networks]
    rows_mm, columns_mm = case.spacing_mm
    tall = _PANEL * case.truth_picture.shape[0] * rows_mm / (case.truth_picture.shape[1] * columns_mm)
    width = 2 * _MARGIN + (len(runs) + 1) * (_PANEL + _GAP) + _BAR
    height = _HEADER + 2 * (tall + _LABELS) + _CAPTION
    figure = new_figure(width, height)
    errors = [100 * np.abs(run.picture - case.truth_picture) for run in runs]
    limit = nice_limit(errors[0], _BELOW_LIMIT_PERCENT)
    white = _white(case.truth_picture)

    def panel(row: int, column: int) -> Axes:
        left, bottom = _MARGIN + column * (_PANEL + _GAP), height - _HEADER - tall - row * (tall + _LABELS)
        return figure.add_axes((left / width, bottom / height, _PANEL / width, tall / height))

    _draw_image(panel(0, 0), case, case.truth_picture, "gray", white, "Truth", "the original")
    reference = case.reference_picture
    lower = panel(1, 0)
    _draw_image(lower, case, reference, "gray", _white(reference), "", f"{case.reference}, the true reference")
    for column, (run, error) in enumerate(zip(runs, errors, strict=True), 1):
        n = case.slices.index(case.shown)
        note = f"PSNR {run.scores['psnr'][n]:.2f} dB   SSIM {run.scores['ssim'][n]:.3f}"
        _draw_image(panel(0, column), case, run.picture, "gray", white, _title(run), note)
        note = f"RMS {np.sqrt(np.mean(error**2)):.2f} %"
        _draw_image(panel(1, column), case, error, "inferno", limit, "", note)
    left, bottom = width - _BAR - _MARGIN + 0.1, height - _HEADER - 2 * tall - _LABELS
    bar = figure.add_axes((left / width, (bottom + 0.1 * tall) / height, 0.14 / width, 0.8 * tall / height))
    _draw_bar(figure, bar, limit)
    write_words(
        figure,
        _MARGIN,
        f"{case.session}: {case.target} at x{case.scale} with the help of {case.reference}",
        f"{case.plane.capitalize()} slice {case.shown} (counted from 0), the one of {len(case.slices)} with the median "
        f"PSNR of {BASELINE}; scores are of this slice",
        f"Errors: magnitude in percent of the original's 99.9 foreground percentile, all on one scale; "
        f"pixels {rows_mm:.2f} x {columns_mm:.2f} mm. RMS: of the part shown.",
    )
    save_figure(path, figure)


def _groups(cases: Sequence[Case], metric: str) -> dict[str, dict[str, np.ndarray]]:
    """Values of all slices, by model and condition."""
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for case in cases:
        for run in case.runs:
            values = run.scores[metric]
            found.setdefault(run.model, {}).setdefault(run.condition, []).append(values[np.isfinite(values)])
    return {model: {c: np.concatenate(v) for c, v in by.items()} for model, by in found.items()}


def _draw_boxes(axes: Axes, groups: dict[str, dict[str, np.ndarray]]) -> None:
    place, ticks = 0.0, []
    used: dict[str, Any] = {}
    for by_condition in groups.values():
        first = place
        for condition, values in by_condition.items():
            line = {"color": _COLOURS[condition], "linewidth": 1.2}
            drawn = axes.boxplot(
                [values],
                positions=[place],
                widths=0.7,
                patch_artist=True,
                boxprops={"facecolor": "none", "edgecolor": _COLOURS[condition], "linewidth": 1.2},
                medianprops={"color": TEXT, "linewidth": 1.6},
                whiskerprops=line,
                capprops=line,
                flierprops={"marker": ".", "markersize": 4, "markeredgecolor": _COLOURS[condition]},
            )
            used.setdefault(condition, drawn["boxes"][0])
            place += 1
        ticks.append((first + place - 1) / 2)
        place += 1
    axes.set_xlim(-1, place - 1)
    axes.set_xticks(ticks, list(groups))
    named = {condition: handle for condition, handle in used.items() if condition != NO_REFERENCE}
    if named:
        axes.legend(
            list(named.values()),
            [f"{condition} reference" if condition != "self" else "self (no reference)" for condition in named],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.1),
            ncols=len(named),
            frameon=False,
            labelcolor=TEXT,
            fontsize=9.5,
        )


def _draw_ceiling(axes: Axes, cases: Sequence[Case]) -> None:
    known = {(case.session, case.target): case.ceiling for case in cases if case.ceiling is not None}
    for (session, target), ceiling in known.items():
        axes.axhline(float(ceiling.mean()), color=MARK, linestyle="--", linewidth=1)
        words = "noise ceiling (estimate)" if len(known) == 1 else f"noise ceiling, {session} {target}"
        left = axes.get_xlim()[0]
        axes.text(left, float(ceiling.mean()), f" {words}", color=MARK, fontsize=8.5, ha="left", va="bottom")


def _style(axes: Axes, label: str) -> None:
    axes.set_facecolor("black")
    axes.set_ylabel(label, color=TEXT, fontsize=10.5)
    axes.tick_params(colors=TEXT, labelsize=10)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#333333", linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color("#555555")


def _draw_image(axes: Axes, case: Case, pixels: np.ndarray, colours: str, limit: float, title: str, note: str) -> None:
    window = {"cmap": colour_map(colours), "vmin": 0.0, "vmax": limit, "interpolation": "bicubic"}
    show_slice(axes, pixels, np.array(case.spacing_mm), **window)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        mark_sides(axes, case.plane)
    axes.set_title(title, color=TEXT, fontsize=11, pad=5)
    axes.set_xlabel(note, color=FAINT, fontsize=9.5, labelpad=4)


def _draw_bar(figure: Figure, axes: Axes, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, limit), colour_map("inferno")), cax=axes)
    bar.outline.set_edgecolor(FAINT)
    axes.tick_params(colors=TEXT, labelsize=9)
    axes.set_ylabel("Error, magnitude (% of range)", color=TEXT, fontsize=9.5)


def _title(run: Run) -> str:
    return run.model if run.condition == NO_REFERENCE else f"{run.model}, {run.condition}"


def _white(pixels: np.ndarray) -> float:
    """The upper end of the window; what little is brighter, most of it fat, is shown white."""
    return float(np.percentile(pixels, 99.5)) or 1.0
