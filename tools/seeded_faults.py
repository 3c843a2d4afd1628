"""Seed faults one at a time into the modules that everything in space rests on; count those that their tests catch.

The faults are those of `seeded_faults.toml`. They are seeded into a copy in a temporary folder, never in the
checkout. A module's own tests are meant, nothing else: unit tests that need neither a network nor real data. Exits
with 1 where fewer than 90 % are caught.

.venv/bin/python tools/seeded_faults.py --jobs 2
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ENGINE, TESTS = Path("MultiContrastSR/Logic/mcsr"), Path("Testing/Python")

OWN_TESTS = {
    "canvas": ("test_canvas.py",),
    "geometry": ("test_geometry.py",),
    "degradation": ("test_degradation.py",),
    "resampling": ("test_resampling.py",),
    "consistency": ("test_consistency.py", "test_consistency_band.py"),
    "registration": ("test_registration.py",),
    "registration_agreement": ("test_registration_agreement.py", "test_registration.py"),
}
"""By module, quick ones first."""

WANTED = 0.9
SECONDS = 1800.0
"""What the tests of a module are given; a fault that makes them hang is caught."""

# None of these tests needs the conftest, which imports PyTorch, or a plugin: either would take longer than they do.
_PYTEST = ("-m", "pytest", "-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-m", "not slow and not data")
_ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    # Compiled files are told apart by size and second alone, too coarse for faults that follow each other.
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"),
}


class Fault(NamedTuple):
    """A slip in a module of the engine: an exact text, found there once, and what replaces it."""

    module: str
    name: str
    meaning: str
    old: str
    new: str


def listed_faults() -> list[Fault]:
    """All faults of the list."""
    modules = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return [Fault(module, name, **texts) for module, faults in modules.items() for name, texts in faults.items()]


def seeded(fault: Fault, root: Path = ROOT) -> str:
    """The source of the fault's module with the fault in it.

    Raises:
        ValueError: when the text to replace is not found exactly once.
    """
    source = (root / ENGINE / f"{fault.module}.py").read_text()
    if (found := source.count(fault.old)) != 1:
        raise ValueError(f"Fault {fault.name}: its old text occurs {found} times in {fault.module}.py, not once.")
    return source.replace(fault.old, fault.new)


class Copy:
    """A copy of the engine and its tests, into which one fault at a time is seeded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (ENGINE, TESTS):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)

    def first_failure(self, module: str) -> str | None:
        """The first of the module's own tests that fails, None where all pass."""
        files = [str(TESTS / name) for name in OWN_TESTS[module]]
        command = [sys.executable, *_PYTEST, *files]
        try:
            done = subprocess.run(
                command, cwd=self.root, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"no end after {SECONDS:.0f} s"
        if done.returncode == 0:
            return None
        failure = re.search(r"^(?:FAILED|ERROR) \S*?/?(test_\w+\.py(?:::\w+)?)", done.stdout, re.MULTILINE)
        if failure is None:
            raise RuntimeError(f"pytest could not run the tests of {module}: {done.stdout}{done.stderr}")
        return failure[1]

    def caught_by(self, fault: Fault) -> str | None:
        """The first test that fails with a fault, None where it is missed."""
        path = self.root / ENGINE / f"{fault.module}.py"
        unchanged, changed = path.read_text(), seeded(fault, self.root)
        path.write_text(changed)
        try:
            return self.first_failure(fault.module)
        finally:
            path.write_text(unchanged)


def run(faults: Sequence[Fault], jobs: int, scratch: Path) -> list[Fault]:
    """Seed each fault, print what catches it, and return those that nothing catches.

    Raises:
        RuntimeError: when a test fails without any fault.
    """
    copies: SimpleQueue[Copy] = SimpleQueue()
    for number in range(jobs):
        copies.put(Copy(scratch / str(number)))

    def tried(subject: Fault | str) -> str | None:
        copy = copies.get()
        try:
            return copy.caught_by(subject) if isinstance(subject, Fault) else copy.first_failure(subject)
        finally:
            copies.put(copy)

    missed = []
    with ThreadPoolExecutor(jobs) as pool:
        modules = [module for module in OWN_TESTS if any(fault.module == module for fault in faults)]
        found = pool.map(tried, [*modules, *faults])
        for module in modules:
            if (failure := next(found)) is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                raise RuntimeError(f"Without any fault the tests of {module} fail: {failure}.")
        print("| module | fault | meaning | caught by |\n|---|---|---|---|", flush=True)
        for fault, test in zip(faults, found, strict=True):
            print(f"| {fault.module} | {fault.name} | {fault.meaning} | {test or 'NOTHING'} |", flush=True)
            if test is None:
                missed.append(fault)
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many faults are tried at a time")
    parser.add_argument("--only", action="append", metavar="NAME", help="a fault or all of a module; may be repeated")
    options = parser.parse_args(arguments)
    faults = listed_faults()
    names = {name for fault in faults for name in (fault.name, fault.module)}
    if unknown := set(options.only or ()) - names:
        parser.error(f"no such fault or module: {', '.join(sorted(unknown))}")
    faults = [fault for fault in faults if not options.only or {fault.name, fault.module} & set(options.only)]
    for fault in faults:
        seeded(fault)
    with tempfile.TemporaryDirectory(prefix="mcsr-seeded-faults-") as scratch:
        missed = run(faults, max(1, options.jobs), Path(scratch))
    caught = len(faults) - len(missed)
    print(f"\ncaught {caught} of {len(faults)} ({100 * caught / len(faults):.0f} %)")
    if missed:
        print("missed: " + ", ".join(fault.name for fault in missed))
    return int(caught < WANTED * len(faults))


if __name__ == "__main__":
    sys.exit(main())
