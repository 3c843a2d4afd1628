"""CD-DPE: dual-prompt expert network on convolutional dictionary feature decoupling (AAAI 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ._map_spec import MapSpec
from ._registry import Generators, Network, SROutput, register
from .blocks import conv3, pad_to, round_up
from .cd_dpe_maps import cd_dpe_map_specs
from .dictionaries import Codes, Dictionary, Proximal
from .displacement import OffsetNetwork, warp
from .expert_mixture import ExpertMixture
from .fine_inputs import fine_inputs

SEED_3407_ETA = (0.240954295, 0.242615655, 0.236468196)
"""Step sizes of target, reference and common codes that the published training drew; its checkpoints lack them."""

THRESHOLD = 0.01
"""Lambda, everywhere."""

START = 0.02
"""Share of the usual initial weights with which the last convolutions start under `global_skip`."""

IMAGES = ("x_rec", "y_rec", "x_unique", "x_common", "y_unique", "y_common")


@dataclass(frozen=True)
class CDDPEConfig:
    """Settings of CD-DPE; the defaults are the published network for 240x240 slices.

    Args:
        scale: factor from the low- to the high-resolution grid (1: the input is already on the fine grid).
        channels: of features and codes at full, half and quarter size, multiples of `reduction`.
        prox_blocks: channel-attention blocks of the proximal operators at full, half and quarter size.
        reduction: squeeze of the channel attention.
        steps: of the decoupling, its initialisation included; at least 2.
        learn_eta: step sizes and thresholds are parameters, as the paper says, instead of fixed.
        size: S, side of the routing tensors; slices of other sizes are resampled for the routing alone.
        experts: of the fusion.
        experts_used: of them, for one slice; fewer than `experts`.
        expert_channels: outer and inner width of an expert.
        experts_see_prompted: experts see the maps weighted by the prompt (Eq. 16).
        global_skip: no part of the published network: the two parts of the target are the detail that the upsampled
            target lacks; the three sum to its reconstruction, and the experts add a correction to that. Initial weights
            are those of `_start_near_target`.
        upsampling: how the target reaches the fine grid.
    """

    scale: int = 4
    channels: tuple[int, int, int] = (64, 96, 128)
    prox_blocks: tuple[int, int, int] = (5, 3, 1)
    reduction: int = 16
    steps: int = 3
    learn_eta: bool = False
    size: int = 240
    experts: int = 4
    experts_used: int = 2
    expert_channels: tuple[int, int] = (64, 32)
    experts_see_prompted: bool = False
    global_skip: bool = False
    upsampling: str = "bilinear"

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 < self.experts_used < self.experts:
            raise InputError(
                f"CD-DPE needs at least 2 steps and fewer experts used than there are; these settings have {self.steps}"
                f" steps and use {self.experts_used} of {self.experts} experts."
            )


def cd_dpe_s_config() -> CDDPEConfig:
    """The slim configuration: the same modules, narrower, one update instead of two, for CPUs."""
    return CDDPEConfig(
        channels=(16, 32, 48),
        prox_blocks=(2, 2, 1),
        reduction=8,
        steps=2,
        learn_eta=True,
        size=64,
        expert_channels=(32, 16),
        global_skip=True,
        upsampling="sinc",
    )


class EncodedReference(NamedTuple):
    """The reference's share of a forward pass, on the padded grid."""

    image: Tensor  # (B, 1, H', W')
    features: Tensor  # (B, C, H', W')
    injected: Codes
    codes: Codes
    synthesis: Tensor  # (B, C, H', W'), of the first codes
    shape: tuple[int, int]  # without padding


class Decoupled(NamedTuple):
    """What the decoupling makes of the two slices."""

    images: dict[str, Tensor]  # (B, 1, H, W) by the names of IMAGES
    maps: dict[str, Tensor]


class Decoupling(nn.Module):
    """CD-FDM: splits target and reference into what each has alone and what both share (Eq. 2-12).

    x is the target's stream, y the reference's, z the common one; attribute names give the published state dict.
    """

    eta: Tensor
    threshold: Tensor

    def __init__(self, config: CDDPEConfig) -> None:
        super().__init__()
        width = config.channels[0]
        self.updates = config.steps - 1
        for name in ("x", "y", "z", "zx", "zy"):
            setattr(self, f"encoder_dictionary_{name}", Dictionary(config.channels))
        for stream in "xyz":
            setattr(self, f"precond_encoder_dictionary_{stream}", Dictionary(config.channels))
            setattr(self, f"decoder_dictionary_{stream}", Dictionary(config.channels))
            scales = zip(config.channels, config.prox_blocks, strict=True)
            proximal = [Proximal(channels, blocks, config.reduction) for channels, blocks in scales]
            setattr(self, f"resnet_{stream}", nn.ModuleList(proximal[::-1]))
        self.layer_in_x, self.layer_in_y, self.layer_in_z = conv3(1, width), conv3(1, width), conv3(2, width)
        self.cpmpress_z = conv3(2 * width, width)
        self.rec_x_unique, self.rec_x_common = conv3(width, 1), conv3(width, 1)
        self.rec_y_unique, self.rec_y_common = conv3(width, 1), conv3(width, 1)
        self.net_T = OffsetNetwork(width)
        for name, values in (("eta", torch.tensor(SEED_3407_ETA)), ("threshold", torch.full((3, 3), THRESHOLD))):
            if config.learn_eta:
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)
        self._initialise()

    def encode_reference(self, reference: Tensor, shape: tuple[int, int]) -> EncodedReference:
        """Everything that depends on the padded reference (B, 1, H', W') alone; `shape` is that without padding."""
        features = self.layer_in_y(reference)
        injected = self.dictionary("precond_encoder", "y").adjoint(features)
        codes = self._first_codes("y", injected)
        synthesis = self.dictionary("encoder", "y")(codes)
        return EncodedReference(reference, features, injected, codes, synthesis, shape)

    def forward(self, target: Tensor, reference: EncodedReference, capture: bool) -> Decoupled:
        """Eq. 2-12, for a target (B, 1, H', W'), H' and W' multiples of 4."""
        encoder, decoder, precond = ("encoder", "decoder", "precond_encoder")
        maps: dict[str, Tensor] = {}
        x_in, y_in = self.layer_in_x(target), reference.features
        x_injected = self.dictionary(precond, "x").adjoint(x_in)
        z_in = self.layer_in_z(torch.cat([target, reference.image], dim=1))
        x = self._first_codes("x", x_injected)
        y = reference.codes
        z = self._first_codes("z", self.dictionary(precond, "z").adjoint(z_in))
        for update in range(1, self.updates + 1):
            of_x = self.dictionary(encoder, "x")(x) + self.dictionary(encoder, "zx")(z)
            of_y = self.dictionary(encoder, "y")(y) if update > 1 else reference.synthesis
            of_z = self.dictionary(encoder, "zy")(z)
            to_reference, mask_common = self.net_T(of_z, of_y)
            of_y = of_y + mask_common * warp(of_z, to_reference)
            x = self._update("x", x, of_x, x_injected)
            y = self._update("y", y, of_y, reference.injected)
            unique_x, unique_y = self.dictionary(decoder, "x")(x), self.dictionary(decoder, "y")(y)
            rest_x, rest_y = x_in - unique_x, y_in - unique_y
            to_target, mask_reference = self.net_T(rest_y, rest_x)
            common = self.cpmpress_z(torch.cat([rest_x, mask_reference * warp(rest_y, to_target)], dim=1))
            z = self._update("z", z, self.dictionary(encoder, "z")(z) - common, None)
            if capture:
                maps[f"displacement_common_{update}"] = to_reference
                maps[f"mask_common_{update}"] = mask_common
                maps[f"displacement_reference_{update}"] = to_target
                maps[f"mask_reference_{update}"] = mask_reference
                if update < self.updates:
                    maps[f"x_unique_{update}"] = self.rec_x_unique(unique_x)
                    maps[f"x_common_{update}"] = self.rec_x_common(self.dictionary(decoder, "z")(z))
        common = self.dictionary(decoder, "z")(z)
        images = {
            "x_unique": self.rec_x_unique(unique_x),
            "x_common": self.rec_x_common(common),
            "y_unique": self.rec_y_unique(unique_y),
            "y_common": self.rec_y_common(warp(common, to_reference)),
        }
        images["x_rec"] = images["x_unique"] + images["x_common"]
        images["y_rec"] = images["y_unique"] + images["y_common"]
        if capture:
            maps["warped_reference"] = warp(reference.image, to_target)
            maps.update(features_x=unique_x, features_y=unique_y, features_common=common)
            maps.update(residual_x=rest_x, residual_y=rest_y)
            for stream, codes in (("x", x), ("y", y), ("z", z)):
                maps.update({f"codes_{stream}_lv{3 - i}": code for i, code in enumerate(codes)})
        return Decoupled(images, maps)

    def dictionary(self, role: str, name: str) -> Dictionary:
        """One of the eleven: `role` encoder, precond_encoder or decoder, of the streams x, y, z, or zx, zy."""
        return getattr(self, f"{role}_dictionary_{name}")

    def _first_codes(self, stream: str, injected: Codes) -> Codes:
        """Soft thresholding of the input's codes, one-sided."""
        eta, thresholds = self.eta["xyz".index(stream)], self.threshold["xyz".index(stream)]
        return [
            torch.relu(eta * code - torch.relu(eta * threshold))
            for code, threshold in zip(injected, thresholds, strict=True)
        ]

    def _update(self, stream: str, codes: Codes, features: Tensor, injected: Codes | None) -> Codes:
        """A gradient step towards the injected codes, then the proximal operators."""
        eta = self.eta["xyz".index(stream)]
        gradient = self.dictionary("precond_encoder", stream).adjoint(features)
        if injected is not None:
            gradient = [found - wanted for found, wanted in zip(gradient, injected, strict=True)]
        proximal = getattr(self, f"resnet_{stream}")
        return [prox(u - eta * g) for prox, u, g in zip(proximal, codes, gradient, strict=True)]

    def _initialise(self) -> None:
        """As the published code: some dictionaries start alike; decoder_dictionary_z keeps the framework's default."""
        for name in ("x", "y", "z", "zx", "zy"):
            self.dictionary("encoder", name).initialise()
        for stream in "xy":
            self.dictionary("precond_encoder", stream).initialise()
            self.dictionary("decoder", stream).load_state_dict(self.dictionary("precond_encoder", stream).state_dict())
        self.dictionary("precond_encoder", "z").load_state_dict(self.dictionary("encoder", "z").state_dict())


@register("cd-dpe", CDDPEConfig, "Convolutional dictionaries and prompted experts (AAAI 2026), published size.")
@register("cd-dpe-s", cd_dpe_s_config, "Convolutional dictionaries and prompted experts, slim: runs without a GPU.")
class CDDPE(Network):
    """Dual-prompt expert network on convolutional dictionary feature decoupling.

    Gu et al., "CD-DPE: Dual-Prompt Expert Network Based on Convolutional Dictionary Feature Decoupling for
    Multi-Contrast MRI Super-Resolution", AAAI 2026, arXiv 2511.14014. Where paper and published code differ, the code
    is followed: step sizes and thresholds are fixed and no part of a checkpoint (Eq. 6-10 learn them); three steps are
    one initialisation and two updates, which descend on the distance from the injected input features; the fusion sees
    six single-channel maps, not features; its prompt is three weights per slice that act on the routing alone, and the
    experts see raw maps (Eq. 16 weights them: `experts_see_prompted`). Attribute names give the published state
    dict.
    """

    upsamples_first: ClassVar[bool] = True

    def __init__(self, config: CDDPEConfig) -> None:
        super().__init__(config)
        self.encoder = nn.ModuleDict({"predict_ista": Decoupling(config)})
        self.fusion = ExpertMixture(
            config.size, config.experts, config.experts_used, config.expert_channels, config.experts_see_prompted
        )
        if config.global_skip:
            self._start_near_target()

    @property
    def multiple(self) -> int:
        """Two halvings."""
        return 4

    def encode_reference(self, reference: Tensor) -> EncodedReference:
        """Features and first codes of a reference (B, 1, H, W)."""
        height, width = reference.shape[-2:]
        return self.decoupling.encode_reference(self.pad(reference), (height, width))

    def forward(
        self,
        target_lr: Tensor,
        reference: Tensor | EncodedReference | None,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """See `Network.forward`; a target that is already on the reference's grid is not upsampled again.

        `aux` holds the six decoupled images (B, 1, H, W) by the names of IMAGES and, in training, `load_balance`, a
        scalar that is 0 if all experts work alike. In training the routing is noisy (torch's global random numbers).
        """
        upsampled, encoded = fine_inputs(self, target_lr, reference)
        target = self.pad(upsampled)
        images, maps = self.decoupling(target, encoded, capture)
        height, width = upsampled.shape[-2:]
        common = [images["x_common"], images["y_common"]]
        routing, contributions = self.fusion(
            torch.cat([images["x_unique"], *common], dim=1),
            torch.cat([images["y_unique"], *common], dim=1),
            (height, width),
        )
        sr = torch.stack(contributions).sum(dim=0)
        if self.config.global_skip:
            images["x_rec"] = target + images["x_rec"]
            sr = images["x_rec"] + sr
        aux = {name: images[name][..., :height, :width] for name in IMAGES}
        if routing.load_balance is not None:
            aux["load_balance"] = routing.load_balance
        if capture:
            maps.update(images, fusion_change=sr - images["x_rec"])
            maps.update({f"expert_{k}": part for k, part in enumerate(contributions, 1)})
            maps.update(gates=routing.gates, logits=routing.logits, prompt=routing.prompt)
        return SROutput(sr[..., :height, :width], maps, aux)

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        config = self.config
        return cd_dpe_map_specs(config.steps - 1, config.experts, config.global_skip)

    @property
    def decoupling(self) -> Decoupling:
        """The part that splits the slices."""
        return self.encoder["predict_ista"]  # type: ignore[return-value]

    def pad(self, slices: Tensor) -> Tensor:
        """Slices (B, C, H, W) padded to what two halvings need."""
        height, width = slices.shape[-2:]
        return pad_to(slices, round_up(height, self.multiple), round_up(width, self.multiple))

    @torch.no_grad()
    def _start_near_target(self) -> None:
        """Initial weights that let the signal through and begin close to the interpolation.

        The published ones shrink it from layer to layer until biases are all that is left; without a skip that is
        overcome in long training. Here convolutions keep its size and have no bias, the proximal operators begin as
        rectifiers (plain ISTA), and the last convolutions begin small: exact zeros would stop the gradient.
        """
        decoupling, experts = self.decoupling, self.fusion.experts
        decoupling.dictionary("decoder", "z").initialise()
        for module in (*decoupling.modules(), *experts.modules()):
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        for module in decoupling.modules():
            if isinstance(module, Proximal):
                nn.init.dirac_(module.body[-1].weight)  # type: ignore[arg-type]
        for last in (decoupling.rec_x_unique, decoupling.rec_x_common, *(e.decoder_Conv5 for e in experts)):
            last.weight.mul_(START)  # type: ignore[operator, union-attr]


def official_key_table(network: CDDPE) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a checkpoint as the published code writes it for this network.

    That is our state dict without step sizes and thresholds, with the adjoints' aliases (`official_aliases`).
    """
    ours = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    table = {key: shape for key, shape in ours.items() if not key.endswith((".eta", ".threshold"))}
    return table | {alias: table[key] for alias, key in official_aliases().items()}


def official_aliases() -> dict[str, str]:
    """Second names of tensors in a published checkpoint -> ours; where the two disagree, the alias counts."""
    layers = {
        "adjoint_syn_outc.adjoint_conv": "syn_outc.conv",
        "adjoint_syn_bottleneck_conv.transpose_conv": "bottleneck_conv",
    }
    prefix, role = "encoder.predict_ista.", "encoder_dictionary"
    return {
        f"{prefix}adjoint_{role}_{stream}.{alias}.weight": f"{prefix}precond_{role}_{stream}.{layer}.weight"
        for stream in "xyz"
        for alias, layer in layers.items()
    }
