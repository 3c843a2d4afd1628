"""DCAMSR: dual cross-attention transformer network (MICCAI 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._map_spec import MapSpec
from ._registry import Generators, Network, SROutput, register
from .blocks import conv3, double, instance_norm, pad_to, residual_blocks, round_up, run
from .dcamsr_maps import LEVELS, attended_reference, attention_maps, map_specs
from .fine_inputs import fine_inputs


@dataclass(frozen=True)
class DCAMSRConfig:
    """Settings of DCAMSR; the defaults are the published network for 256x256 slices.

    Args:
        scale: factor from the low- to the high-resolution grid (1: the input is already on the fine grid).
        channels: width of all features, a multiple of `heads` and of 2.
        heads: attention heads.
        encoder_blocks: residual blocks of the encoder at scale 1, 1/2, 1/4.
        bottom_blocks: residual blocks of the decoder's bottleneck (blk_L3, blk_L2, blk_L1).
        fusion_blocks: residual blocks after the fusion at scale 1/4, 1/2, 1.
        size: side of the square slices that a dense projection is built for.
        projection: "dense", the published N -> 64 tokens; "pooled", keys and values averaged to a pool x pool grid
            first and attention sharpness independent of the slice's extent.
        pool: side of that grid.
        tokens: projected reference tokens.
        legacy_sa_layout: reproduce the published code's re-interpretation of the spatial branch, for checkpoints.
        upsampling: how the target reaches the fine grid.
        dropout: on both attention maps, in training.
        modulation_eps: added under the root of the modulation's standard deviation, which has no gradient at 0.
    """

    scale: int = 4
    channels: int = 64
    heads: int = 8
    encoder_blocks: tuple[int, int, int] = (4, 4, 4)
    bottom_blocks: tuple[int, int, int] = (2, 2, 2)
    fusion_blocks: tuple[int, int, int] = (12, 8, 4)
    size: int = 256
    projection: str = "dense"
    pool: int = 32
    tokens: int = 64
    legacy_sa_layout: bool = True
    upsampling: str = "bilinear"
    dropout: float = 0.1
    modulation_eps: float = 0.0


def dcamsr_s_config() -> DCAMSRConfig:
    """The slim configuration: the same modules, narrower and shallower, any slice size, for CPUs."""
    return DCAMSRConfig(
        channels=28,
        heads=2,
        encoder_blocks=(1, 2, 2),
        bottom_blocks=(1, 1, 1),
        fusion_blocks=(6, 2, 1),
        projection="pooled",
        pool=16,
        tokens=32,
        legacy_sa_layout=False,
        upsampling="sinc",
        dropout=0.0,
        modulation_eps=1e-6,
    )


class AttendedReference(NamedTuple):
    """What attention needs of the reference at one scale; h heads, d channels a head, N pixels, T tokens."""

    keys: Tensor  # (B, h, d, N), unit norm along N
    channel_values: Tensor  # (B, h, d, N)
    spatial_keys: Tensor  # (B, h, d, T)
    spatial_values: Tensor  # (B, h, d, T)


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass."""

    features: list[Tensor]
    attended: list[AttendedReference]
    shape: tuple[int, int]


@register("dcamsr", DCAMSRConfig, "Dual cross-attention transformer (MICCAI 2023), published size.")
@register("dcamsr-s", dcamsr_s_config, "Dual cross-attention transformer, slim: fast on a laptop without a GPU.")
class DCAMSR(Network):
    """Dual cross-attention transformer network.

    Huang, Li et al., "Accurate Multi-contrast MRI Super-Resolution via a Dual Cross-Attention Transformer Network",
    MICCAI 2023, LNCS 14229, 313-322. Where paper and published code differ, the code is followed: token-normalised
    attention with a learned temperature (not Eq. 3's 1/sqrt(d)), one shared token projection for keys and values, one
    layer norm, no norm before the feed-forward part, one spatially adaptive modulation shared by the three scales.
    Attribute names give the published state dict. Without a reference it is the self-referenced
    DCAMSR of the paper's experiments: the upsampled target takes the reference's place.
    """

    upsamples_first: ClassVar[bool] = True

    def __init__(self, config: DCAMSRConfig) -> None:
        super().__init__(config)
        self.enc = Encoder(config)
        self.decoder = Decoder(config)
        for level in (1, 2, 3):
            # A list of one, as published: the depth of each transformer is 1.
            setattr(self, f"trans_lv{level}", nn.ModuleList([DCAT(config, config.size >> (level - 1))]))

    @property
    def multiple(self) -> int:
        """Three halvings."""
        return 8

    @property
    def native_size(self) -> int | None:
        """The published token projections fit one slice size; the pooled ones fit all."""
        return self.config.size if self.config.projection == "dense" else None

    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Features, keys and values of a reference (B, 1, H, W)."""
        height, width = reference.shape[-2:]
        features = self.enc(self.pad(reference))
        attended = [block.attend_to(f) for block, f in zip(self.transformers, features, strict=True)]
        return EncodedReference(features, attended, (height, width))

    def forward(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference | None,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """See `Network.forward`; the spatial branch alone is no map, since it is no image in the published layout."""
        upsampled, encoded = fine_inputs(self, target_lr, reference)
        height, width = upsampled.shape[-2:]
        maps: dict[str, Tensor] | None = {} if capture else None
        padded = self.pad(upsampled)
        features = self.enc(padded)
        textures = []
        for level, (block, x, r) in enumerate(zip(self.transformers, features, encoded.attended, strict=True), 1):
            textures.append(block(x, r, maps, f"lv{level}"))
        added = self.decoder(features, textures, maps)
        sr = added + padded
        if maps is not None:
            maps["added"] = added
            for level in LEVELS:
                maps[f"features_target_lv{level}"] = features[level - 1]
                maps[f"features_reference_lv{level}"] = encoded.features[level - 1]
                maps[f"texture_lv{level}"] = textures[level - 1]
        return SROutput(sr[..., :height, :width], maps or {})

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        return map_specs()

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """What of the reference a pixel draws on, at each level."""
        probes = [block.epa_block.E.weight for block in self.transformers]
        return {
            f"attended_reference_lv{level}": attended_reference(maps, probes[level - 1], level, row, column)
            for level in LEVELS
        }

    @property
    def transformers(self) -> list[DCAT]:
        """Those at scale 1, 1/2, 1/4."""
        return [self.trans_lv1[0], self.trans_lv2[0], self.trans_lv3[0]]  # type: ignore[list-item, index]

    def pad(self, slices: Tensor) -> Tensor:
        """Slices (B, C, H, W) padded to the size of dense weights, or to what three halvings need.

        Raises:
            ValueError: they are larger than dense weights are built for.
        """
        height, width = slices.shape[-2:]
        size = self.native_size
        if size is None:
            return pad_to(slices, round_up(height, self.multiple), round_up(width, self.multiple))
        if max(height, width) > size:
            raise ValueError(f"slices of {height}x{width} exceed the {size}x{size} of these weights; tile them")
        return pad_to(slices, size, size)


class Encoder(nn.Module):
    """Shared by target and reference: features at scale 1, 1/2, 1/4."""

    def __init__(self, config: DCAMSRConfig) -> None:
        super().__init__()
        width, blocks = config.channels, config.encoder_blocks
        self.conv_L1 = conv3(1, width)
        self.blk_L1 = residual_blocks(width, blocks[0])
        self.conv_L2 = conv3(width, width, stride=2)
        self.blk_L2 = residual_blocks(width, blocks[1])
        self.conv_L3 = conv3(width, width, stride=2)
        self.blk_L3 = residual_blocks(width, blocks[2])

    def forward(self, slices: Tensor) -> list[Tensor]:
        """(B, 1, H, W) -> [(B, C, H, W), (B, C, H/2, W/2), (B, C, H/4, W/4)]."""
        x1 = run(self.blk_L1, F.relu(self.conv_L1(slices)))
        x2 = run(self.blk_L2, F.relu(self.conv_L2(x1)))
        x3 = run(self.blk_L3, F.relu(self.conv_L3(x2)))
        return [x1, x2, x3]


class DCAT(nn.Module):
    """Dual cross-attention transformer at one scale (Eq. 6-7)."""

    def __init__(self, config: DCAMSRConfig, size: int) -> None:
        super().__init__()
        width = config.channels
        self.norm = nn.LayerNorm(width)
        self.epa_block = DualCrossAttention(config, size)
        self.ffn = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def attend_to(self, reference: Tensor) -> AttendedReference:
        """Keys and values of reference features (B, C, H, W)."""
        return self.epa_block.project(self.norm(_tokens(reference)), reference.shape[-2:])

    def forward(self, x: Tensor, reference: AttendedReference, maps: dict[str, Tensor] | None, name: str) -> Tensor:
        """Target features (B, C, H, W) -> texture (B, C, H, W)."""
        tokens = _tokens(x)
        tokens = tokens + self.epa_block(self.norm(tokens), reference, maps, name)
        if maps is not None:
            height, width = x.shape[-2:]
            maps |= attention_maps(maps[f"spatial_attention_{name}"], (height, width), name)
        y = tokens.transpose(1, 2).reshape(x.shape)
        return y + self.ffn(y)


class DualCrossAttention(nn.Module):
    """Channel and spatial attention of the target on the reference (Eq. 1-5)."""

    def __init__(self, config: DCAMSRConfig, size: int) -> None:
        super().__init__()
        width = config.channels
        self.heads = config.heads
        self.pool = config.pool if config.projection == "pooled" else None
        self.legacy_layout = config.legacy_sa_layout
        self.temperature = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.temperature2 = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.q = nn.Linear(width, width)
        self.kvv = nn.Linear(width, 3 * width)
        self.E = nn.Linear(size * size if self.pool is None else self.pool**2, config.tokens)
        self.F = self.E  # one projection under two names, as in the published state dict
        self.dropout = nn.Dropout(config.dropout)
        self.out_proj = nn.Linear(width, width // 2)
        self.out_proj2 = nn.Linear(width, width // 2)

    def project(self, reference: Tensor, shape: tuple[int, int] | torch.Size) -> AttendedReference:
        """Keys and values of normed reference tokens (B, N, C), N = H W of `shape`."""
        keys, channel_values, spatial_values = self.kvv(reference).chunk(3, dim=-1)
        keys = self._of_unit_norm(self._split(keys))
        spatial_keys = self._pooled(keys, shape)
        if self.pool is not None:
            # Unit norm along N tokens makes entries of ~1/sqrt(N); their mean over a cell is brought back to ~1, so
            # that the sharpness of attention does not depend on how large the slice is.
            spatial_keys = spatial_keys * math.sqrt(keys.shape[-1])
        return AttendedReference(
            keys,
            self._split(channel_values),
            self.E(spatial_keys),
            self.E(self._pooled(self._split(spatial_values), shape)),
        )

    def forward(
        self, target: Tensor, reference: AttendedReference, maps: dict[str, Tensor] | None, name: str
    ) -> Tensor:
        """Normed target tokens (B, N, C) -> (B, N, C)."""
        batch, count, width = target.shape
        queries = self._of_unit_norm(self._split(self.q(target)))
        channel_attention = (queries @ reference.keys.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        x_channel = self.dropout(channel_attention) @ reference.channel_values.to(channel_attention.dtype)
        x_channel = x_channel.permute(0, 3, 1, 2).reshape(batch, count, width)

        if self.pool is not None:
            queries = queries * math.sqrt(count)
        logits = queries.transpose(-2, -1) @ reference.spatial_keys.to(queries.dtype) * self.temperature2
        spatial_attention = logits.softmax(dim=-1)
        x_spatial = self.dropout(spatial_attention) @ reference.spatial_values.transpose(-2, -1).to(logits.dtype)
        if self.legacy_layout:
            # The published code lays the (d, h, N) maps end to end and cuts the memory anew into pixels.
            x_spatial = x_spatial.permute(0, 3, 1, 2).reshape(batch, count, width)
        else:
            x_spatial = x_spatial.permute(0, 2, 1, 3).reshape(batch, count, width)
        if maps is not None:
            maps[f"channel_attention_{name}"] = channel_attention
            maps[f"spatial_attention_{name}"] = spatial_attention
        return torch.cat([self.out_proj2(x_spatial), self.out_proj(x_channel)], dim=-1)

    def _split(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        return tokens.reshape(batch, count, self.heads, width // self.heads).permute(0, 2, 3, 1)

    def _of_unit_norm(self, x: Tensor) -> Tensor:
        """Divided by the norm along the tokens (B, h, d, N), float32."""
        if self.pool is None:
            return F.normalize(x.float(), dim=-1)
        # torch's own norm (2.13, CPU) adds the squares of 100,000 tokens one after the other and is wrong by 2e-5. The
        # published values have that error; slices of any size need not.
        return x / x.float().square().sum(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)

    def _pooled(self, x: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
        if self.pool is None:
            return x
        batch, heads, depth, _ = x.shape
        cells = F.adaptive_avg_pool2d(x.reshape(batch, heads * depth, *shape), self.pool)
        return cells.reshape(batch, heads, depth, self.pool**2)


class Decoder(nn.Module):
    """Bottleneck, then fusion with the textures at scale 1/4, 1/2, 1 (Fig. 2c)."""

    def __init__(self, config: DCAMSRConfig) -> None:
        super().__init__()
        width, bottom, fusion = config.channels, config.bottom_blocks, config.fusion_blocks
        self.conv_L3 = conv3(width, width, stride=2)
        self.blk_L3 = residual_blocks(width, bottom[0])
        self.conv_L2 = conv3(width, width)
        self.blk_L2 = residual_blocks(width, bottom[1])
        self.conv_L1 = conv3(2 * width, width)
        self.blk_L1 = residual_blocks(width, bottom[2])
        self.merge_warp_x1 = conv3(2 * width, width)
        self.blk_x1 = residual_blocks(width, fusion[0])
        self.merge_warp_x2 = conv3(2 * width, width)
        self.blk_x2 = residual_blocks(width, fusion[1])
        self.merge_warp_x4 = conv3(2 * width, width)
        self.blk_x4 = residual_blocks(width, fusion[2])
        self.conv_out = conv3(width, 1)
        self.pAda = SpatiallyAdaptiveModulation(width, config.modulation_eps)

    def forward(self, features: list[Tensor], textures: list[Tensor], maps: dict[str, Tensor] | None) -> Tensor:
        """Features and textures at scale 1, 1/2, 1/4 -> what is added to the upsampled target (B, 1, H, W)."""
        g = run(self.blk_L3, F.relu(self.conv_L3(features[2])))
        g = run(self.blk_L2, F.relu(self.conv_L2(g)))
        g = run(self.blk_L1, F.relu(self.conv_L1(torch.cat([double(g), features[2]], dim=1))))
        stages = (
            (self.merge_warp_x1, self.blk_x1, 3),
            (self.merge_warp_x2, self.blk_x2, 2),
            (self.merge_warp_x4, self.blk_x4, 1),
        )
        for merge, blocks, level in stages:
            warped = self.pAda(g, textures[level - 1], maps, f"lv{level}")
            g = run(blocks, F.relu(merge(torch.cat([warped, g], dim=1))))
            if maps is not None:
                maps[f"fused_lv{level}"] = g
            if level > 1:
                g = double(g)
        return self.conv_out(g)


class SpatiallyAdaptiveModulation(nn.Module):
    """SAM: a texture, instance-normalised, takes scale and offset from the target's features."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.conv_shared = nn.Sequential(conv3(2 * width, width), nn.ReLU())
        self.conv_gamma = conv3(width, width)
        self.conv_beta = conv3(width, width)
        for conv in (self.conv_gamma, self.conv_beta):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, g: Tensor, texture: Tensor, maps: dict[str, Tensor] | None, name: str) -> Tensor:
        """(B, C, H, W), (B, C, H, W) -> (B, C, H, W)."""
        shared = self.conv_shared(torch.cat([g, texture], dim=1))
        # The published code takes the unbiased deviation without an epsilon.
        variance = g.float().var(dim=(2, 3), keepdim=True)
        gamma = self.conv_gamma(shared) + (variance + self.eps).sqrt()
        beta = self.conv_beta(shared) + g.mean(dim=(2, 3), keepdim=True)
        modulated = instance_norm(texture) * gamma + beta
        if maps is not None:
            maps[f"gain_{name}"], maps[f"offset_{name}"] = (t.mean(dim=1, keepdim=True) for t in (gamma, beta))
            maps[f"modulated_{name}"] = modulated
        return modulated


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)
