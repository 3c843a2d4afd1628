"""Settings of DiffMSR, and the sizes that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

TOKEN_LAYOUTS = ("spatial", "raw")
INPUT_CONVENTIONS = ("centred", "official")
LEVELS = ("level1", "level2", "level3", "level4", "refinement")


@dataclass(frozen=True)
class DiffMSRConfig:
    """Settings of DiffMSR; the defaults are the published network.

    `token_layout` and `input_convention` belong to weights: with the wrong one the image is plausible and wrong.

    Args:
        scale: factor from the low- to the high-resolution grid: 2, 3 or 4.
        dim: half the width of the decoder's features.
        blocks: transformer blocks in each of the five groups.
        heads: attention heads: 4, one for each sub-position of the permuted attention, or 1 or 2.
        window: side of an attention window in tokens, even.
        ffn_factor: widening of the feed-forward part.
        prior_channels: width of the encoders; the prior vector has four times as many values.
        encoder_blocks: residual blocks of each encoder.
        n_res: layers of the denoiser after its first.
        steps: T, reverse diffusion steps.
        token_layout: "spatial", a token is a pixel (the paper); "raw", the published code's re-interpretation of
            memory, by which a token is a row of one channel: imported weights, one slice size.
        input_convention: "centred", magnitude and no phase; "official", the phase ramps and the amplitude that the
            published preprocessing leaves on the data: imported weights.
        upsampling: how the target reaches the fine grid for the global skip.
        quick_start: initial values for a short training. The published ones leave attention flat and the prior near 0,
            so that for long neither reference nor prior has a say. With this, attention starts about the pixel's own
            place, the values of the prior start about 1, and the network starts as its global skip.
    """

    scale: int = 4
    dim: int = 32
    blocks: int = 6
    heads: int = 4
    window: int = 16
    ffn_factor: float = 2.2
    prior_channels: int = 64
    encoder_blocks: int = 9
    n_res: int = 1
    steps: int = 4
    token_layout: str = "spatial"
    input_convention: str = "centred"
    upsampling: str = "nearest"
    quick_start: bool = False

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4):
            raise InputError(f"DiffMSR has no scale {self.scale}; it has 2, 3 and 4")
        if self.token_layout not in TOKEN_LAYOUTS:
            raise InputError(f"unknown token layout '{self.token_layout}'; known are {', '.join(TOKEN_LAYOUTS)}")
        if self.input_convention not in INPUT_CONVENTIONS:
            known = ", ".join(INPUT_CONVENTIONS)
            raise InputError(f"unknown input convention '{self.input_convention}'; known are {known}")

    @property
    def width(self) -> int:
        """Channels of the decoder's features."""
        return 2 * self.dim

    @property
    def prior_size(self) -> int:
        """Values of the prior vector."""
        return 4 * self.prior_channels

    @property
    def hidden(self) -> int:
        """Channels of each half of the feed-forward part."""
        return int(self.width * self.ffn_factor)

    @property
    def unshuffle(self) -> int:
        """Low-resolution pixels along a side of a token: at x2 four pixels make one, and the decoder is that of x4."""
        return 2 if self.scale == 2 else 1

    @property
    def cell(self) -> int:
        """High-resolution pixels along a side of a token."""
        return self.scale * self.unshuffle

    @property
    def native_grid(self) -> int | None:
        """Tokens along a side of the only grid that the weights fit: in "raw" a row of pixels fills one token."""
        return self.width if self.token_layout == "raw" else None


def diffmsr_s_config() -> DiffMSRConfig:
    """The slim configuration: the same modules, narrower and shallower, any slice size, for CPUs."""
    return DiffMSRConfig(
        dim=24,
        blocks=3,
        ffn_factor=2.0,
        prior_channels=32,
        encoder_blocks=3,
        upsampling="sinc",
        quick_start=True,
    )
