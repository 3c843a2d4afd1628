"""Make the resources of the Slicer module that follow from the engine: what it says of its networks, and the thumbnail.

    .venv/bin/python tools/make_resources.py

Run it when a network, its cost or one of its maps has changed; a test compares the file with the engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mcsr.degradation import degrade_volume
from mcsr.maps import default_views
from mcsr.model_facts import COST_SIZES, model_costs
from mcsr.networks import Network, create_network, network_class, network_names, network_summary
from mcsr.phantom import demo_case

RESOURCES = Path(__file__).resolve().parents[1] / "MultiContrastSR" / "Resources"
NETWORKS_FILE = RESOURCES / "Models" / "MultiContrastSR_networks.json"
THUMBNAIL = RESOURCES / "Icons" / "MultiContrastSR_phantom.png"
SCALE, MIDDLE = 4, 6


def main() -> None:
    """Write both."""
    networks = {name: network_facts(name) for name in network_names() if network_class(name).uses_reference}
    NETWORKS_FILE.write_text(json.dumps({"format": 1, "networks": networks}, indent=1) + "\n", encoding="utf-8")
    write_thumbnail(THUMBNAIL)


def network_facts(name: str) -> dict[str, Any]:
    """What the panel shows of a network: summary, parameters, work by pixels of a slice, and the maps it offers."""
    costs = model_costs(name)
    pixels = {f"{rows}x{columns}": rows * columns for rows, columns in COST_SIZES}
    return {
        "summary": network_summary(name),
        "parameters": costs["parameters"],
        "gmac": {str(pixels[size]): gmac for size, gmac in costs["gmac"].items() if gmac is not None},
        "maps": map_entries(create_network(name)),
    }


def map_entries(network: Network) -> list[dict[str, str]]:
    """The natural maps of a network, in the order of display."""
    return [
        {"name": view.name, "title": view.title, "meaning": view.spec.meaning, "family": view.spec.family}
        for view in default_views(network)
    ]


def write_thumbnail(path: Path) -> None:
    """A slice of the phantom's T2, left as it would be acquired in low resolution, right as it is; 260 x 280 pixels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    truth = demo_case().target_hr
    low = degrade_volume(truth, (1, SCALE, SCALE), "kspace")
    sharp = truth.array_kji[MIDDLE]
    coarse = np.kron(low.array_kji[MIDDLE], np.ones((SCALE, SCALE), np.float32))
    half = sharp.shape[1] // 2
    picture = np.hstack([coarse[:, :half], sharp[:, half:]])
    rows, columns = (np.flatnonzero((sharp > 0.1 * sharp.max()).any(axis=axis)) for axis in (1, 0))
    figure = pyplot.figure(figsize=(2.6, 2.8), dpi=100, facecolor="black")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=float(np.percentile(sharp, 99.5)), interpolation="bilinear")
    axes.set_xlim(columns[0] - 8, columns[-1] + 8)
    axes.set_ylim(rows[-1] + 8, rows[0] - 8)
    axes.set_axis_off()
    figure.savefig(path, facecolor="black")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
