"""The README as a reader meets it: its blocks of commands, read by a real shell, and its tables."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from frame import text

SHELL = shutil.which("sh")
if SHELL is None:
    pytest.skip("no sh reads the README's blocks here", allow_module_level=True)

README = text("README.md")
PROGRAMS = ("mcsr", "pip", "python", "git", "make")
NOTE = '{ printf %s "${0##*/}"; [ $# = 0 ] || printf "\\037%s" "$@"; echo; } >>"$CALLS"\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def calls_of(block: str) -> list[tuple[str, ...]]:
    """The programs that a block calls, with their arguments; the shell stops at an unknown one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / "path").mkdir()
        (folder / "SlicerMultiContrastSR").mkdir()
        for place in (folder / ".venv" / "bin", folder / "path"):
            for program in PROGRAMS:
                (place / program).write_text(f"#!{SHELL}\n{NOTE}")
                (place / program).chmod(0o755)
        environment = {"PATH": str(folder / "path"), "CALLS": str(folder / "calls")}
        done = subprocess.run([str(SHELL), "-euc", block], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        return [tuple(line.split("\x1f")) for line in (folder / "calls").read_text().splitlines()]


@cache
def commands() -> dict[str, tuple[str, ...]]:
    """Every different command of the page, in order."""
    return {" ".join(call): call for block in blocks("sh") for call in calls_of(block)}


def table_below(words: str) -> list[list[str]]:
    """The cells of the first table after these words, without its head."""
    rows = re.search(r"^\|.*?\n\n", README[README.index(words) :], re.MULTILINE | re.DOTALL)
    assert rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].strip().splitlines()[2:]]
