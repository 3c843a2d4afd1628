"""The authors' checkpoints of CD-DPE, DCAMSR and DiffMSR, turned into weights files of ours.

A checkpoint is read without running anything in it, matched key by key with what the published code
would have written, and written with the conventions under which it was trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .checkpoints_reading import read_checkpoint, shown, state_dict_of
from .checks import check_scale
from .degradation import degradation_named
from .errors import InputError, WeightsError
from .networks import Network, cd_dpe, create_network, diffmsr
from .weights import build_network, file_digest, save_weights
from .weights_card import LARGEST_SIZE

ARCHITECTURES = ("cd-dpe", "dcamsr", "diffmsr")
_MOST_STEPS = 1000
_NAMED = 4
_SIGNATURES = {
    "cd-dpe": ("fusion.fre_prompt",),
    "dcamsr": ("trans_lv1.0.epa_block.E.weight", "trans_lv1.0.epa_block.F.weight"),
    "diffmsr": ("G.patch_embed.proj.weight",),
}
_PAPERS = {
    "cd-dpe": "Gu et al., CD-DPE, AAAI 2026, arXiv 2511.14014",
    "dcamsr": "Huang, Li et al., DCAMSR, MICCAI 2023, LNCS 14229, 313-322",
    "diffmsr": "Li et al., DiffMSR, CVPR 2024",
}
_DEGRADATIONS = {"cd-dpe": "cddpe-official", "dcamsr": "dcamsr-official", "diffmsr": "diffmsr-official"}
_INTENSITIES = {
    "cd-dpe": ("minmax-slice", "each slice, target and reference, from its minimum and maximum to 0..1"),
    "dcamsr": ("zscore-lr", "z-scored by mean and deviation of each low-resolution slice, clamped to 6 deviations"),
    "diffmsr": ("percentile", "divided by the 99.9 percentile of the foreground, target (LR) and reference each"),
}


@dataclass(frozen=True)
class ImportReport:
    """What an import made.

    Args:
        path: the weights file.
        sha256: of it.
        architecture: found in the checkpoint.
        card: what the file says of itself.
        notes: sentences on what was noticed, for the user.
    """

    path: Path
    sha256: str
    architecture: str
    card: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Official:
    """What a checkpoint of one architecture and size holds.

    Args:
        config: settings of our network.
        ours: keys of our network with their shapes.
        table: the same of the official one.
        second_names: official key -> key of ours, for tensors that are stored twice.
        second_counts: where both differ the second is taken, as the authors' loader does; otherwise it is an error.
        stage: of training, where there are two.
    """

    config: dict[str, Any]
    ours: Mapping[str, tuple[int, ...]]
    table: Mapping[str, tuple[int, ...]]
    second_names: Mapping[str, str] = field(default_factory=dict)
    second_counts: bool = True
    stage: int | None = None


def import_checkpoint(path: Path, out: Path, *, architecture: str = "auto", scale: int | None = None) -> ImportReport:
    """Turn a checkpoint of the authors into a weights file, in float32.

    Args:
        path: as the official repository writes it (PyTorch), or its tensors as safetensors.
        out: the file to write, .safetensors.
        architecture: "auto", or one of `ARCHITECTURES` to insist on.
        scale: 2, 3 or 4; needed for CD-DPE and DCAMSR, whose tensors are the same for all. DiffMSR's tell.

    Raises:
        InputError: for an unknown architecture or scale.
        WeightsError: for a file that is no such checkpoint, with what is missing or surplus.
    """
    if architecture not in ("auto", *ARCHITECTURES):
        raise InputError(f"Unknown architecture '{architecture}'; known are auto, {', '.join(ARCHITECTURES)}.")
    if scale is not None:
        check_scale(scale)
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise InputError(f"{out} is no .safetensors file in a folder that exists; give another name.")
    tensors, container = state_dict_of(read_checkpoint(path), path.name)
    found = identify(tensors, path.name)
    if architecture not in ("auto", found):
        raise WeightsError(
            f"{path.name} is a checkpoint of {found}, not of {architecture}; use --architecture {found}."
        )
    official = {"cd-dpe": _cd_dpe, "dcamsr": _dcamsr, "diffmsr": _diffmsr}[found](tensors, scale, path.name)
    state, notes = _matched(tensors, official, path.name)
    network = build_network(found, official.config, official.stage)
    network.load_state_dict(state, strict=False)
    if found == "cd-dpe":
        notes.append("Step sizes and thresholds, which checkpoints lack, are those of the published training's seed.")
    card = _card(found, network, official, path, container, notes)
    return ImportReport(out, save_weights(out, network.eval(), card, half=False), found, card, tuple(notes))


def identify(tensors: Mapping[str, Any], name: str) -> str:
    """Which architecture a state dict is of.

    Raises:
        WeightsError: when it is of none.
    """
    for architecture, keys in _SIGNATURES.items():
        if any(key in tensors for key in keys):
            return architecture
    raise WeightsError(
        f"{name} is a checkpoint of none of {', '.join(ARCHITECTURES)} (a tensor of it is '{shown(min(tensors))}'); "
        "other networks cannot be imported."
    )


def _dcamsr(tensors: Mapping[str, Any], scale: int | None, name: str) -> _Official:
    columns = next(_size(tensors[key], 1) for key in _SIGNATURES["dcamsr"] if key in tensors)
    size = math.isqrt(columns)
    _check_size(size, size**2 == columns and size % 8 == 0, name)
    config = {"size": size, "scale": _needed(scale, "DCAMSR", name)}
    ours = _shapes(_on_meta(lambda: create_network("dcamsr", **config)))
    second = {key.replace(".E.", ".F."): key for key in ours if ".epa_block.E." in key}
    return _Official(config, ours, ours, second)


def _cd_dpe(tensors: Mapping[str, Any], scale: int | None, name: str) -> _Official:
    size = _size(tensors["fusion.fre_prompt"], 1)
    _check_size(size, size % 4 == 0, name)
    config = {"size": size, "scale": _needed(scale, "CD-DPE", name)}
    network = _on_meta(lambda: create_network("cd-dpe", **config))
    assert isinstance(network, cd_dpe.CDDPE)
    return _Official(config, _shapes(network), cd_dpe.official_key_table(network), cd_dpe.official_aliases())


def _diffmsr(tensors: Mapping[str, Any], scale: int | None, name: str) -> _Official:
    # At x2 four pixels make one token, so that the first layer has four times the channels.
    found = 2 if _size(tensors["G.patch_embed.proj.weight"], 1) == 8 else 4
    if scale not in (None, found):
        raise WeightsError(f"{name} is of DiffMSR x{found}, not x{scale}; leave --scale out.")
    config: dict[str, Any] = {"scale": found, "token_layout": "raw", "input_convention": "official"}
    stage = 1 if any(key.startswith("E.") for key in tensors) else 2
    if stage == 2:
        layer = re.compile(r"(?:denoise|diffusion\.model)\.resmlp\.(\d+)\.resmlp\.0\.weight")
        config["n_res"] = max(1, len({match[1] for match in map(layer.fullmatch, tensors) if match}))
        config["steps"] = _size(tensors.get("diffusion.posterior_mean_coef1"), 0)
        if not 1 <= config["steps"] <= _MOST_STEPS or config["n_res"] > _MOST_STEPS:
            raise WeightsError(f"{name} has no schedule of 1 to {_MOST_STEPS} diffusion steps; check the file.")
    network = _on_meta(lambda: build_network("diffmsr", config, stage))
    assert isinstance(network, diffmsr.DiffMSR | diffmsr.DiffMSRStage1)
    table = diffmsr.official_key_table(network)
    copies = {"diffusion.condition.": "condition.", "diffusion.model.": "denoise."}
    second = {key: key.replace(copy, ours, 1) for copy, ours in copies.items() for key in table if key.startswith(copy)}
    return _Official(config, _shapes(network), table, second, second_counts=False, stage=stage)


def _matched(tensors: Mapping[str, Any], official: _Official, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that our network takes, in float32; and what was noticed about them."""
    _check_keys(tensors, official, name)
    seconds = {first: second for second, first in official.second_names.items()}
    state: dict[str, Tensor] = {}
    differing = []
    for key in official.ours:
        stored = [tensors[k] for k in (key, seconds.get(key, "")) if k in tensors]
        if not stored or key in official.second_names:
            continue
        copies = [_as_float32(tensor, key, name) for tensor in stored]
        if not torch.equal(copies[0], copies[-1]):
            differing.append(key)
        state[key] = copies[-1]
    if differing and not official.second_counts:
        raise WeightsError(
            f"{name} stores {_some(differing)} twice with different values; it is damaged or was put together from two."
        )
    if differing:
        note = f"{_some(differing)} stored under two names with different values: the second was taken, as the "
        return state, [f"{note}authors' own loader does."]
    return state, []


def _check_keys(tensors: Mapping[str, Any], official: _Official, name: str) -> None:
    seconds = {first: second for second, first in official.second_names.items()}
    needed = [key for key in official.table if key in official.ours and key not in official.second_names]
    missing = [key for key in needed if key not in tensors and seconds.get(key) not in tensors]
    surplus = [key for key in tensors if key not in official.table]
    wrong = [
        f"{key} ({_text(tensors[key])}, not {'x'.join(map(str, shape))})"
        for key, shape in official.table.items()
        if key in tensors and (not isinstance(tensors[key], Tensor) or tuple(tensors[key].shape) != tuple(shape))
    ]
    problems = [
        f"{what} {_some(keys)}"
        for what, keys in (("it lacks", missing), ("it has beyond it", surplus), ("of another shape are", wrong))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{name} does not fit the published table of {len(official.table)} tensors: {'; '.join(problems)}."
        )


def _as_float32(tensor: Tensor, key: str, name: str) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_floating_point():
        raise WeightsError(f"{name} stores {key} as {tensor.dtype} and not as plain numbers; save it in float32.")
    values = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(values).all()):
        raise WeightsError(f"{name} has NaN or infinite values in {key}; its training failed, or the file is damaged.")
    return values


def _card(
    architecture: str, network: Network, official: _Official, path: Path, container: str, notes: list[str]
) -> dict[str, Any]:
    convention, sentence = _INTENSITIES[architecture]
    degradation = degradation_named(_DEGRADATIONS[architecture])
    size = network.native_size or network.config.size
    card: dict[str, Any] = {
        "architecture": architecture,
        "scale": network.config.scale,
        "degradation": degradation.name,
        "sampling": degradation.sampling,
        "intensity": sentence,
        "intensity_convention": convention,
        "canvas": {"kind": "native", "size": size, "multiple": network.multiple},
        "contrasts": [],  # a checkpoint does not tell
        "plane": "axial",
        "data": ["the authors'; see the paper"],
        "licence": "of the authors' checkpoint, not ours: ask them",
        "citation": _PAPERS[architecture],
        "imported_from": {"file": path.name, "sha256": file_digest(path), "container": container},
        "notes": notes,
        "version": __version__,
    }
    return card if official.stage is None else {**card, "stage": official.stage}


def _on_meta(build: Callable[[], Network]) -> Network:
    """A network without memory behind its tensors: all that is asked of it are shapes."""
    with torch.device("meta"):
        return build()


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _size(tensor: Any, axis: int) -> int:
    """0 where there is no such tensor or axis."""
    return tensor.shape[axis] if isinstance(tensor, Tensor) and tensor.ndim > axis else 0


def _check_size(size: int, fits: bool, name: str) -> None:
    if not fits or not 8 <= size <= LARGEST_SIZE:
        raise WeightsError(f"{name} is not made for square slices of a usual size (found {size}); check the file.")


def _needed(scale: int | None, network: str, name: str) -> int:
    if scale is None:
        raise InputError(f"{name} does not tell its scale: {network} has the same tensors for all; give --scale.")
    return scale


def _text(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) if isinstance(tensor, Tensor) else type(tensor).__name__


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more
