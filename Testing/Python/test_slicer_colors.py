"""Colour maps, ranges and legends of maps. On real MRML."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import slicer
from mcsr_slicer.colors import applyColours, colorNode, displayRange, normalColours, showLegend
from scene_nodes import new_volume


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("gray", "grey"),
        ("RdBu", "diverging"),
        ("residual", "diverging"),
        ("inferno", "sequential"),
        ("?", "sequential"),
    ],
)
def test_names_of_both_kinds_are_understood(given: str, word: str) -> None:
    assert normalColours(given) == word


def test_colour_nodes_are_made_once(scene) -> None:
    first = colorNode(scene, "inferno")
    assert colorNode(scene, "sequential") is first
    assert colorNode(scene, "labels", 5) is not colorNode(scene, "labels", 6)
    assert colorNode(scene, "grey").GetName() == "Grey"


def test_every_label_has_a_colour_of_its_own(scene) -> None:
    node, colors = colorNode(scene, "labels", 12), []
    for label in range(12):
        rgba = [0.0] * 4
        node.GetColor(label, rgba)
        colors.append(rgba[:3])
    apart = np.linalg.norm(np.array(colors)[:, None] - np.array(colors)[None], axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.1
    assert np.diag(apart, 1).min() > 0.5


def values(low: float, high: float) -> np.ndarray:
    """Evenly spread, one outlier at each end, zeros outside the canvas."""
    array = np.zeros((4, 50, 50), np.float32)
    array[:, 10:40] = np.linspace(low, high, 4 * 30 * 50).reshape(4, 30, 50)
    array[0, 10, :2] = -1000, 1000
    return array


@pytest.mark.parametrize(
    ("colours", "limits", "low", "high"),
    [
        ("sequential", (None, None), 2, 8),
        ("sequential", (0, None), 0, 8),
        ("sequential", (0, 10), 0, 10),
        ("sequential", (0, 100), 2, 8),
        ("diverging", (None, None), -8, 8),
        ("diverging", (-3, None), -3, 3),
        ("labels", (0, 7), -0.5, 7.5),
    ],
)
def test_range_is_natural_or_what_few_exceed(colours, limits, low, high) -> None:
    found = displayRange(values(2, 8), colours, limits)
    assert found == pytest.approx((low, high), abs=0.1)


@pytest.mark.parametrize("array", [np.zeros((2, 3, 4)), np.full((2, 3, 4), 5.0), np.full((2, 3, 4), np.nan)])
@pytest.mark.parametrize("colours", ["sequential", "diverging", "labels"])
def test_constant_maps_have_a_range_too(colours, array) -> None:
    low, high = displayRange(array, colours)
    assert high > low


def test_legend_follows_the_range_and_wraps_its_title(scene) -> None:
    array = values(-0.2, 0.3)
    node = new_volume(scene, array, np.eye(4))
    applyColours(node, array, "diverging", (-0.3, 0.3))
    showLegend(node, "Common part of the target", "scaled intensity")
    showLegend(node, "Common part of the target", "scaled intensity")
    (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert legend.GetTitleText() == "Common part of\nthe target\n(scaled\nintensity)"
    assert legend.GetLabelFormat() == "%.2f"
    assert legend.GetSize()[0] == pytest.approx(5 * 0.014), "-0.30 has five letters"
    assert (node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()) == (-0.3, 0.3)
