"""HFTN-SR: high-frequency feature transfer network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ._map_spec import MapSpec
from ._registry import Generators, Network, SROutput, register
from .blocks import conv3, full_precision, instance_norm, pad_to, round_up, upsample_slices
from .hftn_sr_maps import map_specs, match_scores, matching_maps
from .matching import best_matches, unit

PATCH = 2
"""Side of the matched patches, in pixels of the low-resolution grid."""


_CHOICES = {"transfer": ("gather", "mask", "none"), "stat": ("std", "var"), "reconstruction": ("scrfm", "concat")}


@dataclass(frozen=True)
class HFTNSRConfig:
    """Settings of HFTN-SR; the defaults are the published network.

    Args:
        scale: factor from the low- to the high-resolution grid: 2, 3 or 4.
        channels: width of all features.
        stages: feature extraction and transfer blocks one after the other (the paper's N).
        n_rcab: residual channel-attention blocks of each feature extraction block.
        reduction: by how much the channel attention narrows.
        embedding: length of the vectors that patches are compared by.
        transfer: "gather" puts the best reference patch in the place of the target's patch; "mask" keeps reference
            patches where they are and clears those that no target patch chose; "none" (the paper's ablation) joins the
            three branches without matching.
        stat: the spread of the target's features that SCRFM restores: "std" or "var".
        decompose: split the reference into bands; without it (the paper's ablation) the "high band" is all of it.
        reconstruction: "scrfm"; or "concat" (the paper's ablation): deep and shallow features joined and enlarged.
        global_skip: add the result to the interpolated target.
        upsampling: how the target is interpolated.
    """

    scale: int = 4
    channels: int = 64
    stages: int = 8
    n_rcab: int = 2
    reduction: int = 16
    embedding: int = 64
    transfer: str = "gather"
    stat: str = "std"
    decompose: bool = True
    reconstruction: str = "scrfm"
    global_skip: bool = True
    upsampling: str = "bicubic"

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4):
            raise InputError(f"HFTN-SR is made for scale 2, 3 or 4, not {self.scale}.")
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise InputError(f"HFTN-SR has no {field} '{getattr(self, field)}'; it has {', '.join(known)}.")


def hftn_sr_s_config() -> HFTNSRConfig:
    """The slim configuration: the same modules, half as wide and half as deep, for CPUs."""
    return HFTNSRConfig(channels=32, stages=4, reduction=8, embedding=16, upsampling="sinc")


class ReferenceStage(NamedTuple):
    """What transfer needs of the reference at one stage; n patches of 2x2 low-resolution pixels, row by row."""

    keys: Tensor  # (B, n, embedding), float32, unit length; without matching low-frequency features (B, C, h, w)
    patches: Tensor  # (B, 4 C, h/2, w/2): high-frequency features, channel order (channel, dy, dx); or (B, C, h, w)


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass."""

    low_band: Tensor  # (B, 1, h, w)
    high_band: Tensor  # (B, 1, H, W)
    edges: Tensor  # (B, C, H', W'): shallow features of the high band on the padded grid
    stages: list[ReferenceStage]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.high_band.shape[-2:]
        return height, width


@register("hftn-sr", HFTNSRConfig, "High-frequency feature transfer network (Jin), published size.")
@register("hftn-sr-s", hftn_sr_s_config, "High-frequency feature transfer network, slim: for CPUs.")
class HFTNSR(Network):
    """High-frequency feature transfer network.

    Jin, "HFTN-SR: High-Frequency Feature Transfer Network for MR Image Super-Resolution". There is no public code, and
    the paper leaves parts open; these follow related work. Decomposition: average pooling (ESRT). Feature extraction:
    residual channel-attention groups (MINet, SANet). Hard transfer moves the best patch and is weighted by the largest
    correlation (TTSR); the paper's literal reading, which leaves patches in place, is `transfer="mask"`. Fusion at the
    end: MASA-SR's spatial adaptation, with the standard deviation where the paper prints variance, and dual residual
    aggregation. Each stage's result feeds the next target stage, as the "gradual" fusion of the text needs; the deep
    features of SCRFM meet the shallow ones of the target, as section 2.3 of the paper has it.
    """

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__(config)
        width, scale = config.channels, config.scale
        self.ht = conv3(1, width)
        self.hl = conv3(1, width)
        self.hh = conv3(scale**2, width)
        self.hhr = conv3(1, width)
        self.ft, self.fl, self.fh = (
            nn.ModuleList([FeatureExtraction(config) for _ in range(config.stages)]) for _ in range(3)
        )
        joining = ConcatTransfer if config.transfer == "none" else FeatureTransfer
        self.tb = nn.ModuleList([joining(config) for _ in range(config.stages)])
        self.sc = SCRFM(config) if config.reconstruction == "scrfm" else ConcatReconstruction(config)
        self.out1 = conv3(width, width)
        self.out2 = conv3(width, 1)
        nn.init.normal_(self.out2.weight, std=0.01)
        nn.init.zeros_(self.out2.bias)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """Whole patches."""
        return PATCH * self.config.scale

    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Bands, keys and values of a reference (B, 1, H, W), H and W multiples of the scale."""
        scale = self.config.scale
        if any(n % scale for n in reference.shape[-2:]):
            raise ValueError(
                f"reference {tuple(reference.shape[-2:])} is no multiple of the scale {scale}; resample it"
            )
        low_band = F.avg_pool2d(reference, scale)
        high_band = reference - upsample_slices(low_band, scale, "bilinear") if self.config.decompose else reference
        height, width = (round_up(n, PATCH) for n in low_band.shape[-2:])
        high_padded = pad_to(high_band, scale * height, scale * width)
        low, high = self.hl(pad_to(low_band, height, width)), self.hh(F.pixel_unshuffle(high_padded, scale))
        stages = []
        for extract_low, extract_high, transfer in zip(self.fl, self.fh, self.tb, strict=True):
            low, high = extract_low(low), extract_high(high)
            stages.append(transfer.attend_to(low, high))  # type: ignore[operator]
        return EncodedReference(low_band, high_band, self.hhr(high_padded), stages)

    def forward(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference | None,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """See `Network.forward`; a reference slice on any other grid of the same field of view is resampled first.

        In training `aux` holds what was matched: "queries" and "keys" of all stages (B, stages, n, embedding).
        """
        interpolated = upsample_slices(target_lr, self.config.scale, self.config.upsampling)
        height, width = interpolated.shape[-2:]
        if reference is None:
            reference = interpolated
        if isinstance(reference, Tensor):
            reference = self.encode_reference(resampled(reference, height, width))
        if (height, width) != reference.shape:
            raise ValueError(f"reference {reference.shape} does not fit the upsampled target {(height, width)}")
        maps: dict[str, Tensor] | None = {} if capture else None

        shallow = self.ht(pad_to(target_lr, *(round_up(n, PATCH) for n in target_lr.shape[-2:])))
        x, queries = shallow, []
        stages = zip(self.ft, self.tb, reference.stages, strict=True)
        for number, (extract, transfer, stage) in enumerate(stages, 1):
            x, asked = transfer(extract(x), stage, maps, f"stage{number}")
            queries.append(asked)
        fused = self.sc(x, shallow, maps)
        added = self._rendered(fused + reference.edges)[..., :height, :width]
        if maps is not None:
            without_edges = self._rendered(fused)[..., :height, :width]
            maps |= {"low_band": reference.low_band, "high_band": reference.high_band}
            maps |= {"added": added, "added_by_reference_edges": added - without_edges}
        aux = {}
        if self.training and self.config.transfer != "none":
            keys = [stage.keys for stage in reference.stages]
            aux = {"queries": torch.stack(queries, dim=1), "keys": torch.stack(keys, dim=1)}
        return SROutput(interpolated + added if self.config.global_skip else added, maps or {}, aux)

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        return map_specs(self.config.scale, self.config.stages, self.config.transfer, self.config.reconstruction)

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """How well each patch of the reference matches the patch of the pixel, at each stage."""
        if self.config.transfer == "none":
            return {}
        row, column = row // self.multiple, column // self.multiple
        numbers = range(1, self.config.stages + 1)
        return {f"match_scores_stage{n}": match_scores(maps, f"stage{n}", row, column) for n in numbers}

    def _rendered(self, features: Tensor) -> Tensor:
        return self.out2(F.relu(self.out1(features), inplace=True))


class FeatureExtraction(nn.Module):
    """FEB: a residual group of channel-attention blocks (Eq. 6)."""

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__()
        blocks = [ChannelAttentionBlock(config.channels, config.reduction) for _ in range(config.n_rcab)]
        self.b = nn.Sequential(*blocks, conv3(config.channels, config.channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.b(x)


class ChannelAttentionBlock(nn.Module):
    """RCAB: two convolutions whose output channels are weighted by a gate on their means."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.c1 = conv3(width, width)
        self.c2 = conv3(width, width)
        self.ca = nn.ModuleDict(
            {"a": nn.Conv2d(width, width // reduction, 1), "b": nn.Conv2d(width // reduction, width, 1)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.c2(F.relu(self.c1(x)))
        gate = self.ca["b"](F.relu(self.ca["a"](y.mean(dim=(2, 3), keepdim=True))))
        return x + y * torch.sigmoid(gate)


class FeatureTransfer(nn.Module):
    """FTB: every target patch gets the detail of the best matching reference patch (Eq. 8-11)."""

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__()
        width = config.channels
        self.moves = config.transfer == "gather"
        self.cell = PATCH * config.scale
        self.eq = nn.Linear(width * PATCH**2, config.embedding)
        self.ek = nn.Linear(width * PATCH**2, config.embedding)
        self.syn = conv3(2 * width, width)

    def attend_to(self, low: Tensor, high: Tensor) -> ReferenceStage:
        """Keys of low-frequency and patches of high-frequency reference features, both (B, C, h, w), h and w even."""
        return ReferenceStage(_embedded(low, self.ek), F.pixel_unshuffle(high, PATCH))

    def forward(
        self, target: Tensor, reference: ReferenceStage, maps: dict[str, Tensor] | None, name: str
    ) -> tuple[Tensor, Tensor]:
        """Target features (B, C, h, w) -> those with transferred detail, and the queries (B, n, embedding)."""
        queries = _embedded(target, self.eq)
        index, score = best_matches(queries, reference.keys)
        transferred = F.pixel_shuffle(self._transferred(reference.patches, index), PATCH)
        grid = reference.patches.shape[-2:]
        relevance = score.reshape(-1, 1, *grid)
        weight = relevance.repeat_interleave(PATCH, dim=-2).repeat_interleave(PATCH, dim=-1)
        contribution = self.syn(torch.cat([transferred, target], dim=1)) * weight
        if maps is not None:
            maps[f"relevance_{name}"] = relevance
            maps |= matching_maps(index, (grid[0], grid[1]), self.cell, name)
            maps |= {f"transferred_{name}": transferred, f"contribution_{name}": contribution}
            maps[f"embeddings_{name}"] = torch.stack([queries, reference.keys], dim=1)
        return target + contribution, queries

    def _transferred(self, patches: Tensor, index: Tensor) -> Tensor:
        values = patches.flatten(2)
        index = index[:, None]
        if self.moves:
            values = values.gather(2, index.expand(-1, values.shape[1], -1))
        else:
            values = values * torch.zeros_like(values[:, :1]).scatter(2, index, 1.0)
        return values.reshape(patches.shape)


class ConcatTransfer(nn.Module):
    """In place of FTB, for comparison: the three branches joined by a convolution (the paper's ablation)."""

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__()
        self.syn = conv3(3 * config.channels, config.channels)

    def attend_to(self, low: Tensor, high: Tensor) -> ReferenceStage:
        """Both as they are."""
        return ReferenceStage(low, high)

    def forward(
        self, target: Tensor, reference: ReferenceStage, maps: dict[str, Tensor] | None, name: str
    ) -> tuple[Tensor, Tensor]:
        """As `FeatureTransfer.forward`; nothing was asked, so there are no queries (B, 0)."""
        return self.syn(torch.cat([*reference, target], dim=1)), target.new_empty(len(target), 0)


class ConcatReconstruction(nn.Module):
    """In place of SCRFM, for comparison: deep and shallow features joined and enlarged (the paper's ablation)."""

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__()
        self.ft = conv3(2 * config.channels, config.channels)
        self.d1 = _deconvolution(config.channels, config.scale)

    def forward(self, deep: Tensor, shallow: Tensor, maps: dict[str, Tensor] | None) -> Tensor:
        """As `SCRFM.forward`."""
        return self.d1(self.ft(torch.cat([deep, shallow], dim=1)))


class SCRFM(nn.Module):
    """Deep features take the target's contrast, then both grow onto the fine grid (Eq. 12-18)."""

    def __init__(self, config: HFTNSRConfig) -> None:
        super().__init__()
        width = config.channels
        self.scale = config.scale
        self.stat = config.stat
        self.ft = conv3(2 * width, width)
        self.al = conv3(width, width)
        self.be = conv3(width, width)
        self.c1 = conv3(width, width)
        self.c2 = conv3(width, width)
        self.d1 = _deconvolution(width, config.scale)
        self.d2 = _deconvolution(width, config.scale)
        self.out = conv3(2 * width, width)
        for conv in (self.al, self.be):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, deep: Tensor, shallow: Tensor, maps: dict[str, Tensor] | None) -> Tensor:
        """Features of the last stage and of the target's head, both (B, C, h, w) -> (B, C, scale h, scale w)."""
        adapted = self.adapted(deep, shallow, maps)
        difference = shallow - self.c2(F.relu(self.c1(adapted)))
        enlarged = F.interpolate(adapted, scale_factor=self.scale, mode="bilinear", align_corners=False)
        first = F.relu(self.d1(difference)) + enlarged
        second = F.relu(self.d2(difference + shallow))
        if maps is not None:
            maps["difference"] = difference
        return F.relu(self.out(torch.cat([first, second], dim=1)))

    def adapted(self, deep: Tensor, shallow: Tensor, maps: dict[str, Tensor] | None) -> Tensor:
        """Deep features with the contrast of the shallow ones (Eq. 12-15)."""
        shared = F.relu(self.ft(torch.cat([deep, shallow], dim=1)))
        pixels = shallow.float()
        # std, not the root of var: its gradient at a constant channel is 0 and not infinite.
        spread = pixels.std(dim=(2, 3), keepdim=True)
        if self.stat == "var":
            spread = pixels.var(dim=(2, 3), keepdim=True)
        gain = self.al(shared) + spread
        offset = self.be(shared) + pixels.mean(dim=(2, 3), keepdim=True)
        if maps is not None:
            maps |= {"gain": gain.mean(dim=1, keepdim=True), "offset": offset.mean(dim=1, keepdim=True)}
        return gain * instance_norm(deep) + offset


def _deconvolution(width: int, scale: int) -> nn.Sequential:
    if scale == 3:
        return nn.Sequential(nn.ConvTranspose2d(width, width, kernel_size=3, stride=3))
    layers: list[nn.Module] = [_doubling(width)]
    if scale == 4:
        layers += [nn.ReLU(), _doubling(width)]
    return nn.Sequential(*layers)


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=3, stride=2, padding=1, output_padding=1)


def _embedded(features: Tensor, linear: nn.Module) -> Tensor:
    """Patches of (B, C, h, w) as unit vectors (B, n, embedding); float32, since matching is a matter of last digits."""
    patches = F.pixel_unshuffle(features, PATCH).flatten(2).transpose(1, 2)
    with full_precision(features):
        return unit(linear(patches.float()))


def resampled(reference: Tensor, height: int, width: int) -> Tensor:
    """The reference on the grid that the network works on."""
    if tuple(reference.shape[-2:]) == (height, width):
        return reference
    return F.interpolate(reference, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
