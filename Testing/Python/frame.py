"""What the tests of the frame and of the packages share: the project's files, and programs kept away from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_FOLDER = ROOT / "MultiContrastSR"
PACKAGING = ROOT / "Testing" / "Packaging"
_LEFT_BEHIND = re.compile(r"__pycache__/|_cache/|\.egg-info/")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def s4ext(file: Path) -> dict[str, str]:
    """A description of the extension by key, read as the Extensions Index reads it."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in lines)}


def files_below(folder: Path) -> set[str]:
    """All files by their paths relative to a folder, with slashes; without what programs leave in a checkout."""
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return {name for name in names if not _LEFT_BEHIND.search(name)}


def git(*arguments: str) -> bytes:
    """What git says of the project; the test is skipped where nothing can say it."""
    program = shutil.which("git")
    if not program or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def project_files() -> list[Path]:
    """What a commit of everything here would hold."""
    listing = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [file for name in listing.split(b"\0") if name and (file := ROOT / os.fsdecode(name)).is_file()]


def sealed_environment(*folders: Path, **variables: str) -> dict[str, str]:
    """For programs that must not read the checkout's module, but only an installed one.

    Args:
        folders: for PYTHONPATH.
        variables: further ones of the environment.
    """
    path = os.pathsep.join(map(str, (PACKAGING / "sealed", *folders)))
    return os.environ | {"MCSR_SEALED": str(MODULE_FOLDER), "PYTHONPATH": path} | variables
