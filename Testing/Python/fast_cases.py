"""What tests of fast paths compare: a plain network and its fast path on the same slices."""

from __future__ import annotations

import torch
from mcsr.fast import fast_path
from mcsr.networks import Network, SROutput, create_network
from torch import Tensor


@torch.no_grad()
def stirred(name: str, **config: object) -> Network:
    """A network as if trained a little, in eval mode: no weight is zero, no running statistic is that of the start."""
    torch.manual_seed(0)
    network = create_network(name, **config).eval()
    for parameter in network.parameters():
        parameter.add_(0.03 * torch.randn_like(parameter))
    for key, values in network.named_buffers():
        if key.endswith("running_var"):
            values.mul_(0.5 + torch.rand_like(values))
        elif key.endswith("running_mean"):
            values.add_(0.1 * torch.randn_like(values))
    return network


def random_slices(height: int, width: int, scale: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A target (B, 1, height, width) and a reference of the result's size."""
    torch.manual_seed(1)
    return torch.rand(batch, 1, height, width), torch.rand(batch, 1, scale * height, scale * width)


@torch.no_grad()
def assert_same_slices(network: Network, target: Tensor, reference: Tensor | None) -> SROutput:
    """The fast path gives what the plain network gives, from a reference and from its own encoding of it.

    To 1e-5, and where golden weights make the result reach beyond 1, to 1e-5 of its largest value.

    Returns:
        What the fast path gave.
    """
    fast = fast_path(network)
    assert fast is not network, "there is no fast path"
    expected, output = network(target, reference), fast(target, reference)
    largest = max(1.0, expected.sr.abs().max().item())
    torch.testing.assert_close(output.sr, expected.sr, rtol=0, atol=1e-5 * largest)
    assert output.maps == {}
    if reference is not None:
        assert not torch.equal(output.sr, fast(target, reference.flip(-1)).sr), "the reference has no say"
        if reference.shape[-2:] == output.sr.shape[-2:]:
            assert torch.equal(fast(target, fast.encode_reference(reference)).sr, output.sr)
    return output


@torch.no_grad()
def assert_same_on_the_fine_grid(plain: Network, target: Tensor, reference: Tensor, spread: float, atol: float) -> None:
    """For networks that upsample first: any reference, its encoding twice, none, and a target that is fine already.

    Args:
        plain: with weights that let the result differ by `spread` (standard deviation) at least.
        target: see `random_slices`, as `reference`.
        reference: see there.
        spread: see above.
        atol: largest difference.
    """
    fast = fast_path(plain)
    encoded = fast.encode_reference(reference)
    for given, like in ((reference, reference), (encoded, reference), (encoded, reference), (None, None)):
        found, expected = fast(target, given).sr, plain(target, like).sr
        assert expected.std() > spread, "there is something to differ"
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    fine = torch.rand_like(reference)
    torch.testing.assert_close(fast(fine, encoded).sr, plain(fine, reference).sr, rtol=0, atol=atol)
