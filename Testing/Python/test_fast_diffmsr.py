"""The fast path of DiffMSR gives the plain network's slices."""

from __future__ import annotations

import pytest
import test_diffmsr as golden
import torch
from fast_cases import assert_same_slices, random_slices, stirred
from golden import fill
from mcsr.fast import fast_path


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_network_with_golden_weights(scale: int) -> None:
    network = golden._network(2, scale).eval()
    fill(network, golden._filled_keys(network), golden._golden_value)
    assert_same_slices(network, *random_slices(18, 20, scale))


@pytest.mark.parametrize(
    ("scale", "height", "width", "batch"), [(4, 9, 20, 1), (4, 1, 1, 1), (3, 11, 7, 2), (2, 33, 18, 3), (2, 3, 2, 1)]
)
def test_slim_network_at_any_size(scale: int, height: int, width: int, batch: int) -> None:
    network = stirred("diffmsr-s", scale=scale)
    target, reference = random_slices(height, width, scale, batch)
    assert_same_slices(network, target, reference)
    if height > 1:
        assert_same_slices(network, target, None)


@pytest.mark.parametrize("config", [{"heads": 2}, {"heads": 1, "n_res": 2, "steps": 3}, {"window": 8}])
def test_other_settings(config: dict[str, object]) -> None:
    assert_same_slices(stirred("diffmsr-s", scale=4, blocks=1, **config), *random_slices(10, 18, 4))


def test_the_layout_of_imported_weights() -> None:
    config = {"token_layout": "raw", "input_convention": "official", "upsampling": "nearest", "quick_start": False}
    network = stirred("diffmsr-s", scale=4, dim=16, blocks=1, **config)
    assert network.native_size == 128
    assert_same_slices(network, *random_slices(32, 32, 4))
    assert_same_slices(network, *random_slices(20, 31, 4, batch=2))


@torch.no_grad()
def test_seeds_are_those_of_the_plain_network() -> None:
    network = stirred("diffmsr-s", scale=2)
    target, reference = random_slices(16, 16, 2, batch=2)

    def sources(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    fast = fast_path(network)
    one, other = (fast(target, reference, generator=sources(*seeds)).sr for seeds in ((3, 4), (5, 6)))
    torch.testing.assert_close(one, network(target, reference, generator=sources(3, 4)).sr, rtol=0, atol=1e-5)
    assert (one - other).abs().amax() > 1e-4


@torch.no_grad()
def test_half_precision_stays_close() -> None:
    network = stirred("diffmsr-s", scale=2)
    target, reference = random_slices(16, 12, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fast_path(network)(target, reference).sr
    assert half.dtype == torch.float32
    assert 0 < (half - network(target, reference).sr).abs().max() < 0.1
