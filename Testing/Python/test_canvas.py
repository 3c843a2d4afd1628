"""The canvas and the intensity scale."""

from __future__ import annotations

import numpy as np
import pytest
from mcsr.canvas import BLEND_HR, Canvas, native_canvas, rim_weight, signal_canvas
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


@pytest.mark.parametrize(
    ("rows", "columns", "multiple", "expected"),
    [
        (slice(30, 60), slice(25, 50), 8, Canvas(26, 21, 38, 34)),
        (slice(50, 95), slice(3, 40), 16, Canvas(44, 0, 52, 44)),
    ],
    ids=["amid the image", "at its border"],
)
def test_the_canvas_is_the_box_that_a_person_would_draw(
    rows: slice, columns: slice, multiple: int, expected: Canvas
) -> None:
    assert signal_canvas(_head(rows, columns), 4, multiple) == expected


@pytest.mark.parametrize(
    ("shape", "signal", "expected"),
    [
        ((3, 20, 18), slice(5, 15), Canvas(-2, -2, 24, 24)),
        ((3, 24, 24), slice(2, 21), Canvas(0, 0, 24, 24)),
        ((3, 100, 90), slice(30, 50), Canvas(28, 28, 24, 24)),
        ((3, 100, 90), slice(30, 51), Canvas(26, 26, 29, 29)),
    ],
    ids=["beyond a small slice", "the slice", "signal that just fits", "signal that does not fit"],
)
def test_a_native_canvas_is_the_square_about_the_signal(
    shape: tuple[int, int, int], signal: slice, expected: Canvas
) -> None:
    assert native_canvas(_head(signal, signal, shape), 4, 96) == expected


def test_what_is_padded_beyond_the_image_repeats_its_border_and_comes_off_again() -> None:
    image = np.random.default_rng(0).random((2, 12, 18))
    inside, beyond = Canvas(1, 2, 4, 5), Canvas(-2, 3, 10, 8)
    np.testing.assert_array_equal(inside.crop(image, 2), image[:, 2:10, 4:14])
    np.testing.assert_array_equal(beyond.crop(image, 2), image[:, :, 6:])
    rows, columns = np.clip(np.arange(-4, 16), 0, 11), np.clip(np.arange(6, 22), 0, 17)
    np.testing.assert_array_equal(beyond.padded(image, 2), image[:, rows][:, :, columns])
    for canvas in (inside, beyond):
        whole = canvas.padded(image, 2)
        np.testing.assert_array_equal(canvas.unpadded(whole, image.shape, 2), canvas.crop(image, 2))


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
