"""The canvas and the intensity scale."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.canvas import BLEND_HR, Canvas, rim_weight, signal_canvas
from mcsr.errors import InputError
from mcsr.intensity import foreground, intensity_scale


def _head(rows: slice, columns: slice, shape: tuple[int, int, int] = (3, 96, 80)) -> np.ndarray:
    slices = np.random.default_rng(0).rayleigh(0.01, shape).astype(np.float32)
    slices[1][rows, columns] = 1.0
    return slices


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_canvas_holds_the_signal_and_its_margin_in_the_asked_multiple(factor: int) -> None:
    canvas = signal_canvas(_head(slice(30, 60), slice(25, 50)), factor, multiple=8)
    margin = 16 / factor
    assert canvas.row <= 30 - margin
    assert canvas.row + canvas.rows >= 60 + margin
    assert canvas.column <= 25 - margin
    assert canvas.column + canvas.columns >= 50 + margin
    assert canvas.rows * factor % 8 == 0
    assert canvas.columns * factor % 8 == 0
    assert canvas.rows < 30 + 2 * margin + 2 + 8, "no larger than the multiple asks for"


def test_single_bright_voxels_do_not_widen_the_canvas() -> None:
    slices = _head(slice(30, 60), slice(25, 50))
    before = signal_canvas(slices, 4)
    slices[0, 2, 3] = 1.0
    assert signal_canvas(slices, 4) == before


def test_the_canvas_stays_inside_the_image() -> None:
    canvas = signal_canvas(_head(slice(0, 96), slice(2, 79)), 4)
    assert (canvas.row, canvas.rows) == (0, 96)
    assert canvas.column >= 0
    assert canvas.column + canvas.columns <= 80


def test_the_rim_blends_except_at_the_image_border() -> None:
    weight = rim_weight(Canvas(0, 10, 10, 20), 4, (96, 200))
    assert weight.shape == (40, 80)
    assert weight[0, 40] == 1, "the canvas touches the upper border: nothing to blend with"
    assert weight[-1, 40] == pytest.approx(0.5 / BLEND_HR)
    assert weight[20, 0] == pytest.approx(0.5 / BLEND_HR)
    assert weight[20, 40] == 1


def test_the_scale_follows_the_signal_not_the_size_of_the_background() -> None:
    head = np.random.default_rng(0).uniform(50, 100, (20, 20, 20))
    padded = np.pad(head, 20)
    assert intensity_scale(padded) == pytest.approx(intensity_scale(head), rel=1e-3)
    assert intensity_scale(head) == pytest.approx(100, rel=0.01)
    assert intensity_scale(3.5e6 * head) == pytest.approx(3.5e6 * intensity_scale(head))
    assert foreground(padded).sum() == head.size


def test_an_image_without_signal_has_no_scale() -> None:
    with pytest.raises(InputError, match="T2 has no positive voxel"):
        intensity_scale(np.zeros((3, 3, 3)), "T2")
