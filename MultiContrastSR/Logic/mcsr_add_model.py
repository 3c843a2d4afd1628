"""The child process that adds a model: checks a weights file or a checkpoint, which needs torch, and copies it.

Prints one line of json at the end: {"added": path, "notes": [...]} or {"error": sentence}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

LOGIC_FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [LOGIC_FOLDER, *(folder for folder in sys.path if folder != LOGIC_FOLDER)]


def add(file: Path) -> dict[str, object]:
    """Add a weights file."""
    from mcsr.weights import add_model

    return {"added": str(add_model(file)), "notes": []}


def add_checkpoint(file: Path, scale: int) -> dict[str, object]:
    """Convert a checkpoint of the authors' code, then add the weights file."""
    from mcsr.checkpoints import import_checkpoint
    from mcsr.weights import add_model

    with tempfile.TemporaryDirectory(prefix="mcsr-import-") as folder:
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in file.stem).lstrip("._-") or "checkpoint"
        weights = Path(folder) / f"{name}-x{scale}.safetensors"
        report = import_checkpoint(file, weights, architecture="auto", scale=scale)
        return {"added": str(add_model(weights)), "notes": list(report.notes)}


def main() -> int:
    """Add what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--checkpoint-scale", type=int, help="the file is a checkpoint of the authors' code")
    options = parser.parse_args()
    try:
        from mcsr.errors import McsrError
    except ImportError as error:
        print(json.dumps({"error": f"The package {error.name} is missing in this Python; install it first."}))
        return 1
    try:
        scale = options.checkpoint_scale
        answer = add(options.file) if scale is None else add_checkpoint(options.file, scale)
    except (McsrError, ImportError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "memory ran out"
        sentence = f"{options.file.name} could not be added ({reason}); free some space and memory, then try again."
        print(json.dumps({"error": sentence}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
