"""Make a trained weights file one that ships: measure it, write the figures into its card, enter it in the manifest.

.venv/bin/python tools/release_weights.py runs/x4/weights.safetensors --data DATA --sessions ms_p04_s1,ms_p04_s1_flair
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mcsr.evaluation import Row, evaluate
from mcsr.job import Settings
from mcsr.weights import MANIFEST, load_weights, save_weights

MODELS = Path(__file__).resolve().parents[1] / "MultiContrastSR" / "Resources" / "Models"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of HDF5 subject files; split 'val' is scored")
    parser.add_argument("--sessions", default="", help="only these, comma-separated")
    arguments = parser.parse_args()
    sessions = [name for name in arguments.sessions.split(",") if name]
    weights = load_weights(arguments.weights)
    architecture, scale = str(weights.metadata["architecture"]), int(weights.metadata["scale"])
    settings = Settings(weights=arguments.weights)
    rows = list(evaluate(arguments.data, [architecture], [scale], sessions=sessions, settings=settings, started=print))
    card = {key: value for key, value in weights.metadata.items() if key != "config"}
    card["figures"] = figures(rows)
    name = f"{architecture}-x{scale}"
    sha256 = save_weights(MODELS / f"{name}.safetensors", weights.build(), card)
    enter(
        {
            "id": name,
            "architecture": architecture,
            "scale": scale,
            "file": f"{name}.safetensors",
            "sha256": sha256,
            "contrasts": card["contrasts"],
            "spacing_mm": card["spacing_mm"],
            "licence": card["licence"],
            "figures": card["figures"],
        }
    )
    print(f"{name}: {sha256}")


def figures(rows: list[Row]) -> dict[str, Any]:
    """PSNR and SSIM by session and pair: of the model, of itself without reference, and of sinc."""
    found: dict[str, Any] = {}
    pairs = [(row.session, row.target, row.reference) for row in rows if row.model == "sinc"]
    for session, target, reference in pairs:
        # Rows of one pair stand together: sinc, the model with the reference, the model with the target as its own.
        start = next(
            n for n, row in enumerate(rows) if (row.session, row.target, row.reference) == (session, target, reference)
        )
        sinc, model, alone = rows[start : start + 3]
        found[f"{session} {target}<-{reference}"] = {
            "psnr": model.psnr,
            "psnr_self": alone.psnr,
            "psnr_sinc": sinc.psnr,
            "ssim": model.ssim,
            "ssim_self": alone.ssim,
            "ssim_sinc": sinc.ssim,
        }
    return found


def enter(entry: dict[str, Any]) -> None:
    """Put an entry into the manifest in the place of an older one of the same id."""
    path = MODELS / MANIFEST
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else []
    models = sorted([m for m in models if m["id"] != entry["id"]] + [entry], key=lambda m: m["id"])
    path.write_text(json.dumps({"format_version": 1, "models": models}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
