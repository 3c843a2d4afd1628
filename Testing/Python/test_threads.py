"""numpy computes on one core in the processes that are ours, so that torch's threads find the others free.

OpenBLAS looks at its variable once, when numpy is loaded: it must be set before that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOGIC = Path(__file__).parents[2] / "MultiContrastSR" / "Logic"

TELL = "print('threads', os.environ.get('OPENBLAS_NUM_THREADS'), 'numpy' in sys.modules, file=sys.stderr, flush=True)"
COMMAND = f"""
import os, sys
from mcsr import cli
cli.app = lambda: None
cli.main()
{TELL}
"""
WORKER = f"""
import os, sys, tempfile
import mcsr_worker

def tell(*arguments):
    {TELL}
    os._exit(0)

mcsr_worker.Worker = tell
with tempfile.TemporaryDirectory() as folder:
    sys.argv = ["mcsr_worker", "--work", folder, "--parent", str(os.getppid())]
    mcsr_worker.main()
"""


def told(code: str, **environment: str) -> list[str]:
    bare = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment = {**bare, **environment, "PYTHONPATH": str(LOGIC)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("threads")] or [done.stderr]
    return line.split()[1:]


@pytest.mark.parametrize("code", [COMMAND, WORKER], ids=["mcsr", "worker"])
def test_numpy_gets_one_thread_before_it_is_loaded(code: str) -> None:
    assert told(code) == ["1", "False"]


@pytest.mark.parametrize("code", [COMMAND, WORKER], ids=["mcsr", "worker"])
def test_what_the_user_has_set_stands(code: str) -> None:
    assert told(code, OPENBLAS_NUM_THREADS="3") == ["3", "False"]
