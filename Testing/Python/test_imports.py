"""The arrows between modules run downward only, and the engine needs five packages and no more.

All imports are read from the source, those inside functions too; two tests import the engine for real.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "MultiContrastSR"
LOGIC = MODULE_FOLDER / "Logic"

# From the ground up. A unit (a module of mcsr with its phantom_*.py or cli_*.py, or a folder) imports units of lower
# layers, and of its own as long as no cycle arises. "mcsr" is the package file itself: the version, free to all.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"mcsr"}),
    frozenset({"errors", "model_folders", "threads"}),
    frozenset({"geometry", "progress", "temporary", "compression"}),
    frozenset({"volume"}),
    frozenset({"itk", "intensity", "degradation", "canvas", "conventions", "checks", "memory"}),
    frozenset({"networks", "resampling", "imageio", "container", "metrics"}),
    frozenset({"fast", "encoded_references"}),
    frozenset({"subjects", "weights", "checkpoints", "registration", "consistency", "inference"})
    | {"maps", "noise", "trust", "job", "report", "phantom"},
    frozenset({"pipeline", "outputs", "model_facts"}),
    frozenset({"batch", "demo", "evaluation", "worker"}),
    frozenset({"cli", "bench", "training", "mcsr_slicer", "mcsr_worker", "mcsr_add_model", "MultiContrastSR"}),
)
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
# Faces of the engine: nobody below may use them, and they do not use each other, but for these.
FACES = LAYERS[-1]
ARROWS_BETWEEN_FACES = {
    ("cli", "bench"),
    ("bench", "training"),
    ("cli", "training"),
    ("MultiContrastSR", "mcsr_slicer"),
}

ENGINE_PACKAGES = {"numpy", "SimpleITK", "torch", "h5py", "safetensors"}
EXTRA_PACKAGES = {
    "cli": {"typer", "rich"},
    "report": {"matplotlib"},
    "bench": {"matplotlib"},
    "batch": {"dask", "distributed", "matplotlib"},
    "evaluation": {"matplotlib", "scipy"},
    "metrics": {"torchmetrics"},
    "training": {"lightning", "monai", "tomli", "tomllib"},
}
SLICER_PACKAGES = {"slicer", "qt", "ctk", "vtk", "numpy", "pydicom", "SampleData", "PyTorchUtils"}
FORBIDDEN_IN_SLICER = {"torch", "h5py", "safetensors"}


class Import(NamedTuple):
    """One imported module: its dotted name, the line, and whether it happens when the file is loaded."""

    name: str
    line: int
    at_file_scope: bool


def sources() -> dict[str, Path]:
    """All modules of the extension by dotted name."""
    files = [MODULE_FOLDER / "MultiContrastSR.py", *LOGIC.rglob("*.py")]
    return {dotted_name(file): file for file in files}


def dotted_name(file: Path) -> str:
    parts = file.relative_to(LOGIC if file.is_relative_to(LOGIC) else MODULE_FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name: str, file: Path, known: Iterable[str]) -> Iterator[Import]:
    """Every import in the file; `from x import y` gives x.y where that is a module of ours, else x."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside_functions = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(name, file, node)
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        for imported in names:
            yield Import(imported, node.lineno, node not in inside_functions)


def absolute_name(name: str, file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)


def unit_of(name: str) -> str:
    """The row of LAYERS that a module of ours belongs to: mcsr.networks.blocks -> networks, mcsr.cli_demo -> cli."""
    package, _, rest = name.partition(".")
    if package != "mcsr":
        return package
    unit = rest.partition(".")[0] or "mcsr"
    family = unit.partition("_")[0]
    return family if unit not in LEVEL and family in LEVEL else unit


SOURCES = sources()
IMPORTS = {name: tuple(imports_of(name, file, SOURCES)) for name, file in SOURCES.items()}
ENGINE = sorted(name for name in SOURCES if name.partition(".")[0] == "mcsr")


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in {"mcsr", "mcsr_slicer", "mcsr_worker", "MultiContrastSR"}


def test_reader_finds_every_form_of_import(tmp_path: Path) -> None:
    package = tmp_path / "networks"
    package.mkdir()
    file = package / "x.py"
    lines = ["import a.b", "from ..errors import E", "from .. import geometry", "def f():", " from .blocks import g"]
    file.write_text("\n".join(lines))
    known = {"mcsr.errors", "mcsr.geometry", "mcsr.networks.blocks"}
    found = {(i.name, i.at_file_scope) for i in imports_of("mcsr.networks.x", file, known)}
    expected = {("a.b", True), ("mcsr.errors", True), ("mcsr.geometry", True), ("mcsr.networks.blocks", False)}
    assert found == expected
    assert {"mcsr.errors", "mcsr.networks.dcamsr", "MultiContrastSR"} <= set(SOURCES)


def test_every_module_has_a_layer() -> None:
    unknown = {unit_of(name) for name in SOURCES} - set(LEVEL)
    assert not unknown, f"add {sorted(unknown)} to LAYERS in {Path(__file__).name}, at the level where it belongs"


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_arrows_run_downward(name: str) -> None:
    unit = unit_of(name)
    wrong = []
    for imported in IMPORTS[name]:
        other = unit_of(imported.name)
        if not is_ours(imported.name) or other == unit or unit not in LEVEL:
            continue
        if other not in LEVEL or LEVEL[other] > LEVEL[unit]:
            wrong.append(f"line {imported.line}: {unit} imports {other}, which stands above it")
        elif other in FACES and (unit, other) not in ARROWS_BETWEEN_FACES:
            wrong.append(f"line {imported.line}: {unit} imports {other}, another face of the engine")
    assert not wrong, f"{SOURCES[name]}: {wrong}"


def test_no_cycles() -> None:
    graph = {name: {i.name for i in found if i.name in SOURCES and i.name != name} for name, found in IMPORTS.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", ENGINE)
def test_engine_imports_only_its_packages(name: str) -> None:
    allowed = ENGINE_PACKAGES | EXTRA_PACKAGES.get(unit_of(name), set())
    foreign = {
        imported.name
        for imported in IMPORTS[name]
        if not is_ours(imported.name) and imported.name.partition(".")[0] not in allowed | sys.stdlib_module_names
    }
    assert not foreign, f"{SOURCES[name]} may not import {sorted(foreign)}"


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(ENGINE)))
def test_slicer_side_loads_no_torch(name: str) -> None:
    """Neither the file, nor what it imports of ours while being loaded, nor a function of it."""
    if name == "mcsr_worker":
        pytest.skip("the worker runs in a process of its own, where torch belongs")
    own = {imported.name.partition(".")[0] for imported in IMPORTS[name] if not is_ours(imported.name)}
    assert own <= SLICER_PACKAGES | sys.stdlib_module_names
    loaded, waiting = set(), {name}
    while waiting:
        current = waiting.pop()
        loaded.add(current)
        parents = {current.rpartition(".")[0]} & set(SOURCES)
        found = {i.name for i in IMPORTS.get(current, ()) if i.at_file_scope}
        waiting |= (found | parents) - loaded
    heavy = FORBIDDEN_IN_SLICER & {name.partition(".")[0] for name in loaded}
    assert not heavy, f"loading {SOURCES[name]} loads {sorted(heavy)}"


def run_python(code: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(LOGIC), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_their_dependencies(packages: Iterable[str]) -> set[str]:
    """Importable names of the packages and of all that they require, as far as it is installed."""
    names_of = {}
    for importable, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            names_of.setdefault(normal(distribution), set()).add(importable)
    waiting, seen = {normal(package) for package in packages}, set()
    while waiting:
        current = waiting.pop()
        seen.add(current)
        if current in names_of:
            required = importlib.metadata.requires(current) or []
            waiting |= {normal(re.split(r"[^\w.-]", r, maxsplit=1)[0]) for r in required if "extra ==" not in r} - seen
    return {importable for package in seen for importable in names_of.get(package, ())}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


ENGINE_ALONE = """
import importlib, json, sys
allowed, modules = json.loads(sys.argv[1])
allowed = {*allowed, *sys.stdlib_module_names, "mcsr"}

class OnlyAllowed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is blocked by this test", name=name)

sys.meta_path.insert(0, OnlyAllowed())
for module in modules:
    importlib.import_module(module)
print(json.dumps(sorted(name for name in sys.modules if name.startswith("mcsr"))))
"""


def test_engine_loads_with_its_packages_alone() -> None:
    """report too: the pipeline uses it, so matplotlib may be imported only when a figure is drawn."""
    modules = [name for name in ENGINE if unit_of(name) not in {"cli", "training"}]
    allowed = sorted(with_their_dependencies(ENGINE_PACKAGES))
    assert "rich" not in allowed
    assert "matplotlib" not in allowed
    loaded = json.loads(run_python(ENGINE_ALONE, json.dumps([allowed, modules])))
    assert set(modules) <= set(loaded)


def test_importing_mcsr_is_light() -> None:
    loaded = run_python("import mcsr, sys; print(mcsr.__version__, *sys.modules)").split()
    assert "mcsr" in loaded
    assert not {"torch", "numpy", "SimpleITK", "h5py"} & set(loaded)
