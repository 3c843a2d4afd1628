"""The models that can be chosen, without torch: networks from a file that the engine made, weights from their cards."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcsr.errors import WeightsError
from mcsr.model_folders import MODEL_FOLDERS, added_files
from mcsr.weights_card import check_card, read_card, read_manifest

logger = logging.getLogger(__name__)

NETWORKS = "MultiContrastSR_networks.json"
"""What the engine says of its networks; written by tools/make_resources.py, held by a test."""


@dataclass(frozen=True)
class MapInfo:
    """A map that a network offers: its name for the engine, a few words, a sentence and its heading."""

    name: str
    title: str
    meaning: str
    family: str


@dataclass(frozen=True)
class WeightsInfo:
    """A weights file.

    Args:
        id: shown, and kept in the scene.
        model: the network that it is for.
        scale: in-plane factor.
        path: of the file.
        isShipped: came with the extension; others are the user's and can be removed.
        card: what the file says of itself.
    """

    id: str
    model: str
    scale: int
    path: Path
    isShipped: bool
    card: Mapping[str, Any]


@dataclass(frozen=True)
class ModelInfo:
    """A network and the weights that are there for it.

    Args:
        name: for the engine.
        summary: a sentence.
        parameters: how many.
        gmac: 1e9 multiply-accumulates for one slice by its pixel count.
        maps: that it offers.
        weights: shipped first.
    """

    name: str
    summary: str
    parameters: int
    gmac: Mapping[int, float]
    maps: tuple[MapInfo, ...]
    weights: tuple[WeightsInfo, ...]

    @property
    def scales(self) -> list[int]:
        """For which there are weights."""
        return sorted({weights.scale for weights in self.weights})

    def weightsFor(self, scale: int) -> list[WeightsInfo]:
        """Those of a scale, the shipped ones first."""
        return [weights for weights in self.weights if weights.scale == scale]


def readModels() -> dict[str, ModelInfo]:
    """All networks by name, as the disk has them now; those with weights first."""
    folder = next((folder for folder in MODEL_FOLDERS if (folder / NETWORKS).is_file()), None)
    if folder is None:
        return {}
    networks = json.loads((folder / NETWORKS).read_text(encoding="utf-8"))["networks"]
    weights = [*_shipped(folder), *_added(set(networks))]
    found = [_model(name, facts, weights) for name, facts in networks.items()]
    return {model.name: model for model in sorted(found, key=lambda model: not model.weights)}


def _model(name: str, facts: Mapping[str, Any], weights: list[WeightsInfo]) -> ModelInfo:
    return ModelInfo(
        name=name,
        summary=facts["summary"],
        parameters=facts["parameters"],
        gmac={int(pixels): gmac for pixels, gmac in facts["gmac"].items()},
        maps=tuple(MapInfo(**entry) for entry in facts["maps"]),
        weights=tuple(entry for entry in weights if entry.model == name),
    )


def _shipped(folder: Path) -> list[WeightsInfo]:
    try:
        entries = read_manifest(folder)
    except WeightsError as error:
        # The panel then says that there are no weights; all else goes on.
        logger.error("%s", error)
        return []
    return [
        WeightsInfo(entry["id"], entry["architecture"], int(entry["scale"]), folder / entry["file"], True, entry)
        for entry in entries
    ]


def _added(known: set[str]) -> list[WeightsInfo]:
    found = []
    for path in added_files():
        try:
            with path.open("rb") as file:
                card = read_card(file)
            check_card(card, path.name)
            if card["architecture"] in known and card.get("stage") != 1:
                found.append(WeightsInfo(path.stem, card["architecture"], int(card["scale"]), path, False, card))
        except (OSError, KeyError, TypeError, ValueError, WeightsError) as error:
            logger.info("left out of the list of models: %s", error)
    return found
