"""The dictionaries and proximal operators of CD-DPE in fewer passes over memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.blocks import double
from ..networks.dictionaries import Codes, Dictionary, Proximal
from ..networks.displacement import OffsetNetwork
from ._convolution import Convolution


class _Folded(NamedTuple):
    """One scale of a dictionary, float64: two linear layers that meet become one, exactly so at the borders, too."""

    code: Tensor  # (fine, fine, 3, 3), on the code of this scale
    coarse: Tensor  # (coarse, fine, 4, 4), transposed, stride 2: doubling and convolution of the coarser features


def _folded(dictionary: Dictionary) -> list[_Folded]:
    """Coarse first; the last one holds the 1x1 convolution at the end, too."""
    scales = []
    for number, finer in enumerate(dictionary.syn_up_list):
        weight, up = (finer.get_parameter(f"{name}.weight").double() for name in ("conv", "up"))
        if number == len(dictionary.syn_up_list) - 1:
            last = dictionary.syn_outc.get_parameter("conv.weight").double()
            weight = torch.einsum("oc,ciyx->oiyx", last[..., 0, 0], weight)
        on_code, on_coarse = weight.chunk(2, dim=1)
        scales.append(_Folded(on_code, F.conv_transpose2d(up, _adjoint(on_coarse))))
    return scales


def _adjoint(weight: Tensor) -> Tensor:
    """The weights of a 3x3 convolution's transpose, as a convolution."""
    return weight.flip(2, 3).transpose(0, 1)


class Synthesis(nn.Module):
    """D of a dictionary: five convolutions, of which two are added to another's result as they are made."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        half, full = _folded(dictionary)
        self.bottleneck = Convolution(dictionary.bottleneck_conv.weight)
        self.from_quarter = Convolution(half.coarse.float(), stride=2, transposed=True)
        self.on_half = Convolution(half.code.float())
        self.from_half = Convolution(full.coarse.float(), stride=2, transposed=True)
        self.on_full = Convolution(full.code.float())

    def forward(self, codes: Codes) -> Tensor:
        """Codes -> features (B, C, H, W)."""
        quarter, half, full = codes
        features = self.on_half(half, onto=self.from_quarter(self.bottleneck(quarter)))
        return self.on_full(full, onto=self.from_half(features))


class Adjoint(nn.Module):
    """D transposed, times a factor."""

    def __init__(self, dictionary: Dictionary, factor: Tensor) -> None:
        super().__init__()
        half, full = _folded(dictionary)
        self.to_full = Convolution((factor * _adjoint(full.code)).float())
        self.to_half = Convolution(full.coarse.float(), stride=2)
        self.on_half = Convolution((factor * _adjoint(half.code)).float())
        self.to_quarter = Convolution(half.coarse.float(), stride=2)
        self.on_quarter = Convolution((factor * _adjoint(dictionary.bottleneck_conv.weight.double())).float())

    def forward(self, features: Tensor) -> Codes:
        """Features (B, C, H, W) -> codes."""
        half = self.to_half(features)
        return [self.on_quarter(self.to_quarter(half)), self.on_half(half), self.to_full(features)]

    def rectified_sum(self, features: Tensor, codes: Codes) -> Codes:
        """ReLU(codes + those of features), in the memory of `codes`."""
        quarter, half, full = codes
        coarse = self.to_half(features)
        return [
            self.on_quarter(self.to_quarter(coarse), onto=quarter, rectify=True),
            self.on_half(coarse, onto=half, rectify=True),
            self.to_full(features, onto=full, rectify=True),
        ]


class RectifiedProximal(nn.Module):
    """A proximal operator after its rectifier; it works in the memory of its input."""

    def __init__(self, plain: Proximal) -> None:
        super().__init__()
        *blocks, last = plain.body
        self.first = nn.ModuleList([Convolution.of(block.get_submodule("body.0")) for block in blocks])
        self.second = nn.ModuleList([Convolution.of(block.get_submodule("body.2")) for block in blocks])
        self.gates = nn.ModuleList([block.get_submodule("body.3.conv_du") for block in blocks])
        self.last = Convolution.of(last)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, C, H, W), not below 0 -> (B, C, H, W)."""
        for first, second, gate in zip(self.first, self.second, self.gates, strict=True):
            change = second(first(codes, rectify=True))
            mean = change.mean(dim=(2, 3), keepdim=True, dtype=torch.float32)
            codes.addcmul_(change, gate(mean).to(change.dtype))
        return self.last(codes)


class FastOffsetNetwork(nn.Module):
    """OffNet: of what is concatenated before a convolution, one part goes in after the other."""

    def __init__(self, plain: OffsetNetwork) -> None:
        super().__init__()
        self.full_a, self.full_b = Convolution.halves(plain.offset_conv1_1)
        self.full_2 = Convolution.of(plain.offset_conv2_1)
        self.half_1, self.half_2 = Convolution.of(plain.offset_conv3_1), Convolution.of(plain.offset_conv4_1)
        self.quarter_1, self.quarter_2 = Convolution.of(plain.offset_conv6_1), Convolution.of(plain.offset_conv7_1)
        self.half_up, self.half_skip = Convolution.halves(plain.offset_conv1_2)
        self.half_3 = Convolution.of(plain.offset_conv2_2)
        self.full_up, self.full_skip = Convolution.halves(plain.offset_conv3_2)
        self.full_3 = Convolution.of(plain.offset_conv4_2)
        self.last = Convolution.of(plain.offset_last, plain.mask_last)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """See `OffsetNetwork.forward`."""
        full = _leaky(self.full_2(_leaky(self.full_b(b, onto=self.full_a(a)))))
        half = _leaky(self.half_2(_leaky(self.half_1(full))))
        quarter = _leaky(self.quarter_2(_leaky(self.quarter_1(half))))
        half = _leaky(self.half_3(_leaky(self.half_skip(half, onto=self.half_up(double(quarter))))))
        full = _leaky(self.full_3(_leaky(self.full_skip(full, onto=self.full_up(double(half))))))
        last = self.last(full).float()
        return last[:, :2], last[:, 2:].sigmoid()


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu_(x, 0.1)
