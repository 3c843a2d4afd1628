"""Jobs that are killed leave nothing that could be taken for whole; the same command again gives the same result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import POSIX_ONLY

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def kill_jobs(*options: str) -> tuple[int, dict[str, list[int]], str]:
    """Exit code, table (kills, running, whole, same result, littered, orphans, leftovers) and what was said."""
    command = [sys.executable, str(TOOLS / "faults.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    return done.returncode, {name: [int(count) for count in counts] for name, *counts in rows}, done.stderr


def test_jobs_killed_as_they_write() -> None:
    """At renames, the moments at which files appear under their names."""
    options = ("--kills", "8", "--moments", "before a rename", "--jobs", "enhance,train,models add")
    code, table, said = kill_jobs(*options)
    assert code == 0, said
    assert {name: row[:4] for name, row in table.items()} == {
        "enhance": [4, 4, 4, 4],
        "train": [2, 2, 2, 2],
        "models add": [2, 2, 2, 2],
        "all": [8, 8, 8, 8],
    }
    assert table["all"][4] == 8, "a process that is killed tidies nothing up"
    assert table["all"][5:] == [0, 0]


@pytest.mark.slow
def test_jobs_killed_at_any_moment() -> None:
    code, table, said = kill_jobs("--kills", "30", "--seed", "1")
    assert code == 0, said
    kills, running, whole, same = table["all"][:4]
    assert kills == whole == same == 30
    assert running > 20
    assert len(table) == 6


# A job that does all that the tool looks for: it writes in place, starts a process that stays, and never tidies up.
CARELESS = """
import os, signal, sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faults, numpy as np

class Careless(faults.Job):
    def run(self, place):
        helper = os.fork()
        if not helper:
            time.sleep(20)
            os._exit(0)
        temporary = place / f".mcsr-{os.getpid()}"
        temporary.touch()
        with (place / "result.txt").open("w") as file:
            print("half", file=file, flush=True)
            os.replace(temporary, place / "other.txt")
            print("the other half", file=file)
        os.kill(helper, signal.SIGKILL)
        return 0

faults.ORPHAN_SECONDS = 0.1
scratch = Path(sys.argv[2])
tempfile.tempdir = str(scratch / "tmp")
os.mkdir(tempfile.tempdir)
tally = faults.Trials(Careless(scratch), scratch, np.random.default_rng(0), faults.MOMENTS[1:2]).run(1)
print(*tally.row()[1:], sep="|")
print(*tally.breaches, sep="|")
"""


@POSIX_ONLY
def test_the_tool_finds_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CARELESS, str(TOOLS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, breaches = (line.split("|") for line in done.stdout.splitlines())
    assert counts == ["1", "1", "0", "1", "1", "1", "1"]
    assert len(breaches) == 3
    assert "live on" in breaches[0]
    assert breaches[1].endswith("not as in an undisturbed run: result.txt")
    assert ".mcsr-" in breaches[2]
