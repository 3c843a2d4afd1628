"""Where weights files lie; the standard library alone, so that Slicer can look without loading torch."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

METADATA_KEY = "mcsr"
"""Under which a weights file keeps its card, as json, in the metadata of safetensors."""

MANIFEST = "MultiContrastSR_models.json"
FOLDER_VARIABLE = "MCSR_MODELS"
"""Environment variable that names another drop-in folder than the user's own."""

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.safetensors")

_HERE = Path(__file__).resolve().parent
# A wheel holds the models inside the package; a checkout and an installed extension beside Logic.
MODEL_FOLDERS = (_HERE / "models", _HERE.parents[1] / "Resources" / "Models")


def drop_in_folder() -> Path:
    """Where added weights files are put: a folder of the user's own, or the one that `MCSR_MODELS` names."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE]).expanduser()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "MultiContrastSR" / "models"


def added_files(*, links: bool = False) -> list[Path]:
    """Weights files in the drop-in folder by name; links, which could lead anywhere, only to be named."""
    folder = drop_in_folder()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    # What begins with a dot is a copy in the making.
    return [f for f in files if not f.name.startswith(".") and (links if f.is_symlink() else f.is_file())]
