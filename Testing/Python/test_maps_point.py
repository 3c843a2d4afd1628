"""Maps of one pixel: what the network itself says of it, placed on the image; in tiles, on canvases, in jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mcsr.canvas import Canvas
from mcsr.conventions import Conventions
from mcsr.errors import DeviceError, InputError
from mcsr.geometry import AxisOrder
from mcsr.inference import Plan, make_plan
from mcsr.job import Memory, Settings
from mcsr.maps import on_image
from mcsr.maps_point import choose_point_views, collect_point_maps
from mcsr.networks import MapSpec, Network, SROutput, create_network
from mcsr.networks.baselines import BaselineConfig
from mcsr.pipeline import enhance, simulate
from mcsr.volume import Volume
from mcsr.worker_points import draw_point_maps
from scenes import pair
from torch import Tensor

SCALE = 2


class Echo(Network):
    """Its map of a point is the reference that it saw with 9 at the pixel that it was asked for."""

    limit = 10**9
    """Pixels of a slice beyond which memory runs out."""

    def __init__(self) -> None:
        super().__init__(BaselineConfig(scale=SCALE))
        self.seen: list[tuple[int, ...]] = []

    def encode_reference(self, reference: Tensor) -> Tensor:
        return reference

    def forward(self, target_lr: Tensor, reference: Any, *, capture: bool = False, **_: Any) -> SROutput:
        if reference[0].numel() > self.limit:
            raise RuntimeError("not enough memory")
        self.seen.append(tuple(reference.shape))
        return SROutput(reference, {"reference": reference} if capture else {})

    def map_specs(self) -> dict[str, MapSpec]:
        point = MapSpec("Point", "M.", "F", of_point=True)
        return {"reference": MapSpec("R", "M.", "F"), "echo": point, "cells": replace(point, cell=4, smooth=False)}

    def point_maps(self, maps: Any, row: int, column: int) -> dict[str, Tensor]:
        marked = maps["reference"].clone()
        marked[:, :, row, column] = 9
        cells = torch.zeros(1, 1, marked.shape[2] // 4, marked.shape[3] // 4)
        cells[:, :, row // 4, column // 4] = 1
        return {"echo": marked, "cells": cells}


def one_slice(rows: int = 24, columns: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((rows, columns), np.float32), rng.random((SCALE * rows, SCALE * columns), np.float32)


def plan_for(network: Network, canvas: Canvas, **changes: Any) -> Plan:
    return replace(make_plan(network, canvas, "cpu", "fp32"), **changes)


def collected(network: Network, pixel: tuple[int, int], plan: Plan, names: str = "all") -> dict[str, np.ndarray]:
    return collect_point_maps(network, *one_slice(), plan, choose_point_views(network, names), pixel)


@pytest.mark.parametrize("name", ["dcamsr-s", "daasr-s", "hftn-sr-s", "diffmsr-s"])
def test_maps_of_a_pixel_are_what_the_network_says_of_it(name: str) -> None:
    torch.manual_seed(0)
    network, pixel = create_network(name, scale=SCALE).eval(), (13, 30)
    target, reference = one_slice()
    found = collected(network, pixel, plan_for(network, Canvas(0, 0, 24, 20)))
    specs = {key: spec for key, spec in network.map_specs().items() if spec.of_point}
    assert set(found) == set(specs)
    assert specs
    generator = [torch.Generator().manual_seed(0)]
    with torch.inference_mode():
        inputs = (torch.from_numpy(array)[None, None] for array in (target, reference))
        direct = network.point_maps(network(*inputs, generator=generator, capture=True).maps, *pixel)
        for key, spec in specs.items():
            values = direct[key].float()
            if spec.kind == "features":
                values = values.square().mean(dim=1, keepdim=True).sqrt()
            expected = on_image(values, spec, (48, 40))[0, 0]
            np.testing.assert_allclose(found[key], expected, atol=1e-5, err_msg=key)
            assert np.ptp(found[key]) > 0


def test_the_pixel_and_its_map_lie_where_the_canvas_lies() -> None:
    reference = one_slice()[1]
    for canvas in (Canvas(3, 2, 12, 10), Canvas(-2, -3, 28, 26)):
        network = Echo()
        found = collected(network, (11, 13), plan_for(network, canvas), "echo")["echo"]
        expected = np.zeros_like(reference)
        canvas.crop(expected, SCALE)[...] = canvas.crop(reference, SCALE)
        expected[11, 13] = 9
        np.testing.assert_array_equal(found, expected)
        assert network.seen == [(1, 1, 2 * canvas.rows, 2 * canvas.columns)]


@pytest.mark.parametrize(("row", "first"), [(70, 16), (36, 0), (44, 8)])
def test_of_tiles_the_one_is_run_that_the_pixel_is_taken_from(row: int, first: int) -> None:
    """Tiles of 24 low-resolution rows begin at 0, 8 and 16: the first wins whose rim is far."""
    network, (target, reference) = Echo(), one_slice(40, 20)
    plan = plan_for(network, Canvas(0, 0, 40, 20), tile=48)
    found = collect_point_maps(network, target, reference, plan, choose_point_views(network, "echo"), (row, 3))["echo"]
    assert network.seen == [(1, 1, 48, 40)]
    rows = slice(2 * first, 2 * first + 48)
    expected = np.zeros_like(reference)
    expected[rows] = reference[rows]
    expected[row, 3] = 9
    np.testing.assert_array_equal(found, expected)


def test_cells_of_corner_samples_begin_half_a_cell_earlier() -> None:
    """As in maps of all pixels: the value of a cell of four lies on its first pixel, so it covers the one before it."""
    network = Echo()
    plan = plan_for(network, Canvas(0, 0, 24, 20), conventions=Conventions(sampling="corner"))
    for row, first in ((7, 7), (6, 3)):
        lit = np.flatnonzero(collected(network, (row, 8), plan, "cells")["cells"].any(axis=1))
        assert lit.tolist() == list(range(first, first + 4))


def test_a_pixel_in_the_air_is_refused_and_short_memory_said() -> None:
    network = Echo()
    with pytest.raises(InputError, match=r"air around the anatomy.*\.$"):
        collected(network, (2, 13), plan_for(network, Canvas(3, 2, 12, 10)))
    canvas = Canvas(0, 0, 24, 20)
    network.limit = 100
    with pytest.raises(DeviceError, match="Not enough memory"):
        collected(network, (2, 13), plan_for(network, canvas))
    large = Canvas(0, 0, 100, 100)
    network.limit = 150 * 150
    slices = np.zeros((100, 100), np.float32), np.zeros((200, 200), np.float32)
    with pytest.raises(DeviceError, match="for the maps of one pixel"):
        collect_point_maps(network, *slices, plan_for(network, large), choose_point_views(network, "echo"), (2, 2))


def test_names_choose_views_of_a_point() -> None:
    assert [view.name for view in choose_point_views(Echo(), "all")] == ["echo", "cells"]
    assert [view.name for view in choose_point_views(Echo(), "cells")] == ["cells"]
    with pytest.raises(InputError, match="no map 'reference'; it offers echo, cells"):
        choose_point_views(Echo(), "reference")
    with pytest.raises(InputError, match="no maps of one pixel"):
        choose_point_views(create_network("sinc", scale=2), "all")


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume]:
    truth, reference = pair()
    return simulate(truth, SCALE)[0], reference


@pytest.fixture(scope="module")
def settings(untrained_x2: Path) -> Settings:
    return Settings(scale=SCALE, weights=untrained_x2, registration="rigid", maps="attended_reference_lv1")


def test_a_point_is_looked_up_in_the_result_whatever_its_storage_order(
    settings: Settings, volumes: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its map lies in its slice alone; a second point of the volume finds all prepared."""
    target, reference = volumes
    memory = Memory()
    result = enhance(target, reference, replace(settings, maps="none"), memory=memory)
    grid = result.sr.grid
    middle = tuple(n // 2 for n in grid.shape_ijk)
    ras = tuple(grid.to_ras(np.array(middle) + 0.3))
    memory.recalled.clear()
    first = draw_point_maps(target, reference, settings, point_ras=ras, memory=memory)
    assert memory.recalled == ["network", "registration", "reference", "result"]
    monkeypatch.setattr("mcsr.worker_points.lay_out", None)
    memory.recalled.clear()
    again = draw_point_maps(target, reference, settings, point_ras=ras, memory=memory)
    assert memory.recalled == ["network", "slices", "result"]
    (volume,) = first.maps.values()
    np.testing.assert_array_equal(again.maps["attended_reference_lv1"].array_kji, volume.array_kji)
    np.testing.assert_array_equal(volume.ijk_to_ras, result.sr.ijk_to_ras)
    assert np.flatnonzero(volume.array_kji.any(axis=(1, 2))).tolist() == [middle[2]]
    assert first.provenance["maps"]["attended_reference_lv1"]["family"] == "Attention of a point"
    assert first.provenance["point_ras"] == pytest.approx(ras)
    assert again.provenance["registration"] == first.provenance["registration"]
    assert again.warnings == first.warnings
    monkeypatch.undo()
    order = AxisOrder((2, 0, 1), (True, False, True))
    other = draw_point_maps(target.reordered(order), reference, settings, point_ras=ras, memory=memory)
    expected = order.apply(volume.array_kji)
    np.testing.assert_allclose(other.maps["attended_reference_lv1"].array_kji, expected, atol=1e-4)


def test_the_pixel_asked_for_is_the_one_at_the_point(
    settings: Settings, volumes: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def note(network: Network, target_lr: np.ndarray, reference: np.ndarray, *rest: Any, **more: Any) -> Any:
        asked.append(rest[2])
        return {}

    monkeypatch.setattr("mcsr.worker_points.collect_point_maps", note)
    target, reference = volumes
    grid = enhance(target, reference, Settings(model="sinc", scale=SCALE)).sr.grid  # stored as it is displayed
    draw_point_maps(
        target, reference, replace(settings, registration="none"), point_ras=tuple(grid.to_ras((20, 30, 4)))
    )
    assert asked == [(30, 20)]
    with pytest.raises(InputError, match="outside the result"):
        draw_point_maps(target, reference, settings, point_ras=tuple(grid.to_ras((20, 30, 8))))


def test_a_dark_slice_is_refused(settings: Settings, volumes: tuple[Volume, Volume]) -> None:
    target, reference = volumes
    array = target.array_kji.copy()
    array[4] = 0
    ras = tuple(target.grid.to_ras((10, 14, 4)))
    plain = replace(settings, registration="none")
    with pytest.raises(InputError, match="holds no signal"):
        draw_point_maps(target.with_array(array), reference, plain, point_ras=ras)
