"""Interpolations in the clothes of networks, so that interface, tests and tables treat all alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ._registry import Generators, Network, SROutput, register
from .blocks import upsample_slices


@dataclass(frozen=True)
class BaselineConfig:
    """Settings of an interpolation."""

    scale: int = 4
    upsampling: str = "sinc"


class Interpolation(Network):
    """Plain interpolation: ignores the reference and has no weights."""

    uses_reference: ClassVar[bool] = False

    def encode_reference(self, reference: Tensor) -> Any:
        """The reference as it is."""
        return reference

    def forward(
        self, target_lr: Tensor, reference: Any, *, generator: Generators = None, capture: bool = False
    ) -> SROutput:
        """(B, 1, h, w) -> (B, 1, H, W)."""
        return SROutput(upsample_slices(target_lr, self.config.scale, self.config.upsampling))


def _config(upsampling: str) -> Any:
    return lambda: BaselineConfig(upsampling=upsampling)


register("linear", _config("bilinear"), "Baseline: linear interpolation.")(Interpolation)
register("cubic", _config("keys"), "Baseline: cubic interpolation.")(Interpolation)
register("sinc", _config("sinc"), "Baseline: sinc interpolation (zero-filled k-space).")(Interpolation)
