"""DiffMSR in use: seeds, token layouts, input conventions, training of both stages, maps, and the slim form."""

from __future__ import annotations

import math

import pytest
import torch
from golden import key_family
from mcsr.errors import InputError
from mcsr.networks import create_network
from mcsr.networks.blocks import upsample_slices
from mcsr.networks.cost import gmac, parameter_count
from mcsr.networks.diffmsr import DiffMSR, DiffMSRConfig, DiffMSRStage1
from mcsr.networks.diffmsr_maps import attention_of_pixel, magnitude
from mcsr.networks.plwformer import from_windows, relative_index, to_windows
from torch import Tensor

SMALL = {"scale": 2, "dim": 8, "blocks": 1, "prior_channels": 4, "encoder_blocks": 1}


def _network(**overrides: object) -> DiffMSR:
    torch.manual_seed(0)
    return DiffMSR(DiffMSRConfig(**{**SMALL, **overrides})).eval()


def _awake(**overrides: object) -> DiffMSR:
    """A prior about 1 and a tail that lets through: prior and attention have a say, as after training."""
    network = _network(quick_start=True, **overrides)
    with torch.no_grad():
        for parameter in network.G.tail[1].parameters():
            parameter.normal_(std=0.05)
    return network


def _slices(batch: int = 1, size: int = 16, scale: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, size, size), torch.rand(batch, 1, scale * size, scale * size)


def _seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@torch.no_grad()
def test_the_seed_alone_decides_on_the_noise() -> None:
    network = _awake()
    target, reference = (t.expand(3, -1, -1, -1) for t in _slices())

    def sr(generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
        return network(target, reference, generator=generator).sr

    by_default, by_slice, in_turn = sr(None), sr(_seeded(0, 5, 0)), sr(_seeded(0)[0])
    assert torch.equal(by_default, sr(_seeded(0, 0, 0)))
    assert torch.equal(by_slice, sr(_seeded(0, 5, 0)))
    torch.testing.assert_close(by_slice[0], by_slice[2], rtol=0, atol=1e-6)
    assert (by_slice[1] - by_slice[0]).abs().max() > 1e-4
    assert torch.equal(in_turn, sr(_seeded(0)[0]))
    assert (in_turn[1] - in_turn[0]).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"2 generators do not fit 3 slices"):
        sr(_seeded(0, 1))


def test_a_raw_token_is_a_row_of_a_channel_and_a_spatial_one_a_pixel() -> None:
    x = torch.randn(1, 32, 32, 32)  # channels, rows, columns
    token, window = 16 * 3 + 5, 2  # window 2 of 2 x 2 begins at (16, 0)
    raw, spatial = (to_windows(x, 16, layout)[0, window, token] for layout in ("raw", "spatial"))
    assert torch.equal(raw, x[0, 16 + 3, 5])
    assert torch.equal(spatial, x[0, :, 16 + 3, 5])


@pytest.mark.parametrize("layout", ["raw", "spatial"])
def test_windows_come_back_where_they_were(layout: str) -> None:
    x = torch.randn(2, 8, 16, 32)
    assert torch.equal(from_windows(to_windows(x, 8, layout), x.shape, 8, layout), x)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_windows(channels_last, 8, layout), to_windows(x, 8, layout))


def test_relative_index_is_query_minus_key() -> None:
    full, permuted = relative_index(16, 1), relative_index(16, 2)
    for y, x, i, j in ((0, 0, 15, 15), (3, 14, 7, 2), (15, 0, 0, 9)):
        assert full[16 * y + x, 16 * i + j] == (y - i + 15) * 31 + (x - j + 15)
        assert permuted[16 * y + x, 8 * (i // 2) + j // 2] == (y // 2 - i // 2 + 7) * 15 + (x // 2 - j // 2 + 7)
    assert full.shape == (256, 256)
    assert permuted.shape == (256, 64)


@torch.no_grad()
def test_raw_weights_take_one_size_and_refuse_a_larger_one() -> None:
    network = _network(token_layout="raw")
    assert network.native_size == 16 * 4  # as many tokens along a side as channels, four pixels each
    target, reference = _slices(size=20)
    assert network(target, reference).sr.shape == (1, 1, 40, 40)
    spatial = _network()
    spatial.load_state_dict(network.state_dict())
    target, reference = _slices(size=32)
    assert (spatial(target, reference).sr - network(target, reference).sr).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"33x33 exceed the 32x32 of these weights; tile them"):
        network(*_slices(size=33))


@torch.no_grad()
def test_centred_input_is_the_magnitude_without_phase() -> None:
    network = _awake()
    target, reference = _slices()
    noise = torch.randn(16, generator=_seeded(0)[0])[None]
    by_hand = network.forward_complex(
        *(torch.cat([x, torch.zeros_like(x)], dim=1) for x in (target, reference)), noise=noise
    )
    torch.testing.assert_close(network(target, reference).sr, by_hand.sr, rtol=0, atol=1e-6)


def test_the_magnitude_is_the_norm_over_both_parts_and_air_has_no_gradient() -> None:
    image = torch.tensor([[[[3.0, 0.0, -5.0]], [[-4.0, 0.0, 12.0]]]], requires_grad=True)
    found = magnitude(image)
    found.sum().backward()
    assert found.flatten().tolist() == [5, 0, 13]
    expected = torch.tensor([[[[3 / 5, 0.0, -5 / 13]], [[-4 / 5, 0.0, 12 / 13]]]])
    torch.testing.assert_close(image.grad, expected)


@pytest.mark.parametrize(("scale", "starts"), [(4, (63, 31)), (2, (63,))])
@torch.no_grad()
def test_official_input_is_what_the_published_crops_leave(scale: int, starts: tuple[int, ...]) -> None:
    """The published chain of off-centre crops, done on a smooth image, against the ramps and the amplitude."""
    network = _network(scale=scale, token_layout="raw", input_convention="official", dim=32)
    x = torch.arange(256, dtype=torch.float64)
    blob = torch.exp(-((x[:, None] - 120) ** 2 + (x - 140) ** 2) / (2 * 20**2))
    ramp = torch.exp(2j * math.pi * (x[:, None] + x) / 256)
    k = torch.fft.fftshift(torch.fft.fft2(blob * ramp, norm="ortho"))
    size = 256
    for start in starts:
        size //= 2
        k = k[start : start + size, start : start + size]
    low = torch.fft.ifft2(torch.fft.ifftshift(k), norm="ortho")
    seen: dict[str, Tensor] = {}
    network.G.patch_embed.register_forward_hook(lambda _m, inputs, _o: seen.update(target=inputs[0]))
    network.G.ref_patch_embed.register_forward_hook(lambda _m, inputs, _o: seen.update(reference=inputs[0]))
    # The low-resolution magnitude that the engine feeds has the intensity of the high-resolution one.
    network((low.abs() / scale).float()[None, None], blob.float()[None, None])
    target = torch.nn.functional.pixel_shuffle(seen["target"], network.config.unshuffle)
    torch.testing.assert_close(torch.complex(*target[0]), low.to(torch.complex64), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        torch.complex(*seen["reference"][0]), (blob * ramp).to(torch.complex64), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("field", "value"), [("token_layout", "rows"), ("input_convention", "complex"), ("scale", 5)])
def test_unknown_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=str(value)):
        DiffMSRConfig(**{field: value})


def test_stage_two_learns_the_prior_of_stage_one_through_all_steps() -> None:
    stage_1, stage_2 = DiffMSRStage1(DiffMSRConfig(**SMALL)), _network().train()
    stage_2.G.load_state_dict(stage_1.G.state_dict())
    target, reference = _slices(2)
    with torch.no_grad():
        prior = stage_1.encode_prior(target, reference)
    output = stage_2(target, reference, prior=prior)
    (output.aux["prior"] - prior).abs().mean().backward()
    reached = {key for key, p in stage_2.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {key for key, _ in stage_2.named_parameters() if key.startswith(("condition.", "denoise."))}
    plain = stage_2(target, reference)
    assert not torch.equal(plain.aux["prior"], output.aux["prior"]), "the diffusion did not start from the prior"


def test_stage_one_trains_all_it_has() -> None:
    network = DiffMSRStage1(DiffMSRConfig(**SMALL))
    target, reference = _slices(2)
    output = network(target, reference, reference.flip(-1))
    output.sr.square().mean().backward()
    assert [key for key, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []
    assert output.aux["complex"].shape == (2, 2, 32, 32)


def test_gradients_are_finite_where_the_result_is_zero() -> None:
    network = _network(upsampling="sinc", quick_start=True).train()
    network(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 16, 16)).sr.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_fused_attention_equals_the_plain_one() -> None:
    """With gradients attention is a sequence of plain operations, without them one fused operation."""
    network = _awake()
    plain = network(*_slices()).sr
    with torch.no_grad():
        fused = network(*_slices()).sr
    torch.testing.assert_close(fused, plain.detach(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_effect_of_the_prior_is_the_difference_it_makes() -> None:
    network = _awake()
    target, reference = _slices()
    output = network(target, reference, capture=True)
    effect = output.maps["effect_of_prior"]
    assert effect.max() > 1e-3
    for key in [
        key
        for key in network.state_dict()
        if key.startswith("denoise.") and key.endswith(("2.resmlp.0.weight", "2.resmlp.0.bias"))
    ]:
        network.state_dict()[key].zero_()  # the denoiser now says 0
    without = network(target, reference, capture=True)
    torch.testing.assert_close(effect, (output.sr - without.sr).abs(), rtol=0, atol=1e-6)
    assert without.maps["effect_of_prior"].max() == 0
    assert without.maps["spread_over_seeds"].max() == 0
    assert output.maps["spread_over_seeds"].max() > 0
    torch.testing.assert_close(output.maps["prior_trajectory"][:, -1], output.aux["prior"])


@torch.no_grad()
def test_attention_of_a_pixel_is_the_row_that_was_used() -> None:
    network = _awake()
    target, reference = _slices(size=40)  # 64 pixels after padding, 32 tokens, 2 x 2 windows
    maps = network(target, reference, capture=True).maps
    row, column = 4 * 18 + 1, 4 * 7 + 3  # token (18, 7): window 2, query (2, 7)
    points = network.point_maps(maps, row, column)
    expected = maps["attention_reference"][0, 2, :, 2 * 16 + 7]
    assert torch.equal(points["attended_reference"][0, :, 16:, :16].flatten(1), expected)
    for key in ("attended_reference", "attended_level3"):
        total = points[key].sum()
        torch.testing.assert_close(total, torch.tensor(4.0), rtol=0, atol=1e-5)  # 1 for each head
        torch.testing.assert_close(points[key][..., 16:, :16].sum(), total, rtol=0, atol=1e-5)


def test_a_head_of_the_permuted_attention_is_painted_on_its_sub_position() -> None:
    config = DiffMSRConfig(**SMALL)
    weights = torch.zeros(1, 1, 4, 256, 64)
    weights[0, 0, 3, 0, 8 * 2 + 5] = 1  # head 3 = sub-position (1, 1), cell (2, 5)
    maps = {f"attention_{level}": weights for level in ("level1", "level2", "level3", "level4", "refinement")}
    maps |= {"features_fused": torch.zeros(1, 16, 16, 16), "attention_reference": torch.zeros(1, 1, 4, 256, 256)}
    painted = attention_of_pixel(maps, config, 0, 0)["attended_level1"]
    assert painted.nonzero().tolist() == [[0, 0, 2 * 2 + 1, 2 * 5 + 1]]


@torch.no_grad()
def test_flat_attention_has_spread_one_and_a_reference_like_the_target_contributes_nothing() -> None:
    network = _network()
    for key, parameter in network.named_parameters():
        if "bias_table" in key or ".qkv." in key or ".q." in key:
            parameter.zero_()
    spread = network(*_slices(), capture=True).maps
    for level in ("reference", "level1", "refinement"):
        torch.testing.assert_close(spread[f"attention_spread_{level}"], torch.ones(1, 1, 8 * 2, 8 * 2))
    # Without keys and values the reference cannot contribute.
    assert spread["reference_contribution"].max() == 0


@torch.no_grad()
def test_raw_attention_is_shown_by_row_and_has_no_point_maps() -> None:
    network = _awake(token_layout="raw")
    maps = network(*_slices(size=32), capture=True).maps
    assert set(maps) == set(network.map_specs())
    spread = maps["attention_spread_reference"]
    assert spread.shape == (1, 1, 16, 16)
    assert torch.equal(spread, spread[..., :1].expand_as(spread))
    assert spread.std() > 0
    assert network.point_maps(maps, 3, 5) == {}


@pytest.mark.parametrize("scale", [2, 4])
def test_slim_network_keeps_to_its_limits(scale: int) -> None:
    network = create_network("diffmsr-s", scale=scale)
    assert parameter_count(network) <= 1_500_000
    assert gmac("diffmsr-s", 256, 256, scale=scale) <= 10.0
    published = {key_family(key) for key in create_network("diffmsr", scale=scale).state_dict()}
    assert {key_family(key) for key in network.state_dict()} == published, "a named module was left out"


@torch.no_grad()
def test_slim_network_starts_as_its_skip_with_a_prior_about_one() -> None:
    torch.manual_seed(0)
    network = create_network("diffmsr-s", scale=4).eval()
    target, reference = _slices(size=24, scale=4)
    output = network(target, reference, capture=True)
    torch.testing.assert_close(output.sr, upsample_slices(target, 4, "sinc").abs(), rtol=0, atol=1e-6)
    assert output.aux["prior"].mean().item() == pytest.approx(1, abs=0.2)
    # Attention looks about the pixel's own place: far below the spread of a flat one.
    assert output.maps["attention_spread_reference"].mean() < 0.8
