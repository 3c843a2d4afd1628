"""DCAMSR, faster: tokens as they lie in memory, attention in one pass, sums and rectifiers within convolutions."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import Generators, SROutput
from ..networks.blocks import double, full_precision
from ..networks.dcamsr import DCAMSR, DCAT, Decoder, DualCrossAttention, Encoder, SpatiallyAdaptiveModulation
from ..networks.fine_inputs import fine_inputs
from ._convolution import Convolution
from ._path import FastPath, accelerates
from ._precision import working_dtype


class AttendedReference(NamedTuple):
    """What attention needs of the reference at one scale; N pixels, C channels, T tokens; float32."""

    keys: Tensor  # (B, N, C), as they are
    key_norms: Tensor  # (B, 1, C), along N
    channel_values: Tensor  # (B, N, C)
    spatial_keys: Tensor  # (B, T, C), of unit norm along N before their projection
    spatial_values: Tensor  # (B, T, C)


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass."""

    attended: list[AttendedReference]
    shape: tuple[int, int]


@accelerates(DCAMSR)
class FastDCAMSR(FastPath):
    """DCAMSR with its convolutions in the working precision; norms and attention in float32."""

    plain: DCAMSR

    def __init__(self, plain: DCAMSR) -> None:
        super().__init__(plain)
        self.encoder, self.decoder = _FastEncoder(plain.enc), _FastDecoder(plain.decoder)
        self.transformers = nn.ModuleList([FastDCAT(block) for block in plain.transformers])

    @torch.no_grad()
    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """See `DCAMSR.encode_reference`."""
        height, width = reference.shape[-2:]
        features = self.encoder(self.plain.pad(reference).to(working_dtype(reference)))
        attended = [block.attend_to(f) for block, f in zip(self.transformers, features, strict=True)]  # type: ignore[operator]
        return EncodedReference(attended, (height, width))

    def fast_forward(
        self, target_lr: Tensor, reference: Tensor | EncodedReference | None, generator: Generators
    ) -> SROutput:
        """See `FastPath.fast_forward`."""
        upsampled, encoded = fine_inputs(self, target_lr, reference)
        height, width = upsampled.shape[-2:]
        padded = self.plain.pad(upsampled)
        features = self.encoder(padded.to(working_dtype(padded)))
        textures = [block(x, r) for block, x, r in zip(self.transformers, features, encoded.attended, strict=True)]
        sr = self.decoder(features[2], textures).float() + padded
        return SROutput(sr[..., :height, :width])


class _ResidualBlocks(nn.Module):
    """Residual blocks in the memory of their input."""

    def __init__(self, plain: nn.ModuleList) -> None:
        super().__init__()
        self.first = nn.ModuleList([Convolution.of(block.conv1) for block in plain])
        self.second = nn.ModuleList([Convolution.of(block.conv2) for block in plain])

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            second(first(x, rectify=True), onto=x)
        return x


class _FastEncoder(nn.Module):
    def __init__(self, plain: Encoder) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([Convolution.of(c) for c in (plain.conv_L1, plain.conv_L2, plain.conv_L3)])
        self.blocks = nn.ModuleList([_ResidualBlocks(b) for b in (plain.blk_L1, plain.blk_L2, plain.blk_L3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        features = []
        for convolution, blocks in zip(self.convolutions, self.blocks, strict=True):
            x = blocks(convolution(x, rectify=True))
            features.append(x)
        return features


class FastDCAT(nn.Module):
    def __init__(self, plain: DCAT) -> None:
        super().__init__()
        self.norm = plain.norm
        self.attention = _FastAttention(plain.epa_block)
        self.wide, self.narrow = Convolution.of(plain.ffn[0]), Convolution.of(plain.ffn[2])

    def attend_to(self, reference: Tensor) -> AttendedReference:
        """See `DCAT.attend_to`."""
        with full_precision(reference):
            return self.attention.project(self.norm(_tokens(reference.float())), reference.shape[-2:])

    def forward(self, x: Tensor, reference: AttendedReference) -> Tensor:
        """See `DCAT.forward`; channels last."""
        shape = x.shape[-2:]
        with full_precision(x):
            tokens = _tokens(x.float())
            tokens = self.attention(self.norm(tokens), reference, shape).add_(tokens)
        y = tokens.unflatten(1, shape).permute(0, 3, 1, 2).to(x.dtype)
        return self.narrow(self.wide(y, rectify=True), onto=y)


class _FastAttention(nn.Module):
    """DualCrossAttention on tokens (B, N, C) as they lie in memory; unit norms are given to what is smaller."""

    def __init__(self, plain: DualCrossAttention) -> None:
        super().__init__()
        self.plain = plain

    def project(self, reference: Tensor, shape: torch.Size) -> AttendedReference:
        """See `DualCrossAttention.project`."""
        plain = self.plain
        keys, channel_values, spatial_values = (
            F.linear(reference, weight, bias)
            for weight, bias in zip(plain.kvv.weight.chunk(3), plain.kvv.bias.chunk(3), strict=True)
        )
        norms = _norms(keys, shape)
        weight, bias = plain.E.weight, plain.E.bias[:, None]
        return AttendedReference(
            keys,
            norms,
            channel_values,
            weight @ self._pooled(keys, shape) * (self._sharpness(reference) / norms) + bias,
            weight @ self._pooled(spatial_values, shape) + bias,
        )

    def forward(self, target: Tensor, reference: AttendedReference, shape: torch.Size) -> Tensor:
        """See `DualCrossAttention.forward`."""
        plain = self.plain
        queries = plain.q(target)
        norms = _norms(queries, shape)
        mixing = self._channel_mixing(queries, norms, reference)
        x_channel = reference.channel_values @ mixing + plain.out_proj.bias

        keys, values, queries = (self._heads(t) for t in (reference.spatial_keys, reference.spatial_values, queries))
        sharpness = plain.temperature2 * self._sharpness(target) / self._heads(norms)
        x_spatial = F.scaled_dot_product_attention(queries, keys * sharpness, values, scale=1.0)
        if plain.legacy_layout:
            x_spatial = x_spatial.permute(0, 3, 1, 2).reshape(target.shape)
        else:
            x_spatial = x_spatial.transpose(1, 2).reshape(target.shape)
        return torch.cat([plain.out_proj2(x_spatial), x_channel], dim=-1)

    def _channel_mixing(self, queries: Tensor, norms: Tensor, reference: AttendedReference) -> Tensor:
        """Channel attention and the projection after it as one matrix on the values (B, C, C / 2)."""
        plain = self.plain
        products = queries.transpose(1, 2) @ reference.keys / (norms.transpose(1, 2) * reference.key_norms)
        batch, width, _ = products.shape
        by_head = products.view(batch, plain.heads, width // plain.heads, plain.heads, -1)
        logits = by_head.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2) * plain.temperature
        projection = plain.out_proj.weight.unflatten(1, (plain.heads, -1))
        return torch.einsum("ohd,bhde->bheo", projection, logits.softmax(dim=-1)).flatten(1, 2)

    def _heads(self, tokens: Tensor) -> Tensor:
        """(B, n, C) -> (B, heads, n, C / heads)."""
        return tokens.unflatten(-1, (self.plain.heads, -1)).transpose(1, 2)

    def _sharpness(self, tokens: Tensor) -> float:
        return 1.0 if self.plain.pool is None else math.sqrt(tokens.shape[1])

    def _pooled(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        if self.plain.pool is None:
            return tokens
        rows, columns = (_means_of_cells(size, self.plain.pool, tokens.device) for size in shape)
        joined = (rows @ tokens.unflatten(1, shape).flatten(2)).unflatten(-1, (shape[1], -1))
        return (columns @ joined).flatten(1, 2)


class _FastDecoder(nn.Module):
    def __init__(self, plain: Decoder) -> None:
        super().__init__()
        self.down, self.bottom = Convolution.of(plain.conv_L3), Convolution.of(plain.conv_L2)
        self.up, self.skip = Convolution.halves(plain.conv_L1)
        self.blocks = nn.ModuleList([_ResidualBlocks(b) for b in (plain.blk_L3, plain.blk_L2, plain.blk_L1)])
        self.modulation = FastModulation(plain.pAda)
        merges = (plain.merge_warp_x1, plain.merge_warp_x2, plain.merge_warp_x4)
        blocks = (plain.blk_x1, plain.blk_x2, plain.blk_x4)
        self.fusions = nn.ModuleList([_Fusion(*stage) for stage in zip(merges, blocks, strict=True)])
        self.last = Convolution.of(plain.conv_out)

    def forward(self, coarse: Tensor, textures: list[Tensor]) -> Tensor:
        """See `Decoder.forward`; `coarse` are the features at scale 1/4."""
        g = self.blocks[0](self.down(coarse, rectify=True))
        g = self.blocks[1](self.bottom(g, rectify=True))
        g = self.blocks[2](self.skip(coarse, onto=self.up(double(g)), rectify=True))
        for fusion, texture in zip(self.fusions, reversed(textures), strict=True):
            if g.shape != texture.shape:
                g = double(g)
            g = fusion(self.modulation(g, texture), g)
        return self.last(g)


class _Fusion(nn.Module):
    """A modulated texture and the features so far become the features of the next finer scale."""

    def __init__(self, merge: nn.Conv2d, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.on_texture, self.on_features = Convolution.halves(merge)
        self.blocks = _ResidualBlocks(blocks)

    def forward(self, texture: Tensor, features: Tensor) -> Tensor:
        return self.blocks(self.on_features(features, onto=self.on_texture(texture), rectify=True))


class FastModulation(nn.Module):
    """Changes the texture that it is given."""

    def __init__(self, plain: SpatiallyAdaptiveModulation) -> None:
        super().__init__()
        self.eps = plain.eps
        self.shared_g, self.shared_texture = Convolution.halves(plain.conv_shared[0])
        self.gamma, self.beta = Convolution.of(plain.conv_gamma), Convolution.of(plain.conv_beta)

    def forward(self, g: Tensor, texture: Tensor) -> Tensor:
        """See `SpatiallyAdaptiveModulation.forward`."""
        pixels = g.shape[-2] * g.shape[-1]
        shared = self.shared_texture(texture, onto=self.shared_g(g), rectify=True)
        mean, _, squares = _centred(g)
        _, normed, texture_squares = _centred(texture)
        gain = self.gamma(shared).add_(((squares / (pixels - 1) + self.eps).sqrt()).to(g.dtype))
        normed = normed.mul_((texture_squares / pixels + 1e-5).rsqrt()).to(g.dtype)
        return self.beta(shared, onto=normed.mul_(gain).add_(mean.to(g.dtype)))


def _centred(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (B, C, 1, 1), what is left without it, and the sum of its squares, float32."""
    x = x.float()
    mean = _sums(_tokens(x), x.shape[-2:]).transpose(1, 2)[..., None] / (x.shape[-2] * x.shape[-1])
    rest = x - mean
    return mean, rest, _sums(_tokens(rest).square(), x.shape[-2:]).transpose(1, 2)[..., None]


def _norms(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Of every channel of (B, N, C): (B, 1, C)."""
    return _sums(tokens.square(), shape).sqrt().clamp_min(1e-12)


def _sums(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Of every channel of (B, N, C): (B, 1, C); over rows and then columns, a third of the time of all at once."""
    return tokens.unflatten(1, shape).flatten(2).sum(dim=1).unflatten(-1, (shape[1], -1)).sum(dim=1, keepdim=True)


@functools.lru_cache(maxsize=16)
def _means_of_cells(size: int, cells: int, device: torch.device) -> Tensor:
    """Adaptive average pooling along an axis as a matrix (cells, size): torch's own rearranges tokens first."""
    return F.adaptive_avg_pool1d(torch.eye(size, device=device)[None], cells)[0].T.contiguous()


def _tokens(x: Tensor) -> Tensor:
    """(B, C, H, W), channels last -> (B, N, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
