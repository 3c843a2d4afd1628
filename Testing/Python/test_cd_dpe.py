"""CD-DPE is exact: golden values, fingerprints, counts of the published code; its slim form does what it promises."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import counted_gmac, fill, fingerprint, key_family
from mcsr.errors import InputError
from mcsr.networks import SROutput, create_network
from mcsr.networks.cd_dpe import SEED_3407_ETA, official_aliases, official_key_table
from mcsr.networks.dictionaries import Dictionary
from mcsr.networks.displacement import warp
from mcsr.networks.expert_mixture import ExpertMixture
from torch import Tensor

# Of the published code: mean, unbiased std, [first, 0, 0], [first, S // 3, S // 5], [last, S - 1, S - 1].
GOLDEN_64 = {
    "sr": (-0.046728, 0.012550, -0.012277, -0.058709, -0.027029),
    "x_rec": (0.528694, 0.213693, 0.043680, 0.496607, 0.039278),
    "y_rec": (-0.342645, 0.189919, 0.004718, -0.391890, 0.002911),
    "x_unique": (0.344371, 0.148019, 0.010049, 0.387956, 0.048290),
    "x_common": (0.184323, 0.086058, 0.033632, 0.108651, -0.009012),
    "y_unique": (-0.086031, 0.114348, 0.046968, -0.101867, -0.010196),
    "y_common": (-0.256614, 0.093924, -0.042250, -0.290023, 0.013106),
    "warped_reference": (0.499610, 0.356624, 0.999951, 0.578904, 0.000018),
    "displacement_reference_2": (0.129441, 0.061786, 0.083246, 0.147254, 0.007257),
}
GOLDEN_240 = {
    "sr": (-0.089420, 0.030823, -0.012229, -0.094677, 0.016495),
    "x_rec": (0.573813, 0.192017, 0.043588, 0.703680, 0.039863),
    "y_rec": (-0.374999, 0.178156, 0.004871, -0.291282, -0.061365),
    "x_unique": (0.370123, 0.139955, 0.010052, 0.473734, 0.037829),
    "x_common": (0.203689, 0.073995, 0.033536, 0.229946, 0.002034),
    "y_unique": (-0.095020, 0.117968, 0.046865, -0.021950, -0.063066),
    "y_common": (-0.279980, 0.081311, -0.041995, -0.269333, 0.001700),
    "warped_reference": (0.508816, 0.353308, 0.999951, 0.769948, 0.907991),
    "displacement_reference_2": (0.138468, 0.057556, 0.083218, 0.229604, 0.034869),
}
ROUTING_64 = {
    "prompt": (0.328427, 0.328427, 0.343146),
    "logits": (-0.077642, 0.052780, -0.207540, 0.524250),
    "gates": (0, 0.384268, 0, 0.615732),
}
ROUTING_240 = {
    "prompt": (0.323338, 0.353323, 0.323338),
    "logits": (1.341968, -0.447767, 0.240026, -1.274618),
    "gates": (0.750624, 0, 0.249376, 0),
}
ROUTING_TOLERANCE = {"prompt": 2e-6, "logits": 1e-3, "gates": 1e-4}

# Of the published code, on shapes of distinct tensors, on shapes of all entries, on lines "key shape".
FINGERPRINTS = {
    64: (
        "b16cc981aea82b15c7238a1f7ab7b9b02a884dc76818419c1f27079ed868ae33",
        "a81fb9c9f57eef2f3438aa3ad7c55949290dacf393dfe22b1bcbc49e1ed5f937",
        "f17d4f2ee2b1cee9c5d30732af1e40b92f81e73355f203955a834c0f6ccc39a4",
    ),
    240: (
        "54a2cad3b211b614259bed071186a03a30b8ff25c76817553ae60505f4502364",
        "60b0a96d5329984ae1a38e68a5fb0a122a35c9b8a072de785e623508988eb929",
        "08ea45eafc55a04afe510133570e77f79abd0b165cb6c957fb61fd618d1a935f",
    ),
    256: (
        "e1630f340060937f12ca0e7b4deb95a498d0a301bfa0c07239f1aa4bf02e3bfa",
        "161280ab9b5f0389a505327ec955c8a90f3199bc0138c61cffd8f8a5d0215bc1",
        "007ca6f941cb871bd48009a3c6a82aef703c1601d2d7d43530c980b3b01685d3",
    ),
}
PARAMETERS = {64: 10_148_791 + 27 * 64**2 + 6 * 64, 240: 11_705_431, 256: 11_919_799}


def _golden_value(key: str, v: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if key in ("fusion.w_gate", "fusion.w_noise"):
        return 0.02 * v
    if key == "fusion.fre_prompt":
        return v
    return v * np.sqrt(12 * shape[0] / v.size) if len(shape) >= 2 else 0.1 * v


def _golden_output(size: int) -> SROutput:
    network = create_network("cd-dpe", size=size).eval()
    aliases_and_buffers = {*official_aliases(), "fusion.mean", "fusion.std"}
    keys = [key for key in official_key_table(network) if key not in aliases_and_buffers]
    assert len(keys) == 381
    fill(network, keys, _golden_value)
    network.encoder["predict_ista"].eta.fill_(0.24)
    r, c = (torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)[None])
    target = 0.5 + 0.5 * torch.sin(0.11 * r + 0.07 * c) * torch.cos(0.05 * r - 0.13 * c)
    reference = 0.5 + 0.5 * torch.cos(0.09 * r - 0.04 * c)
    with torch.no_grad():
        return network(target.float()[None, None], reference.float()[None, None], capture=True)


def _five(tensor: Tensor) -> list[float]:
    maps, size = tensor[0].double(), tensor.shape[-1]
    values = (maps.mean(), maps.std(), maps[0, 0, 0], maps[0, size // 3, size // 5], maps[-1, -1, -1])
    return [value.item() for value in values]


@pytest.mark.parametrize(
    ("size", "golden", "routing"),
    [(64, GOLDEN_64, ROUTING_64), pytest.param(240, GOLDEN_240, ROUTING_240, marks=pytest.mark.slow)],
)
def test_golden_values(size: int, golden: dict[str, tuple[float, ...]], routing: dict[str, tuple[float, ...]]) -> None:
    output = _golden_output(size)
    tensors = {**output.maps, "sr": output.sr}
    for name, expected in golden.items():
        np.testing.assert_allclose(_five(tensors[name]), expected, rtol=0, atol=2e-6, err_msg=name)
    for name, expected in routing.items():
        np.testing.assert_allclose(tensors[name][0], expected, rtol=0, atol=ROUTING_TOLERANCE[name], err_msg=name)
    torch.testing.assert_close(sum(output.maps[f"expert_{k}"] for k in (1, 2, 3, 4)), output.sr)


@pytest.mark.parametrize("size", list(FINGERPRINTS))
def test_state_dict_is_the_published_one(size: int) -> None:
    network = create_network("cd-dpe", size=size)
    table = official_key_table(network)
    assert len(table) == 389
    assert set(table) - set(network.state_dict()) == set(official_aliases())
    text = {key: "x".join(str(n) for n in shape) for key, shape in table.items()}
    distinct, everything, keys = FINGERPRINTS[size]
    assert fingerprint(shape for key, shape in text.items() if key not in official_aliases()) == distinct
    assert fingerprint(text.values()) == everything
    assert fingerprint(f"{key} {shape}" for key, shape in text.items()) == keys
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[size]


def test_published_size_is_the_default_and_fits_any_slice() -> None:
    network = create_network("cd-dpe")
    assert sum(p.numel() for p in network.parameters()) == 11_705_431
    assert network.native_size is None


def test_gmac_of_the_published_network() -> None:
    """Convolutions only, so the work is proportional to the area: 466.57 GMAC at 240x240."""
    assert counted_gmac(create_network("cd-dpe"), 64, 64) * (240 / 64) ** 2 == pytest.approx(466.57, rel=0.002)


@pytest.mark.parametrize(("side", "gmac"), [(240, 466.57), (256, 530.85)])
def test_gmac_at_the_published_sizes(side: int, gmac: float) -> None:
    assert counted_gmac(create_network("cd-dpe"), side, side) == pytest.approx(gmac, rel=0.001)


def test_slim_network_keeps_to_its_limits() -> None:
    network = create_network("cd-dpe-s")
    assert sum(p.numel() for p in network.parameters()) <= 1_500_000
    assert counted_gmac(network, 256, 256) <= 30.0
    published = {key_family(key) for key in create_network("cd-dpe").state_dict()}
    assert {key_family(key) for key in network.state_dict()} == published, "a named module was left out"


@torch.no_grad()
def test_adjoint_is_the_transpose_of_the_synthesis() -> None:
    """<D c, f> = <c, D* f> for any codes and features, in float64."""
    torch.manual_seed(0)
    dictionary = Dictionary((8, 12, 16)).double()
    normal = partial(torch.randn, dtype=torch.float64)
    codes, features = [normal(2, 16, 5, 6), normal(2, 12, 10, 12), normal(2, 8, 20, 24)], normal(2, 8, 20, 24)
    found = sum((code * adjoint).sum() for code, adjoint in zip(codes, dictionary.adjoint(features), strict=True))
    torch.testing.assert_close(found, (dictionary(codes) * features).sum())


def test_warp_looks_where_the_displacement_points() -> None:
    image = torch.rand(1, 2, 5, 8)
    right, down = torch.zeros(2, 1, 2, 5, 8)
    right[:, 0], down[:, 1] = 1, 1
    torch.testing.assert_close(warp(image, right)[..., :-1], image[..., 1:])
    torch.testing.assert_close(warp(image, right)[..., -1], image[..., -1])
    torch.testing.assert_close(warp(image, down)[..., :-1, :], image[..., 1:, :])
    torch.testing.assert_close(warp(image, down)[..., -1, :], image[..., -1, :])
    torch.testing.assert_close(warp(image, 0.5 * right)[..., :-1], (image[..., 1:] + image[..., :-1]) / 2)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 29), (32, 17)])
def test_closed_form_of_the_prompt_is_the_transform_of_the_paper(height: int, width: int) -> None:
    mixture = _mixture(32)
    reference = torch.rand(2, 3, height, width) + 0.5
    spectrum = torch.fft.rfft2(reference, norm="ortho")
    stacked = torch.cat([spectrum.real, spectrum.imag], dim=1)
    pooled = [pool(stacked, (32, 17)) for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)]
    modulated = mixture.freq_modulator(torch.cat(pooled, dim=1)) * mixture.fre_prompt
    enhanced = torch.complex(*mixture.freq_enhance(modulated).chunk(2, dim=1))
    image = torch.fft.irfft2(enhanced, s=(height, width), norm="ortho")
    found = mixture.prompt(reference)
    torch.testing.assert_close(found, image.mean(dim=(2, 3)).softmax(dim=-1), rtol=0, atol=1e-6)
    assert found.std(dim=1).min() > 1e-4, "an even prompt would prove nothing"


@torch.no_grad()
def test_routing_resamples_other_sizes_and_leaves_its_own_alone() -> None:
    mixture = _mixture(16).eval()
    target, reference = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    weights = 1 + mixture.prompt(reference)[..., None, None]
    expected = (target * weights).flatten(1) @ mixture.w_gate
    assert torch.equal(mixture.route(target, reference).logits, expected)
    # Rows doubled and shrunk by cell means: the same again, for the mean of the reference is the same too.
    doubled = mixture.prompt(reference.repeat_interleave(2, -2))
    taller = mixture.route(target.repeat_interleave(2, -2), reference.repeat_interleave(2, -2))
    torch.testing.assert_close(taller.logits, (target * (1 + doubled[..., None, None])).flatten(1) @ mixture.w_gate)
    narrow = target[..., ::2]
    grown = F.interpolate(narrow, size=(16, 16), mode="bilinear", align_corners=False)
    weights = 1 + mixture.prompt(reference[..., ::2])[..., None, None]
    found = mixture.route(narrow, reference[..., ::2]).logits
    torch.testing.assert_close(found, (grown * weights).flatten(1) @ mixture.w_gate)


def test_noise_only_in_training_and_from_the_global_seed() -> None:
    mixture = _mixture(16)
    slices = torch.rand(4, 3, 16, 16)
    torch.manual_seed(3)
    noisy, again = mixture.train().route(slices, slices), mixture.route(slices, slices)
    assert not torch.equal(noisy.gates, again.gates)
    torch.manual_seed(3)
    assert torch.equal(mixture.route(slices, slices).gates, noisy.gates)
    assert noisy.load_balance is not None
    clean = mixture.eval().route(slices, slices)
    assert torch.equal(clean.gates, mixture.route(slices, slices).gates)
    assert clean.load_balance is None
    torch.testing.assert_close(clean.gates.sum(dim=1), torch.ones(4))
    assert (clean.gates > 0).sum(dim=1).tolist() == [2, 2, 2, 2]
    assert torch.equal(clean.gates.argmax(dim=1), clean.logits.argmax(dim=1))


def test_load_balance_is_large_where_one_expert_does_all_and_small_where_all_share() -> None:
    mixture = _mixture(16).train()
    slices = torch.rand(64, 3, 16, 16)
    with torch.no_grad():
        mixture.w_gate.zero_()
        mixture.w_noise.zero_()
        torch.manual_seed(0)
        shared = mixture.route(slices, slices).load_balance
        mixture.w_gate[:, 1] = 0.1
        alone = mixture.route(slices, slices).load_balance
    assert shared is not None
    assert alone is not None
    assert shared < 0.05
    assert alone > 3, "one expert takes all: the variation of its importance alone is 4"


@torch.no_grad()
def test_load_estimate_is_the_chance_of_being_chosen() -> None:
    """Against redrawn noise of one expert, the others' fixed."""
    mixture = _mixture(16)
    logits, deviation = torch.tensor([[0.3, -0.2, 0.1, 0.0]]), torch.tensor([[0.5, 0.4, 0.6, 0.3]])
    torch.manual_seed(0)
    noisy = logits + torch.randn(1, 4) * deviation
    chances = mixture._chances(logits, noisy, deviation, noisy.sort(descending=True).values)
    for expert in range(4):
        others = noisy[0, [k for k in range(4) if k != expert]].sort(descending=True).values
        drawn = logits[0, expert] + torch.randn(200_000) * deviation[0, expert]
        assert chances[0, expert].item() == pytest.approx((drawn > others[1]).float().mean().item(), abs=0.005)


def test_only_chosen_experts_learn_from_a_slice() -> None:
    mixture = _mixture(16).eval()
    slices = torch.rand(1, 3, 16, 16)
    routing, parts = mixture(slices, slices, (16, 16))
    sum(part.square().sum() for part in parts).backward()
    for gate, part, expert in zip(routing.gates[0], parts, mixture.experts, strict=True):
        gradient = sum(p.grad.abs().sum() for p in expert.parameters())
        assert (gradient > 0) == (gate > 0)
        torch.testing.assert_close(part, gate * expert(slices))


@torch.no_grad()
def test_experts_see_raw_maps_unless_told_otherwise() -> None:
    raw, prompted = _mixture(16).eval(), _mixture(16, see_prompted=True).eval()
    slices = torch.rand(1, 3, 16, 16)
    routing, parts = prompted(slices, slices, (16, 16))
    seen = slices * (1 + routing.prompt[..., None, None])
    for k, gate in enumerate(routing.gates[0]):
        torch.testing.assert_close(parts[k], gate * prompted.experts[k](seen))
        torch.testing.assert_close(raw(slices, slices, (16, 16))[1][k], gate * raw.experts[k](slices))


def test_starts_as_published() -> None:
    """As in the published code: ranges, and which dictionaries are the same draw."""
    torch.manual_seed(0)
    state = create_network("cd-dpe", size=16).state_dict()
    prefix = "encoder.predict_ista."

    def drawn(name: str, layer: str) -> Tensor:
        return state[f"{prefix}{name}.{layer}.weight"]

    fans = {"bottleneck_conv": 128 * 9, "syn_up_list.0.up": 96 * 4, "syn_up_list.1.conv": 128 * 9, "syn_outc.conv": 64}
    for layer, fan in fans.items():
        for name in ("encoder_dictionary_x", "encoder_dictionary_zy", "precond_encoder_dictionary_y"):
            assert drawn(name, layer).abs().max().item() == pytest.approx(np.sqrt(3 / fan), rel=0.01)
        assert drawn("decoder_dictionary_z", layer).abs().max().item() == pytest.approx(np.sqrt(1 / fan), rel=0.01)
        for stream in "xy":
            precond = drawn(f"precond_encoder_dictionary_{stream}", layer)
            assert torch.equal(precond, drawn(f"decoder_dictionary_{stream}", layer))
            assert not torch.equal(precond, drawn(f"encoder_dictionary_{stream}", layer))
        assert torch.equal(drawn("precond_encoder_dictionary_z", layer), drawn("encoder_dictionary_z", layer))
    assert all((state[f"fusion.{key}"] == 0).all() for key in ("w_gate", "w_noise", "fre_prompt"))
    torch.testing.assert_close(state[f"{prefix}eta"], torch.tensor(SEED_3407_ETA))
    assert torch.equal(state[f"{prefix}threshold"], torch.full((3, 3), 0.01))


def test_step_sizes_are_fixed_unless_learned() -> None:
    small = {"channels": (16, 16, 16), "prox_blocks": (1, 1, 1), "size": 16}
    fixed, learned = (create_network("cd-dpe", learn_eta=flag, **small) for flag in (False, True))
    assert not any(key.endswith((".eta", ".threshold")) for key, _ in fixed.named_parameters())
    assert set(fixed.state_dict()) == set(learned.state_dict())
    assert official_key_table(fixed) == official_key_table(learned)
    learned(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 32, 32)).sr.mean().backward()
    assert learned.encoder["predict_ista"].eta.grad.abs().min() > 0


@torch.no_grad()
def test_slim_network_starts_close_to_the_interpolation_but_not_dead() -> None:
    torch.manual_seed(0)
    target, reference = torch.rand(1, 1, 8, 10), torch.rand(1, 1, 32, 40)
    output = create_network("cd-dpe-s").eval()(target, reference)
    interpolated = create_network("sinc")(target, reference).sr
    for image in (output.sr, output.aux["x_rec"]):
        assert 0 < (image - interpolated).abs().max() < 0.05


@torch.no_grad()
def test_global_skip_adds_detail_to_the_upsampled_target_and_a_correction_to_that() -> None:
    plain, skipping = (create_network("cd-dpe-s", global_skip=flag).eval() for flag in (False, True))
    plain.load_state_dict(skipping.state_dict())
    target, reference = torch.rand(1, 1, 8, 10), torch.rand(1, 1, 32, 40)
    interpolated = create_network("sinc")(target, reference).sr
    without, with_skip = plain(target, reference), skipping(target, reference)
    torch.testing.assert_close(with_skip.aux["x_rec"], without.aux["x_rec"] + interpolated)
    torch.testing.assert_close(with_skip.sr, without.sr + with_skip.aux["x_rec"])
    assert torch.equal(with_skip.aux["y_rec"], without.aux["y_rec"])


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"experts_used": 4}, {"experts_used": 0}])
def test_settings_that_make_no_network_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"at least 2 steps and fewer experts"):
        create_network("cd-dpe", **wrong)


def _mixture(size: int, *, see_prompted: bool = False) -> ExpertMixture:
    """A small mixture with weights that route."""
    torch.manual_seed(1)
    mixture = ExpertMixture(size, experts=4, chosen=2, widths=(8, 4), see_prompted=see_prompted)
    with torch.no_grad():
        for tensor in (mixture.w_gate, mixture.w_noise):
            tensor.normal_(std=0.02)
        mixture.fre_prompt.normal_()
    return mixture
