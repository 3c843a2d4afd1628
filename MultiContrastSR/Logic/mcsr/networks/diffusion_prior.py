"""The prior of DiffMSR: a vector read off the images, or made from noise by reverse diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._registry import Generators
from .blocks import conv3, full_precision
from .diffmsr_config import DiffMSRConfig

SLOPE = 0.1


class PriorEncoder(nn.Module):
    """Slices to a vector: convolutions, mean over the slice, two linear layers."""

    def __init__(self, in_channels: int, config: DiffMSRConfig) -> None:
        super().__init__()
        width = config.prior_channels
        layers: list[nn.Module] = [conv3(in_channels, width), nn.LeakyReLU(SLOPE)]
        layers += [EncoderBlock(width) for _ in range(config.encoder_blocks)]
        for i, o in ((width, 2 * width), (2 * width, 2 * width), (2 * width, 4 * width)):
            layers += [conv3(i, o), nn.LeakyReLU(SLOPE)]
        layers += [nn.AdaptiveAvgPool2d(1)]
        self.E = nn.Sequential(*layers)
        size = config.prior_size
        # The last activation is that of the published code.
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(SLOPE), nn.Linear(size, size), nn.LeakyReLU(SLOPE))
        if config.quick_start:
            _start_at_one(self.mlp)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, h, w) on the token grid -> (B, Z)."""
        return self.mlp(self.E(grid).flatten(1))


class EncoderBlock(nn.Module):
    """out = x + conv3(LeakyReLU(conv3(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(width, width), nn.LeakyReLU(SLOPE), conv3(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.body(x)


class Denoiser(nn.Module):
    """Predicts the clean prior, not the noise, from a noisy one, the time and the condition."""

    def __init__(self, config: DiffMSRConfig) -> None:
        super().__init__()
        size = config.prior_size
        layers: list[nn.Module] = [nn.Linear(2 * size + 1, size), nn.LeakyReLU(SLOPE)]
        layers += [DenoiserLayer(size) for _ in range(config.n_res)]
        self.resmlp = nn.Sequential(*layers)
        if config.quick_start:
            _start_at_one(self.resmlp)

    def forward(self, state: Tensor, time: float, condition: Tensor) -> Tensor:
        """Z_t (B, Z), time t / (10 T), condition (B, Z) -> (B, Z)."""
        return self.resmlp(torch.cat([condition, torch.full_like(condition[:, :1], time), state], dim=1))


class DenoiserLayer(nn.Module):
    """LeakyReLU(linear(x)); no skip in spite of its published name."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.resmlp = nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, Z) -> (B, Z)."""
        return self.resmlp(x)


class ReverseDiffusion(nn.Module):
    """The noise schedule and the way back from noise: the posterior mean of every step, no noise added.

    Of the published buffers those are kept that are used; the state dict has them, so that the schedule of imported
    weights stays theirs.
    """

    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        betas = torch.linspace(0.1**0.5, 0.99**0.5, steps, dtype=torch.float64) ** 2
        alphas = 1 - betas
        signal = alphas.cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), signal[:-1]])
        buffers = {
            "posterior_mean_coef1": betas * before.sqrt() / (1 - signal),
            "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - signal),
            "sqrt_alphas_cumprod": signal.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - signal).sqrt(),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.float())

    def diffuse(self, prior: Tensor, noise: Tensor) -> Tensor:
        """Z_T of a known prior, where training starts: both (B, Z)."""
        return self.sqrt_alphas_cumprod[-1] * prior + self.sqrt_one_minus_alphas_cumprod[-1] * noise

    def forward(self, state: Tensor, condition: Tensor, denoise: Denoiser) -> list[Tensor]:
        """From Z_T (B, Z) under a condition (B, Z) to [Z_T, ..., Z_0], always in float32."""
        with full_precision(state):
            trajectory = [state.float()]
            for step in reversed(range(self.steps)):
                clean = denoise(trajectory[-1], step / (10 * self.steps), condition.float())
                mean = self.posterior_mean_coef1[step] * clean + self.posterior_mean_coef2[step] * trajectory[-1]
                trajectory.append(mean)
        return trajectory


def _start_at_one(layers: nn.Module) -> None:
    """Let the values of a prior begin about 1: see `DiffMSRConfig.quick_start`."""
    last = [module for module in layers.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.ones_(last.bias)


def draw_noise(count: int, size: int, generator: Generators) -> Tensor:
    """Standard normal (count, size), float32, drawn slice by slice on the CPU so that all devices agree.

    Args:
        count: slices.
        size: values for each.
        generator: see `Generators`: None is seed 0 for every slice.
    """
    if generator is None:
        sources = [torch.Generator("cpu").manual_seed(0) for _ in range(count)]
    elif isinstance(generator, torch.Generator):
        sources = [generator] * count
    else:
        sources = list(generator)
        if len(sources) != count:
            raise ValueError(f"{len(sources)} generators do not fit {count} slices")
    return torch.stack([torch.randn(size, generator=source, device="cpu") for source in sources])
