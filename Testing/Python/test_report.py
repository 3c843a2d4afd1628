"""The figure: orientation, aspect, one scale for what is compared, and a file that is whole or absent."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from grids import SOME_ORDERS, oblique_grid, order_id
from mcsr.errors import GeometryError, McsrError
from mcsr.geometry import PLANES, AxisOrder, Grid, refine_grid, slice_axis_of_plane
from mcsr.job import Result, Settings
from mcsr.metrics import Scores
from mcsr.report import write_figure
from mcsr.report_panels import Panels, View, describe_job, display_slice
from mcsr.report_style import DISPLAY_LETTERS, new_figure, show_slice
from mcsr.volume import Volume

image = pytest.importorskip("matplotlib.image", reason="matplotlib, an extra, is not installed")

GRID = oblique_grid((72, 80, 5), (0.75, 0.75, 4.0))
SCORES = {"result": Scores(31.25, 0.912, 0.01), "interpolated": Scores(27.5, 0.801, 0.03)}
STEPS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def head(seed: int, grid: Grid = GRID) -> np.ndarray:
    """A bright ellipse with structure in the upper left quarter of the display, brightest on slice 3."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    middle = [(n - 1) / 2 for n in grid.shape_ijk]
    inside = ((i - middle[0]) / 28) ** 2 + ((j - middle[1]) / 33) ** 2 < 1
    fine = 40 * np.random.default_rng(seed).normal(size=grid.shape_kji) * ((i < 36) & (j < 40))
    return np.where(inside, 400 + 40 * np.minimum(k, 6 - k) + fine, 0).clip(0).astype(np.float32)


def panels(*, truth: bool = True, error: float = 0.0) -> Panels:
    volumes = [Volume(head(seed), GRID.ijk_to_ras, name=name) for seed, name in ((1, "truth"), (2, "low"), (3, "ref"))]
    result = volumes[0].with_array(volumes[0].array_kji + np.float32(error), name="sr")
    return Panels(volumes[1], result, volumes[2], volumes[0] if truth else None, SCORES if truth else {}, 2, "T", "C")


def reordered(shown: Panels, order: AxisOrder) -> Panels:
    return replace(
        shown,
        interpolated=shown.interpolated.reordered(order),
        result=shown.result.reordered(order),
        reference=shown.reference.reordered(order),
        truth=shown.truth and shown.truth.reordered(order),
        slice_axis=order.axes_ijk.index(shown.slice_axis),
    )


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
@pytest.mark.parametrize("plane", PLANES)
def test_sides_of_the_patient_are_where_the_letters_say(plane: str, order: AxisOrder) -> None:
    """A bright spot towards R, L, A ... of the middle appears at that letter's side of the display."""
    grid = oblique_grid((21, 23, 19), (1.0, 1.0, 1.0), (4.0, -3.0, 5.0))
    places = {"left": (slice(None), slice(None, 7)), "right": (slice(None), slice(-7, None))}
    places |= {"top": (slice(None, 7), slice(None)), "bottom": (slice(-7, None), slice(None))}
    for letter, place in zip(DISPLAY_LETTERS[plane], places.values(), strict=True):
        spot = grid.to_ijk(grid.centre_ras + 8 * np.array(STEPS[letter]))
        array = np.zeros(grid.shape_kji, dtype=np.float32)
        array[tuple(np.rint(spot).astype(int)[::-1])] = 1
        volume = Volume(array, grid.ijk_to_ras).reordered(order)
        axis = slice_axis_of_plane(volume.grid, plane)
        stack = np.array([display_slice(volume, axis, n) for n in range(volume.grid.shape_ijk[axis])])
        assert stack.max(axis=0)[place].sum() == 1


def test_slices_count_from_feet_to_head() -> None:
    grid = oblique_grid((10, 12, 6), (1.0, 1.0, 4.0))
    heights = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None], grid.shape_kji)
    upside_down = Volume(heights, grid.ijk_to_ras).reordered(AxisOrder((0, 1, 2), (False, False, True)))
    assert display_slice(upside_down, 2, 0).max() == 0
    assert display_slice(upside_down, 2, 5).min() == 5


def test_slices_are_drawn_in_millimetres() -> None:
    volume = Volume(np.zeros((10, 20, 30)), np.diag([0.5, 0.8, 3.0, 1.0]))
    axial, sagittal = (display_slice(volume, axis, 4) for axis in (2, 0))
    assert (axial.shape, sagittal.shape) == ((20, 30), (10, 20))
    for pixels, spacing, extent in ((axial, (0.8, 0.5), (0, 15, 16, 0)), (sagittal, (3.0, 0.8), (0, 16, 30, 0))):
        axes = new_figure(2, 2).add_axes((0, 0, 1, 1))
        assert show_slice(axes, pixels, np.array(spacing)) == pytest.approx(extent)
        assert axes.images[0].get_extent() == pytest.approx(extent)


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_all_tiles_are_alike_whatever_the_storage_order(order: AxisOrder) -> None:
    shown = panels(error=9.0)
    straight, other = View(shown, None), View(reordered(shown, order), None)
    assert (other.index, other.head, other.detail) == (straight.index, straight.head, straight.detail)
    for a, b in zip(chain(*straight.rows), chain(*other.rows), strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert (a.title, a.note, a.limits, a.box) == (b.title, b.note, b.limits, b.box)


def test_slice_with_most_signal_is_shown() -> None:
    assert View(panels(), None).index == 3
    assert View(panels(), 1).index == 1


def test_detail_lies_where_the_structure_is() -> None:
    grid = oblique_grid((200, 220, 3), (0.75, 0.75, 4.0))
    _, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    flat = np.where(((i - 100) / 90) ** 2 + ((j - 110) / 100) ** 2 < 1, 300.0, 0.0)
    fine = flat + 50.0 * ((i + j) % 2) * (abs(i - 65) < 20) * (abs(j - 140) < 20)
    truth, low = (Volume(array, grid.ijk_to_ras) for array in (fine, flat))
    box = View(Panels(low, truth, low, truth, {}, 2, "", ""), None).detail
    assert box.column <= 46
    assert box.column + box.columns >= 85
    assert box.row <= 121
    assert box.row + box.rows >= 160


def test_what_is_compared_shares_its_scale() -> None:
    view = View(panels(error=30.0), None)
    overview, crops, errors = view.rows
    assert [tile.title for tile in overview] == ["Acquired, interpolated", "Result", "Truth", "Reference"]
    assert len({tile.limits for tile in overview[:3]}) == 1
    assert len({tile.limits for tile in errors}) == 1
    assert [tile.box for tile in crops] == [view.detail] * 4
    assert overview[1].note == "PSNR 31.25 dB   SSIM 0.912"
    # A constant error of 30 is 30 / scale of the range everywhere.
    np.testing.assert_allclose(errors[1].pixels, 3000 / view.scale, rtol=1e-4)
    assert f"{3000 / view.scale:.2f} %" in errors[1].note


def test_without_truth_the_change_is_shown_about_zero() -> None:
    view = View(panels(truth=False), None)
    overview, crops = view.rows
    change = overview[2]
    assert [tile.title for tile in overview] == [
        "Acquired, interpolated",
        "Result",
        "Result - interpolated",
        "Reference",
    ]
    assert change.limits[0] == -change.limits[1] < 0
    difference = display_slice(view.panels.result, 2, view.index) - overview[0].pixels
    np.testing.assert_allclose(change.pixels, 100 * difference / view.scale, rtol=1e-5, atol=1e-4)
    assert len(crops) == 4


@pytest.mark.parametrize("truth", [True, False])
def test_figure_is_a_picture_on_black(tmp_path: Path, truth: bool) -> None:
    path = tmp_path / "report.png"
    write_figure(path, panels(truth=truth))
    picture = image.imread(path)[..., :3]
    height, width, _ = picture.shape
    assert 1200 < width < 2400
    assert 700 < height < 2400
    assert 20_000 < path.stat().st_size < 5_000_000
    assert picture[0].max() == picture[:, 0].max() == 0
    assert picture.max() > 0.9
    assert [file.name for file in tmp_path.iterdir()] == ["report.png"]


def test_figure_is_the_same_whatever_the_storage_order(tmp_path: Path) -> None:
    shown = panels()
    write_figure(tmp_path / "a.png", shown)
    write_figure(tmp_path / "b.png", reordered(shown, AxisOrder((1, 2, 0), (True, False, True))))
    np.testing.assert_array_equal(*(image.imread(tmp_path / name) for name in ("a.png", "b.png")))


@pytest.mark.parametrize("plane", ["sagittal", "coronal"])
def test_other_planes_and_an_empty_slice_are_drawn(tmp_path: Path, plane: str) -> None:
    array = head(1)
    array[:, :, :3] = array[:, :3] = 0
    volume = Volume(array, GRID.ijk_to_ras)
    shown = Panels(volume, volume, volume, None, {}, slice_axis_of_plane(GRID, plane), "", "")
    for index in (None, 0):
        write_figure(tmp_path / f"{index}.png", shown, slice_index=index)
    assert len(list(tmp_path.iterdir())) == 2


def test_volumes_on_other_grids_are_refused() -> None:
    shown = panels()
    moved = shown.reference.moved(np.array([[1, 0, 0, 1.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    with pytest.raises(GeometryError, match="ref is not on the grid of sr"):
        replace(shown, reference=moved)


def test_missing_matplotlib_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(McsrError, match="pip install matplotlib"):
        write_figure(tmp_path / "report.png", panels())
    assert not list(tmp_path.iterdir())


def test_failure_leaves_the_older_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.png"
    path.write_bytes(b"older")

    def half_written(self: object, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_written)
    with pytest.raises(KeyboardInterrupt):
        write_figure(path, panels())
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_caption_states_the_pixel_sizes() -> None:
    fine = refine_grid(oblique_grid((30, 40, 6), (2.4, 2.0, 4.0)), (4, 4, 1))
    expected = "Model dcamsr-s, scale x4: 0.60 x 0.50 mm from 2.40 x 2.00 mm, slices 4.0 mm apart."
    assert describe_job(fine, 2, "dcamsr-s", 4) == expected
    permuted = AxisOrder((2, 1, 0), (False, True, False)).apply_grid(fine)
    assert describe_job(permuted, 0, "dcamsr-s", 4) == expected


def test_panels_of_a_job() -> None:
    shown = panels()
    settings = Settings(model="sinc", scale=2)
    long_name = "sub-0123456789_ses-20200101_acq-thick_run-02_T2w_defaced"
    provenance = {"settings": vars(settings), "inputs": {"target": long_name, "reference": "T1w"}}
    volumes = (shown.result, shown.interpolated, shown.reference, shown.truth)
    job = Result(*volumes, slice_axis=2, scores=SCORES, provenance=provenance, warnings=())
    made = Panels.of(job)
    assert made.slice_axis == 2
    assert made.truth is shown.truth
    assert made.title.startswith("sub-0123456789_ses-202")
    assert made.title.endswith("T2w_defaced, enhanced x2 with the help of T1w")
    assert len(made.title) < 90
    assert "Model sinc, scale x2" in made.caption
