"""DAASR keeps to our reading: golden values, fingerprints, counts; and its slim form does what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import counted_gmac, fill, fingerprint, five_numbers, key_family, pseudo_random, shape_text
from golden_daasr import CASES, Case
from mcsr.errors import InputError
from mcsr.networks import Network, create_network
from mcsr.networks.daasr import transfer
from mcsr.weights import load_weights, save_weights
from torch import Tensor, nn

PARAMETERS = {4: 1_564_760, 2: 1_115_212, 3: 1_425_617}
# Parameters; parameters and running statistics; lines "key shape" of the same.
FINGERPRINTS = {
    4: (
        "5a994f3c8398d2eaee6ec14c1cfa10007975e3603a2f5525c15a754ad0a22e16",
        "43dc242057d81cd118f81c9efefabcf8cc2cc765255ce87ab962d5cd18fab949",
        "13d8081c43d157d20deb085779b22389ec423feffa40a59a6106f9b04005d595",
    ),
    2: (
        "b5e0b6124a4510cb228d014a225f7d199a76deb909261a6f6270e709541d7111",
        "3d5f523638a3aa12963c7f44a66b94d9dd5f2c9a324ae291a464409ac04a3eca",
        "50d0131279c8a1ef47921a7cfb24e9fb9c13147bb256ab6a62b7c9f73fdaf5f3",
    ),
    3: (
        "bc042b36193b0f078830707ea46d83901588fc4ec5f34418739d7a0012a1ecf6",
        "241022f235ff14596461634a7d20e446673619112910e096361de96846b3de3c",
        "9005a27350125969c71743baaafaf0724973cdee6d6e3618e21007132b9e97de",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_golden_values(name: str) -> None:
    case = CASES[name]
    tensors = _tensors(case)
    for key, expected in case.values.items():
        np.testing.assert_allclose(five_numbers(tensors[key]), expected, rtol=0, atol=2e-5, err_msg=key)
    columns = -(-case.reference_shape[1] // 4)
    for group, (_, total, distinct, first, mean_score, _) in enumerate(case.matches, start=1):
        index = _match_index(tensors[f"displacement_g{group}"], columns)
        assert (index.sum().item(), len(index.unique())) == (total, distinct), f"group {group}"
        assert tuple(index[:8].tolist()) == first, f"group {group}"
        assert tensors["mean_score"][0, group - 1].item() == pytest.approx(mean_score, abs=2e-5)
        assert tensors[f"score_g{group}"].mean().item() == pytest.approx(mean_score, abs=2e-5)
    scores = tensors["queries"].flatten(2)[0].T @ tensors["keys"].flatten(2)[0]
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    assert (best - second).min().item() == pytest.approx(case.matches[-1][-1], abs=6e-6), "margin of the last group"


def test_probe_values_of_the_fill() -> None:
    state = _golden_network(CASES["A"]).state_dict()
    for key, expected in {
        "aux_cwt.0.bias": (0.0240085, 0.0064395),
        "body.weight": (0.0455850, -0.0670063),
        "g.0.cwt.0.tau": (7.7226958,),
        "sfe.rbs.0.bn1.running_var": (0.9742460, 1.1194777),
        "up.2.bias": (-0.0124028, -0.0317611),
    }.items():
        np.testing.assert_allclose(state[key].flatten()[: len(expected)].numpy(), expected, rtol=0, atol=6e-8)


@pytest.mark.parametrize("scale", list(FINGERPRINTS))
def test_state_dict_is_that_of_the_spec(scale: int) -> None:
    network = create_network("daasr", scale=scale)
    state = {k: t for k, t in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    parameters, everything, keys = FINGERPRINTS[scale]
    assert len(network.state_dict()) == (178 if scale == 4 else 176)
    assert fingerprint(shape_text(p) for p in network.parameters()) == parameters
    assert fingerprint(shape_text(t) for t in state.values()) == everything
    assert fingerprint(f"{key} {shape_text(t)}" for key, t in state.items()) == keys
    assert _parameters(network) == PARAMETERS[scale]


def test_parameters_of_the_parts() -> None:
    network = create_network("daasr")
    assert network.config.scale == 4
    group = network.g[0]
    counts = {name: _parameters(module) for name, module in network.named_children()}
    assert counts == {
        "head": 640,
        "sfe": 222_592,
        "g": 6 * 166_465,
        "body": 36_928,
        "up": 295_424,
        "out": 577,
        "aux_cwt": 9_232,
        "aux_sat": 577,
    }
    assert [_parameters(m) for m in (group.cwt, group.sat, group.down, group.tail)] == [51_521, 12_416, 65_600, 36_928]
    for scale, heads in ((2, 2_885), (3, 5_770)):
        other = create_network("daasr", scale=scale)
        assert _parameters(other.aux_cwt) + _parameters(other.aux_sat) == heads


def test_initial_values() -> None:
    torch.manual_seed(0)
    network = create_network("daasr").eval()
    for conv in (network.out, network.aux_cwt[0], network.aux_sat):
        assert conv.weight.std().item() == pytest.approx(0.001, rel=0.15)
        assert not conv.bias.any()
    for key, tensor in network.state_dict().items():
        if key.endswith("tau") or (key.endswith("weight") and any(n in key for n in (".bn", ".n1.", ".n2."))):
            assert (tensor == 1).all(), key
    target = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        start = network(target, None).sr
    bicubic = F.interpolate(target, scale_factor=4, mode="bicubic", align_corners=False)
    assert 0 < (start - bicubic).abs().max() < 0.02


def test_transfer_is_the_overlap_average_of_whole_neighbourhoods() -> None:
    """The literal form: unfold to 12x12 blocks at stride 4, pick, fold, divide by the number that overlap."""
    torch.manual_seed(0)
    values, (rows, columns) = torch.randn(2, 3, 20, 28), (5, 7)
    index = torch.randint(0, rows * columns, (2, 4, 6))
    index[:, 0, 0], index[:, 1, 1] = 0, rows * columns - 1
    bordered = F.pad(values, (4, 4, 4, 4), mode="replicate")
    blocks = F.unfold(bordered, 12, stride=4)
    picked = blocks.gather(2, index.flatten(1)[:, None].expand(-1, blocks.shape[1], -1))
    covered = F.fold(torch.ones_like(picked), (24, 32), 12, stride=4)
    literal = (F.fold(picked, (24, 32), 12, stride=4) / covered)[..., 4:-4, 4:-4]
    assert covered[0, 0, 4:-4:4, 4:-4:4].unique().tolist() == [4.0, 6.0, 9.0]
    tokens = F.pixel_unshuffle(bordered, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(transfer(tokens, index, (rows, columns)), literal, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_reference_of_any_size_encoded_once_gives_the_same_bits() -> None:
    network = create_network("daasr-s").eval()
    target, reference = torch.rand(1, 1, 37, 50), torch.rand(1, 1, 130, 211)
    encoded = network.encode_reference(reference)
    assert encoded.grid == (33, 53)
    sr = network(target, encoded).sr
    assert sr.shape == (1, 1, 148, 200)
    assert torch.equal(sr, network(target, reference).sr)


@torch.no_grad()
def test_the_chosen_pixel_shows_the_best_match_and_what_was_copied_with_it() -> None:
    network = _golden_network(CASES["B"])
    maps = network(*_golden_inputs(CASES["B"]), capture=True).maps
    index = _match_index(maps["displacement_g6"], 23).reshape(24, 20)
    for row, column in ((0, 0), (50, 33), (95, 79)):
        point = network.point_maps(maps, row, column)
        scores, source = point["match_scores"][0, 0], point["match_source"][0, 0]
        assert scores.shape == source.shape == (25, 23)
        best = index[row // 4, column // 4].item()
        assert scores.argmax().item() == best
        assert source.argmax().item() == best
        y, x = divmod(best, 23)
        assert (source >= 1).sum() == len({*range(y - 1, y + 2)} & {*range(25)}) * len(
            {*range(x - 1, x + 2)} & {*range(23)}
        )


@torch.no_grad()
def test_agreement_of_matches_is_the_share_of_equal_tokens() -> None:
    case = CASES["C"]
    maps = _golden_network(case)(*_golden_inputs(case), capture=True).maps
    first, last = (maps[f"displacement_g{group}"][0] for group in (1, 6))
    same = (first == last).all(dim=0).float().mean()
    assert maps["match_agreement"].shape == (1, 6, 6)
    torch.testing.assert_close(maps["match_agreement"][0, 0, 5], same)
    torch.testing.assert_close(maps["match_agreement"].diagonal(dim1=1, dim2=2), torch.ones(1, 6))


def test_what_only_losses_need_comes_only_in_training() -> None:
    network = create_network("daasr-s", scale=2)
    target = torch.rand(2, 1, 12, 12)
    aux = network.train()(target, None).aux
    assert {key: tuple(t.shape) for key, t in aux.items()} == {
        "structure": (2, 1, 24, 24),
        "texture": (2, 1, 24, 24),
        "queries": (2, 4, 36, 128),
        "keys": (2, 36, 128),
    }
    tracked = network.sfe.rbs[0].bn1.num_batches_tracked
    assert tracked.item() == 1, "sharp and blurred reference are not one batch"
    with torch.no_grad():
        assert network.eval()(target, None).aux == {}
    assert tracked.item() == 1


def test_weights_files_keep_the_running_statistics(tmp_path: Path) -> None:
    network = create_network("daasr-s", scale=2).train()
    network(torch.rand(2, 1, 12, 12), None)
    path = tmp_path / "some.safetensors"
    save_weights(path, network, {"architecture": "daasr-s", "scale": 2})
    state = load_weights(path).build().state_dict()
    for key, tensor in network.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        torch.testing.assert_close(state[key], expected, rtol=0, atol=0)
    assert state["sfe.rbs.0.bn1.num_batches_tracked"].item() == 1
    assert (state["sfe.rbs.0.bn1.running_var"] != 1).all()


def test_other_scales_are_refused() -> None:
    with pytest.raises(InputError, match=r"by 2, 3 or 4, not by 5"):
        create_network("daasr", scale=5)


@pytest.mark.parametrize(("scale", "size", "expected"), [(4, 256, 66.9), (2, 256, 73.9), (3, 255, 68.2)])
def test_gmac_of_the_published_network(scale: int, size: int, expected: float) -> None:
    """That of the plain formulas, less what W_q saves by projecting pooled features: 0.2 GMAC a group, exactly."""
    saved = 6 * 64**2 * 256**2 * 3 / 4 / 1e9
    gmac = counted_gmac(create_network("daasr", scale=scale), size, size)
    assert gmac == pytest.approx(expected, rel=0.03)
    assert gmac + saved == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_slim_network_keeps_to_its_limits(scale: int) -> None:
    network = create_network("daasr-s", scale=scale)
    assert _parameters(network) <= 1_500_000
    size = 256 // scale * scale
    assert counted_gmac(network, size, size) <= 30.0
    published = {key_family(key) for key in create_network("daasr", scale=scale).state_dict()}
    assert {key_family(key) for key in network.state_dict()} == published, "a named module was left out"


def _golden_network(case: Case) -> Network:
    network = create_network("daasr", scale=case.scale).eval()
    fill(network, [k for k in network.state_dict() if not k.endswith("num_batches_tracked")], _golden_value)
    for group, (position, *_) in enumerate(case.matches):
        weight = network.g[group].sat.wq.weight
        values = _golden_value("sat.wq.weight", pseudo_random(weight.numel(), position), tuple(weight.shape))
        with torch.no_grad():
            weight.copy_(torch.from_numpy(values.astype(np.float32)).reshape(weight.shape))
    return network


def _golden_value(key: str, v: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if key.endswith(".tau"):
        return 8 * (1 + v)
    if key.endswith(".running_var"):
        return 1 + v
    if key.endswith(".weight") and any(name in key for name in (".bn", ".n1.", ".n2.")):
        return 1 + v
    if len(shape) < 2:
        return 0.1 * v
    gains = {".tail.weight": 0.3, ".down.weight": 0.5, ".fuse.weight": 6.0}
    gain = next((g for end, g in gains.items() if key.endswith(end)), 1.0)
    if key in ("out.weight", "aux_cwt.0.weight", "aux_sat.weight"):
        gain = 0.5
    return gain * v * np.sqrt(12 / (v.size / shape[0]))


def _golden_inputs(case: Case) -> tuple[Tensor, Tensor]:
    (h, w), (height, width) = case.target_shape, case.reference_shape
    target = 2 * pseudo_random(h * w, 3000).reshape(h, w)
    r, c = np.arange(height)[:, None], np.arange(width)[None]
    cells = pseudo_random(-(-height // 4) * -(-width // 4), 2000).reshape(-(-height // 4), -(-width // 4))
    reference = 1.6 * cells[r // 4, c // 4] + 0.2 * np.cos(0.9 * r - 0.4 * c)
    lr, ref = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (target, reference))
    return lr, ref


@torch.no_grad()
def _tensors(case: Case) -> dict[str, Tensor]:
    """All tensors of the golden table: the maps, the result, and what hooks see."""
    network = _golden_network(case)
    seen: dict[str, Tensor] = {}
    network.head.register_forward_hook(lambda _, x, y: seen.update(F_0=y))
    network.sfe.register_forward_hook(lambda _, x, y: seen.update(Ref_blur=x[0][1:], V=y[:1], K=y[1:]))
    for number, group in enumerate(network.g, start=1):
        group.register_forward_hook(lambda _, x, y, name=f"F_{number}": seen.update({name: y.features}))
    output = network(*_golden_inputs(case), capture=True)
    return {**seen, **output.maps, "sr": output.sr}


def _match_index(displacement: Tensor, columns: int) -> Tensor:
    """P, row-major on a reference grid of `columns`, from the displacement map (1, 2, n_h, n_w)."""
    right, down = (displacement[0] / 4).long()
    row = torch.arange(down.shape[0])[:, None] + down
    return (row * columns + torch.arange(down.shape[1]) + right).flatten()


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
