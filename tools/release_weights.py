"""Make a trained weights file one that ships: measure it, write the figures into its card, enter it in the manifest.

.venv/bin/python tools/release_weights.py runs/x4/weights.safetensors --data DATA --sessions ms_p04_s1,ms_p04_s1_flair
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mcsr.evaluation import evaluate
from mcsr.evaluation_study import BASELINE, Case, Study
from mcsr.job import Settings
from mcsr.model_folders import MANIFEST
from mcsr.weights import load_weights, save_weights

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
    study = Study(arguments.data, [architecture], [scale], sessions=sessions, settings=settings)
    cases = list(evaluate(study, progress=lambda event: print(f"\r{100 * event.fraction:.0f} %", end="", flush=True)))
    card = {key: value for key, value in weights.metadata.items() if key != "config"}
    card["figures"] = figures(cases, architecture)
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
    print(f"\n{name}: {sha256}")


def figures(cases: list[Case], architecture: str) -> dict[str, Any]:
    """PSNR and SSIM by session and pair: of the model, of itself without reference, and of sinc."""
    found: dict[str, Any] = {}
    for case in cases:
        sinc, model, alone = case.run(BASELINE), *(case.run(architecture, c) for c in ("true", "self"))
        found[case.pair] = {
            f"{metric}{suffix}": round(run.mean(metric), digits)
            for metric, digits in (("psnr", 3), ("ssim", 4))
            for run, suffix in ((model, ""), (alone, "_self"), (sinc, "_sinc"))
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
