"""What every registered network does."""

from __future__ import annotations

import pytest
import torch
from mcsr.errors import InputError
from mcsr.networks import Network, create_network, network_class, network_names

LEARNED = [name for name in network_names() if network_class(name).uses_reference]
# Dense projections are built for one size; a small one keeps the tests quick.
SMALL = {"dcamsr": {"size": 48, "encoder_blocks": (1, 1, 1), "fusion_blocks": (1, 1, 1), "channels": 16}}


def _network(name: str, scale: int = 2) -> Network:
    torch.manual_seed(0)
    return create_network(name, scale=scale, **SMALL.get(name, {})).eval()


def _slices(height: int, width: int, scale: int = 2, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, height, width), torch.rand(batch, 1, scale * height, scale * width)


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 8), (13, 21)])
@pytest.mark.parametrize("scale", [2, 3])
def test_any_size_from_eight_up(name: str, height: int, width: int, scale: int) -> None:
    if name in SMALL and scale * width > 48:
        width = 16  # as large as the small dense projection goes
    target, reference = _slices(height, width, scale)
    with torch.no_grad():
        sr = _network(name, scale)(target, reference).sr
    assert sr.shape == (1, 1, scale * height, scale * width)
    assert torch.isfinite(sr).all()


@pytest.mark.parametrize("name", network_names())
def test_a_batch_equals_one_by_one(name: str) -> None:
    network = _network(name)
    targets, references = _slices(16, 12, batch=3)
    with torch.no_grad():
        together = network(targets, references).sr
        alone = torch.cat([network(t[None], r[None]).sr for t, r in zip(targets, references, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", network_names())
def test_an_encoded_reference_gives_the_same_bits(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        assert torch.equal(network(target, network.encode_reference(reference)).sr, network(target, reference).sr)


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = _network(name).train()
    # Zero-initialised convolutions let nothing through at the start.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    target, reference = _slices(16, 12)
    network(target, reference).sr.square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", LEARNED)
def test_the_reference_matters(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        assert not torch.equal(network(target, reference).sr, network(target, reference.flip(-1)).sr)


@pytest.mark.parametrize("name", LEARNED)
def test_a_target_already_on_the_fine_grid_is_not_upsampled_again(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    upsampled = create_network("sinc" if network.config.upsampling == "sinc" else "linear", scale=2)(
        target, reference
    ).sr
    with torch.no_grad():
        torch.testing.assert_close(network(upsampled, reference).sr, network(target, reference).sr)


@pytest.mark.parametrize("name", LEARNED)
def test_bf16_stays_finite_and_close(name: str) -> None:
    network = _network(name)
    target, reference = _slices(16, 12)
    with torch.no_grad():
        exact = network(target, reference).sr
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(target, reference).sr
    assert (half.float() - exact).abs().max() < 0.05


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Unknown model 'dcamr-s'; did you mean dcamsr-s"):
        create_network("dcamr-s")
    with pytest.raises(InputError, match="has no setting widht"):
        create_network("sinc", widht=3)


def test_baselines_interpolate_about_the_pixel_centres() -> None:
    """A ramp keeps its place: no half-pixel shift in any of them."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    for name in ("linear", "cubic"):
        sr = create_network(name, scale=4)(ramp, ramp).sr[0, 0, 32]
        expected = (torch.arange(64) - 1.5) / 4
        torch.testing.assert_close(sr[16:48], expected[16:48], atol=2e-3, rtol=0)
    wave = torch.sin(2 * torch.pi * 3 * (torch.arange(16) + 0.5) / 16).expand(1, 1, 16, 16)
    sr = create_network("sinc", scale=4)(wave, wave).sr[0, 0, 10]
    torch.testing.assert_close(sr, torch.sin(2 * torch.pi * 3 * (torch.arange(64) + 0.5) / 64), atol=1e-5, rtol=0)
