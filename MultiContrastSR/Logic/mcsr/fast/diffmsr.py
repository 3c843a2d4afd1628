"""DiffMSR, the same slices sooner: see `FastDiffMSR`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.diffmsr import DiffMSR
from ..networks.plwformer import (
    GatedFeedForward,
    PermutedAttention,
    PriorGuidedBlock,
    ScaleNorm,
    from_windows,
    to_windows,
)
from ._layers import ConvolutionToFew, channels_last, exchange
from ._path import ChangedCopy, accelerates


@accelerates(DiffMSR)
class FastDiffMSR(ChangedCopy):
    """A copy of the network, channels last, with a few modules exchanged.

    Tables of relative positions are expanded once; the last upsampling gives what the output convolution would make of
    it (`ConvolutionToFew`). The raw token layout is about the memory of the plain order: there the decoder's blocks are
    the plain ones.
    """

    network: DiffMSR

    def __init__(self, plain: DiffMSR) -> None:
        super().__init__(plain)
        decoder = self.network.G
        upsampler, out = decoder.tail
        *first, last, shuffle = upsampler.children()
        to_few = ConvolutionToFew(out, after=last, factor=shuffle.upscale_factor)  # type: ignore[arg-type]
        decoder.tail = nn.Sequential(*first, to_few)
        spatial = self.config.token_layout == "spatial"
        for part in (self.network,) if spatial else (self.network.condition, decoder.tail):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if spatial:
            exchange(decoder, _EXCHANGES)
        for module in self.network.condition.modules():
            if isinstance(module, nn.LeakyReLU):
                module.inplace = True


class Block(nn.Module):
    """PL-MSA and PG-FFN; the weight of a norm is part of the prior's scale."""

    def __init__(self, plain: PriorGuidedBlock) -> None:
        super().__init__()
        self.plain = plain
        self.attention, self.feed_forward = Attention(plain.attn), FeedForward(plain.ffn)

    def forward(self, x: Tensor, prior: Tensor, maps: None, level: str) -> Tensor:
        """(B, C, h, w), (B, Z) -> (B, C, h, w)."""
        plain = self.plain
        x = x + self.attention(_modulated(x, plain.norm1, plain.attn.kernel(prior)))
        return x + self.feed_forward(_modulated(x, plain.norm2, plain.ffn.kernel(prior)))


class Attention(nn.Module):
    """PL-MSA of modulated features: one product from pixels to queries, keys and values."""

    bias: Tensor
    weight: Tensor
    shift: Tensor

    def __init__(self, plain: PermutedAttention) -> None:
        super().__init__()
        self.heads, self.window, self.proj = plain.heads, plain.window, plain.proj
        table = plain.relative_position_bias_table.detach()
        self.register_buffer("bias", table.t()[None, :, plain.index].contiguous())
        self.register_buffer("weight", torch.cat([plain.q.weight, plain.kv.weight]).detach())
        self.register_buffer("shift", torch.cat([plain.q.bias, plain.kv.bias]).detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        width, half = x.shape[1], self.window // 2
        projected = F.linear(x.permute(0, 2, 3, 1), self.weight, self.shift).permute(0, 3, 1, 2)
        windows = to_windows(projected, self.window, "spatial").flatten(0, 1)
        queries = windows[..., :width].unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # As in `PermutedAttention`: 2x2 narrow tokens make one wide key, whose parts are dealt to the heads in turn.
        narrow = windows[..., width:].unflatten(-1, (2, -1)).unflatten(1, (half, 2, half, 2))
        wide = narrow.permute(5, 0, 1, 3, 2, 4, 6).flatten(4).unflatten(-1, (self.heads, -1)).flatten(2, 3)
        keys, values = wide.transpose(2, 3)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.bias.to(queries.dtype))
        return from_windows(self.proj(mixed.transpose(1, 2).flatten(2)), x.shape, self.window, "spatial")


class FeedForward(nn.Module):
    """The halves kept apart, each whole in memory."""

    enter0: Tensor
    enter1: Tensor
    spread0: Tensor
    spread1: Tensor

    def __init__(self, plain: GatedFeedForward) -> None:
        super().__init__()
        self.hidden, self.project_out = plain.project_out.in_channels, plain.project_out
        for name, conv in (("enter", plain.project_in), ("spread", plain.dwconv)):
            for half, weight in enumerate(conv.weight.detach().chunk(2)):
                self.register_buffer(f"{name}{half}", channels_last(weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        u, g = (
            F.conv2d(F.conv2d(x, enter), spread, padding=1, groups=self.hidden)
            for enter, spread in ((self.enter0, self.spread0), (self.enter1, self.spread1))
        )
        return self.project_out(F.gelu(u).mul_(g))


def _modulated(x: Tensor, norm: ScaleNorm, modulation: Tensor) -> Tensor:
    """Normed features (B, C, h, w) times the first half of the modulation (B, 2 C) plus the second."""
    scale, shift = modulation.float()[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, norm.unweighted(x), norm.body["weight"][:, None, None] * scale)


_EXCHANGES = {PriorGuidedBlock: Block, GatedFeedForward: FeedForward}
