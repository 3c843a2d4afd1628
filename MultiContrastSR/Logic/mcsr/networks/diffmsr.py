"""DiffMSR: latent diffusion of a prior that guides a large-window transformer (CVPR 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._map_spec import MapSpec
from ._registry import Generators, Network, SROutput, register
from .blocks import round_up, upsample_slices
from .diffmsr_config import DiffMSRConfig, diffmsr_s_config
from .diffmsr_maps import attention_of_pixel, magnitude, map_specs
from .diffusion_prior import Denoiser, PriorEncoder, ReverseDiffusion, draw_noise
from .plwformer import EncodedReference, PLWformer

SPREAD_SEEDS = range(1, 9)
RAMP_TURNS_TARGET = {2: 2, 3: 2, 4: 3}
"""Turns of phase across a low-resolution slice: each published crop of k-space is one line off, the reference's too."""
RAMP_TURNS_REFERENCE = 1
NEVER_SAVED_BY_US = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
)
"""Published schedule buffers that the reverse diffusion does not need."""


class _PriorGuidedNetwork(Network):
    """What both stages share: the decoder, and the way slices become its complex input."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config)
        self.G = PLWformer(config)

    @property
    def multiple(self) -> int:
        """One window of tokens."""
        return self.config.window * self.config.cell

    @property
    def native_size(self) -> int | None:
        """The raw token layout fits one slice size, the spatial one fits all."""
        grid = self.config.native_grid
        return None if grid is None else grid * self.config.cell

    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Features, keys and values of a reference (B, 1, H, W)."""
        padded = self._padded(reference, self.config.scale)
        return self.G.encode_reference(self._complex(padded, RAMP_TURNS_REFERENCE, 1.0), _size(reference))

    def encode_complex_reference(self, reference: Tensor) -> EncodedReference:
        """The same for a complex reference (B, 2, H, W), real and imaginary part."""
        return self.G.encode_reference(self._padded(reference, self.config.scale), _size(reference))

    def _complex_target(self, target_lr: Tensor) -> Tensor:
        """(B, 1, h, w) -> padded (B, 2, h', w')."""
        return self._complex(self._padded(target_lr, 1), RAMP_TURNS_TARGET[self.config.scale], self._gain)

    def _complex(self, slices: Tensor, turns: int, gain: float) -> Tensor:
        if self.config.input_convention == "centred":
            return torch.cat([slices, torch.zeros_like(slices)], dim=1)
        rows, columns = (torch.arange(n, device=slices.device, dtype=torch.float32) / n for n in slices.shape[-2:])
        phase = 2 * math.pi * turns * (rows[:, None] + columns)
        return gain * slices * torch.stack([phase.cos(), phase.sin()])

    @property
    def _gain(self) -> float:
        # Unitary transforms without rescaling leave a crop of 1/s per axis s times as bright.
        return self.config.scale if self.config.input_convention == "official" else 1.0

    def _padded(self, slices: Tensor, factor: int) -> Tensor:
        """Pad slices that are `factor` times finer than the target at the far ends to whole windows."""
        config = self.config
        if any(n % factor for n in slices.shape[-2:]):
            raise ValueError(f"reference {_size(slices)} is not a multiple of the scale {factor}")
        height, width = (n // factor for n in slices.shape[-2:])
        if config.native_grid is None:
            unit = config.window * config.unshuffle
            return _pad_reflecting(slices, factor * round_up(height, unit), factor * round_up(width, unit))
        side = config.native_grid * config.unshuffle
        if max(height, width) > side:
            raise ValueError(f"slices of {height}x{width} exceed the {side}x{side} of these weights; tile them")
        return _pad_reflecting(slices, factor * side, factor * side)

    def _fused(
        self, padded: Tensor, size: tuple[int, int], reference: EncodedReference, maps: dict[str, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a padded complex target: its token grid, the fused features, and the skip of the unpadded `size`."""
        scale = self.config.scale
        if reference.shape != (scale * size[0], scale * size[1]):
            raise ValueError(f"reference {reference.shape} does not fit the target {size} at scale {scale}")
        grid = F.pixel_unshuffle(padded, self.config.unshuffle)
        skip = upsample_slices(padded[..., : size[0], : size[1]], scale, self.config.upsampling)
        return grid, self.G.fuse(grid, reference, maps), skip

    def _decoded(self, fused: Tensor, prior: Tensor, skip: Tensor, maps: dict[str, Tensor] | None = None) -> Tensor:
        """The complex result (B, 2, H, W)."""
        return self.G(fused, prior, maps)[..., : skip.shape[-2], : skip.shape[-1]] + skip


@register("diffmsr", DiffMSRConfig, "Diffusion prior and large-window transformer (CVPR 2024), published size.")
@register("diffmsr-s", diffmsr_s_config, "Diffusion prior and large-window transformer, slim: for CPUs.")
class DiffMSR(_PriorGuidedNetwork):
    """The network of stage 2, which is the one in use: condition, reverse diffusion of the prior, decoder.

    Li et al., "Rethinking Diffusion Model for Multi-Contrast MRI Super-Resolution", CVPR 2024. Where paper and code
    differ, the code is followed: the denoiser predicts the clean prior and no noise is added on the
    way back, it has two layers, one linear map gives scale and shift of a modulation, the gate comes before the last
    projection. By default a token is a pixel, as in the paper, and the input a magnitude without phase; imported
    weights have token layout and input convention of the code. x2 is the code's rule without its error, x3 our
    extension. Key names are the published ones without copies and tensors that are never
    used, which `official_key_table` adds.
    """

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config)
        self.condition = PriorEncoder(2 * config.unshuffle**2, config)
        self.denoise = Denoiser(config)
        self.diffusion = ReverseDiffusion(config.steps)

    def forward(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference | None,
        *,
        generator: Generators = None,
        capture: bool = False,
        prior: Tensor | None = None,
    ) -> SROutput:
        """See `Network.forward`.

        Args:
            target_lr: see there.
            reference: see there.
            generator: of the diffusion's start.
            capture: see there; the effect of the prior and the spread over seeds take nine more decoder passes.
            prior: in training the prior of stage 1 (B, Z), from which the diffusion then starts instead of pure noise.

        Returns:
            The magnitude image; in `aux` "prior" (B, Z), the estimate, and "complex" (B, 2, H, W), the image before the
            magnitude was taken.
        """
        if reference is None:
            reference = upsample_slices(target_lr, self.config.scale, self.config.upsampling)
        if isinstance(reference, Tensor):
            reference = self.encode_reference(reference)
        noise = draw_noise(len(target_lr), self.config.prior_size, generator).to(target_lr.device)
        padded = self._complex_target(target_lr)
        return self._super_resolved(padded, _size(target_lr), reference, noise, prior, capture)

    def forward_complex(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference,
        *,
        noise: Tensor,
        prior: Tensor | None = None,
        capture: bool = False,
    ) -> SROutput:
        """The same for complex slices (B, 2, h, w) and (B, 2, H, W) as they are, with the diffusion's noise (B, Z)."""
        if isinstance(reference, Tensor):
            reference = self.encode_complex_reference(reference)
        return self._super_resolved(self._padded(target_lr, 1), _size(target_lr), reference, noise, prior, capture)

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        return map_specs(self.config)

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """What of the reference, and of its surroundings, a pixel draws on; nothing in the raw layout."""
        return attention_of_pixel(maps, self.config, row, column) if self.config.token_layout == "spatial" else {}

    def _super_resolved(
        self,
        padded: Tensor,
        size: tuple[int, int],
        reference: EncodedReference,
        noise: Tensor,
        prior: Tensor | None,
        capture: bool,
    ) -> SROutput:
        maps: dict[str, Tensor] | None = {} if capture else None
        grid, fused, skip = self._fused(padded, size, reference, maps)
        condition = self.condition(grid)
        start = noise if prior is None else self.diffusion.diffuse(prior, noise)
        trajectory = self.diffusion(start, condition, self.denoise)
        image = self._decoded(fused, trajectory[-1], skip, maps)
        sr = magnitude(image)
        if maps is not None:
            maps["prior_trajectory"] = torch.stack(trajectory, dim=1)
            maps["condition"] = condition
            maps["modulation"] = self.G.modulations(trajectory[-1])
            maps["added"] = sr - magnitude(skip) / self._gain
            without = magnitude(self._decoded(fused, torch.zeros_like(trajectory[-1]), skip))
            maps["effect_of_prior"] = (sr - without).abs()
            maps["spread_over_seeds"] = self._spread(fused, condition, skip)
        return SROutput(sr, maps or {}, {"prior": trajectory[-1], "complex": image})

    def _spread(self, fused: Tensor, condition: Tensor, skip: Tensor) -> Tensor:
        """Standard deviation (B, 1, H, W) of the result over a few starts, the same for every slice."""
        results = []
        for seed in SPREAD_SEEDS:
            generators = [torch.Generator("cpu").manual_seed(seed) for _ in condition]
            noise = draw_noise(len(condition), self.config.prior_size, generators).to(condition.device)
            prior = self.diffusion(noise, condition, self.denoise)[-1]
            results.append(magnitude(self._decoded(fused, prior, skip)))
        return torch.stack(results).std(dim=0)


class DiffMSRStage1(_PriorGuidedNetwork):
    """The network of stage 1, for training alone: the prior is read off the truth, which nobody has in use."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__(config)
        self.E = PriorEncoder(2 * config.unshuffle**2 + 2 * config.cell**2, config)

    def encode_prior(self, target_lr: Tensor, truth: Tensor) -> Tensor:
        """The prior (B, Z) of targets (B, 1, h, w) and truths (B, 1, H, W): what stage 2 learns to estimate."""
        return self._prior(self._complex_target(target_lr), self._complex_truth(truth))

    def forward(  # type: ignore[override]
        self, target_lr: Tensor, reference: Tensor, truth: Tensor
    ) -> SROutput:
        """(B, 1, h, w), (B, 1, H, W), (B, 1, H, W) to the magnitude image, with `aux` as in `DiffMSR.forward`."""
        encoded = self.encode_reference(reference)
        padded = self._complex_target(target_lr)
        return self._super_resolved(padded, _size(target_lr), encoded, self._complex_truth(truth))

    def forward_complex(self, target_lr: Tensor, reference: Tensor, truth: Tensor) -> SROutput:
        """The same for complex slices (B, 2, h, w), (B, 2, H, W), (B, 2, H, W) as they are."""
        encoded = self.encode_complex_reference(reference)
        padded_truth = self._padded(truth, self.config.scale)
        return self._super_resolved(self._padded(target_lr, 1), _size(target_lr), encoded, padded_truth)

    def _complex_truth(self, truth: Tensor) -> Tensor:
        return self._complex(self._padded(truth, self.config.scale), RAMP_TURNS_REFERENCE, 1.0)

    def _prior(self, padded: Tensor, padded_truth: Tensor) -> Tensor:
        grids = F.pixel_unshuffle(padded, self.config.unshuffle), F.pixel_unshuffle(padded_truth, self.config.cell)
        return self.E(torch.cat(grids, dim=1)).float()

    def _super_resolved(
        self, padded: Tensor, size: tuple[int, int], reference: EncodedReference, padded_truth: Tensor
    ) -> SROutput:
        _, fused, skip = self._fused(padded, size, reference, None)
        prior = self._prior(padded, padded_truth)
        image = self._decoded(fused, prior, skip)
        return SROutput(magnitude(image), {}, {"prior": prior, "complex": image})


def official_key_table(network: DiffMSR | DiffMSRStage1) -> dict[str, tuple[int, ...]]:
    """Every key of the published state dict with its shape, also those that `network` does not hold.

    Beyond ours these are index tables, the rest of the schedule, the copies of condition and denoiser under
    "diffusion.", and what is never used: `G.conv_cat` and the `kernel` layers in `G.CA`.
    """
    config: DiffMSRConfig = network.config
    ours: Mapping[str, Any] = network.state_dict()
    table = {key: tuple(tensor.shape) for key, tensor in ours.items()}
    modulation = (2 * config.width, config.prior_size)
    tokens = config.window**2
    for key in ours:
        block, _, name = key.rpartition(".")
        if name == "relative_position_bias_table" and ".CA." in key:
            table[f"{block}.relative_position_index"] = (tokens, tokens)
            table[f"{block}.kernel.0.weight"] = modulation
            table[f"{block.removesuffix('attn')}ffn.kernel.0.weight"] = modulation
        elif name == "relative_position_bias_table":
            table[f"{block}.aligned_relative_position_index"] = (tokens, tokens // 4)
    if isinstance(network, DiffMSRStage1):
        return table | {"G.conv_cat.weight": (config.width, 2 * config.width, 3, 3)}
    table |= {f"diffusion.{name}": (config.steps,) for name in NEVER_SAVED_BY_US}
    for key in ours:
        if key.startswith("condition."):
            table[f"diffusion.{key}"] = table[key]
        elif key.startswith("denoise."):
            table[f"diffusion.model.{key.removeprefix('denoise.')}"] = table[key]
    return table


def _pad_reflecting(slices: Tensor, height: int, width: int) -> Tensor:
    """Pad (B, C, H, W) at the far ends to (height, width): mirrored, or the border repeated where it is too small."""
    for side, missing in ((2, height - slices.shape[-2]), (3, width - slices.shape[-1])):
        if missing:
            mode = "reflect" if missing < slices.shape[side] else "replicate"
            padding = (0, 0, 0, missing) if side == 2 else (0, missing, 0, 0)
            slices = F.pad(slices, padding, mode=mode)
    return slices


def _size(slices: Tensor) -> tuple[int, int]:
    return slices.shape[-2], slices.shape[-1]


__all__ = ["DiffMSR", "DiffMSRConfig", "DiffMSRStage1", "official_key_table"]
