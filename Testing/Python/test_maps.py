"""Maps: each cell lies on the pixels it covers, and what is collected is what the network held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mcsr.canvas import Canvas
from mcsr.errors import InputError
from mcsr.inference import Plan, make_plan
from mcsr.maps import TABLE_LIMIT, Maps, choose_views, collect_maps, default_views, on_image, principal_axes
from mcsr.networks import MapSpec, Network, SROutput, create_network
from mcsr.networks.baselines import BaselineConfig
from torch import Tensor

SCALE = 2
CANVAS = Canvas(0, 0, 20, 16)


class Probe(Network):
    """Lets out tensors that a test can foresee: the reference, labels, a displacement, tables."""

    limit = 10**9
    """Elements of a batch beyond which memory runs out."""

    def __init__(self) -> None:
        super().__init__(BaselineConfig(scale=SCALE))
        self.fails_late = False  # once the network has run, while its maps are brought onto the image

    def encode_reference(self, reference: Tensor) -> Tensor:
        return reference

    def forward(self, target_lr: Tensor, reference: Any, *, capture: bool = False, **_: Any) -> SROutput:
        if not self.fails_late and reference.numel() > self.limit:
            raise RuntimeError("not enough memory")
        half = torch.nn.functional.avg_pool2d(reference, 2)
        maps = {
            "image": reference,
            "pair": torch.cat([reference, 1 - reference], dim=1),
            "labels": (7 * half).floor(),
            "vectors": torch.cat([3 * half, -4 * half], dim=1),
            "small": reference.mean(dim=(2, 3)),
            "large": torch.zeros(len(reference), TABLE_LIMIT + 1),
        }
        if self.fails_late and reference.numel() > self.limit:
            maps["image"] = _NoMemory(reference)
        return SROutput(reference, maps if capture else {})

    def map_specs(self) -> dict[str, MapSpec]:
        return {
            "image": MapSpec("Image", "M.", "F", limits=(0.0, 1.0)),
            "pair": MapSpec("Pair", "M.", "F", kind="features", limits=(-1.0, 1.0)),
            "labels": MapSpec("Labels", "M.", "F", kind="labels", colours="labels", cell=2),
            "vectors": MapSpec("Vectors", "M.", "F", kind="displacement", unit="px", colours="wheel", cell=2),
            "small": MapSpec("Small", "M.", "F", kind="table"),
            "large": MapSpec("Large", "M.", "F", kind="table"),
            "of_point": MapSpec("Point", "M.", "F", of_point=True),
        }


class _NoMemory(Tensor):
    """A tensor that cannot be made larger: memory runs out after the network has run."""

    @staticmethod
    def __new__(cls, values: Tensor) -> _NoMemory:
        return torch.Tensor._make_subclass(cls, values)

    def float(self) -> Tensor:
        raise RuntimeError("not enough memory")


def slices(count: int = 3, canvas: Canvas = CANVAS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (count, canvas.row + canvas.rows, canvas.column + canvas.columns)
    return rng.random(shape, dtype=np.float32), rng.random((count, SCALE * shape[1], SCALE * shape[2]), np.float32)


def plan_of(network: Network, canvas: Canvas = CANVAS, **changes: Any) -> Plan:
    return replace(make_plan(network, canvas, "cpu", "fp32"), **changes)


def collected(network: Network, names: str, plan: Plan | None = None, canvas: Canvas = CANVAS) -> Maps:
    views = choose_views(network, names)
    return collect_maps(network, *slices(canvas=canvas), plan or plan_of(network, canvas), views)


def small_dcamsr() -> Network:
    torch.manual_seed(0)
    return create_network("dcamsr-s", scale=SCALE).eval()


def captured(network: Network) -> dict[str, Tensor]:
    target, reference = (torch.from_numpy(array)[:, None] for array in slices())
    with torch.inference_mode():
        return network(target, reference, capture=True).maps


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_each_cell_is_repeated_on_the_pixels_it_covers(cell: int) -> None:
    values = torch.arange(2 * 3 * 4.0).reshape(2, 1, 3, 4)
    shape = (3 * cell - cell // 2, 4 * cell - cell // 2)
    image = on_image(values, MapSpec("T", "M.", "F", cell=cell, smooth=False), shape)
    assert image.shape == (2, 1, *shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            assert torch.equal(image[..., row, column], values[..., row // cell, column // cell])


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_linear_interpolation_does_not_shift(cell: int) -> None:
    """A ramp over positions, known at the centres of cells, is that ramp at the centres of pixels."""
    centres = (torch.arange(6.0) + 0.5) * cell - 0.5
    pixels = torch.arange(6.0 * cell)
    inside = (pixels >= centres[0]) & (pixels <= centres[-1])
    spec = MapSpec("T", "M.", "F", cell=cell)
    down = on_image(centres[None, None, :, None].expand(1, 1, 6, 6), spec, (6 * cell, 6 * cell))
    right = on_image(centres[None, None, None].expand(1, 1, 6, 6), spec, (6 * cell, 6 * cell))
    for image in (down[0, 0].T, right[0, 0]):
        for line in image:
            torch.testing.assert_close(line[inside], pixels[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("smooth", [True, False])
def test_values_of_corner_samples_lie_where_the_samples_lay(cell: int, smooth: bool) -> None:
    """A ramp over positions that is known on the first pixel of each cell is that ramp on all pixels."""
    firsts = torch.arange(8.0) * cell
    spec = MapSpec("T", "M.", "F", cell=cell, smooth=smooth)
    shape = (8 * cell, 8 * cell)
    down = on_image(firsts[None, None, :, None].expand(1, 1, 8, 8), spec, shape, corner=True)
    right = on_image(firsts[None, None, None].expand(1, 1, 8, 8), spec, shape, corner=True)
    pixels = torch.arange(8.0 * cell)
    assert down.shape == right.shape == (1, 1, *shape)
    for image in (down[0, 0].T, right[0, 0]):
        off = (image - pixels)[:, 2 * cell : -2 * cell].mean().abs().item()
        # Repeated values of an even cell can lie half a pixel off at best.
        assert off <= (1e-4 if smooth or cell % 2 else 0.51)


def test_between_labels_lies_nothing() -> None:
    labels = torch.tensor([[[[3.0, 17.0]]]])
    image = on_image(labels, MapSpec("T", "M.", "F", kind="labels", cell=4), (4, 8))
    assert image.unique().tolist() == [3, 17]


def test_principal_axes_are_those_of_the_svd() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(5, 5)) * [4, 3, 2, 1, 0.5]
    stacks = [torch.from_numpy(rng.normal(size=(2, 6, 7, 5)) @ mixing.T + 9).movedim(-1, 1) for _ in range(2)]
    mean, axes = principal_axes(stacks)
    pixels = torch.cat([s.movedim(1, -1).reshape(-1, 5) for s in stacks]).numpy()
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-5)
    expected = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(np.sum(axes.numpy() * expected, axis=1)), 1, atol=1e-5)
    largest = np.take_along_axis(axes.numpy(), np.abs(axes.numpy()).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    again = principal_axes([-s for s in stacks])[1]
    np.testing.assert_allclose(again, axes, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_features_that_are_constant_have_axes_too(channels: int) -> None:
    mean, axes = principal_axes([torch.full((1, channels, 4, 4), 2.5)])
    assert mean.tolist() == [2.5] * channels
    np.testing.assert_allclose(axes @ axes.T, np.eye(min(3, channels)), atol=1e-6)


def test_names_choose_views(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Probe()
    assert choose_views(network, "none") == []
    assert choose_views(network, "all") == default_views(network)
    assert [view.name for view in default_views(network)] == [
        "image",
        "pair",
        "labels",
        "vectors.columns",
        "vectors.rows",
        "small",
        "large",
    ]
    directions = MapSpec("Unit vectors", "M.", "F", kind="features", by_components=True)
    monkeypatch.setattr(network, "map_specs", lambda: {"unit": directions})
    assert [view.name for view in default_views(network)] == ["unit.pc1", "unit.pc2", "unit.pc3"]
    monkeypatch.undo()
    views = choose_views(network, " pair.pc2, pair.channel12 ,pair,vectors.rows,pair,vectors.")
    assert [(v.name, v.key, v.part) for v in views] == [
        ("pair.pc2", "pair", "pc2"),
        ("pair.channel12", "pair", "channel12"),
        ("pair", "pair", ""),
        ("vectors.rows", "vectors", "rows"),
        ("vectors", "vectors", ""),
    ]
    assert [view.colours for view in views] == ["diverging", "diverging", "sequential", "diverging", "sequential"]
    assert views[0].title == "Pair (2nd principal component)"
    assert views[2].unit == "root mean square over channels"
    assert views[2].as_dict()["limits"] == [None, None], "limits of a feature are not those of its energy"
    assert default_views(network)[0].as_dict()["limits"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("imege", r"no map 'imege'; did you mean image\?"),
        ("zzz", "it offers image, pair, labels, vectors, small, large"),
        ("of_point", "no map 'of_point'"),
        ("pair.pc4", r"'pair' has no part 'pc4'; it has pc1, pc2, pc3 and channel0"),
        ("pair.channel", "no part 'channel'"),
        ("pair.channel²", "no part 'channel²'"),
        ("pair.rows", "no part 'rows'"),
        ("vectors.pc1", "it has columns and rows"),
        ("image.pc1", "it has no parts"),
        ("none,image", "no map 'none'"),
    ],
)
def test_names_that_are_no_maps(names: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        choose_views(Probe(), names)


@pytest.mark.parametrize("batch", [1, 2])
def test_maps_are_what_the_network_held(batch: int) -> None:
    network = small_dcamsr()
    direct = captured(network)
    found = collected(network, "all", plan_of(network, batch=batch))
    shape = slices()[1].shape
    assert found.images.keys() | found.tables.keys() <= network.map_specs().keys()
    for view in default_views(network):
        values = direct[view.key].float()
        if view.spec.kind == "table":
            continue
        if view.spec.kind == "features":
            values = values.square().mean(dim=1, keepdim=True).sqrt()
        expected = on_image(values, view.spec, shape[1:])[:, 0]
        if view.spec.kind != "labels":
            np.testing.assert_allclose(found.images[view.name], expected, rtol=1e-3, atol=1e-4, err_msg=view.name)
        else:
            assert (found.images[view.name] == expected.numpy()).mean() > 0.99
    attention = direct["channel_attention_lv1"]
    np.testing.assert_allclose(found.tables["channel_attention_lv1"], attention, atol=1e-5)


def test_components_and_channels_are_those_of_the_stack() -> None:
    network = small_dcamsr()
    stack = captured(network)["texture_lv1"]
    found = collected(network, "texture_lv1.pc1,texture_lv1.pc3,texture_lv1.channel5").images
    mean, axes = principal_axes([stack])
    for part, axis in (("pc1", axes[0]), ("pc3", axes[2])):
        expected = torch.einsum("bchw,c->bhw", stack - mean[:, None, None], axis)
        np.testing.assert_allclose(found[f"texture_lv1.{part}"], expected, atol=1e-3)
    np.testing.assert_allclose(found["texture_lv1.channel5"], stack[:, 5], atol=1e-5)
    assert found["texture_lv1.pc1"].std() > found["texture_lv1.pc3"].std()


def test_parts_of_a_displacement() -> None:
    found = collected(Probe(), "vectors,vectors.columns,vectors.rows").images
    assert found["vectors.columns"].min() > 0
    np.testing.assert_allclose(found["vectors.rows"], -4 / 3 * found["vectors.columns"], rtol=1e-5)
    np.testing.assert_allclose(found["vectors"], 5 / 3 * found["vectors.columns"], rtol=1e-4)


@pytest.mark.parametrize("names", ["pair.channel2", "pair.pc3"])
def test_a_channel_or_component_beyond_the_stack_is_said(names: str) -> None:
    with pytest.raises(InputError, match=r"'pair' has (channels 0 to 1, no 2|2 channels and no 3rd principal)"):
        collected(Probe(), names)


def test_maps_lie_where_the_canvas_lies() -> None:
    canvas = Canvas(3, 2, 12, 10)
    reference = slices(canvas=canvas)[1]
    found = collected(Probe(), "image", canvas=canvas).images["image"]
    np.testing.assert_array_equal(found[:, 6:30, 4:24], reference[:, 6:30, 4:24])
    found[:, 6:30, 4:24] = 0
    assert not found.any()


def test_a_canvas_beyond_the_slice_is_cut_off() -> None:
    network, canvas = Probe(), Canvas(-2, -3, 26, 24)
    target, reference = slices()
    found = collect_maps(network, target, reference, plan_of(network, canvas), choose_views(network, "image"))
    np.testing.assert_array_equal(found.images["image"], reference)


def test_tables_are_kept_up_to_a_size() -> None:
    found = collected(Probe(), "small,large,image")
    assert list(found.images) == ["image"]
    assert list(found.tables) == ["small"]
    np.testing.assert_allclose(found.tables["small"][:, 0], slices()[1].mean(axis=(1, 2)), rtol=1e-5)
    assert list(collected(Probe(), "small").tables) == ["small"]


def test_tiles_do_not_show_and_have_no_tables() -> None:
    canvas = Canvas(0, 0, 80, 70)
    network = Probe()
    whole = collected(network, "image,labels,vectors.rows,small", canvas=canvas)
    tiled = collected(network, "image,labels,vectors.rows,small", plan_of(network, canvas, tile=96), canvas)
    np.testing.assert_allclose(tiled.images["image"], whole.images["image"], atol=1e-6)
    # At the rim of a tile linear interpolation lacks the neighbour; blending leaves little of that.
    np.testing.assert_allclose(tiled.images["vectors.rows"], whole.images["vectors.rows"], atol=0.1)
    np.testing.assert_array_equal(tiled.images["labels"], whole.images["labels"])
    assert tiled.tables == {}


def test_where_tiles_disagree_labels_are_taken_from_one() -> None:
    class Disagrees(Probe):
        """Labels a tile by a number of its own."""

        calls = 0

        def forward(self, target_lr: Tensor, reference: Any, **options: Any) -> SROutput:
            output = super().forward(target_lr, reference, **options)
            self.calls += 1
            output.maps["labels"] = torch.full_like(output.maps["labels"], 10 * self.calls)
            return output

    canvas, network = Canvas(0, 0, 80, 40), Disagrees()
    plan = plan_of(network, canvas, tile=96, batch=3)
    labels = collected(network, "labels", plan, canvas).images["labels"]
    assert set(np.unique(labels)) == {10 * n for n in range(1, network.calls + 1)}
    assert labels[0, 0, 0] == 10


@pytest.mark.parametrize("fails_late", [False, True])
def test_a_smaller_batch_gives_the_same_maps_and_one_table_row_a_slice(fails_late: bool) -> None:
    expected = collected(Probe(), "image,pair.pc1,small")
    network = Probe()
    network.fails_late, network.limit = fails_late, 40 * 32
    found = collected(network, "image,pair.pc1,small", plan_of(network, batch=3))
    for name, image in expected.images.items():
        np.testing.assert_allclose(found.images[name], image, atol=1e-5)
    np.testing.assert_array_equal(found.tables["small"], expected.tables["small"])


def test_a_volume_without_a_lit_slice_has_empty_maps() -> None:
    network = Probe()
    target, reference = slices(0)
    views = choose_views(network, "image,labels,pair.pc1,small")
    found = collect_maps(network, target, reference, plan_of(network), views)
    assert {name: image.shape for name, image in found.images.items()} == dict.fromkeys(
        ("image", "labels", "pair.pc1"), reference.shape
    )
    assert found.tables == {}


def test_progress_is_told() -> None:
    network = Probe()
    fractions: list[float] = []
    views = choose_views(network, "image")
    collect_maps(network, *slices(), plan_of(network), views, update=fractions.append)
    assert fractions == pytest.approx([0, 1 / 3, 2 / 3])


def test_seeds_reach_the_network() -> None:
    class Samples(Probe):
        def forward(self, target_lr: Tensor, reference: Any, *, generator: Any = None, **options: Any) -> SROutput:
            output = super().forward(target_lr, reference, **options)
            noise: Iterable[Tensor] = [torch.rand(reference.shape[1:], generator=g) for g in generator]
            output.maps["image"] = torch.stack(list(noise))
            return output

    network = Samples()
    views = choose_views(network, "image")
    runs = [
        collect_maps(network, *slices(), plan_of(network, batch=batch), views, seeds=[5, 6, 9]).images["image"]
        for batch in (1, 2)
    ]
    np.testing.assert_array_equal(*runs)
    expected = torch.rand(1, 40, 32, generator=torch.Generator().manual_seed(6))
    np.testing.assert_array_equal(runs[0][1], expected[0])
