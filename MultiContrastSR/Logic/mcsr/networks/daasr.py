"""DAASR: dual attention aggregation network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ._map_spec import MapSpec
from ._registry import Generators, Network, SROutput, register
from .blocks import conv3, full_precision, pad_to, round_up, upsample_slices
from .daasr_maps import TOKEN, group_maps, map_specs, point_maps, summary_maps
from .matching import best_matches, unit

SHUFFLES = {2: (2,), 3: (3,), 4: (2, 2)}
"""Factors of the final pixel shuffles for each scale."""


@dataclass(frozen=True)
class DAASRConfig:
    """Settings of DAASR; the defaults are the published network.

    Args:
        scale: factor from the low- to the high-resolution grid: 2, 3 or 4.
        channels: width of all features.
        groups: aggregation groups (HFAG), one after the other.
        extractor_blocks: residual blocks of the feature extractor of the reference.
        cwt_blocks: channel-wise transformer blocks in a group.
        cwt_dwconv: a depthwise convolution follows the projection to queries, keys and values.
        ref_blur_factor: how much coarser the reference is made before the target is matched with it.
        texture_skip: the last group's transferred texture is also added on the fine grid.
        upsampling: of the target that the network's output is added to.
    """

    scale: int = 4
    channels: int = 64
    groups: int = 6
    extractor_blocks: int = 3
    cwt_blocks: int = 1
    cwt_dwconv: bool = True
    ref_blur_factor: int = 4
    texture_skip: bool = True
    upsampling: str = "bicubic"


def daasr_s_config() -> DAASRConfig:
    """The slim configuration: the same modules, narrower and fewer groups, for CPUs."""
    return DAASRConfig(channels=32, groups=4, upsampling="sinc")


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass, the same for all groups; tokens are 4x4 pixels, a grid of rows, columns.

    Args:
        keys: descriptors of the blurred reference (B, rows columns, 4 C), unit length.
        blocks: features of the sharp reference by token (B, (rows + 2) (columns + 2), 16 C), one token of repeated
            border on every side.
        grid: (rows, columns) of the reference.
    """

    keys: Tensor
    blocks: Tensor
    grid: tuple[int, int]


class Aligned(NamedTuple):
    """What spatial alignment gives; on the padded grid of n_h x n_w tokens, `gated` cropped to the slice."""

    gated: Tensor  # X (B, C, H, W)
    transferred: Tensor  # T (B, C, 4 n_h, 4 n_w)
    matched: Tensor  # P (B, n_h, n_w), row-major on the reference's token grid
    score: Tensor  # C (B, 1, n_h, n_w)
    queries: Tensor  # (B, n_h n_w, 4 C), unit length


class GroupOutput(NamedTuple):
    """What a group gives; h x w is the target's grid."""

    features: Tensor  # F (B, C, h, w)
    structure: Tensor  # S (B, C, h, w)
    attention: Tensor  # A (B, C, C)
    aligned: Aligned


@register("daasr", DAASRConfig, "Dual attention aggregation network with patch matching, published size.")
@register("daasr-s", daasr_s_config, "Dual attention aggregation network, slim: patch matching on a CPU.")
class DAASR(Network):
    """Dual attention aggregation network.

    Wang, Chang, Tan, Shi, Zhu, "Reference-guided MRI super-resolution with dual attention aggregation network". No code
    was published and the formulas are rebuilt from the text; what the text leaves open follows TTSR (transfer of 12x12
    neighbourhoods), MASA-SR (overlap normalisation) and Restormer (channel attention), and is in part our choice:
    matching on descriptors pooled 2x2, the reference encoded once for all groups, the confidence gates the texture but
    not the structure. The reference may have any size and need not be registered.

    From scratch the matching is slow to learn: the gradient reaches it through the score of the match already chosen
    alone. Where reference and target are registered in training, a loss on `aux` that asks each query for the key of
    its own place gets it going.
    """

    def __init__(self, config: DAASRConfig) -> None:
        super().__init__(config)
        if config.scale not in SHUFFLES:
            raise InputError(f"DAASR enhances by 2, 3 or 4, not by {config.scale}; choose one of these scales.")
        width, scale = config.channels, config.scale
        self.head = conv3(1, width)
        self.sfe = FeatureExtractor(width, config.extractor_blocks)
        self.g = nn.ModuleList([AggregationGroup(config) for _ in range(config.groups)])
        self.body = conv3(width, width)
        self.up = nn.Sequential(
            *(layer for f in SHUFFLES[scale] for layer in (conv3(width, f * f * width), nn.PixelShuffle(f)))
        )
        self.out = conv3(width, 1)
        self.aux_cwt = nn.Sequential(conv3(width, scale * scale), nn.PixelShuffle(scale))
        self.aux_sat = conv3(width, 1)
        for conv in (self.out, self.aux_cwt[0], self.aux_sat):
            nn.init.normal_(conv.weight, std=0.001)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """Whole tokens."""
        return TOKEN

    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Keys and texture blocks of a reference (B, 1, Hr, Wr) of any size."""
        height, width = (round_up(size, TOKEN) for size in reference.shape[-2:])
        sharp = pad_to(reference, height, width)
        # One batch: in training the norms see the statistics of both.
        values, keys = self.sfe(torch.cat([sharp, blur(sharp, self.config.ref_blur_factor)])).chunk(2)
        bordered = F.pad(values.float(), (TOKEN,) * 4, mode="replicate")
        blocks = F.pixel_unshuffle(bordered, TOKEN).flatten(2).transpose(1, 2).contiguous()
        return EncodedReference(_descriptors(F.avg_pool2d(keys, 2)), blocks, (height // TOKEN, width // TOKEN))

    def forward(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference | None,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """See `Network.forward`; the reference may have another size than the result.

        In training, and with `capture`, `aux` holds the images of the auxiliary heads, "structure" (I_str) and
        "texture" (I_tex), each (B, 1, H, W); and what was matched, "queries" of every group (B, G, n, 4 C) and "keys"
        (B, m, 4 C), so that a loss can teach the matching where the reference is registered (see the class).
        """
        upsampled = upsample_slices(target_lr, self.config.scale, self.config.upsampling)
        if reference is None:
            reference = upsampled
        if isinstance(reference, Tensor):
            reference = self.encode_reference(reference)
        shallow = features = self.head(target_lr)
        groups: list[GroupOutput] = []
        for group in self.g:
            last: GroupOutput = group(features, reference)
            features = last.features
            if self.training or capture:
                groups.append(last)
        texture = last.aligned.gated
        fine = self.up(self.body(features) + shallow)
        added = self.out(fine + texture if self.config.texture_skip else fine)
        output = SROutput(added + upsampled)
        if groups:
            output.aux = {
                "structure": self.aux_cwt(last.structure) + upsampled,
                "texture": self.aux_sat(texture) + upsampled,
                "queries": torch.stack([g.aligned.queries for g in groups], dim=1),
                "keys": reference.keys,
            }
        if capture:
            for number, g in enumerate(groups, start=1):
                output.maps |= group_maps(number, g.structure, g.attention, *g.aligned[:4], reference.grid)
            matched = torch.stack([g.aligned.matched for g in groups], dim=1)
            scores = torch.cat([g.aligned.score for g in groups], dim=1)
            output.maps |= summary_maps(added, output.aux, matched, scores, reference.grid)
        return output

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        return map_specs(self.config.groups, self.config.scale)

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """See `Network.point_maps`: where in the reference the last group found the pixel's token, and how surely."""
        return point_maps(maps, self.config.groups, row, column)


class FeatureExtractor(nn.Module):
    """SFE: features of the sharp and of the blurred reference."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.head = conv3(1, width)
        self.rbs = nn.Sequential(*(NormalisedResidualBlock(width) for _ in range(blocks)))

    def forward(self, slices: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H, W)."""
        return self.rbs(F.relu(self.head(slices)))


class NormalisedResidualBlock(nn.Module):
    """Two convolutions with batch norm, a ReLU between them, none after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class AggregationGroup(nn.Module):
    """HFAG: structure from the target, then texture from the reference, aggregated (Eq. 1-3)."""

    def __init__(self, config: DAASRConfig) -> None:
        super().__init__()
        width, self.scale = config.channels, config.scale
        self.cwt = nn.ModuleList([ChannelTransformer(width, config.cwt_dwconv) for _ in range(config.cwt_blocks)])
        self.sat = SpatialAlignment(width, config.scale)
        self.down = nn.Conv2d(width * config.scale**2, width, 1)
        self.tail = conv3(width, width)

    def forward(self, features: Tensor, reference: EncodedReference) -> GroupOutput:
        """Features (B, C, h, w) -> those of the next group, and what is worth showing on the way."""
        structure = features
        for block in self.cwt:
            structure, attention = block(structure)
        aligned = self.sat(structure, reference)
        texture = self.down(F.pixel_unshuffle(aligned.gated, self.scale))
        return GroupOutput(features + self.tail(structure + texture), structure, attention, aligned)


class ChannelTransformer(nn.Module):
    """CWT: attention between channels, then a pixel-wise MLP (Eq. 4-5)."""

    def __init__(self, width: int, dwconv: bool) -> None:
        super().__init__()
        self.n1 = nn.LayerNorm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        if dwconv:
            self.dw = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.tau = nn.Parameter(torch.ones(1))
        self.proj = nn.Conv2d(width, width, 1)
        self.n2 = nn.LayerNorm(width)
        self.fc1 = nn.Conv2d(width, 4 * width, 1)
        self.fc2 = nn.Conv2d(4 * width, width, 1)
        self.dwconv = dwconv

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> the same, and the attention (B, C, C): row = channel that asks, summing to 1."""
        qkv = self.qkv(_per_pixel(self.n1, x))
        queries, keys, values = (self.dw(qkv) if self.dwconv else qkv).flatten(2).chunk(3, dim=1)
        with full_precision(x):
            # Unit length along the pixels keeps the softmax independent of the slice's size.
            cosine = F.normalize(queries.float(), dim=-1) @ F.normalize(keys.float(), dim=-1).transpose(1, 2)
            attention = (self.tau * cosine).softmax(dim=-1)
        x = x + self.proj((attention @ values.to(attention.dtype)).reshape(x.shape))
        return x + self.fc2(F.gelu(self.fc1(_per_pixel(self.n2, x)))), attention


class SpatialAlignment(nn.Module):
    """SAT: every token of the target takes the texture of the reference token most like it (Eq. 6-11)."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.wq = nn.Conv2d(width, width, 1)
        self.fuse = nn.Conv2d(2 * width, width, 1)

    def forward(self, structure: Tensor, reference: EncodedReference) -> Aligned:
        """Structure features (B, C, h, w) -> see `Aligned`."""
        height, width = (self.scale * size for size in structure.shape[-2:])
        fine = F.interpolate(structure, scale_factor=self.scale, mode="bicubic", align_corners=False)
        fine = pad_to(fine, round_up(height, TOKEN), round_up(width, TOKEN))
        # A pointwise projection and a mean may change places: projecting after the pooling costs a quarter.
        queries = _descriptors(self.wq(F.avg_pool2d(fine, 2)))
        grid = (fine.shape[-2] // TOKEN, fine.shape[-1] // TOKEN)
        index, score = (t.unflatten(1, grid) for t in best_matches(queries, reference.keys))
        transferred = transfer(reference.blocks, index, reference.grid)
        confidence = F.interpolate(score[:, None], scale_factor=TOKEN, mode="bilinear", align_corners=False)
        gated = self.fuse(torch.cat([fine, transferred.to(fine.dtype)], dim=1)) * confidence
        return Aligned(gated[..., :height, :width], transferred, index, score[:, None], queries)


def transfer(blocks: Tensor, index: Tensor, grid: tuple[int, int]) -> Tensor:
    """Copy 12x12 neighbourhoods of the matched reference tokens to stride 4, averaged where they overlap.

    A token is covered by the neighbourhoods of its up to nine neighbours n, itself included. That of n has, at the
    token i, the reference's block at P(n) - (n - i), so the 12x12 blocks need not be unfolded.

    Args:
        blocks: see `EncodedReference`.
        index: P (B, n_h, n_w), matched tokens, row-major on `grid`.
        grid: (rows, columns) of the reference's tokens.

    Returns:
        (B, C, 4 n_h, 4 n_w).
    """
    batch, rows, columns = index.shape
    stride = grid[1] + 2
    image = torch.arange(batch, device=index.device).reshape(-1, 1, 1) * blocks.shape[1]
    position = image + (index // grid[1] + 1) * stride + index % grid[1] + 1
    flat = blocks.flatten(0, 1)
    total = flat.new_zeros(batch, rows, columns, flat.shape[-1])
    count = flat.new_zeros(rows, columns, 1)
    for down, right in product((-1, 0, 1), repeat=2):
        here = (_inside(rows, -down), _inside(columns, -right))
        neighbour = (_inside(rows, down), _inside(columns, right))
        total[:, here[0], here[1]] += flat[position[:, neighbour[0], neighbour[1]] - (down * stride + right)]
        count[here] += 1
    return F.pixel_shuffle((total / count).permute(0, 3, 1, 2), TOKEN)


def _inside(size: int, shift: int) -> slice:
    """The positions that a grid of `size` shares with itself moved by `shift`."""
    return slice(max(0, shift), size + min(0, shift))


def _descriptors(pooled: Tensor) -> Tensor:
    """Unit vectors (B, n, 4 C) of 2x2 patches of features pooled 2x2 (B, C, 2 rows, 2 columns)."""
    return unit(F.pixel_unshuffle(pooled, 2).flatten(2).transpose(1, 2))


def blur(slices: Tensor, factor: int) -> Tensor:
    """Slices (B, 1, H, W) brought to a coarser grid and back, so that they look like an upsampled target."""
    height, width = slices.shape[-2:]
    coarse = (max(1, height // factor), max(1, width // factor))
    low = F.interpolate(slices, size=coarse, mode="bicubic", align_corners=False, antialias=True)
    return F.interpolate(low, size=(height, width), mode="bicubic", align_corners=False)


def _per_pixel(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
