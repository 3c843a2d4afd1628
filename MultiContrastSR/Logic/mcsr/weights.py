"""Weights: safetensors files that carry all that inference needs, and the manifest of those that ship."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from .errors import McsrError, WeightsError
from .networks import Network, create_network, network_names

METADATA_KEY = "mcsr"
FORMAT_VERSION = 1
MANIFEST = "MultiContrastSR_models.json"
_HERE = Path(__file__).resolve().parent
# A wheel holds the models inside the package; a checkout and an installed extension beside Logic.
MODEL_FOLDERS = (_HERE / "models", _HERE.parents[1] / "Resources" / "Models")


@dataclass(frozen=True)
class Weights:
    """A weights file, read and checked.

    Args:
        path: where it lies.
        sha256: of the file.
        metadata: see `save_weights`.
    """

    path: Path
    sha256: str
    metadata: Mapping[str, Any]

    def build(self) -> Network:
        """The network with these weights in float32, ready for inference."""
        architecture = str(self.metadata["architecture"])
        try:
            network = create_network(architecture, **self.metadata["config"])
            load_model(network, self.path)
        except (McsrError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{self.path.name} does not fit the architecture '{architecture}' that it names; "
                "the file is damaged or from another version: get it again."
            ) from error
        return network.eval()


def save_weights(path: Path, network: Network, metadata: Mapping[str, Any]) -> str:
    """Write a network as fp16 safetensors, whole or not at all; returns the file's sha256.

    Args:
        path: file to write.
        network: its config is stored too.
        metadata: architecture, scale, degradation, intensity, canvas, contrasts, plane, spacing_mm, data, licence,
            citation, figures, git_revision, version: what inference needs and what the card shows.
    """
    card = {"format_version": FORMAT_VERSION, **metadata, "config": dataclasses.asdict(network.config)}
    partial = path.with_suffix(".partial")
    # save_model keeps a tensor that goes by two names (DCAMSR's E and F) under one; read back what it chose.
    save_model(copy.deepcopy(network).cpu().half(), str(partial))
    tensors = load_file(partial)
    card["checksum"] = _checksum(card, tensors)
    save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(card, sort_keys=True)})
    partial.replace(path)
    return file_digest(path)


def load_weights(path: Path, *, expected_sha256: str | None = None) -> Weights:
    """Read a weights file and check that it is whole.

    Raises:
        WeightsError: when it is missing, no weights file of ours, damaged, or not the expected one.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}; check the name, or run `mcsr models list`.")
    sha256 = file_digest(path)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise WeightsError(f"{path.name} is not the file that was released (wrong SHA-256); reinstall MultiContrastSR.")
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        version, checksum, architecture = card["format_version"], card.pop("checksum"), card["architecture"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path.name} is not a whole MultiContrastSR weights file; get it again, "
            "or convert a foreign checkpoint first."
        ) from error
    if version != FORMAT_VERSION:
        raise WeightsError(f"{path.name} has format {version}, this version reads {FORMAT_VERSION}; update.")
    if checksum != _checksum(card, tensors):
        raise WeightsError(f"{path.name} was changed after it was written (checksum differs); get it again.")
    if architecture not in network_names():
        raise WeightsError(f"{path.name} is for '{architecture}', which this version does not know; update.")
    return Weights(path, sha256, card)


def shipped_models() -> list[dict[str, Any]]:
    """The manifest's entries: id, architecture, scale, file, sha256 and the card; empty when nothing ships."""
    for folder in MODEL_FOLDERS:
        if (folder / MANIFEST).is_file():
            try:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                return [{**entry, "path": folder / entry["file"]} for entry in manifest["models"]]
            except (ValueError, KeyError, TypeError) as error:
                raise WeightsError(f"{MANIFEST} is damaged; reinstall MultiContrastSR.") from error
    return []


def find_weights(model: str, scale: int, file: Path | None = None) -> Weights:
    """The weights for a model and scale: the given file, or the shipped ones.

    Raises:
        WeightsError: when there are none, or the file is for another model or scale.
    """
    if file is not None:
        weights = load_weights(file)
        is_for = (weights.metadata["architecture"], weights.metadata["scale"])
        if is_for != (model, scale):
            raise WeightsError(
                f"{file.name} is for {is_for[0]} x{is_for[1]}, not {model} x{scale}; "
                f"use --model {is_for[0]} --scale {is_for[1]}, or another file."
            )
        return weights
    entries = [entry for entry in shipped_models() if entry["architecture"] == model]
    for entry in entries:
        if entry["scale"] == scale:
            return load_weights(entry["path"], expected_sha256=entry["sha256"])
    scales = ", ".join(f"x{entry['scale']}" for entry in entries)
    hint = f"there are for {scales}" if scales else "give a file with --weights, or choose one of `mcsr models list`"
    raise WeightsError(f"No weights for {model} x{scale} are installed; {hint}.")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _checksum(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the card and over names, types, shapes and values of the tensors, hex."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
