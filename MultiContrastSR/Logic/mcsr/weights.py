"""Weights: safetensors files that carry all that inference needs, and the manifest of those that ship."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file, save_model
from torch import Tensor

from .errors import OutputError, WeightsError
from .imageio import complete_file
from .model_folders import FILE_NAME, MANIFEST, METADATA_KEY, MODEL_FOLDERS, added_files, drop_in_folder
from .networks import Network, create_network, diffmsr, network_names
from .networks._registry import config_of
from .weights_card import FORMAT_VERSION, check_card, check_use, read_card, read_manifest
from .weights_network import check_config, filled

LARGEST_FILE = 2**31
"""Bytes: a checkpoint with the optimiser's state and both copies of the weights has under a tenth of it."""


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
        """The network with these weights in float32, ready for inference.

        Raises:
            WeightsError: when the file has changed meanwhile, or does not fit its architecture.
        """
        content = _content(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise WeightsError(f"{self.path.name} was changed while it was in use; start again.")
        architecture, config = str(self.metadata["architecture"]), self.metadata["config"]
        try:
            check_config(architecture, self.metadata["scale"], config)
            network = filled(lambda: build_network(architecture, config, self.metadata.get("stage")), load(content))
        except Exception as error:  # a card that was put together by hand may ask for anything
            raise WeightsError(
                f"{self.path.name} does not fit the architecture '{architecture}' that it names; "
                "the file is damaged or from another version: get it again."
            ) from error
        return network.eval()


def build_network(architecture: str, config: Mapping[str, Any], stage: int | None = None) -> Network:
    """The network that weights are for; `stage` 1 of DiffMSR is another one, for training alone."""
    if stage == 1 and architecture.removesuffix("-s") == "diffmsr":
        return diffmsr.DiffMSRStage1(config_of(architecture, **config))
    return create_network(architecture, **config)


def save_weights(path: Path, network: Network, metadata: Mapping[str, Any], *, half: bool = True) -> str:
    """Write a network as safetensors, whole or not at all; returns the file's sha256.

    Args:
        path: file to write.
        network: its config is stored too.
        metadata: architecture, scale, degradation, intensity, canvas, contrasts, plane, spacing_mm, data, licence,
            citation, figures, git_revision, version: what inference needs and what the card shows.
        half: round to fp16, which is what ships; imported weights stay as they are.

    Raises:
        OutputError: when the folder cannot be written or the disk is full.
    """
    card = {"format_version": FORMAT_VERSION, **metadata, "config": dataclasses.asdict(network.config)}
    stored = copy.deepcopy(network).cpu()
    with complete_file(path) as partial:
        try:
            # save_model keeps a tensor that goes by two names (DCAMSR's E and F) under one; read back what it chose.
            save_model(stored.half() if half else stored, str(partial))
            tensors = load_file(partial)
            card["checksum"] = _checksum(card, tensors)
            save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(card, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        partial.chmod(0o644)  # safetensors leaves it to its owner alone
    return file_digest(path)


def load_weights(path: Path, *, expected_sha256: str | None = None) -> Weights:
    """Read a weights file and check that it is whole.

    Raises:
        WeightsError: when it is missing, no weights file of ours, damaged, or not the expected one.
    """
    content = _content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise WeightsError(f"{path.name} is not the file that was released (wrong SHA-256); reinstall MultiContrastSR.")
    try:
        card = read_card(io.BytesIO(content))
        tensors = load(content)
        checksum, found = card.pop("checksum", None), _checksum(card, tensors)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(
            f"{path.name} is not a whole MultiContrastSR weights file; get it again, "
            "or convert a foreign checkpoint first."
        ) from error
    check_card(card, path.name)
    if checksum != found:
        raise WeightsError(f"{path.name} was changed after it was written (checksum differs); get it again.")
    if card["architecture"] not in network_names():
        raise WeightsError(f"{path.name} is for '{card['architecture']}', which this version does not know; update.")
    odd = next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)
    if odd is not None:
        raise WeightsError(
            f"{path.name} has NaN or infinite values in {odd!r:.100}; its training failed: take an earlier checkpoint."
        )
    return Weights(path, sha256, card)


def shipped_models() -> list[dict[str, Any]]:
    """The manifest's entries: id, architecture, scale, file, sha256 and the card; empty when nothing ships."""
    for folder in MODEL_FOLDERS:
        if (folder / MANIFEST).is_file():
            return [{**entry, "path": folder / entry["file"]} for entry in read_manifest(folder)]
    return []


def added_models() -> list[dict[str, Any]]:
    """Entries like those of `shipped_models` (without sha256, with "stage" where there are two) for the files in the
    drop-in folder; those that cannot be read, or are for a network unknown here, are left out: `verify_models` tells
    why."""
    entries = []
    for path in added_files():
        try:
            with path.open("rb") as file:
                card = read_card(file)
            check_card(card, path.name)
        except (OSError, ValueError, WeightsError):
            continue
        entry = {"id": path.stem, "file": path.name, "path": path, "stage": card.get("stage")}
        if card["architecture"] in network_names():
            entries.append({**entry, "architecture": card["architecture"], "scale": card["scale"]})
    return entries


def add_model(file: Path) -> Path:
    """Copy a weights file into the drop-in folder, after a check of all of it; returns where it lies.

    Raises:
        WeightsError: for a damaged file, one that does not fit its architecture, a link, an odd name, or a name that
            another file there has.
        OutputError: when the folder cannot be written to.
    """
    if file.is_symlink():
        raise WeightsError(f"{file.name} is a link; give the file that it points to.")
    if not FILE_NAME.fullmatch(file.name):
        raise WeightsError(
            f"The name {file.name} cannot be taken over; use letters, digits, . _ + - and the ending .safetensors."
        )
    weights = load_weights(file)
    check_use(weights.metadata, file.name)
    weights.build()
    target = drop_in_folder() / file.name
    if target.is_symlink() or target.exists():
        if not target.is_symlink() and target.is_file() and file_digest(target) == weights.sha256:
            return target
        raise WeightsError(f"There is another {file.name} in {target.parent} already; rename one of the two.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {target.parent} cannot be made ({error.strerror}); set MCSR_MODELS.") from error
    with complete_file(target) as partial:
        shutil.copyfile(file, partial)
        if file_digest(partial) != weights.sha256:
            raise WeightsError(f"{file.name} changed while it was copied; try again.")
    return target


class Verified(NamedTuple):
    """A weights file hashed again; `problem` is empty where it is whole."""

    name: str
    origin: str
    problem: str


def verify_models() -> list[Verified]:
    """Hash all shipped weights against the manifest and all added ones against their own checksum."""
    found = []
    for entry in shipped_models():
        found.append(Verified(entry["id"], "shipped", _problem(entry["path"], entry["sha256"])))
    for path in added_files(links=True):
        problem = "it is a link; put the file itself there" if path.is_symlink() else _problem(path, None)
        found.append(Verified(path.stem, "added", problem))
    return found


def find_weights(model: str, scale: int, file: Path | None = None) -> Weights:
    """The weights for a model and scale: the given file, or the shipped ones, or those in the drop-in folder.

    Raises:
        WeightsError: when there are none, or the file is for another model or scale.
    """
    weights = _found(model, scale) if file is None else load_weights(file)
    is_for = (weights.metadata["architecture"], weights.metadata["scale"])
    if is_for != (model, scale):
        raise WeightsError(
            f"{weights.path.name} is for {is_for[0]} x{is_for[1]}, not {model} x{scale}; "
            f"use --model {is_for[0]} --scale {is_for[1]}, or another file."
        )
    check_use(weights.metadata, weights.path.name)
    return weights


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _problem(path: Path, sha256: str | None) -> str:
    try:
        load_weights(path, expected_sha256=sha256)
    except WeightsError as error:
        return str(error)
    return ""


def _found(model: str, scale: int) -> Weights:
    shipped, added = ([e for e in found if e["architecture"] == model] for found in (shipped_models(), added_models()))
    for entry in shipped:
        if entry["scale"] == scale:
            return load_weights(entry["path"], expected_sha256=entry["sha256"])
    fitting = [entry for entry in added if entry["scale"] == scale]
    # Of the two stages of a training the second is the one in use.
    fitting = [entry for entry in fitting if entry["stage"] != 1] or fitting
    if len(fitting) > 1:
        raise WeightsError(
            f"{len(fitting)} files in {drop_in_folder()} are for {model} x{scale}; choose one with --weights: "
            f"{', '.join(entry['file'] for entry in fitting)}."
        )
    if fitting:
        return load_weights(fitting[0]["path"])
    scales = ", ".join(f"x{scale}" for scale in sorted({entry["scale"] for entry in [*shipped, *added]}))
    hint = f"there are for {scales}" if scales else "give a file with --weights, or choose one of `mcsr models list`"
    raise WeightsError(f"No weights for {model} x{scale} are installed; {hint}.")


def _content(path: Path) -> bytes:
    """A weights file, read once: what is checked is what is used."""
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}; check the name, or run `mcsr models list`.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise WeightsError(f"{path.name} has {size / 2**30:.1f} GiB, far more than weights have; check the file.")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); check its permissions and the disk.") from error


def _checksum(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the card and over names, types, shapes and values of the tensors, hex."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
