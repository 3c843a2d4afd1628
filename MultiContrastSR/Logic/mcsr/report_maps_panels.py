"""What the figure of a model's maps shows: one panel for each map, or for maps that only together say something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .intensity import foreground
from .job import Result
from .maps import DIRECTIONS, PART_TITLES, PRINCIPAL_COMPONENTS
from .report_panels import View, display_slice

_FAMILY_OF_IMAGES = "For orientation"
_ROBUST_PERCENT = (1.0, 99.5)
_SMALL_PART = 1 / 3
_NEARLY_ZERO = 0.2
"""A scale that reaches down to this share of its end starts at 0."""
_CONSTANT = 1e-6


@dataclass(frozen=True)
class MapPanel:
    """One image of the figure.

    Args:
        names: of the maps it shows; none for the images of the job itself.
        family: heading under which it stands.
        title: a few words.
        meaning: what a bright pixel says.
        unit: of the values; "" where no scale is drawn.
        colours: "grey", "sequential", "diverging", "labels", "wheel" or "mixture".
        pixels: (rows, columns) of the head in the slice; (rows, columns, 2) along columns and rows of a "wheel";
            (rows, columns, 3) of a "mixture", 0..1.
        limits: values of the first and the last colour; equal where all pixels of the head have one value.
    """

    names: tuple[str, ...]
    family: str
    title: str
    meaning: str
    unit: str
    colours: str
    pixels: np.ndarray
    limits: tuple[float, float]


def head_mask(result: Result, view: View) -> np.ndarray:
    """Pixels of the crop that have signal on all four sides; all of them where there is no signal."""
    lit = foreground(view.head.crop(display_slice(result.sr, result.slice_axis, view.index)))
    sides = [np.logical_or.accumulate(lit, axis=axis) for axis in (0, 1)]
    sides += [np.flip(np.logical_or.accumulate(np.flip(lit, axis), axis=axis), axis) for axis in (0, 1)]
    inside = np.logical_and.reduce(sides)
    return inside if inside.any() else np.ones_like(inside)


def map_panels(result: Result, view: View, inside: np.ndarray) -> list[MapPanel]:
    """All panels, the images first, then the maps by family in the order in which families first come.

    Args:
        result: of a job.
        view: of that job's figure: its slice and its crop.
        inside: see `head_mask`.
    """
    panels = []
    shown: set[str] = set()
    for name in result.maps:
        if name not in shown:
            names = _together(name, result)
            shown |= set(names)
            panels.append(_panel(names, result, view, inside))
    families = list(dict.fromkeys(panel.family for panel in panels))
    return [*_images(view), *sorted(panels, key=lambda panel: families.index(panel.family))]


def _images(view: View) -> list[MapPanel]:
    """Target and reference, as the other figure shows them."""
    tiles = {tile.title: tile for tile in view.rows[0]}
    words = {
        "Result": ("Enhanced target", "The result that the maps explain."),
        "Reference": ("Reference", "Registered, on the same grid, window of its own."),
    }
    return [
        MapPanel(
            (), _FAMILY_OF_IMAGES, *words[name], "", "grey", view.head.crop(tiles[name].pixels), tiles[name].limits
        )
        for name in words
    ]


def _together(name: str, result: Result) -> tuple[str, ...]:
    """The maps that are shown in one panel with this one."""
    key, _, part = name.partition(".")
    for parts in (PRINCIPAL_COMPONENTS, DIRECTIONS):
        names = tuple(f"{key}.{p}" for p in parts)
        if part in parts and all(other in result.maps for other in names):
            return names
    return (name,)


def _panel(names: tuple[str, ...], result: Result, view: View, inside: np.ndarray) -> MapPanel:
    facts = result.provenance["maps"][names[0]]
    volumes = (result.maps[name] for name in names)
    layers = [view.head.crop(display_slice(volume, result.slice_axis, view.index)) for volume in volumes]
    title, meaning, unit, colours = (facts[key] for key in ("title", "meaning", "unit", "colours"))
    if len(names) > 1:
        title = title.removesuffix(f" ({PART_TITLES[names[0].partition('.')[2]]})")
    if len(names) == len(PRINCIPAL_COMPONENTS):
        windows = [_limits(layer[inside], "sequential", (None, None)) for layer in layers]
        layers = [
            np.clip((layer - low) / ((high - low) or 1.0), 0, 1)
            for layer, (low, high) in zip(layers, windows, strict=True)
        ]
        meaning = "Hue: which mixture of features (principal components 1, 2, 3 as red, green, blue)."
        unit, colours, limits = "", "mixture", (0.0, 1.0)
    elif len(names) == len(DIRECTIONS):
        colours, limits = "wheel", (0.0, float(np.percentile(np.hypot(*layers)[inside], _ROBUST_PERCENT[1])) or 1.0)
    else:
        limits = _limits(layers[0][inside], colours, facts["limits"])
    pixels = layers[0] if len(layers) == 1 else np.stack(layers, axis=-1)
    return MapPanel(names, facts["family"], title, meaning, unit, colours, pixels, limits)


def _limits(values: np.ndarray, colours: str, natural: Any) -> tuple[float, float]:
    """Ends of a colour scale: the natural ones, else those that few values exceed; about 0 for values with a sign.

    A natural range of which the head fills only a small part would show one flat colour, so it gives way too.

    Args:
        values: (N,) within the head.
        colours: see `MapPanel`.
        natural: low and high, None where the data decide.
    """
    if colours == "diverging":
        given = [abs(end) for end in natural if end is not None]
        end = max(given) if given else float(np.percentile(np.abs(values), _ROBUST_PERCENT[1]))
        return 0.0 - end, end  # not -0
    bottom, top = natural
    if bottom is not None and top is not None and np.ptp(values) < _SMALL_PART * (top - bottom):
        natural = (None, None)
    low, high = (
        float(np.percentile(values, percent) if end is None else end)
        for end, percent in zip(natural, _ROBUST_PERCENT, strict=True)
    )
    if natural[0] is None and 0 <= low < _NEARLY_ZERO * high:
        low = 0.0
    return low, high if high - low > _CONSTANT * abs(low) else low
