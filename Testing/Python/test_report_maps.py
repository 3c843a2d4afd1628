"""The figure of maps: every map once, colours that say what they should, words that do not run into each other."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grids import SOME_ORDERS, oblique_grid, order_id
from mcsr.errors import McsrError
from mcsr.geometry import PLANES, AxisOrder, Grid, slice_axis_of_plane
from mcsr.job import Result, Settings
from mcsr.maps import MapView
from mcsr.networks import MapSpec
from mcsr.report_maps import MOST_COLUMNS, label_colours, maps_figure, wheel_colours, write_maps_figure
from mcsr.report_maps_panels import MapPanel, head_mask, map_panels
from mcsr.report_panels import Panels, View
from mcsr.volume import Volume

image = pytest.importorskip("matplotlib.image", reason="matplotlib, an extra, is not installed")

GRID = oblique_grid((48, 56, 3), (1.0, 1.0, 4.0))
WORDS = "Bright: what the network found here is much, and this sentence is long enough to need several lines."
IMAGE = MapSpec("Image", WORDS, "First")
SCORE = MapSpec("Score", WORDS, "Second", unit="cosine similarity", limits=(-1.0, 1.0))
SIGNED = MapSpec("Offset", WORDS, "First", colours="diverging")
LABELS = MapSpec("Pattern", WORDS, "Second", kind="labels", colours="labels", unit="pattern number", limits=(0.0, None))
STACK = MapSpec("Texture", WORDS, "Third", kind="features")
FIELD = MapSpec("Displacement", WORDS, "Third", kind="displacement", unit="px", colours="wheel")
COMPONENTS = {f"stack.{part}": STACK for part in ("pc1", "pc2", "pc3")}
DIRECTIONS = {f"field.{part}": FIELD for part in ("columns", "rows")}


def views_of(specs: Mapping[str, MapSpec]) -> list[MapView]:
    return [MapView(name, name.partition(".")[0], name.partition(".")[2], spec) for name, spec in specs.items()]


def head(grid: Grid, seed: int) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape_kji), indexing="ij")
    middle = [(n - 1) / 2 for n in grid.shape_ijk]
    inside = ((i - middle[0]) / 19) ** 2 + ((j - middle[1]) / 23) ** 2 < 1
    noise = 20 * np.random.default_rng(seed).normal(size=grid.shape_kji)
    return np.where(inside, 400 + 30 * np.minimum(k, 2) + noise, 0).clip(0)


def result_with(
    specs: Mapping[str, MapSpec],
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    grid: Grid = GRID,
    axis: int = 2,
    model: str = "dcamsr-s",
) -> Result:
    """A result on `grid` with maps of noise, or those given."""
    given = arrays or {}
    noise = {name: np.random.default_rng(n).normal(0.4, 1, grid.shape_kji) for n, name in enumerate(specs)}
    maps = {
        name: Volume(given.get(name, noise[name]), grid.ijk_to_ras)
        for name, spec in specs.items()
        if spec.kind != "table"
    }
    sr, low, reference = (Volume(head(grid, seed), grid.ijk_to_ras) for seed in (1, 2, 3))
    provenance = {
        "settings": vars(Settings(model=model, scale=4)),
        "inputs": {"target": "T2w", "reference": "T1w"},
        "maps": {view.name: view.as_dict() for view in views_of(specs)},
    }
    return Result(sr, low, reference, None, axis, {}, provenance, (), maps)


def reordered(result: Result, order: AxisOrder) -> Result:
    names = ("sr", "target", "reference")
    return replace(
        result,
        **{name: getattr(result, name).reordered(order) for name in names},
        slice_axis=order.axes_ijk.index(result.slice_axis),
        maps={name: volume.reordered(order) for name, volume in result.maps.items()},
    )


def panels_of(result: Result) -> list[MapPanel]:
    view = View(Panels.of(result), None)
    return map_panels(result, view, head_mask(result, view))


def panel_of(result: Result, name: str) -> MapPanel:
    (panel,) = (panel for panel in panels_of(result) if name in panel.names)
    return panel


def test_images_come_first_then_every_map_once_by_family() -> None:
    specs = {"a": IMAGE, "score": SCORE, **COMPONENTS, "b": SIGNED, "table": replace(IMAGE, kind="table")}
    specs |= {"stack": STACK, **DIRECTIONS, "field": FIELD, "labels": LABELS, "stack.channel3": STACK}
    panels = panels_of(result_with(specs))
    assert [panel.title for panel in panels[:2]] == ["Enhanced target", "Reference"]
    shown = list(itertools.chain.from_iterable(panel.names for panel in panels))
    assert sorted(shown) == sorted(name for name, spec in specs.items() if spec.kind != "table")
    assert [family for family, _ in itertools.groupby(panel.family for panel in panels)] == [
        "For orientation",
        "First",
        "Second",
        "Third",
    ]
    assert [panel.names for panel in panels if panel.family == "First"] == [("a",), ("b",)]


def test_panels_show_the_slice_of_the_other_figure_in_its_crop() -> None:
    result = result_with({"image": IMAGE})
    view = View(Panels.of(result), None)
    for panel, name in zip(panels_of(result), ("sr", "reference", "image"), strict=True):
        volume = result.maps["image"] if name == "image" else getattr(result, name)
        np.testing.assert_array_equal(panel.pixels, view.head.crop(volume.array_kji[view.index]))


@pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
def test_panels_are_the_same_whatever_the_storage_order(order: AxisOrder) -> None:
    result = result_with({"image": IMAGE, "signed": SIGNED, **COMPONENTS, **DIRECTIONS, "labels": LABELS})
    for straight, other in zip(panels_of(result), panels_of(reordered(result, order)), strict=True):
        np.testing.assert_array_equal(straight.pixels, other.pixels)
        empty = np.zeros(0)
        assert repr(replace(straight, pixels=empty)) == repr(replace(other, pixels=empty))


def test_components_are_one_picture_only_when_all_three_are_there() -> None:
    panel = panel_of(result_with(COMPONENTS), "stack.pc2")
    assert (panel.names, panel.colours, panel.title) == (tuple(COMPONENTS), "mixture", "Texture")
    assert panel.meaning.startswith("Hue: which mixture of features")
    assert panel.pixels.shape[-1] == 3
    assert (panel.pixels.min(), panel.pixels.max()) == (0, 1)
    two = {name: STACK for name in list(COMPONENTS)[:2]}
    panels = panels_of(result_with(two))[2:]
    assert [(panel.names, panel.colours) for panel in panels] == [((name,), "diverging") for name in two]
    others = panels_of(result_with({"stack.pc1": STACK, "stack.pc2": STACK, "other.pc3": STACK}))[2:]
    assert [len(panel.names) for panel in others] == [1, 1, 1], "not of one stack"


def test_displacement_is_a_wheel_only_when_both_directions_are_there() -> None:
    result = result_with(DIRECTIONS)
    panel = panel_of(result, "field.rows")
    assert (panel.names, panel.colours, panel.title, panel.unit) == (tuple(DIRECTIONS), "wheel", "Displacement", "px")
    view = View(Panels.of(result), None)
    lengths = np.hypot(panel.pixels[..., 0], panel.pixels[..., 1])[head_mask(result, view)]
    assert panel.limits == (0, pytest.approx(np.percentile(lengths, 99.5)))
    assert panel_of(result_with({"field.rows": FIELD}), "field.rows").colours == "diverging"
    assert panel_of(result_with({"field": FIELD}), "field").colours == "sequential"


def test_scales_are_those_of_the_head_and_not_of_the_air() -> None:
    outside = head(GRID, 1) == 0
    values = np.where(outside, 1e6, np.random.default_rng(0).normal(30, 1, GRID.shape_kji))
    result = result_with({"a": IMAGE, "b": SIGNED}, {"a": values, "b": np.where(outside, 1e6, values - 30)})
    low, high = panel_of(result, "a").limits
    assert 27 < low < 28.5
    assert 32 < high < 33.5
    low, high = panel_of(result, "b").limits
    assert low == -high
    assert 2 < high < 4


def test_a_scale_about_zero_is_symmetric_even_if_the_values_are_not() -> None:
    values = np.random.default_rng(0).uniform(5, 8, GRID.shape_kji)
    low, high = panel_of(result_with({"b": SIGNED}, {"b": values}), "b").limits
    assert low == -high
    assert high == pytest.approx(8, abs=0.1)


def test_natural_limits_are_kept() -> None:
    specs = {"both": SCORE, "low": replace(SCORE, limits=(0.0, None)), "high": replace(SCORE, limits=(None, 9.0))}
    values = {name: np.random.default_rng(0).uniform(-0.1, 0.8, GRID.shape_kji) for name in specs}
    result = result_with(specs, values)
    assert panel_of(result, "both").limits == (-1, 1)
    assert panel_of(result, "low").limits == (0, pytest.approx(0.8, abs=0.01))
    assert panel_of(result, "high").limits[1] == 9


def test_natural_limits_give_way_where_they_would_show_one_flat_colour() -> None:
    result = result_with({"a": SCORE}, {"a": np.random.default_rng(0).uniform(0.5, 0.8, GRID.shape_kji)})
    assert panel_of(result, "a").limits == (pytest.approx(0.5, abs=0.02), pytest.approx(0.8, abs=0.02))


@pytest.mark.parametrize("value", [0.0, 3.5, -2e8])
def test_a_constant_map_is_said_to_be_one(value: float) -> None:
    constant = np.full(GRID.shape_kji, value)
    result = result_with({"a": IMAGE, "b": SIGNED, **COMPONENTS}, dict.fromkeys(("a", "b", *COMPONENTS), constant))
    assert panel_of(result, "a").limits == (np.float32(value),) * 2
    assert panel_of(result, "b").limits == (-abs(value), abs(value))
    texts = [text.get_text() for text in maps_figure(result).texts]
    said = f"{value:.3g} everywhere in the head"
    # About 0, a value of one sign still has a colour that says which; nothing at all has none.
    assert texts.count(said) == (2 if value == 0 else 1)


def labelled_axes(figure: Any, word: str) -> dict[str, Any]:
    return {axes.get_label(): axes for axes in figure.axes if axes.get_label().startswith(word)}


def test_every_scale_has_its_colours_and_its_unit() -> None:
    specs = {"grey": replace(IMAGE, colours="grey", unit="grams"), "image": IMAGE, "signed": SIGNED, "score": SCORE}
    specs |= {"labels": LABELS, **COMPONENTS, **DIRECTIONS}
    labels = np.random.default_rng(0).integers(0, 9, GRID.shape_kji)
    figure = maps_figure(result_with(specs, {"labels": labels}))
    bars = labelled_axes(figure, "scale of")
    assert list(bars) == ["scale of grey", "scale of image", "scale of signed", "scale of score"]
    assert list(labelled_axes(figure, "wheel of")) == ["wheel of field.columns"]
    texts = [text.get_text() for text in figure.texts]
    assert {"grams", "cosine similarity", "pattern number, the 6 most frequent of 9 here"} <= set(texts)
    assert any(text.startswith("colour: direction") and "px" in text for text in texts)
    assert texts.count("Research use only.") == 1
    assert {"First", "Second", "Third"} <= set(texts)


def test_zero_is_black_between_blue_and_red() -> None:
    values = np.zeros(GRID.shape_kji)
    values[..., :20], values[..., 28:] = -2, 2
    figure = maps_figure(result_with({"signed": SIGNED}, {"signed": values}))
    (shown,) = (axes.images[0] for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "residual")
    red, green, blue, _ = shown.cmap(shown.norm([-2.0, 0.0, 2.0])).T
    assert blue[0] > red[0]
    assert red[2] > blue[2]
    assert max(red[1], green[1], blue[1]) < 0.02


def test_a_label_has_one_colour_everywhere() -> None:
    colours = label_colours(np.arange(64))
    gaps = np.abs(colours[:, None] - colours).sum(axis=-1) + 9 * np.eye(64)
    assert gaps.min() > 0.02
    np.testing.assert_array_equal(label_colours(np.array([[4.0, 3.9999998]])), colours[[[4, 4]]])


def test_wheel_shows_direction_by_hue_and_length_by_brightness() -> None:
    directions = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    colours = wheel_colours(directions)
    assert len(np.unique(colours.round(3), axis=0)) == 4
    np.testing.assert_allclose(wheel_colours(directions / 2), colours / 2, atol=1e-6)
    np.testing.assert_allclose(wheel_colours(3 * directions), colours, atol=1e-6)
    assert wheel_colours(np.zeros((1, 2))).max() == 0


@pytest.mark.parametrize("count", [1, 14])
def test_words_do_not_run_into_each_other(count: int) -> None:
    """With long titles, sentences, families, names of models: no text overlaps another, all lie in the figure."""
    spec = MapSpec("A title that is rather long, group 3", WORDS, "Family", unit="a unit with a long name " * 3)
    long_words = {"title": 3 * "Longlonglong" + " title", "family": "A family with a very long name for one panel only"}
    specs = {f"map{n}": replace(spec, family=f"Family {n // 9}") for n in range(count)}
    specs |= {"last": replace(spec, **long_words), "labels": LABELS, **DIRECTIONS}
    result = result_with(specs, {"labels": np.indices(GRID.shape_kji).sum(axis=0)}, model="model" * 30)
    result.provenance["inputs"].update(target="T" * 44, reference="R" * 44)
    figure = maps_figure(result)
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts if text.get_text()]
    assert len(boxes) > 2 * count
    for (words, a), (others, b) in itertools.combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) <= 1, f"{words!r} overlaps {others!r}"
    width, height = figure.get_size_inches() * figure.dpi
    for words, box in boxes:
        assert box.x0 >= 0, words
        assert box.x1 <= width, words
        assert box.y0 >= 0, words
        assert box.y1 <= height, words
    pictures = [axes.get_window_extent(renderer) for axes in figure.axes if axes.images]
    for (words, a), b in itertools.product(boxes, pictures):
        assert min(min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)) <= 1, words


def test_at_most_six_panels_are_side_by_side() -> None:
    figure = maps_figure(result_with({f"map{n}": IMAGE for n in range(13)}))
    panels = [axes.get_position() for axes in figure.axes if axes.images and axes.texts]
    assert len(panels) == 15
    rows = {}
    for box in panels:
        rows.setdefault(round(box.y0, 4), []).append(round(box.x0, 4))
    assert sorted(len(columns) for columns in rows.values()) == [1, 2, MOST_COLUMNS, MOST_COLUMNS]
    assert all(len(set(columns)) == len(columns) for columns in rows.values())
    few = maps_figure(result_with({"image": IMAGE}))
    assert few.get_size_inches()[0] < figure.get_size_inches()[0]


@pytest.mark.parametrize("plane", PLANES)
def test_sides_are_written_in_every_plane(plane: str) -> None:
    result = result_with({"image": IMAGE}, axis=slice_axis_of_plane(GRID, plane))
    figure = maps_figure(result)
    letters = {"axial": "RLAP", "sagittal": "APSI", "coronal": "RLSI"}[plane]
    written = ["".join(text.get_text() for text in axes.texts) for axes in figure.axes if axes.texts]
    assert written == [letters] * 3


def test_picture_is_the_same_for_sagittal_storage(tmp_path: Path) -> None:
    result = result_with({"image": IMAGE, **COMPONENTS})
    write_maps_figure(tmp_path / "a.png", result)
    write_maps_figure(tmp_path / "b.png", reordered(result, AxisOrder((1, 2, 0), (True, False, True))))
    pictures = [image.imread(tmp_path / name) for name in ("a.png", "b.png")]
    np.testing.assert_array_equal(*pictures)
    height, width, _ = pictures[0].shape
    assert 1200 < width < 1500
    assert 400 < height < 1000
    assert pictures[0][0, :, :3].max() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_single_slice_and_an_empty_map_are_drawn(tmp_path: Path) -> None:
    grid = oblique_grid((48, 56, 1), (1.0, 1.0, 4.0))
    arrays = {"image": np.zeros(grid.shape_kji), "labels": np.zeros(grid.shape_kji)}
    result = result_with({"image": IMAGE, "labels": LABELS, **DIRECTIONS}, arrays, grid=grid)
    write_maps_figure(tmp_path / "maps.png", result)
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert any("slice 1 of 1" in text.get_text() for text in maps_figure(result).texts)


def test_missing_matplotlib_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(McsrError, match="pip install matplotlib"):
        write_maps_figure(tmp_path / "maps.png", result_with({"image": IMAGE}))
    assert not list(tmp_path.iterdir())


def test_failure_leaves_the_older_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "maps.png"
    path.write_bytes(b"older")

    def half_written(self: object, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_written)
    with pytest.raises(KeyboardInterrupt):
        write_maps_figure(path, result_with({"image": IMAGE}))
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]
