"""HFTN-SR keeps to our reading: golden values, matches, fingerprints, counts; transfer, bands and maps are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import counted_gmac, fill, fingerprint, five_numbers, key_family, pseudo_random, shape_text
from golden_hftn_sr import CASES, GOLDEN, MATCHES
from mcsr.errors import InputError
from mcsr.networks import Network, create_network
from mcsr.networks.blocks import upsample_slices
from mcsr.networks.hftn_sr import SCRFM, ConcatTransfer, FeatureTransfer, HFTNSRConfig
from torch import Tensor

FINGERPRINTS = {
    4: (
        512,
        5_804_417,
        "0c05245ae969deb74e78ff5302cc6ef237788e520c2b2f36d1135e89847dcd46",
        "74205d419440b47e9cee5bafdd953cd91970c5a48285c15039cc689a7c8b95f3",
    ),
    2: (
        508,
        5_723_649,
        "dbc95b4cff7059889e9f73f6f0eb8c16df097c04716253e9027f5451cd56d1a3",
        "5b1f9f1af0e705e2824bb030e1af79bedd19eb922015ae62da8a862b3b9f4c2a",
    ),
    3: (
        508,
        5_726_529,
        "121290ccd235d59c94981043a54c9ced00debc43f01ad7826f8b0af7cdfa7fa2",
        "72ffc7051d1f0b7cbb88f11ffdd7a17b5850119b980c97b6f9db483dab1d92a0",
    ),
}
# These keys' places in the fill rule, so that all best matches are well separated.
POSITIONS = {
    f"tb.{i}.eq.weight": position for i, position in enumerate((5001, 5039, 5002, 5023, 5069, 5049, 5025, 5009))
}


def _golden_value(key: str, v: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) < 2:
        return 0.1 * v
    gain = 0.5 if key.endswith(".b.2.weight") else 0.25 if key in ("sc.al.weight", "sc.be.weight") else 1.0
    return gain * v * np.sqrt(12 * shape[0] / v.size)


def _golden_network(scale: int, transfer: str) -> Network:
    network = create_network("hftn-sr", scale=scale, transfer=transfer).eval()
    fill(network, network.state_dict(), _golden_value, POSITIONS)
    return network


def _golden_slices(scale: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    lr = 2 * pseudo_random(height * width, 3000).reshape(height, width)
    blocks = pseudo_random(height * width, 2000).reshape(height, width).repeat(scale, axis=0).repeat(scale, axis=1)
    r, c = np.arange(scale * height)[:, None], np.arange(scale * width)[None]
    reference = 1.6 * blocks + 0.2 * np.cos(0.9 * r - 0.4 * c)
    return torch.from_numpy(lr).float()[None, None], torch.from_numpy(reference).float()[None, None]


def _tensors_of_spec(network: Network, lr: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Everything that has golden values: what modules give, and the captured maps."""
    seen: dict[str, Tensor] = {}
    outputs = {"ht": "F_T^0", "ft.0": "T_1", "fl.0": "L_1", "fl.7": "L_8", "fh.0": "H_1", "fh.7": "H_8"}
    outputs |= {"tb.0": "X_1", "tb.7": "X_8", "sc": "F_f", "hhr": "G_H", "sc.al": "alpha", "sc.be": "beta"}
    for path, name in outputs.items():
        network.get_submodule(path).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out[0] if isinstance(out, tuple) else out})
        )
    inputs = {"sc.c1": "F", "sc.out": "A"}
    for path, name in inputs.items():
        network.get_submodule(path).register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0]}))
    with torch.no_grad():
        output = network(lr, reference, capture=True)
    seen["A1"], seen["A2"] = seen.pop("A").chunk(2, dim=1)
    seen["alpha"] = seen["alpha"] + seen["F_T^0"].std(dim=(2, 3), keepdim=True)
    seen["beta"] = seen["beta"] + seen["F_T^0"].mean(dim=(2, 3), keepdim=True)
    return {**seen, **output.maps, "sr": output.sr}


@pytest.mark.parametrize(("case", "transfer"), list(GOLDEN))
def test_golden_values_and_matches(case: str, transfer: str) -> None:
    scale, height, width = CASES[case]
    tensors = _tensors_of_spec(_golden_network(scale, transfer), *_golden_slices(scale, height, width))
    for name, expected in GOLDEN[case, transfer].items():
        np.testing.assert_allclose(five_numbers(tensors[name]), expected, rtol=0, atol=2e-6, err_msg=name)
    for stage, (total, distinct, first, best, margin) in enumerate(MATCHES[case, transfer], 1):
        queries, keys = tensors[f"embeddings_stage{stage}"].unbind(dim=1)
        scores = (queries @ keys.transpose(1, 2))[0]
        index = _sources(tensors[f"displacement_stage{stage}"], 2 * scale)
        assert (int(index.sum()), len(index.unique()), tuple(index[:8].tolist())) == (total, distinct, first), stage
        assert torch.equal(index, scores.argmax(dim=1))
        assert int((tensors[f"usage_stage{stage}"] > 0).sum()) == distinct
        assert tensors[f"relevance_stage{stage}"].max().item() == pytest.approx(best, abs=2e-6)
        assert (scores.topk(2).values @ torch.tensor([1.0, -1.0])).min().item() == pytest.approx(margin, rel=0.06)


def _sources(displacement: Tensor, cell: int) -> Tensor:
    """Positions of the matched patches in the reference, row by row, from where a displacement (1, 2, a, b) points."""
    rows, columns = displacement.shape[-2:]
    across, down = (displacement[0] / cell).round().long()
    return ((torch.arange(rows)[:, None] + down) * columns + torch.arange(columns) + across).flatten()


def test_fill_rule_is_that_of_the_spec() -> None:
    state = _golden_network(4, "gather").state_dict()
    probe = {
        "fh.0.b.0.c1.bias": (0.0240085, 0.0064395),
        "ht.weight": (-0.4347654, 0.5402365),
        "sc.al.weight": (0.0149698, 0.0150761),
        "tb.0.ek.weight": (-0.0417517, -0.0896375),
        "tb.0.eq.weight": (0.0468343, -0.0573570),
    }
    for key, expected in probe.items():
        np.testing.assert_allclose(state[key].flatten()[:2], expected, rtol=0, atol=6e-8, err_msg=key)


@pytest.mark.parametrize("scale", list(FINGERPRINTS))
def test_state_dict_is_that_of_the_spec(scale: int) -> None:
    network = create_network("hftn-sr", scale=scale)
    state = network.state_dict()
    entries, parameters, shapes, keys = FINGERPRINTS[scale]
    assert len(state) == entries
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert fingerprint(shape_text(p) for p in network.parameters()) == shapes
    assert fingerprint(f"{key} {shape_text(t)}" for key, t in state.items()) == keys


@pytest.mark.parametrize(("scale", "low", "gmac"), [(4, 64, 31.1), (2, 128, 104.0), (3, 85, 49.0)])
def test_gmac_of_the_published_network(scale: int, low: int, gmac: float) -> None:
    """With the products of the score matrix: 31.12, 104.02 and 48.98 are counted here."""
    assert counted_gmac(create_network("hftn-sr", scale=scale), scale * low, scale * low) == pytest.approx(
        gmac, rel=0.03
    )


def test_initial_values() -> None:
    torch.manual_seed(0)
    network = create_network("hftn-sr", scale=2)
    for conv in (network.sc.al, network.sc.be):
        assert not conv.weight.any()
        assert not conv.bias.any()
    assert network.out2.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert not network.out2.bias.any()


def test_slim_network_keeps_to_its_limits() -> None:
    for scale in (4, 2):
        network = create_network("hftn-sr-s", scale=scale)
        assert sum(p.numel() for p in network.parameters()) <= 1_500_000
        assert counted_gmac(network, 256, 256) <= 30.0
        published = {key_family(key) for key in create_network("hftn-sr", scale=scale).state_dict()}
        assert {key_family(key) for key in network.state_dict()} == published, "a named module was left out"


@torch.no_grad()
@pytest.mark.parametrize("transfer", ["gather", "mask"])
def test_transfer_finds_what_was_moved(transfer: str) -> None:
    """The target shows the reference one patch to the right, so every patch's source lies one patch to the left."""
    torch.manual_seed(0)
    block = FeatureTransfer(HFTNSRConfig(scale=4, channels=8, embedding=16, transfer=transfer))
    block.eq.load_state_dict(block.ek.state_dict())
    low, high = torch.randn(2, 1, 8, 12, 16).unbind(0)
    low[..., :2] = high[..., :2] = 0  # what would leave at the right is not there
    low, high = low.roll(-2, -1), high.roll(-2, -1)
    maps: dict[str, Tensor] = {}
    target = low.roll(2, -1)
    out, _ = block(target, block.attend_to(low, high), maps, "stage1")

    across, down = maps["displacement_stage1"][0, :, :, 1:]
    assert torch.equal(across, torch.full_like(across, -8.0)), "8 = 2 low-resolution pixels at x4"
    assert not down.any()
    torch.testing.assert_close(maps["relevance_stage1"], torch.ones(1, 1, 6, 8))
    used = maps["usage_stage1"].repeat_interleave(2, -1).repeat_interleave(2, -2) > 0
    expected = high.roll(2, -1) if transfer == "gather" else high * used
    assert torch.equal(maps["transferred_stage1"][..., 2:], expected[..., 2:])
    torch.testing.assert_close(out - target, maps["contribution_stage1"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_transfer_is_weighted_by_relevance() -> None:
    torch.manual_seed(0)
    block = FeatureTransfer(HFTNSRConfig(channels=8, embedding=16))
    block.syn.weight.zero_()
    block.syn.bias.fill_(1.0)
    maps: dict[str, Tensor] = {}
    target, low, high = torch.randn(3, 1, 8, 12, 16).unbind(0)
    block(target, block.attend_to(low, high), maps, "stage1")
    weight = F.interpolate(maps["relevance_stage1"], scale_factor=2, mode="nearest")
    torch.testing.assert_close(maps["contribution_stage1"], weight.expand(1, 8, 12, 16))


@torch.no_grad()
def test_bands_split_the_reference() -> None:
    torch.manual_seed(0)
    reference = torch.rand(1, 1, 33, 27)
    encoded = create_network("hftn-sr-s", scale=3).eval().encode_reference(reference)
    assert encoded.low_band[0, 0, 2, 1].item() == pytest.approx(reference[0, 0, 6:9, 3:6].mean().item())
    low = F.interpolate(encoded.low_band, scale_factor=3, mode="bilinear", align_corners=False)
    torch.testing.assert_close(low + encoded.high_band, reference)
    whole = create_network("hftn-sr-s", scale=3, decompose=False).eval().encode_reference(reference)
    assert torch.equal(whole.high_band, reference)


@torch.no_grad()
def test_added_maps_are_what_switching_off_shows() -> None:
    torch.manual_seed(0)
    network = create_network("hftn-sr-s", scale=2).eval()
    lr, reference = torch.rand(1, 1, 13, 10), torch.rand(1, 1, 26, 20)
    output = network(lr, reference, capture=True)
    torch.testing.assert_close(output.sr - upsample_slices(lr, 2, "sinc"), output.maps["added"])
    alone = create_network("hftn-sr-s", scale=2, global_skip=False).eval()
    alone.load_state_dict(network.state_dict())
    assert torch.equal(alone(lr, reference).sr, output.maps["added"])
    network.hhr.weight.zero_()
    network.hhr.bias.zero_()
    edges = output.maps["added_by_reference_edges"]
    assert edges.abs().max() > 1e-3, "nothing to see"
    torch.testing.assert_close(network(lr, reference).sr, output.sr - edges)


@torch.no_grad()
def test_match_scores_of_a_pixel_are_brightest_at_its_source() -> None:
    torch.manual_seed(0)
    network = create_network("hftn-sr-s", scale=4).eval()
    maps = network(torch.rand(1, 1, 16, 12), torch.rand(1, 1, 64, 48), capture=True).maps
    points = network.point_maps(maps, 35, 21)  # patch (4, 2)
    for stage in range(1, network.config.stages + 1):
        scores, source = points[f"match_scores_stage{stage}"], _sources(maps[f"displacement_stage{stage}"], 8)
        assert scores.argmax() == source[4 * 6 + 2]
        assert scores.max().item() == pytest.approx(maps[f"relevance_stage{stage}"][0, 0, 4, 2].item(), abs=1e-6)


@torch.no_grad()
def test_a_reference_on_another_grid_is_resampled_in_place() -> None:
    """A smooth reference seen on three grids of one field of view: the anatomy must not move."""
    torch.manual_seed(0)
    network = create_network("hftn-sr-s", scale=4).eval()
    lr = torch.rand(1, 1, 16, 12)

    def reference(rows: int, columns: int) -> Tensor:
        y, x = ((torch.arange(n) + 0.5) / n for n in (rows, columns))
        return torch.sin(7 * y[:, None] + 5 * x[None])[None, None]

    maps = network(lr, reference(64, 48), capture=True).maps
    for rows, columns in ((130, 97), (64, 40), (51, 96)):
        resampled = network(lr, reference(rows, columns), capture=True).maps
        torch.testing.assert_close(resampled["low_band"], maps["low_band"], rtol=0, atol=0.01)
    with pytest.raises(ValueError, match="no multiple of the scale 4"):
        network.encode_reference(reference(63, 48))
    with pytest.raises(ValueError, match="does not fit"):
        network(lr, network.encode_reference(reference(64, 64)))


def test_scrfm_restores_spread_and_mean_of_the_target() -> None:
    """Before training alpha and beta are the target's own statistics, unbiased; a constant target has a gradient."""
    torch.manual_seed(0)
    deep, shallow = torch.randn(2, 1, 8, 6, 6).unbind(0)
    for stat, spread in (("std", shallow.std(dim=(2, 3))), ("var", shallow.var(dim=(2, 3)))):
        maps: dict[str, Tensor] = {}
        SCRFM(HFTNSRConfig(scale=2, channels=8, stat=stat))(deep, shallow, maps)
        torch.testing.assert_close(maps["gain"], spread.mean().expand(1, 1, 6, 6))
        torch.testing.assert_close(maps["offset"], shallow.mean().expand(1, 1, 6, 6))
    network = create_network("hftn-sr-s", scale=2)
    network(torch.zeros(1, 1, 8, 8), torch.rand(1, 1, 16, 16)).sr.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(("field", "value"), [("scale", 5), ("transfer", "soft"), ("stat", "mean")])
def test_settings_that_do_not_exist_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=str(value)):
        create_network("hftn-sr", **{field: value})


@pytest.mark.parametrize("switched_off", [{"transfer": "none"}, {"reconstruction": "concat"}, {"decompose": False}])
def test_parts_can_be_switched_off_as_in_the_papers_ablation(switched_off: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = create_network("hftn-sr-s", scale=3, stages=2, **switched_off)
    whole = create_network("hftn-sr-s", scale=3, stages=2)
    assert ("tb.0.eq.weight" in network.state_dict()) == (network.config.transfer != "none")
    assert ("sc.al.weight" in network.state_dict()) == (network.config.reconstruction == "scrfm")
    assert network.state_dict().keys() <= whole.state_dict().keys()
    target, reference = torch.rand(2, 1, 11, 9), torch.rand(2, 1, 33, 27)
    output = network.train()(target, reference)
    sum(tensor.square().mean() for tensor in (output.sr, *output.aux.values())).backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        captured = network.eval()(target, reference, capture=True)
        assert not torch.equal(captured.sr, network(target, reference.flip(-1)).sr)
    asked = {key for key, spec in network.map_specs().items() if not spec.of_point}
    assert set(captured.maps) == asked
    assert set(network.point_maps(captured.maps, 3, 4)) == set(network.map_specs()) - asked


def test_without_matching_a_stage_joins_the_three_branches() -> None:
    """The 192 -> 64 convolution sees low band, high band and target, in this order."""
    torch.manual_seed(0)
    block = ConcatTransfer(HFTNSRConfig())
    assert block.syn.weight.shape == (64, 192, 3, 3)
    low, high, target = torch.rand(3, 1, 64, 4, 6).unbind(0)
    joined, _ = block(target, block.attend_to(low, high), None, "stage1")
    assert torch.equal(joined, block.syn(torch.cat([low, high, target], dim=1)))
