"""Mixture of experts that makes one slice of three maps, routed with the help of a frequency prompt (CD-DPE)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3, full_precision

CHANNELS = 3
"""Maps that the mixture takes: the unique one, the target's common one, the reference's common one."""

MIN_DEVIATION = 0.01
"""Of the routing noise."""


class Routing(NamedTuple):
    """Which experts work on a slice, and why; E experts."""

    prompt: Tensor  # (B, 3), weights of the three maps in the routing, sum 1
    logits: Tensor  # (B, E), without noise
    gates: Tensor  # (B, E), sum 1, exactly 0 where an expert is not chosen
    load_balance: Tensor | None  # scalar, only in training: 0 if all experts work alike


class Expert(nn.Module):
    """Four convolutions, 3 -> a -> b -> a -> 1 channels."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        outer, inner = widths
        self.decoder_Conv2 = conv3(CHANNELS, outer)
        self.decoder_Conv3 = conv3(outer, inner)
        self.decoder_Conv4 = conv3(inner, outer)
        self.decoder_Conv5 = conv3(outer, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        for convolution in (self.decoder_Conv2, self.decoder_Conv3, self.decoder_Conv4):
            maps = F.relu(convolution(maps))
        return self.decoder_Conv5(maps)


class ExpertMixture(nn.Module):
    """DP-FFEM: experts of convolutions, two of which work on each slice (Eq. 13-16).

    Args:
        size: S, side of the square to which slices are brought for routing; slices of that size are taken as they are.
        experts: how many there are.
        chosen: how many work on a slice.
        widths: outer and inner channels of an expert.
        see_prompted: experts see the maps weighted by the prompt (Eq. 16) instead of the raw ones (published code).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, experts: int, chosen: int, widths: tuple[int, int], see_prompted: bool) -> None:
        super().__init__()
        self.size, self.chosen, self.see_prompted = size, chosen, see_prompted
        # Zeros, as published: routing starts as pure noise.
        self.w_gate = nn.Parameter(torch.zeros(CHANNELS * size * size, experts))
        self.w_noise = nn.Parameter(torch.zeros(CHANNELS * size * size, experts))
        self.fre_prompt = nn.Parameter(torch.zeros(2 * CHANNELS, size, size // 2 + 1))
        self.freq_modulator = nn.Sequential(
            nn.Conv2d(4 * CHANNELS, 2 * CHANNELS, 1), nn.ReLU(), nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 1)
        )
        self.freq_enhance = nn.Sequential(nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 1), nn.ReLU())
        self.experts = nn.ModuleList([Expert(widths) for _ in range(experts)])
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def forward(self, target: Tensor, reference: Tensor, shape: tuple[int, int]) -> tuple[Routing, list[Tensor]]:
        """What every expert contributes; their sum is the slice.

        Args:
            target: [x_unique, x_common, y_common] (B, 3, H', W').
            reference: [y_unique, x_common, y_common] (B, 3, H', W').
            shape: (H, W) of the slice without padding, which is all that routing looks at.

        Returns:
            Routing, and for every expert its gated output (B, 1, H', W'), 0 for slices that it does not work on.
        """
        height, width = shape
        routing = self.route(target[..., :height, :width], reference[..., :height, :width])
        if self.see_prompted:
            target = target * (1 + routing.prompt[..., None, None])
        return routing, [self._contribution(k, target, routing.gates[:, k]) for k in range(len(self.experts))]

    def route(self, target: Tensor, reference: Tensor) -> Routing:
        """Choose the experts: noisily in training (torch's global random numbers), by the clean logits otherwise."""
        with full_precision(target):
            prompt = self.prompt(reference.float())
            prompted = target.float() * (1 + prompt[..., None, None])
            inputs = _resample(_resample(prompted, -2, self.size), -1, self.size).flatten(1)
            logits = inputs @ self.w_gate
            noisy = logits
            if self.training:
                deviation = F.softplus(inputs @ self.w_noise) + MIN_DEVIATION
                noisy = logits + torch.randn_like(logits) * deviation
            ranked, order = noisy.sort(dim=-1, descending=True, stable=True)
            weights = ranked[:, : self.chosen].softmax(dim=-1)
            gates = torch.zeros_like(logits).scatter(1, order[:, : self.chosen], weights)
            if not self.training:
                return Routing(prompt, logits, gates, None)
            load = self._chances(logits, noisy, deviation, ranked).sum(dim=0)
            return Routing(prompt, logits, gates, _squared_variation(gates.sum(dim=0)) + _squared_variation(load))

    def prompt(self, reference: Tensor) -> Tensor:
        """The frequency prompt of maps (B, 3, H, W) in closed form: softmax weights (B, 3) (Eq. 13).

        The published code transforms to frequencies, pools, modulates, transforms back and takes the mean. The mean
        after an inverse transform is the zero-frequency bin alone, so no transform is needed.
        """
        root = math.sqrt(reference.shape[-2] * reference.shape[-1])
        bin_zero = reference.mean(dim=(2, 3), keepdim=True) * root  # orthonormal transform
        imaginary = torch.zeros_like(bin_zero)
        # Average- and max-pooled alike, for the cell of bin zero holds that bin alone.
        modulated = self.freq_modulator(torch.cat([bin_zero, imaginary, bin_zero, imaginary], dim=1))
        enhanced = self.freq_enhance(modulated * self.fre_prompt[:, :1, :1])
        return (enhanced[:, :CHANNELS, 0, 0] / root).softmax(dim=-1)

    def _contribution(self, number: int, target: Tensor, gate: Tensor) -> Tensor:
        # An expert without slices gets an empty batch, so that its gradient is zero rather than missing.
        slices = self.slices_of(number, gate)
        worked = self.experts[number](target[slices])
        gated = gate[slices, None, None, None] * worked.float()
        return gated.new_zeros(len(target), *gated.shape[1:]).index_copy(0, slices, gated)

    def slices_of(self, number: int, gate: Tensor) -> Tensor:
        """Which slices an expert works on, by its gates (B,): (S,)."""
        if gate.is_meta:  # costs are counted without values: the first experts stand for those that are chosen
            return torch.arange(len(gate) if number < self.chosen else 0, device=gate.device)
        return gate.nonzero().flatten()

    def _chances(self, logits: Tensor, noisy: Tensor, deviation: Tensor, ranked: Tensor) -> Tensor:
        """Chance of every expert to be among the chosen if only its own noise were drawn anew: (B, E)."""
        last_in, first_out = ranked[:, self.chosen - 1 : self.chosen], ranked[:, self.chosen : self.chosen + 1]
        threshold = torch.where(noisy > first_out, first_out, last_in)
        return torch.special.ndtr(((logits - threshold) / deviation - self.mean) / self.std)


def _resample(maps: Tensor, axis: int, size: int) -> Tensor:
    """One axis of (B, C, H, W) brought to `size`: cell means when it shrinks, linear interpolation when it grows."""
    if maps.shape[axis] == size:
        return maps
    shape = list(maps.shape[-2:])
    shrinks = shape[axis] > size
    shape[axis] = size
    if shrinks:
        return F.interpolate(maps, size=shape, mode="area")
    return F.interpolate(maps, size=shape, mode="bilinear", align_corners=False)


def _squared_variation(values: Tensor) -> Tensor:
    """Squared coefficient of variation."""
    return values.var() / (values.mean().square() + 1e-10)
