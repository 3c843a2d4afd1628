"""The fast path of DCAMSR equals the plain network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fast_cases import assert_same_on_the_fine_grid, random_slices
from golden import fill
from mcsr.fast import _convolution, fast_path
from mcsr.fast._layers import channels_last
from mcsr.fast.dcamsr import FastDCAT, FastModulation
from mcsr.networks import create_network
from mcsr.networks.dcamsr import DCAMSR
from test_dcamsr import _golden_value

BLOCKS = {"encoder_blocks": (2, 1, 1), "bottom_blocks": (1, 1, 1), "fusion_blocks": (2, 1, 1)}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "published": ("dcamsr", {"size": 64} | BLOCKS),
    "slim": ("dcamsr-s", {}),
    "dense, layout corrected": ("dcamsr", {"size": 64, "legacy_sa_layout": False, "modulation_eps": 1e-3} | BLOCKS),
    "pooled, published layout": ("dcamsr-s", {"legacy_sa_layout": True}),
}


def filled(case: str) -> DCAMSR:
    """By the golden rule, with sharp attention and a modulation that counts."""
    name, config = CASES[case]
    network = create_network(name, scale=2, **config).eval()
    assert isinstance(network, DCAMSR)
    fill(network, [key for key in network.state_dict() if ".epa_block.F." not in key], _golden_value)
    with torch.no_grad():
        network.decoder.pAda.conv_gamma.weight *= 10
        if network.config.projection == "pooled":  # not as sharp as the rule for dense weights has it
            for block in network.transformers:
                block.epa_block.temperature2 *= 0.1
    return network


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("height", "width", "batch"), [(64, 64, 1), (46, 60, 2)])
@torch.no_grad()
def test_equals_the_plain_network(case: str, height: int, width: int, batch: int) -> None:
    slices = random_slices(height // 2, width // 2, 2, batch)
    assert_same_on_the_fine_grid(filled(case), *slices, spread=0.1, atol=1e-5)


@pytest.mark.parametrize("case", ["published", "slim"])
@torch.no_grad()
def test_equals_it_without_the_fused_operators(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convolution, "has_fused", lambda dtype: False)
    plain, inputs = filled(case), random_slices(24, 32, 2)
    torch.testing.assert_close(fast_path(plain)(*inputs).sr, plain(*inputs).sr, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_transformers_and_modulation(case: str) -> None:
    plain = filled(case)
    block, width = plain.transformers[2], plain.config.channels
    torch.manual_seed(0)
    x, r, g = (channels_last(torch.randn(2, width, 16, 16)) for _ in range(3))
    before, fast = x.clone(), FastDCAT(block)
    texture = block(x, block.attend_to(r), None, "lv3")
    tolerance = 1e-5 * float(texture.abs().max())
    torch.testing.assert_close(fast(x, fast.attend_to(r)), texture, rtol=0, atol=tolerance)
    assert torch.equal(x, before), "the features are needed again"
    modulation, before = plain.decoder.pAda, g.clone()
    expected = modulation(g, texture, None, "lv3")
    torch.testing.assert_close(FastModulation(modulation)(g, channels_last(texture)), expected, rtol=0, atol=2e-5)
    assert torch.equal(g, before)


@torch.no_grad()
def test_half_precision_is_near_and_keeps_its_image_exact() -> None:
    plain, inputs = filled("slim"), random_slices(32, 32, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fast_path(plain)(*inputs).sr
    assert half.dtype == torch.float32
    assert 1e-6 < (half - plain(*inputs).sr).abs().max() < 0.1


def test_larger_slices_than_dense_weights_are_built_for_are_refused() -> None:
    with pytest.raises(ValueError, match="80x32 exceed the 64x64"):
        fast_path(filled("published"))(torch.rand(1, 1, 40, 16), torch.rand(1, 1, 80, 32))
