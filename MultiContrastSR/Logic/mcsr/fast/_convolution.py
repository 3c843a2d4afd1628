"""Convolutions as fast paths run them: channels last, weights ordered once, sum and rectifier in the same pass.

The fused form is oneDNN's, through operators that torch keeps for its compiler; where they are missing, or on another
device than the CPU, ordinary ones give the same values.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._layers import channels_last


class Convolution(nn.Module):
    """A convolution with fixed weights, in the type of what it is given; padding (k - 1) // 2 on every side.

    Args:
        weight: (out, in, k, k), or (in, out, k, k) when transposed.
        bias: (out,).
        stride: step; of the output when transposed.
        transposed: the adjoint of a convolution.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, transposed: bool = False):
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.stride, self.transposed = stride, transposed
        self.padding = (weight.shape[-1] - 1) // 2
        self._ready: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None]] = {}

    @classmethod
    def of(cls, *layers: object) -> Convolution:
        """That of a layer, or of several with the same input, whose outputs follow each other."""
        first = layers[0]
        assert isinstance(first, nn.Conv2d)
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        return cls(weight, bias, stride=first.stride[0])

    @classmethod
    def halves(cls, layer: object, factor: float = 1.0) -> tuple[Convolution, Convolution]:
        """Those of the two stacks of features that a layer takes one after the other, times a factor: a + b."""
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        a, b = (factor * layer.weight).chunk(2, dim=1)
        return cls(a, factor * layer.bias), cls(b)

    def forward(self, x: Tensor, *, onto: Tensor | None = None, rectify: bool = False) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'), channels last.

        Args:
            x: channels last.
            onto: (B, out, H', W'), channels last; the result is added to it in place.
            rectify: negative values of the sum become 0.
        """
        fused = x.device.type == "cpu" and has_fused(x.dtype)
        key = (x.device, x.dtype)
        if key not in self._ready:
            self._ready[key] = self._prepared(x, fused)
        weight, bias = self._ready[key]
        run = self._fused if fused else self._ordinary
        return run(x, weight, bias, onto, rectify)

    def _fused(self, x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None, rectify: bool) -> Tensor:
        padding, stride, one = [self.padding] * 2, [self.stride] * 2, [1, 1]
        unary = "relu" if rectify else "none"
        operators = torch.ops.mkldnn
        if self.transposed:
            result = operators._convolution_transpose_pointwise(
                x, weight, bias, padding, [0, 0], stride, one, 1, unary if onto is None else "none", [], ""
            )
            return result if onto is None else _joined(onto, result, rectify)
        if onto is None:
            return operators._convolution_pointwise(x, weight, bias, padding, stride, one, 1, unary, [], "")
        unary_or_none = unary if rectify else None
        return operators._convolution_pointwise_.binary(
            onto, x, weight, bias, padding, stride, one, 1, "add", 1.0, unary_or_none, [], None
        )

    def _ordinary(self, x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None, rectify: bool) -> Tensor:
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        result = convolve(x, weight, bias, stride=self.stride, padding=self.padding)
        return _joined(result, onto, rectify) if onto is None else _joined(onto, result, rectify)

    def _prepared(self, x: Tensor, fused: bool) -> tuple[Tensor, Tensor | None]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        if not fused:
            return channels_last(weight), bias
        padding, stride, one, shape = [self.padding] * 2, [self.stride] * 2, [1, 1], list(x.shape)
        operators = torch.ops.mkldnn
        if self.transposed:
            packed = operators._reorder_convolution_transpose_weight(weight, padding, [0, 0], stride, one, 1, shape)
        else:
            packed = operators._reorder_convolution_weight(weight, padding, stride, one, 1, shape)
        return packed, bias


def _joined(sum_: Tensor, addend: Tensor | None, rectify: bool) -> Tensor:
    if addend is not None:
        sum_ = sum_.add_(addend)
    return sum_.relu_() if rectify else sum_


@functools.cache
@torch.no_grad()
def has_fused(dtype: torch.dtype) -> bool:
    """Whether this torch has the fused operators for a type on this CPU, and they give what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, onto = torch.arange(32, dtype=dtype).view(1, 2, 4, 4), torch.full((1, 2, 4, 4), -9, dtype=dtype)
    for transposed in (False, True):
        probe = Convolution(torch.eye(2)[..., None, None], transposed=transposed)
        for given in (None, onto.clone()):
            expected = (x if given is None else x + given).relu()
            try:
                found = probe._fused(x, *probe._prepared(x, fused=True), given, rectify=True)
            except (AttributeError, RuntimeError):
                return False
            if not torch.equal(found, expected):
                return False
    return True
