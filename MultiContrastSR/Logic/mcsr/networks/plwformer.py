"""PLWformer, the decoder of DiffMSR: a prior guides large-window attention with permuted keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3
from .diffmsr_config import LEVELS, DiffMSRConfig
from .diffmsr_maps import attention_spread

KeysValues = tuple[Tensor, Tensor]


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass: features (B, C, h, w), keys and values of each block, slice size."""

    features: Tensor
    attended: list[KeysValues]
    shape: tuple[int, int]


class PLWformer(nn.Module):
    """Target, reference and prior to what is added to the interpolated target; all but the tail on the token grid."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = TargetEmbedding(config)
        self.ref_patch_embed = ReferenceEmbedding(config)
        self.CA = CrossAttentionLayers(config)
        for level in LEVELS:
            setattr(self, level, PriorGuidedGroup(config))
        factors = (3,) if config.cell == 3 else (2, 2)
        upsampler = [layer for f in factors for layer in (conv3(width, f * f * width), nn.PixelShuffle(f))]
        self.tail = nn.Sequential(nn.Sequential(*upsampler), conv3(width, 2))
        if config.quick_start:
            for parameter in list(self.tail.children())[-1].parameters():
                nn.init.zeros_(parameter)

    def encode_reference(self, reference: Tensor, shape: tuple[int, int]) -> EncodedReference:
        """Features, keys and values of a padded reference (B, 2, H, W); `shape` is its size before padding."""
        features = self.ref_patch_embed(self._laid_out(reference))
        return EncodedReference(features, self.CA.attend_to(features), shape)

    def fuse(self, grid: Tensor, reference: EncodedReference, maps: dict[str, Tensor] | None) -> Tensor:
        """The target on the token grid (B, 2 or 8, h, w) takes over from the reference: (B, C, h, w)."""
        target = self.patch_embed(self._laid_out(grid))
        fused = self.CA(target, reference.attended, maps)
        if maps is not None:
            alone = self.CA(target, self.CA.attend_to(target), None)
            maps["reference_contribution"] = (fused - alone).float().abs().mean(dim=1, keepdim=True)
            maps |= {"features_target": target, "features_reference": reference.features, "features_fused": fused}
        return fused

    def forward(self, fused: Tensor, prior: Tensor, maps: dict[str, Tensor] | None) -> Tensor:
        """Fused features (B, C, h, w) and a prior (B, Z) -> (B, 2, H, W)."""
        x = fused
        for level in LEVELS:
            x = getattr(self, level)(x, prior, maps, level)
            if maps is not None:
                maps[f"features_{level}"] = x
        return self.tail(x)

    def modulations(self, prior: Tensor) -> Tensor:
        """All that a prior (B, Z) tells the blocks: (B, sites, 2 C), scales then shifts, attention and FFN in turn."""
        blocks = [block for level in LEVELS for block in getattr(self, level).blocks]
        return torch.stack([part.kernel(prior) for block in blocks for part in (block.attn, block.ffn)], dim=1)

    def _laid_out(self, slices: Tensor) -> Tensor:
        # Channels last is faster; the raw layout is about the memory of the plain order.
        spatial = self.config.token_layout == "spatial"
        return slices.contiguous(memory_format=torch.channels_last if spatial else torch.contiguous_format)


class TargetEmbedding(nn.Module):
    """One convolution."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.proj = _conv3_without_bias(2 * config.unshuffle**2, config.width)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, 2 or 8, h, w) -> (B, C, h, w)."""
        return self.proj(grid)


class ReferenceEmbedding(nn.Module):
    """Three convolutions without activation, which bring the reference onto the token grid."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        width = config.width
        strides = (3, 1) if config.cell == 3 else (2, 2)
        self.proj_1 = _conv3_without_bias(2, width)
        self.proj_2 = _conv3_without_bias(width, width, strides[0])
        self.proj_3 = _conv3_without_bias(width, width, strides[1])

    def forward(self, reference: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, C, h, w)."""
        return self.proj_3(self.proj_2(self.proj_1(reference)))


class CrossAttentionLayers(nn.Module):
    """CATL: the target attends to the reference, window by window, twice."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([CrossAttentionBlock(config) for _ in range(2)])
        self.conv = conv3(config.width, config.width)

    def attend_to(self, features: Tensor) -> list[KeysValues]:
        """Keys and values of reference features (B, C, h, w), for each block."""
        return [block.attn.attend_to(block.norm1(features)) for block in self.blocks]  # type: ignore[operator, union-attr]

    def forward(self, target: Tensor, attended: list[KeysValues], maps: dict[str, Tensor] | None) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = target
        for block, keys_values in zip(self.blocks, attended, strict=True):
            x = block(x, keys_values, maps if block is self.blocks[-1] else None)
        return target + self.conv(x)


class CrossAttentionBlock(nn.Module):
    """Attention of the target on the reference, then the feed-forward part."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.norm1 = ScaleNorm(config.width)
        self.attn = CrossAttention(config)
        self.norm2 = ScaleNorm(config.width)
        self.ffn = GatedFeedForward(config)

    def forward(self, x: Tensor, attended: KeysValues, maps: dict[str, Tensor] | None) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = x + self.attn(self.norm1(x), attended, maps)
        return x + self.ffn(self.norm2(x))


class PriorGuidedGroup(nn.Module):
    """Blocks with one prior, a convolution, and a skip around both."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([PriorGuidedBlock(config) for _ in range(config.blocks)])
        self.conv = conv3(config.width, config.width)

    def forward(self, x: Tensor, prior: Tensor, maps: dict[str, Tensor] | None, level: str) -> Tensor:
        """(B, C, h, w), (B, Z) -> (B, C, h, w)."""
        y = x
        for block in self.blocks:
            y = block(y, prior, maps if block is self.blocks[-1] else None, level)
        return x + self.conv(y)


class PriorGuidedBlock(nn.Module):
    """PL-MSA and PG-FFN (Eq. 1-4)."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        self.norm1 = ScaleNorm(config.width)
        self.attn = PermutedAttention(config)
        self.norm2 = ScaleNorm(config.width)
        self.ffn = PriorGuidedFeedForward(config)

    def forward(self, x: Tensor, prior: Tensor, maps: dict[str, Tensor] | None, level: str) -> Tensor:
        """(B, C, h, w), (B, Z) -> (B, C, h, w)."""
        x = x + self.attn(self.norm1(x), prior, maps, level)
        return x + self.ffn(self.norm2(x), prior)


class WindowAttention(nn.Module):
    """What both attentions share: windows, heads, and a bias by relative position."""

    index: Tensor

    def __init__(self, config: DiffMSRConfig, stride: int) -> None:
        """`stride`: tokens along a side of what makes one key."""
        super().__init__()
        self.heads, self.window, self.layout = config.heads, config.window, config.token_layout
        reach = 2 * (config.window // stride) - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(reach**2, config.heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        if config.quick_start:
            self._start_local(reach)
        self.register_buffer("index", relative_index(config.window, stride), persistent=False)
        self.proj = nn.Linear(config.width, config.width)

    @torch.no_grad()
    def _start_local(self, reach: int) -> None:
        """A Gaussian about the query's own place, twice as wide from head to head: half a key, one, two, four."""
        offset = torch.arange(reach) - reach // 2
        squared = (offset[:, None] ** 2 + offset**2).reshape(-1, 1)
        widths = 0.5 * 2.0 ** torch.arange(self.heads)
        self.relative_position_bias_table.sub_(squared / (2 * widths**2))

    def _windows(self, x: Tensor) -> Tensor:
        return to_windows(x, self.window, self.layout)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, windows, n, C) -> (B, windows, heads, n, C / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(2, 3)

    def _attend(
        self, tokens: Tensor, attended: KeysValues, shape: torch.Size, maps: dict[str, Tensor] | None, name: str
    ) -> Tensor:
        """Queries (B, windows, N, C) on keys and values -> (B, C, h, w) of `shape`."""
        queries, (keys, values) = self._split(tokens), attended
        bias = self.relative_position_bias_table.t()[:, self.index]
        # The fused kernel takes a third off a pass on the CPU. It asks for one batch axis and one type.
        q, k, v = (part.flatten(0, 1) for part in (queries, keys, values))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        mixed = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        if maps is not None:
            logits = queries.float() @ keys.float().transpose(-2, -1) * queries.shape[-1] ** -0.5
            weights = (logits + bias).softmax(dim=-1)
            maps[f"attention_spread_{name}"] = self._spread(weights, shape)
            if self.layout == "spatial":
                maps[f"attention_{name}"] = weights
        return from_windows(mixed, shape, self.window, self.layout)

    def _spread(self, weights: Tensor, shape: torch.Size) -> Tensor:
        batch, _, height, width = shape
        placed = from_windows(attention_spread(weights), torch.Size((batch, 1, height, width)), self.window, "spatial")
        if self.layout == "raw":
            # Token (a, b) is row b of channel a: only a profile along the rows has a place in the image.
            placed = placed.mean(dim=2, keepdim=True).transpose(2, 3).expand(-1, -1, -1, width)
        return placed


class CrossAttention(WindowAttention):
    """Queries of the target, keys and values of the reference; one projection serves both."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config, stride=1)
        self.width = config.width
        self.qkv = nn.Linear(config.width, 3 * config.width)

    def attend_to(self, features: Tensor) -> KeysValues:
        """Keys and values of normed reference features (B, C, h, w)."""
        projected = F.linear(self._windows(features), self.qkv.weight[self.width :], self.qkv.bias[self.width :])
        keys, values = projected.chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, attended: KeysValues, maps: dict[str, Tensor] | None) -> Tensor:
        """Normed target features (B, C, h, w) -> (B, C, h, w)."""
        queries = F.linear(self._windows(x), self.qkv.weight[: self.width], self.qkv.bias[: self.width])
        return self._attend(queries, attended, x.shape, maps, "reference")


class PermutedAttention(WindowAttention):
    """PL-MSA: narrow keys of 2x2 tokens make one wide key, so that a large window stays cheap."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config, stride=2)
        self.kernel = _modulation(config)
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, config.width // 2)

    def forward(self, x: Tensor, prior: Tensor, maps: dict[str, Tensor] | None, level: str) -> Tensor:
        """Normed features (B, C, h, w), prior (B, Z) -> (B, C, h, w)."""
        scale, shift = self.kernel(prior)[:, None, None].chunk(2, dim=-1)
        tokens = self._windows(x) * scale + shift
        keys, values = self.kv(tokens).chunk(2, dim=-1)
        return self._attend(self.q(tokens), (self._permuted(keys), self._permuted(values)), x.shape, maps, level)

    def _permuted(self, narrow: Tensor) -> Tensor:
        """(B, windows, N, C / 4) -> (B, windows, heads, N / 4, C / heads); sub-positions in row-major order."""
        half = self.window // 2
        cells = narrow.unflatten(2, (half, 2, half, 2)).permute(0, 1, 2, 4, 3, 5, 6)
        return self._split(cells.flatten(4).flatten(2, 3))


class GatedFeedForward(nn.Module):
    """1x1 to two halves, depthwise 3x3, GELU of one gates the other, 1x1 back."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        both = 2 * config.hidden
        self.project_in = nn.Conv2d(config.width, both, 1, bias=False)
        self.dwconv = nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False)
        self.project_out = nn.Conv2d(config.hidden, config.width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        u, g = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(u) * g)


class PriorGuidedFeedForward(GatedFeedForward):
    """PG-FFN: the prior scales and shifts every channel first."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config)
        self.kernel = _modulation(config)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, h, w), (B, Z) -> (B, C, h, w)."""
        scale, shift = self.kernel(prior)[:, :, None, None].chunk(2, dim=1)
        return super().forward(x * scale + shift)


class ScaleNorm(nn.Module):
    """Published as a layer norm without bias: x / std over channels * weight, the mean stays in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.ParameterDict({"weight": torch.ones(width)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w), float32."""
        return self.unweighted(x) * self.body["weight"][:, None, None]

    def unweighted(self, x: Tensor) -> Tensor:
        """x / std over channels, float32."""
        x = x.float()
        # Two plain means: torch.var over channels takes ten times as long on the CPU.
        variance = (x - x.mean(dim=1, keepdim=True)).square().mean(dim=1, keepdim=True)
        return x * torch.rsqrt(variance + 1e-5)


def to_windows(x: Tensor, window: int, layout: str) -> Tensor:
    """(B, C, h, w) -> (B, windows, window^2, C), all row-major; see `DiffMSRConfig.token_layout`."""
    batch, channels, height, width = x.shape
    grid = x.contiguous().view(batch, height, width, channels) if layout == "raw" else x.permute(0, 2, 3, 1)
    cells = grid.reshape(batch, height // window, window, width // window, window, channels)
    return cells.transpose(2, 3).reshape(batch, -1, window**2, channels)


def from_windows(windows: Tensor, shape: torch.Size, window: int, layout: str) -> Tensor:
    """The inverse of `to_windows` for images of `shape`."""
    batch, channels, height, width = shape
    cells = windows.reshape(batch, height // window, width // window, window, window, channels)
    grid = cells.transpose(2, 3).reshape(batch, height, width, channels)
    return grid.view(shape) if layout == "raw" else grid.permute(0, 3, 1, 2)


def relative_index(window: int, stride: int) -> Tensor:
    """Row of the bias table for every query and key of a window: (window^2, (window / stride)^2), int64."""
    cells = window // stride
    # One axis at a time: query cell minus key cell, from 0.
    offset = torch.arange(window)[:, None] // stride - torch.arange(cells)[None] + cells - 1
    index = offset[:, None, :, None] * (2 * cells - 1) + offset[None, :, None, :]
    return index.reshape(window**2, cells**2)


def _modulation(config: DiffMSRConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(config.prior_size, 2 * config.width, bias=False))


def _conv3_without_bias(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
