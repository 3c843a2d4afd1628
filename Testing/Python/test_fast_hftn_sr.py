"""The fast path of HFTN-SR gives the plain network's slices."""

from __future__ import annotations

import pytest
import test_hftn_sr as golden
import torch
from fast_cases import assert_same_slices, random_slices, stirred
from mcsr.fast import fast_path


@pytest.mark.parametrize(
    ("scale", "transfer", "height", "width"),
    [(4, "gather", 24, 20), (4, "mask", 24, 20), (4, "gather", 23, 19), (2, "gather", 24, 20)],
)
def test_golden_cases_of_the_published_network(scale: int, transfer: str, height: int, width: int) -> None:
    """Their best matches are well separated: rounding chooses none of them."""
    network = golden._golden_network(scale, transfer)
    assert_same_slices(network, *golden._golden_slices(scale, height, width))


@pytest.mark.parametrize(
    ("scale", "height", "width", "batch"), [(4, 9, 12, 1), (4, 1, 1, 1), (3, 11, 7, 2), (2, 13, 18, 3), (2, 3, 2, 1)]
)
def test_slim_network_at_any_size(scale: int, height: int, width: int, batch: int) -> None:
    network = stirred("hftn-sr-s", scale=scale)
    target, reference = random_slices(height, width, scale, batch)
    assert_same_slices(network, target, reference)
    assert_same_slices(network, target, None)


@pytest.mark.parametrize(
    "config",
    [
        {"transfer": "none"},
        {"transfer": "mask", "stat": "var"},
        {"reconstruction": "concat", "global_skip": False},
        {"decompose": False, "n_rcab": 1},
    ],
)
def test_other_settings(config: dict[str, object]) -> None:
    assert_same_slices(stirred("hftn-sr-s", scale=3, stages=2, **config), *random_slices(10, 8, 3))


@torch.no_grad()
def test_the_plain_network_is_left_as_it_was() -> None:
    network = stirred("hftn-sr-s", scale=2)
    target, reference = random_slices(8, 8, 2)
    before = network(target, reference).sr
    strides = [p.stride() for p in network.parameters()]
    fast_path(network)
    assert torch.equal(network(target, reference).sr, before)
    assert [p.stride() for p in network.parameters()] == strides


@torch.no_grad()
def test_half_precision_stays_close() -> None:
    network = stirred("hftn-sr-s", scale=2)
    target, reference = random_slices(16, 12, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fast_path(network)(target, reference).sr
    assert half.dtype == torch.float32
    assert 0 < (half - network(target, reference).sr).abs().max() < 0.1
