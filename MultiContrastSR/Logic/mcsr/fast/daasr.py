"""DAASR, the same slices sooner: see `FastDAASR`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import Generators, SROutput
from ..networks.blocks import full_precision, pad_to, round_up, upsample_slices
from ..networks.daasr import (
    DAASR,
    AggregationGroup,
    ChannelTransformer,
    FeatureExtractor,
    NormalisedResidualBlock,
    SpatialAlignment,
    blur,
)
from ..networks.daasr_maps import TOKEN
from ..networks.matching import best_matches, unit
from ._layers import ConvolutionToFew, channels_last
from ._path import FastPath, accelerates


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass, the same for all groups; tokens are 4x4 pixels, a grid of rows, columns.

    Args:
        keys: descriptors of the blurred reference (B, rows columns, 4 C), unit length.
        strips: features of the sharp reference, four pixels in a row at a time: (B 4 (rows + 2) (columns + 2), 4 C),
            with one token of repeated border on every side.
        grid: (rows, columns) of the reference.
    """

    keys: Tensor
    strips: Tensor
    grid: tuple[int, int]


class Enlargement(NamedTuple):
    """Bicubic upsampling of slices h x w to whole tokens, as matrices; and the same followed by a mean over 2x2."""

    rows: Tensor  # (4 n_h, h)
    columns: Tensor  # (4 n_w, w)
    pooled_rows: Tensor  # (2 n_h, h)
    pooled_columns: Tensor  # (2 n_w, w)


@accelerates(DAASR)
class FastDAASR(FastPath):
    """DAASR with its linear steps joined, channels last.

    Batch norms are part of the convolutions; queries are projected on the target's grid; texture is never fused on the
    fine grid (`Texture`), and meets the output as what the output convolution makes of it (`ConvolutionToFew`).

    Where the two best matches are within rounding of each other (in air, above all) either may be chosen. There slices
    differ by more than 1e-5, as those of the plain network do when its weights are laid out in another order.
    """

    def __init__(self, plain: DAASR) -> None:
        super().__init__(plain)
        self.head, self.body = plain.head, plain.body
        self.extractor = Extractor(plain.sfe)
        self.groups = nn.ModuleList([Group(group) for group in plain.g])  # type: ignore[arg-type]
        *first, last, shuffle = plain.up
        self.up = nn.Sequential(*first)
        self.out = ConvolutionToFew(plain.out, after=last, factor=shuffle.upscale_factor)  # type: ignore[arg-type]
        self.out_of_texture: Texture | None = None
        if self.config.texture_skip:
            self.out_of_texture = Texture(plain.g[-1].sat, self.out.weight)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Keys and texture of a reference (B, 1, Hr, Wr) of any size."""
        height, width = (round_up(size, TOKEN) for size in reference.shape[-2:])
        padded = pad_to(reference, height, width)
        keys = self.extractor.pooled(blur(padded, self.config.ref_blur_factor)).float()
        bordered = F.pad(self.extractor(padded).float(), (TOKEN,) * 4, mode="replicate")
        strips = bordered.permute(0, 2, 3, 1).reshape(-1, TOKEN * bordered.shape[1])
        return EncodedReference(_descriptors(keys.permute(0, 2, 3, 1)), strips, (height // TOKEN, width // TOKEN))

    @torch.no_grad()
    def fast_forward(
        self, target_lr: Tensor, reference: Tensor | EncodedReference | None, generator: Generators
    ) -> SROutput:
        """See `FastPath.fast_forward`."""
        upsampled = upsample_slices(target_lr, self.config.scale, self.config.upsampling)
        if reference is None:
            reference = upsampled
        if isinstance(reference, Tensor):
            reference = self.encode_reference(reference)
        enlargement = _enlargement(target_lr, self.config.scale)
        shallow = features = channels_last(self.head(channels_last(target_lr)))
        for group in self.groups:
            features, gated, confidence = group(features, reference, enlargement)
        taps = self.out.taps(self.up(self.body(features) + shallow))
        if self.out_of_texture is not None:
            taps = taps + self.out_of_texture(gated, confidence)
        return SROutput(self.out.gathered(taps) + upsampled)


class Extractor(nn.Module):
    """SFE with the batch norms in the convolutions."""

    def __init__(self, plain: FeatureExtractor) -> None:
        super().__init__()
        *blocks, last = (ResidualBlock(block) for block in plain.rbs)  # type: ignore[arg-type]
        self.head, self.blocks, self.last = plain.head, nn.Sequential(*blocks), last
        # The mean over 2x2 after a 3x3 convolution is a 4x4 convolution of stride 2.
        self.pool = nn.Conv2d(plain.head.out_channels, plain.head.out_channels, 4, stride=2, padding=1)
        moved = [F.pad(last.conv2.weight, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]
        self.pool.weight.copy_(torch.stack(moved).mean(dim=0))
        self.pool.bias = last.conv2.bias

    def forward(self, slices: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H, W)."""
        return self.last(self._before_last(slices))

    def pooled(self, slices: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H/2, W/2): means over 2x2 of what `forward` gives."""
        x = self._before_last(slices)
        return self.pool(self.last.conv1(x).relu_()).add_(F.avg_pool2d(x, 2))

    def _before_last(self, slices: Tensor) -> Tensor:
        return self.blocks(self.head(channels_last(slices)).relu_())


class ResidualBlock(nn.Module):
    """A `NormalisedResidualBlock` with its norms in the convolutions."""

    def __init__(self, plain: NormalisedResidualBlock) -> None:
        super().__init__()
        self.conv1, self.conv2 = _folded(plain.conv1, plain.bn1), _folded(plain.conv2, plain.bn2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.conv2(self.conv1(x).relu_()).add_(x)


class Group(nn.Module):
    """HFAG; what was transferred goes straight into `down`."""

    def __init__(self, plain: AggregationGroup) -> None:
        super().__init__()
        self.cwt = nn.ModuleList([Transformer(block) for block in plain.cwt])  # type: ignore[arg-type]
        self.wq, self.tail, self.scale = plain.sat.wq, plain.tail, plain.scale
        down = plain.down.weight.detach().flatten(1).unflatten(1, (-1, plain.scale, plain.scale))
        self.down = Texture(plain.sat, down, plain.down.bias)

    def forward(
        self, features: Tensor, reference: EncodedReference, enlargement: Enlargement
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, C, h, w) to those of the next group, and what `Texture` takes of this one."""
        structure = features
        for block in self.cwt:
            structure = block(structure)
        with full_precision(features):
            gated, confidence = self._aligned(structure.float().permute(0, 2, 3, 1), reference, enlargement)
        height, width = (self.scale * size for size in features.shape[-2:])
        gated, confidence = (t.permute(0, 3, 1, 2)[..., :height, :width] for t in (gated, confidence))
        return features + self.tail(structure + self.down(gated, confidence)), gated, confidence

    def _aligned(self, pixels: Tensor, reference: EncodedReference, enlargement: Enlargement) -> tuple[Tensor, Tensor]:
        """Of structure (B, h, w, C): U and T times the confidence (B, 4 n_h, 4 n_w, 2 C), and that (.., 1)."""
        projected = F.linear(pixels, self.wq.weight.flatten(1), self.wq.bias)
        queries = _descriptors(_enlarged(projected, enlargement.pooled_rows, enlargement.pooled_columns))
        fine = _enlarged(pixels, enlargement.rows, enlargement.columns)
        batch, rows, columns, width = fine.shape
        grid = (rows // TOKEN, columns // TOKEN)
        index, score = (t.unflatten(1, grid) for t in best_matches(queries, reference.keys))
        confidence = F.interpolate(score[:, None], scale_factor=TOKEN, mode="bilinear", align_corners=False)
        confidence = confidence.permute(0, 2, 3, 1)
        gated = fine.new_empty(batch, rows, columns, 2 * width)
        torch.mul(fine, confidence, out=gated[..., :width])
        torch.mul(transfer(reference.strips, index, reference.grid), confidence, out=gated[..., width:])
        return gated, confidence


class Texture(nn.Module):
    """A convolution of the gated texture X = fuse([U, T]) C, its stride its own size, taken from [U C, T C] and C.

    Args:
        sat: whose `fuse`.
        weight: of the convolution (O, C, k, k).
        bias: likewise (O,).
    """

    weight: Tensor
    weight_of_confidence: Tensor
    bias: Tensor | None

    def __init__(self, sat: SpatialAlignment, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        assert sat.fuse.bias is not None
        fuse = sat.fuse.weight.detach().flatten(1)
        self.register_buffer("weight", channels_last(torch.einsum("ocyx,cd->odyx", weight, fuse)))
        of_confidence = torch.einsum("ocyx,c->oyx", weight, sat.fuse.bias.detach())
        self.register_buffer("weight_of_confidence", of_confidence[:, None])
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, gated: Tensor, confidence: Tensor) -> Tensor:
        """(B, 2 C, H, W), (B, 1, H, W) -> (B, O, H / k, W / k)."""
        stride = self.weight.shape[-1]
        texture = F.conv2d(gated, self.weight, self.bias, stride=stride)
        return texture + F.conv2d(confidence, self.weight_of_confidence, stride=stride)


class Transformer(nn.Module):
    """CWT on pixels with their channels side by side; attention and the projection after it are one matrix."""

    def __init__(self, plain: ChannelTransformer) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        plain, width = self.plain, x.shape[1]
        qkv = F.conv2d(_per_pixel(plain.n1, x), plain.qkv.weight)
        pixels = (plain.dw(qkv) if plain.dwconv else qkv).permute(0, 2, 3, 1).flatten(1, 2)
        with full_precision(x):
            queries, keys, values = pixels.float().split(width, dim=-1)
            lengths = [t.square().sum(dim=1).sqrt().clamp(min=1e-12) for t in (queries, keys)]
            cosine = queries.transpose(1, 2) @ keys / (lengths[0][:, :, None] * lengths[1][:, None])
            attention = (plain.tau * cosine).softmax(dim=-1)
            mixing = plain.proj.weight.flatten(1) @ attention
            mixed = values @ mixing.transpose(1, 2) + plain.proj.bias
        x = x + mixed.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
        return x + plain.fc2(F.gelu(plain.fc1(_per_pixel(plain.n2, x))))


def transfer(strips: Tensor, index: Tensor, grid: tuple[int, int]) -> Tensor:
    """What `networks.daasr.transfer` gives, four pixels in a row at a time: (B, 4 n_h, 4 n_w, C).

    Args:
        strips: see `EncodedReference`, as grid.
        index: P (B, n_h, n_w), matched tokens, row-major on `grid`.
        grid: (rows, columns) of the reference's tokens.
    """
    batch, rows, columns = index.shape
    stride = grid[1] + 2
    image = TOKEN * stride * (grid[0] + 2) * torch.arange(batch, device=index.device)[:, None, None]
    matched = image + (index // grid[1] + 1) * TOKEN * stride + index % grid[1] + 1
    near = torch.arange(-1, 2, device=index.device)
    # Beyond the border there is no neighbour; any place does for it, since it counts for nothing.
    down, right = ((torch.arange(n, device=index.device)[:, None] + near) for n in (rows, columns))
    neighbours = matched[:, down.clamp(0, rows - 1)[:, None, :, None], right.clamp(0, columns - 1)[None, :, None]]
    offsets = near[:, None] * TOKEN * stride + near
    lines = torch.arange(TOKEN, device=index.device) * stride
    bags = (neighbours - offsets)[:, :, None] + lines[:, None, None, None]
    inside = [((at >= 0) & (at < n)).float() for at, n in ((down, rows), (right, columns))]
    counted = inside[0][:, None, :, None] * inside[1][None, :, None]
    weights = (counted / counted.sum(dim=(-1, -2), keepdim=True))[None, :, None].expand(bags.shape)
    moved = F.embedding_bag(
        bags.flatten(0, 3).flatten(1), strips, mode="sum", per_sample_weights=weights.reshape(-1, 9)
    )
    return moved.reshape(batch, TOKEN * rows, TOKEN * columns, -1)


def _enlargement(target_lr: Tensor, scale: int) -> Enlargement:
    """For a target (B, 1, h, w)."""
    matrices = []
    for size in target_lr.shape[-2:]:
        identity = torch.eye(size, device=target_lr.device)[None, None]
        fine = F.interpolate(identity, scale_factor=(scale, 1), mode="bicubic", align_corners=False)
        matrices.append(pad_to(fine, round_up(scale * size, TOKEN), size)[0, 0])
    return Enlargement(*matrices, *(m.unflatten(0, (-1, 2)).mean(dim=1) for m in matrices))


def _enlarged(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, h, w, C) to (B, H, W, C) by matrices (H, h) and (W, w)."""
    batch, height, width, channels = pixels.shape
    tall = rows @ pixels.reshape(batch, height, width * channels)
    return (columns @ tall.reshape(-1, width, channels)).reshape(batch, len(rows), len(columns), channels)


def _descriptors(pooled: Tensor) -> Tensor:
    """Unit vectors (B, n, 4 C) of 2x2 patches of pixels (B, 2 rows, 2 columns, C), in the order (dy, dx, channel)."""
    patches = pooled.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
    return unit(patches.flatten(3).flatten(1, 2))


def _per_pixel(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution without bias and the batch norm after it as one convolution."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    folded.weight.copy_(gain[:, None, None, None] * conv.weight)
    folded.bias.copy_(norm.bias - gain * norm.running_mean)  # type: ignore[union-attr]
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
