"""The fast path of CD-DPE equals the plain network; each exact rewriting is tried alone, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fast_cases import assert_same_on_the_fine_grid, random_slices
from golden import fill
from mcsr.fast import _convolution, fast_path
from mcsr.fast._dictionaries import Adjoint, FastOffsetNetwork, RectifiedProximal, Synthesis
from mcsr.fast._layers import channels_last
from mcsr.fast.cd_dpe import FastCDDPE
from mcsr.networks import create_network
from mcsr.networks.cd_dpe import CDDPE
from mcsr.networks.dictionaries import Codes, Dictionary, Proximal
from mcsr.networks.displacement import OffsetNetwork
from test_cd_dpe import _golden_value

PUBLISHED = {"channels": (32, 48, 64), "prox_blocks": (2, 1, 1), "size": 32}
"""The published network, narrower for the sake of time; its parts are tried at full width."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "published": ("cd-dpe", PUBLISHED),
    "slim": ("cd-dpe-s", {}),
    "learned and prompted": (
        "cd-dpe",
        PUBLISHED | {"learn_eta": True, "experts_see_prompted": True, "experts_used": 3},
    ),
}


def filled(case: str, scale: int = 2) -> CDDPE:
    """By the golden rule, with three different step sizes and thresholds."""
    name, config = CASES[case]
    network = create_network(name, scale=scale, **config).eval()
    assert isinstance(network, CDDPE)
    decoupling = network.decoupling
    skipped = ("eta", "threshold", "mean", "std")
    fill(network, [key for key in network.state_dict() if not key.endswith(skipped)], _golden_value)
    with torch.no_grad():
        decoupling.eta.copy_(torch.tensor([0.2, 0.25, 0.3]))
        decoupling.threshold.copy_(torch.linspace(-0.01, 0.03, 9).reshape(3, 3))
    return network


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("height", "width", "batch"), [(32, 32, 1), (26, 38, 3)])
@torch.no_grad()
def test_equals_the_plain_network(case: str, height: int, width: int, batch: int) -> None:
    slices = random_slices(height // 2, width // 2, 2, batch)
    assert_same_on_the_fine_grid(filled(case), *slices, spread=5e-3, atol=2e-6)


@pytest.mark.parametrize("case", ["published", "slim"])
@torch.no_grad()
def test_equals_it_without_the_fused_operators(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convolution, "has_fused", lambda dtype: False)
    plain, inputs = filled(case), random_slices(16, 16, 2)
    torch.testing.assert_close(fast_path(plain)(*inputs).sr, plain(*inputs).sr, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", ["published", "slim"])
@torch.no_grad()
def test_decoupled_maps_are_those_of_the_plain_network(case: str) -> None:
    plain = filled(case)
    fast = fast_path(plain)
    assert isinstance(fast, FastCDDPE)
    target, reference = random_slices(32, 32, 1)
    found = fast.decoupling(target, fast.encode_reference(reference))
    expected = plain.decoupling(target, plain.encode_reference(reference), capture=False).images
    for name, image in found._asdict().items():
        assert expected[name].std() > 0.01, name
        torch.testing.assert_close(image, expected[name], rtol=0, atol=5e-6, msg=name)


@torch.no_grad()
def test_half_precision_is_near_and_keeps_its_image_exact() -> None:
    plain, inputs = filled("slim"), random_slices(16, 16, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fast_path(plain)(*inputs).sr
    assert half.dtype == torch.float32
    assert 1e-6 < (half - plain(*inputs).sr).abs().max() < 0.05


def codes(channels: tuple[int, int, int], height: int = 16, width: int = 24) -> Codes:
    full, half, quarter = channels
    shapes = ((quarter, height // 4, width // 4), (half, height // 2, width // 2), (full, height, width))
    return [channels_last(torch.randn(2, *shape)) for shape in shapes]


@pytest.mark.parametrize("channels", [(64, 96, 128), (16, 32, 48)])
@torch.no_grad()
def test_folded_dictionaries(channels: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    dictionary = Dictionary(channels)
    dictionary.initialise()
    given, features = codes(channels), channels_last(torch.randn(2, channels[0], 16, 24))
    expected = dictionary(given)
    torch.testing.assert_close(Synthesis(dictionary)(given), expected, rtol=0, atol=2e-6 * float(expected.abs().max()))

    wanted = [-0.3 * code for code in dictionary.adjoint(features)]
    adjoint = Adjoint(dictionary, torch.tensor(-0.3))
    for found, code in zip(adjoint(features), wanted, strict=True):
        torch.testing.assert_close(found, code, rtol=0, atol=1e-5)
    sums = [(code + change).relu() for code, change in zip(given, wanted, strict=True)]
    for found, expected in zip(adjoint.rectified_sum(features, given), sums, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_proximal_operator() -> None:
    torch.manual_seed(0)
    plain, given = Proximal(16, 2, 8), channels_last(torch.randn(2, 16, 8, 12))
    torch.testing.assert_close(RectifiedProximal(plain)(given.relu()), plain(given), rtol=0, atol=2e-6)


@torch.no_grad()
def test_offset_network() -> None:
    torch.manual_seed(0)
    plain = OffsetNetwork(16)
    a, b = (channels_last(torch.randn(2, 16, 8, 12)) for _ in range(2))
    before = a.clone(), b.clone()
    for found, expected in zip(FastOffsetNetwork(plain)(a, b), plain(a, b), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
