"""Colour maps, display ranges and legends of residuals and maps, as in the figures of the command line."""

from __future__ import annotations

import colorsys
import textwrap

import numpy as np
import slicer

CATEGORY = "MultiContrastSR"
_GREY_ID = "vtkMRMLColorTableNodeGrey"
_SAMPLES = 256

# Zero is black, as everything around the images: what was not changed does not show.
_STOPS = {
    "diverging": ("#9fe8ff", "#1f78d1", "#000000", "#d1441f", "#ffe29f"),
    "sequential": (
        *("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60"),
        *("#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"),
    ),
}
_SYNONYMS = {
    "grey": ("gray", "greys", "grays"),
    "diverging": ("residual", "coolwarm", "bwr", "seismic", "rdbu", "rdbu_r"),
    "labels": ("tab10", "tab20"),
}
_WORDS = {synonym: word for word, synonyms in _SYNONYMS.items() for synonym in (word, *synonyms)}

_ROBUST_PERCENT = (1.0, 99.5)
_SMALL_PART = 1 / 3
_MOST_VALUES = 500_000
_MOST_LABELS = 256
_LEGEND_LINE, _LEGEND_LABELS = 16, 5
# Fractions of a view. Slicer draws all text of a legend as large as the labels fit beside the bar, whatever font size
# it is asked for, and lets the title grow upwards from the bar. A width by the longest label keeps both off the image.
_LEGEND_WIDTH_PER_LETTER, _LEGEND_HEIGHT, _LEGEND_POSITION = 0.014, 0.33, (0.98, 0.77)


def normalColours(colours: str) -> str:
    """The engine's word for a colour map: "grey", "diverging", "labels"; "sequential" for all others."""
    return _WORDS.get(colours.lower(), "sequential")


def colorNode(scene: slicer.vtkMRMLScene, colours: str, labelCount: int = 0) -> slicer.vtkMRMLColorNode:
    """The scene's colour node for a colour map; made where there is none, once per scene.

    :param colours: a word of the engine or a name of matplotlib.
    :param labelCount: how many colours, for labels.
    """
    colours = normalColours(colours)
    if colours == "grey":
        return scene.GetNodeByID(_GREY_ID)
    tag = f"MultiContrastSR.{colours}{labelCount if colours == 'labels' else ''}"
    node = scene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is None:
        rgb = _labelColors(labelCount) if colours == "labels" else _interpolated(_STOPS[colours])
        node = _newTable(scene, tag, f"MultiContrastSR {colours}", rgb)
    return node


def displayRange(
    array: np.ndarray, colours: str, limits: tuple[float | None, float | None] | None = None
) -> tuple[float, float]:
    """Values of the first and the last colour: the natural limits, else what few values exceed.

    Diverging ranges are symmetric about 0, labels have half a step on either side. Exact zeros do not count: maps are
    0 outside the part of the image that the network saw.

    :param limits: natural range of the values, None at a side where the data decide.
    """
    values = array.ravel()[:: max(1, array.size // _MOST_VALUES)]
    values = values[np.isfinite(values) & (values != 0)]
    if not values.size:
        values = np.array([0.0, 1.0])
    low, high = limits or (None, None)
    colours = normalColours(colours)
    if colours == "labels":
        top = float(np.nan_to_num(array).max()) if high is None else high
        return -0.5, min(max(top, 1.0), _MOST_LABELS - 1) + 0.5
    if colours == "diverging":
        given = [abs(end) for end in (low, high) if end is not None]
        end = max(given) if given else float(np.percentile(np.abs(values), _ROBUST_PERCENT[1]))
        return -end, end
    bottom, top = (float(p) for p in np.percentile(values, _ROBUST_PERCENT))
    if low is not None and high is not None and top - bottom < _SMALL_PART * (high - low):
        low = high = None  # of the natural range so little is used that it would be one flat colour
    low, high = (bottom if low is None else low), (top if high is None else high)
    return float(low), float(high if high > low else low + 1)


def applyColours(
    node: slicer.vtkMRMLScalarVolumeNode,
    array: np.ndarray,
    colours: str,
    limits: tuple[float | None, float | None] | None = None,
) -> None:
    """Show a volume in a colour map over a fixed range."""
    low, high = displayRange(array, colours, limits)
    colours = normalColours(colours)
    count = round(high - low) if colours == "labels" else 0
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetAndObserveColorNodeID(colorNode(node.GetScene(), colours, count).GetID())
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(low, high)
        # There is nothing between two labels.
        display.SetInterpolate(colours != "labels")


def showLegend(node: slicer.vtkMRMLScalarVolumeNode, title: str, unit: str = "") -> None:
    """A slim colour legend in the upper right corner of the views that show the volume, made once and updated."""
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    display = node.GetDisplayNode()
    ends = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    labelFormat = _labelFormat(*ends)
    lines = textwrap.wrap(title, _LEGEND_LINE) + (textwrap.wrap(f"({unit})", _LEGEND_LINE) if unit else [])
    with slicer.util.NodeModify(legend):
        legend.SetTitleText("\n".join(lines))
        legend.SetSize(_LEGEND_WIDTH_PER_LETTER * max(len(labelFormat % end) for end in ends), _LEGEND_HEIGHT)
        legend.SetPosition(*_LEGEND_POSITION)
        legend.SetNumberOfLabels(_LEGEND_LABELS)
        legend.SetLabelFormat(labelFormat)
        legend.SetVisibility(True)
        for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            text.SetFontFamilyToArial()
            text.SetBold(False)
            text.SetItalic(False)
            text.SetShadow(True)


def hideLegend(node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Take the volume's legend, if it has one, out of all views."""
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetVisibility(False)


def _labelFormat(low: float, high: float) -> str:
    """As many decimals as the ends of the scale need to differ."""
    if low == -0.5:  # labels, whose colours reach half a step to either side
        return "%.1f"
    largest = max(abs(low), abs(high))
    known = ((20, "%.0f"), (2, "%.1f"), (0.1, "%.2f"), (0.005, "%.3f"))
    return next((form for least, form in known if largest >= least), "%.0e")


def _newTable(scene: slicer.vtkMRMLScene, tag: str, name: str, rgb: np.ndarray) -> slicer.vtkMRMLColorTableNode:
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(name)
    node.SetSingletonTag(tag)
    node.SetAttribute("Category", CATEGORY)
    node.SetTypeToUser()
    node.SetNumberOfColors(len(rgb))
    for number, color in enumerate(rgb):
        node.SetColor(number, str(number), *(float(c) for c in color), 1.0)
    return scene.AddNode(node)


def _interpolated(stops: tuple[str, ...]) -> np.ndarray:
    """(256, 3) colours 0..1 between evenly spaced ones."""
    corners = np.array([[int(stop[n : n + 2], 16) for n in (1, 3, 5)] for stop in stops]) / 255
    places = np.linspace(0, len(stops) - 1, _SAMPLES)
    return np.stack([np.interp(places, range(len(stops)), channel) for channel in corners.T], axis=1)


def _labelColors(count: int) -> np.ndarray:
    """(count, 3) colours, neighbours far apart in hue."""
    golden = 0.618
    return np.array([colorsys.hsv_to_rgb((0.58 + golden * n) % 1, 0.65 if n % 2 else 0.8, 0.95) for n in range(count)])
