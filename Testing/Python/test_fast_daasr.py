"""The fast path of DAASR gives the plain network's slices."""

from __future__ import annotations

import pytest
import test_daasr as golden
import torch
from fast_cases import assert_same_slices, random_slices, stirred
from golden_daasr import CASES
from mcsr.fast import fast_path
from mcsr.fast.daasr import transfer
from mcsr.networks.daasr import transfer as plain_transfer
from torch.nn import functional as F


@pytest.mark.parametrize("name", list(CASES))
def test_golden_cases_of_the_published_network(name: str) -> None:
    """Their best matches are well separated: rounding chooses none of them."""
    case = CASES[name]
    assert_same_slices(golden._golden_network(case), *golden._golden_inputs(case))


@pytest.mark.parametrize(
    ("scale", "height", "width", "batch"), [(4, 9, 12, 1), (4, 1, 1, 1), (3, 11, 7, 2), (2, 13, 18, 3), (2, 3, 2, 1)]
)
def test_slim_network_at_any_size(scale: int, height: int, width: int, batch: int) -> None:
    network = stirred("daasr-s", scale=scale)
    target, reference = random_slices(height, width, scale, batch)
    assert_same_slices(network, target, reference)
    assert_same_slices(network, target, None)


@pytest.mark.parametrize(
    "config", [{"texture_skip": False}, {"cwt_dwconv": False}, {"cwt_blocks": 2, "extractor_blocks": 1}]
)
def test_other_settings(config: dict[str, object]) -> None:
    network = stirred("daasr-s", scale=4, groups=2, upsampling="bicubic", **config)
    assert_same_slices(network, *random_slices(10, 8, 4))


def test_a_reference_of_another_size() -> None:
    target, _ = random_slices(8, 9, 4)
    torch.manual_seed(2)
    reference = torch.rand(1, 1, 30, 45)
    network = stirred("daasr-s", scale=4)
    output = assert_same_slices(network, target, reference)
    fast = fast_path(network)
    with torch.no_grad():
        assert torch.equal(fast(target, fast.encode_reference(reference)).sr, output.sr)


@pytest.mark.parametrize("matches", [(4, 6), (1, 1), (2, 1)])
def test_transfer_is_that_of_the_plain_network(matches: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values, grid = torch.randn(2, 3, 20, 28), (5, 7)
    index = torch.randint(0, 35, (2, *matches))
    bordered = F.pad(values, (4, 4, 4, 4), mode="replicate")
    expected = plain_transfer(F.pixel_unshuffle(bordered, 4).flatten(2).transpose(1, 2), index, grid)
    strips = bordered.permute(0, 2, 3, 1).reshape(-1, 12)
    moved = transfer(strips, index, grid).permute(0, 3, 1, 2)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_half_precision_stays_close() -> None:
    network = stirred("daasr-s", scale=2)
    target, reference = random_slices(16, 12, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fast_path(network)(target, reference).sr
    assert half.dtype == torch.float32
    assert 0 < (half - network(target, reference).sr).abs().max() < 0.1
