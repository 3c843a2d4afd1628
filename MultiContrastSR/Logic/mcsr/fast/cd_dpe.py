"""CD-DPE, faster: folded dictionaries, sums and rectifiers within convolutions, no map that only `capture` needs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..networks import Generators, SROutput
from ..networks.cd_dpe import CDDPE, Decoupling
from ..networks.dictionaries import Codes
from ..networks.displacement import warp
from ..networks.expert_mixture import Expert
from ..networks.fine_inputs import fine_inputs
from ._convolution import Convolution
from ._dictionaries import Adjoint, FastOffsetNetwork, RectifiedProximal, Synthesis
from ._layers import channels_last
from ._path import FastPath, accelerates
from ._precision import working_dtype


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass, on the padded grid, in the working precision, channels last."""

    image: Tensor  # (B, 1, H', W')
    features: Tensor  # (B, C, H', W')
    injected: Codes  # times eta
    codes: Codes
    synthesis: Tensor  # (B, C, H', W'), of the first codes
    shape: tuple[int, int]  # without padding


class DecoupledMaps(NamedTuple):
    """What the mixture of experts sees, each (B, 1, H', W'), float32."""

    x_unique: Tensor
    x_common: Tensor
    y_unique: Tensor
    y_common: Tensor


@accelerates(CDDPE)
class FastCDDPE(FastPath):
    """CDDPE with its convolutions in the working precision; images, displacements, prompt and routing in float32."""

    plain: CDDPE

    def __init__(self, plain: CDDPE) -> None:
        super().__init__(plain)
        self.decoupling = _FastDecoupling(plain.decoupling)
        self.experts = nn.ModuleList([_FastExpert(expert) for expert in plain.fusion.experts])  # type: ignore[arg-type]

    @torch.no_grad()
    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """See `CDDPE.encode_reference`."""
        height, width = reference.shape[-2:]
        image = self.plain.pad(reference).to(working_dtype(reference))
        return self.decoupling.encode_reference(image, (height, width))

    def fast_forward(
        self, target_lr: Tensor, reference: Tensor | EncodedReference | None, generator: Generators
    ) -> SROutput:
        """See `FastPath.fast_forward`."""
        upsampled, encoded = fine_inputs(self, target_lr, reference)
        height, width = upsampled.shape[-2:]
        target = self.plain.pad(upsampled)
        maps = self.decoupling(target.to(working_dtype(target)), encoded)
        sr = self._mixed(maps, (height, width))
        if self.config.global_skip:
            sr += target + maps.x_unique + maps.x_common
        return SROutput(sr[..., :height, :width])

    def _mixed(self, maps: DecoupledMaps, shape: tuple[int, int]) -> Tensor:
        """The chosen experts' results, weighted (B, 1, H', W')."""
        fusion, (height, width) = self.plain.fusion, shape
        common = [maps.x_common, maps.y_common]
        target, reference = (torch.cat([unique, *common], dim=1) for unique in (maps.x_unique, maps.y_unique))
        routing = fusion.route(target[..., :height, :width], reference[..., :height, :width])
        if fusion.see_prompted:
            target = target * (1 + routing.prompt[..., None, None])
        seen = channels_last(target.to(working_dtype(target)))
        sr = torch.zeros_like(maps.x_unique)
        for number, expert in enumerate(self.experts):
            gates = routing.gates[:, number]
            slices = fusion.slices_of(number, gates)
            if len(slices):
                sr.index_add_(0, slices, gates[slices, None, None, None] * expert(seen[slices]).float())
        return sr


class _FastDecoupling(nn.Module):
    """Decoupling; step sizes are part of the adjoints' weights."""

    thresholds: Tensor

    def __init__(self, plain: Decoupling) -> None:
        super().__init__()
        self.updates = plain.updates
        self.register_buffer("thresholds", (plain.eta[:, None] * plain.threshold).relu())
        self.layer_in = nn.ModuleDict({s: Convolution.of(getattr(plain, f"layer_in_{s}")) for s in "xyz"})
        self.encoder = nn.ModuleDict(
            {s: Synthesis(plain.dictionary("encoder", s)) for s in ("x", "y", "z", "zx", "zy")}
        )
        self.decoder = nn.ModuleDict({s: Synthesis(plain.dictionary("decoder", s)) for s in "xyz"})
        etas = dict(zip("xyz", plain.eta, strict=True))
        precond = {s: plain.dictionary("precond_encoder", s) for s in "xyz"}
        self.injection = nn.ModuleDict({s: Adjoint(precond[s], eta) for s, eta in etas.items()})
        self.descent = nn.ModuleDict({s: Adjoint(precond[s], -eta) for s, eta in etas.items()})
        self.proximal = nn.ModuleDict(
            {s: nn.ModuleList([RectifiedProximal(p) for p in getattr(plain, f"resnet_{s}")]) for s in "xyz"}
        )
        # Less the common features: what is subtracted in the plain network is added here.
        self.less_x, self.less_y = Convolution.halves(plain.cpmpress_z, -1.0)
        self.rec_x_unique, self.rec_x_common = Convolution.of(plain.rec_x_unique), Convolution.of(plain.rec_x_common)
        self.rec_y_unique, self.rec_y_common = Convolution.of(plain.rec_y_unique), Convolution.of(plain.rec_y_common)
        self.offsets = FastOffsetNetwork(plain.net_T)

    def encode_reference(self, reference: Tensor, shape: tuple[int, int]) -> EncodedReference:
        """See `Decoupling.encode_reference`."""
        features = self.layer_in["y"](reference)
        injected = self.injection["y"](features)
        codes = self._first_codes("y", injected)
        return EncodedReference(reference, features, injected, codes, self.encoder["y"](codes), shape)

    def forward(self, target: Tensor, reference: EncodedReference) -> DecoupledMaps:
        """See `Decoupling.forward`."""
        x_in, y_in = self.layer_in["x"](target), reference.features
        z_in = self.layer_in["z"](channels_last(torch.cat([target, reference.image], dim=1)))
        x_injected = self.injection["x"](x_in)
        x, y = self._first_codes("x", x_injected), reference.codes
        z = self._first_codes("z", self.injection["z"](z_in))
        of_y = reference.synthesis
        for update in range(self.updates):
            if update:
                of_y = self.encoder["y"](y)
            of_x = self.encoder["x"](x).add_(self.encoder["zx"](z))
            of_z = self.encoder["zy"](z)
            to_reference, mask_common = self.offsets(of_z, of_y)
            of_y = of_y + _warped(of_z, to_reference, mask_common)
            x = self._updated("x", _grown(x, x_injected), of_x)
            y = self._updated("y", _sums(y, reference.injected), of_y)
            unique_x, unique_y = self.decoder["x"](x), self.decoder["y"](y)
            rest_x, rest_y = x_in - unique_x, y_in - unique_y
            to_target, mask_reference = self.offsets(rest_y, rest_x)
            of_z = self.less_x(rest_x, onto=self.encoder["z"](z))
            of_z = self.less_y(_warped(rest_y, to_target, mask_reference), onto=of_z)
            z = self._updated("z", z, of_z)
        common = self.decoder["z"](z)
        return DecoupledMaps(
            self.rec_x_unique(unique_x).float(),
            self.rec_x_common(common).float(),
            self.rec_y_unique(unique_y).float(),
            self.rec_y_common(_warped(common, to_reference)).float(),
        )

    def _first_codes(self, stream: str, injected: Codes) -> Codes:
        thresholds = self.thresholds["xyz".index(stream)]
        return [(code - threshold).relu_() for code, threshold in zip(injected, thresholds, strict=True)]

    def _updated(self, stream: str, codes: Codes, features: Tensor) -> Codes:
        """The gradient step, in the memory of `codes`, then the proximal operators."""
        stepped = self.descent[stream].rectified_sum(features, codes)  # type: ignore[operator]
        proximals: nn.ModuleList = self.proximal[stream]  # type: ignore[assignment]
        return [proximal(code) for proximal, code in zip(proximals, stepped, strict=True)]


class _FastExpert(nn.Module):
    def __init__(self, plain: Expert) -> None:
        super().__init__()
        layers = (plain.decoder_Conv2, plain.decoder_Conv3, plain.decoder_Conv4)
        self.layers = nn.ModuleList([Convolution.of(layer) for layer in layers])
        self.last = Convolution.of(plain.decoder_Conv5)

    def forward(self, maps: Tensor) -> Tensor:
        for layer in self.layers:
            maps = layer(maps, rectify=True)
        return self.last(maps)


def _grown(codes: Codes, others: Codes) -> Codes:
    """The sums, in the memory of `codes`."""
    return [code.add_(other) for code, other in zip(codes, others, strict=True)]


def _sums(codes: Codes, others: Codes) -> Codes:
    return [code + other for code, other in zip(codes, others, strict=True)]


def _warped(features: Tensor, displacement: Tensor, mask: Tensor | None = None) -> Tensor:
    """Features moved and weighed, channels last."""
    moved = channels_last(warp(features, displacement))
    if mask is not None:
        moved *= mask
    return moved.to(features.dtype)
