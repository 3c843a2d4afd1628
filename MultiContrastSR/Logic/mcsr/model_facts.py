"""All there is to know of a model before using it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from .checks import SCALES
from .networks import create_network, network_class, network_summary
from .networks.cost import gmac, parameter_count
from .weights import added_models, load_weights, shipped_models

COST_SIZES = ((256, 256), (348, 384))
"""High-resolution slices (rows, columns) for which the work is stated."""


def model_facts(name: str) -> dict[str, Any]:
    """What a model is, what it costs, which maps it gives and which weights there are; json-serialisable.

    Returns:
        name, summary; about: paper, venue and where the implementation departs from the paper; scales: all that it can
        be built for; what `model_costs` gives; config; maps: by name their title, meaning, family, unit and so on;
        weights: a list of id, sha256, card.

    Raises:
        InputError: for an unknown name.
        WeightsError: for weights that are damaged.
    """
    network = create_network(name)
    return {
        "name": name,
        "summary": network_summary(name),
        "about": _paragraphs(inspect.getdoc(network_class(name)) or ""),
        "scales": list(SCALES),
        **model_costs(name),
        "config": dataclasses.asdict(network.config),
        "maps": {key: dataclasses.asdict(spec) for key, spec in network.map_specs().items()},
        "weights": [_weights_facts(entry) for entry in [*shipped_models(), *added_models()] if _is_for(entry, name)],
    }


def model_costs(name: str) -> dict[str, Any]:
    """What a model costs at scale 4.

    Returns:
        parameters; gmac: multiply-accumulates in 1e9 by slice size "256x256", "348x384", None where the published
        weights fit no such slice.
    """
    network = create_network(name)
    return {
        "parameters": parameter_count(network),
        "gmac": {f"{rows}x{columns}": _gmac(name, rows, columns, network.native_size) for rows, columns in COST_SIZES},
    }


def _paragraphs(text: str) -> str:
    """A docstring without the line breaks inside its paragraphs."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _gmac(name: str, rows: int, columns: int, native_size: int | None) -> float | None:
    if native_size is not None and max(rows, columns) > native_size:
        return None
    return round(gmac(name, rows, columns), 3)


def _is_for(entry: dict[str, Any], name: str) -> bool:
    return bool(entry["architecture"] == name)


def _weights_facts(entry: dict[str, Any]) -> dict[str, Any]:
    weights = load_weights(entry["path"], expected_sha256=entry.get("sha256"))
    return {"id": entry["id"], "sha256": weights.sha256, "card": dict(weights.metadata)}
