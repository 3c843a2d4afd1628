"""The card of a weights file and the manifest: read without torch, and believed only as far as they can be.

Standard library only: the engine and Slicer load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import WeightsError
from .model_folders import FILE_NAME, MANIFEST, METADATA_KEY

FORMAT_VERSION = 1
LARGEST_SIZE = 1024
"""Side of the slices that weights may be made for: the routing and projections grow with its square."""

_LARGEST_HEADER = 16 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCALES = (2, 3, 4)
_PLANES = ("axial", "coronal", "sagittal")
FIGURES = ("psnr", "psnr_self", "psnr_sinc", "ssim", "ssim_self", "ssim_sinc")
"""Of each pair of contrasts: with the reference, with the target as its own, of sinc interpolation."""

_NEEDED_FOR_USE = ("degradation", "plane")
"""What inference cannot do without; a network can be built without them."""


def read_card(file: BinaryIO) -> dict[str, Any]:
    """What a weights file says of itself, not checked yet; the tensors are not read.

    Raises:
        ValueError: when it is no weights file of MultiContrastSR.
        OSError: when it cannot be read.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= _LARGEST_HEADER:
        raise ValueError("no header of a safetensors file")
    try:
        card = json.loads(json.loads(file.read(length))["__metadata__"][METADATA_KEY])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no card in the header") from error
    if not isinstance(card, dict):
        raise ValueError("the card is no json object")
    return card


def check_card(card: Mapping[str, Any], name: str) -> None:
    """Refuse a card whose entries are not what the engine takes them for.

    Args:
        card: as read.
        name: of the file, for the sentence.

    Raises:
        WeightsError: naming the entry, or for another format.
    """
    version = card.get("format_version")
    if type(version) is int and version != FORMAT_VERSION and 0 <= version < 10**6:
        raise WeightsError(f"{name} has format {version}, this version reads {FORMAT_VERSION}; update.")
    odd = _odd_entry(card, {"format_version": lambda value: value == FORMAT_VERSION, **_NEEDED}, _OPTIONAL)
    if odd:
        raise WeightsError(
            f"{name} is not a whole MultiContrastSR weights file (its card has no usable '{odd}'); get it again."
        )


def check_use(card: Mapping[str, Any], name: str) -> None:
    """Refuse a card that lacks what only inference needs (`WeightsError`)."""
    missing = next((entry for entry in _NEEDED_FOR_USE if entry not in card), None)
    if missing:
        raise WeightsError(
            f"The card of {name} does not say its {missing}, so it cannot be used; write the file again."
        )


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The entries of a folder's manifest: id, architecture, scale, file (right there), sha256 and parts of the card.

    Raises:
        WeightsError: when it is damaged, or an entry is odd.
    """
    try:
        entries = list(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["models"])
        odd = next((odd for entry in entries if (odd := _odd_entry(dict(entry), _LISTED, _OPTIONAL))), None)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{MANIFEST} is damaged; reinstall MultiContrastSR.") from error
    if odd:
        raise WeightsError(f"{MANIFEST} is damaged; reinstall MultiContrastSR (an entry has no usable '{odd}').")
    return entries


def _odd_entry(
    card: Mapping[str, Any], needed: Mapping[str, Callable[[Any], bool]], optional: Mapping[str, Callable[[Any], bool]]
) -> str:
    """The first entry that is missing or not what it should be; empty where there is none."""
    odd = [key for key, is_usable in needed.items() if key not in card or not is_usable(card[key])]
    odd += [key for key, is_usable in optional.items() if key in card and not is_usable(card[key])]
    return odd[0] if odd else ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # which NaN is not


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_scale(value: Any) -> bool:
    return type(value) is int and value in _SCALES


def _is_canvas(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    size = value.get("size")
    return value.get("kind") != "native" or (type(size) is int and 8 <= size <= LARGEST_SIZE)


def _is_spacing(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and 0 < value[0] <= value[1]


def _are_figures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(found, dict) and all(_is_number(found.get(figure)) for figure in FIGURES) for found in value.values()
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_NEEDED: dict[str, Callable[[Any], bool]] = {
    "architecture": _is_name,
    "scale": _is_scale,
    "config": lambda value: isinstance(value, dict),
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "degradation": _is_name,
    "plane": lambda value: value in _PLANES,
    "sampling": _is_name,
    "intensity_convention": _is_name,
    "canvas": _is_canvas,
    "spacing_mm": _is_spacing,
    "contrasts": _are_texts,
    "figures": _are_figures,
    "stage": lambda value: value is None or (type(value) is int and value in (1, 2)),
}
_LISTED: dict[str, Callable[[Any], bool]] = {
    "id": _is_name,
    "architecture": _is_name,
    "scale": _is_scale,
    "file": lambda value: isinstance(value, str) and FILE_NAME.fullmatch(value) is not None,
    "sha256": lambda value: isinstance(value, str) and _SHA256.fullmatch(value) is not None,
}
